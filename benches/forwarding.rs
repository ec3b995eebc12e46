//! Side by side: how many frames a second pass from one TAP to another, by vipr and by the least
//! program that could do it.
//!
//! In a network namespace of its own, a sender on one core floods TAP A from the host's end
//! (AF_PACKET); on another core, in turns within the same run, frames go from A to B by
//!
//! - **copy loop**: blocking read, rewrite of 12 bytes, blocking write; the floor,
//! - **port only**: vipr's ports and batches around that same rewrite,
//! - **vipr**: the same with the director: parse, connection look-up, rewrite.
//!
//! Each figure is the median over the rounds, with the range; a ratio is the median of the
//! ratios within a round, so that what disturbs the machine disturbs both sides. Frames that B's
//! kernel end received are compared with frames sent: that much is asserted, no time ever is.
//!
//! `cargo bench --bench forwarding`; without `--bench` one short round, as a test of itself.

use std::env;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use vipr::port::{Batch, Port, Readiness, TapConfig, TapPort};
use vipr::wire::{MacAddr, Offload};

/// Says that this process has its namespace.
const INSIDE: &str = "VIPR_BENCH_INSIDE";
const TAP_A: &str = "vipr-bench-a";
const TAP_B: &str = "vipr-bench-b";
/// Frames of a burst, as in `vipr run`.
const BURST: usize = 64;
/// More than can wait in A's queue: what the turn before left is gone after these.
const WARM_UP_FRAMES: u64 = 6000;

const DIRECTOR_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 1, 1]);
const REAL_SERVER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x11]);
const BACKEND_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 2, 1]);
const CLIENT_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xcc]);

fn main() -> ExitCode {
    let whole = env::args().any(|argument| argument == "--bench");
    if env::var_os(INSIDE).is_none() {
        return enter_namespace();
    }
    let plan = if whole {
        Plan { rounds: 15, turn: Duration::from_millis(200) }
    } else {
        Plan { rounds: 1, turn: Duration::from_millis(20) }
    };
    let mut bench = Bench::new();
    let results = bench.run(&plan);
    print_table(&plan, &results);
    ExitCode::SUCCESS
}

/// Runs this program again in a network namespace of its own.
fn enter_namespace() -> ExitCode {
    let mut unshare = vec!["--net"];
    if !rustix::process::geteuid().is_root() {
        unshare.push("--map-root-user");
    }
    let tun = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let probe = Command::new("unshare").args(&unshare).arg("true").status();
    if tun.is_err() || !probe.is_ok_and(|status| status.success()) {
        println!("SKIPPED: forwarding: it needs unshare(1), namespaces and /dev/net/tun");
        return ExitCode::SUCCESS;
    }
    let status = Command::new("unshare")
        .args(&unshare)
        .arg(env::current_exe().expect("a program knows its file"))
        .args(env::args().skip(1))
        .env(INSIDE, "1")
        .status()
        .expect("unshare ran a moment ago");
    ExitCode::from(if status.success() { 0 } else { 1 })
}

struct Plan {
    rounds: usize,
    /// How long each way of forwarding is measured in a round.
    turn: Duration,
}

/// What the sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Workload {
    /// Bytes of the frame, Ethernet header included.
    frame_len: usize,
    /// Connections the frames belong to, hit in a scattered order.
    flows: u32,
}

const WORKLOADS: [Workload; 4] = [
    Workload { frame_len: 64, flows: 1 },
    Workload { frame_len: 64, flows: FLOWS_MANY },
    Workload { frame_len: 1500, flows: 1 },
    Workload { frame_len: 1500, flows: FLOWS_MANY },
];
const FLOWS_MANY: u32 = 1 << 20;

/// A way to get frames from A to B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    CopyLoop,
    PortOnly,
}

const WAYS: [Way; 2] = [Way::CopyLoop, Way::PortOnly];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::CopyLoop => "copy loop",
            Way::PortOnly => "port only",
        }
    }
}

/// One turn of one way.
#[derive(Clone, Copy, Debug)]
struct Sample {
    frames_per_second: f64,
    /// Processor time of the forwarding thread.
    nanos_per_frame: f64,
    /// Whether frames were lost in front of it: only then was it the forwarder that was measured.
    saturated: bool,
}

/// The samples of one way under one workload, a round each.
struct Series {
    workload: Workload,
    way: Way,
    samples: Vec<Sample>,
}

struct Bench {
    // First, so that it stops before its TAP goes.
    sender: Sender,
    a: TapPort,
    b: TapPort,
    batch: Batch,
}

impl Bench {
    fn new() -> Bench {
        let open = |tap| {
            TapPort::open(&TapConfig { tap, bridge: None, mtu: Some(1500) })
                .unwrap_or_else(|error| panic!("{error}"))
        };
        let (a, b) = (open(TAP_A), open(TAP_B));
        let (sender_core, forwarder_core) = cores();
        let sender = Sender::start(interface_index(TAP_A), sender_core);
        pin(forwarder_core);
        Bench { sender, a, b, batch: Batch::new(BURST) }
    }

    fn run(&mut self, plan: &Plan) -> Vec<Series> {
        let mut results: Vec<Series> = WORKLOADS
            .iter()
            .flat_map(|&workload| {
                WAYS.map(|way| Series { workload, way, samples: Vec::with_capacity(plan.rounds) })
            })
            .collect();
        for round in 0..plan.rounds {
            for workload in 0..WORKLOADS.len() {
                self.sender.select(workload);
                // Whoever goes first in one round goes last in another.
                for turn in 0..WAYS.len() {
                    let way = (turn + round) % WAYS.len();
                    let series = &mut results[workload * WAYS.len() + way];
                    series.samples.push(self.turn(series.way, plan.turn));
                }
            }
            eprint!("\rround {} of {}", round + 1, plan.rounds);
        }
        eprintln!();
        results
    }

    /// Forwards by one way for a while.
    fn turn(&mut self, way: Way, length: Duration) -> Sample {
        self.set_blocking(way == Way::CopyLoop);
        let mut passed = 0;
        while passed < WARM_UP_FRAMES {
            passed += self.step(way);
        }
        let drops = self.a.queue_drops().expect("TAP A is there");
        let delivered = received_by_host(TAP_B);
        let (start, start_cpu) = (Instant::now(), thread_time());
        let mut frames = 0;
        let elapsed = loop {
            frames += self.step(way);
            let elapsed = start.elapsed();
            if elapsed >= length {
                break elapsed;
            }
        };
        let cpu = thread_time() - start_cpu;
        let arrived = received_by_host(TAP_B) - delivered;
        assert_eq!(arrived, frames, "{}: what was sent is what arrived", way.name());
        Sample {
            frames_per_second: frames as f64 / elapsed.as_secs_f64(),
            nanos_per_frame: cpu.as_nanos() as f64 / frames as f64,
            saturated: self.a.queue_drops().expect("TAP A is there") > drops,
        }
    }

    /// Forwards about a burst; returns the number of frames.
    fn step(&mut self, way: Way) -> u64 {
        match way {
            Way::CopyLoop => self.copy_loop(),
            Way::PortOnly => self.port_only(),
        }
    }

    fn copy_loop(&mut self) -> u64 {
        let (from, to) = (borrow(&self.a), borrow(&self.b));
        let mut buffer = [0; 2048];
        for _ in 0..BURST {
            let len = rustix::io::read(from, &mut buffer).expect("TAP A gives frames");
            buffer[..6].copy_from_slice(&REAL_SERVER_MAC.0);
            buffer[6..12].copy_from_slice(&BACKEND_MAC.0);
            rustix::io::write(to, &buffer[..len]).expect("TAP B takes frames");
        }
        BURST as u64
    }

    fn port_only(&mut self) -> u64 {
        self.receive();
        for index in 0..self.batch.len() {
            let mut frame = self.batch.frame(index);
            frame.rewrite_macs(REAL_SERVER_MAC, BACKEND_MAC);
            self.b.send(frame.bytes, Offload::default()).expect("TAP B takes frames");
        }
        self.b.flush().expect("TAP B takes frames");
        self.batch.len() as u64
    }

    /// Fills the batch, and waits for frames once there are none.
    fn receive(&mut self) {
        self.batch.clear();
        let readiness = self.a.receive(&mut self.batch).expect("TAP A gives frames");
        if readiness == Readiness::Drained && self.batch.is_empty() {
            let descriptor = borrow(&self.a);
            poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], None).expect("TAP A is there");
        }
    }

    fn set_blocking(&self, blocking: bool) {
        for port in [&self.a, &self.b] {
            let descriptor = borrow(port);
            let flags = rustix::fs::fcntl_getfl(descriptor).expect("the TAP is open");
            let flags = if blocking { flags - OFlags::NONBLOCK } else { flags | OFlags::NONBLOCK };
            rustix::fs::fcntl_setfl(descriptor, flags).expect("the TAP is open");
        }
    }
}

/// The traffic: a thread that puts frames into TAP A as fast as it can.
struct Sender {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    /// Index into [`WORKLOADS`].
    workload: AtomicUsize,
    stop: AtomicBool,
}

impl Sender {
    fn start(interface: u32, core: usize) -> Sender {
        let shared =
            Arc::new(Shared { workload: AtomicUsize::new(0), stop: AtomicBool::new(false) });
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            pin(core);
            let socket = packet_socket(interface);
            while !theirs.stop.load(Ordering::Relaxed) {
                let workload = theirs.workload.load(Ordering::Relaxed);
                flood(&socket, WORKLOADS[workload], || {
                    theirs.workload.load(Ordering::Relaxed) == workload
                        && !theirs.stop.load(Ordering::Relaxed)
                });
            }
        });
        Sender { shared, thread: Some(thread) }
    }

    fn select(&self, workload: usize) {
        self.shared.workload.store(workload, Ordering::Relaxed);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends frames of a workload for as long as `go_on` says.
fn flood(socket: &OwnedFd, workload: Workload, go_on: impl Fn() -> bool) {
    let mut frames: Vec<Vec<u8>> = vec![tcp_frame(workload.frame_len, 0, TCP_ACK); BURST];
    let mut parts: Vec<libc::iovec> = frames
        .iter_mut()
        .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: all zeros is a valid `mmsghdr`.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut next = 0u32;
    while go_on() {
        if workload.flows > 1 {
            for frame in &mut frames {
                set_flow(frame, next % workload.flows);
                // Odd, so that every flow comes once in 2^20 frames, none near the one before.
                next = next.wrapping_add(0x9e37_79b1);
            }
        }
        // SAFETY: the messages point to `parts`, these to `frames`; all live, and nothing else
        // touches the frames during the call, which only reads them.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BURST as u32, 0) };
        let error = std::io::Error::last_os_error();
        // A full queue may be told as ENOBUFS; that is what a flood is for.
        let full = error.raw_os_error() == Some(libc::ENOBUFS);
        assert!(sent >= 0 || full, "the sender cannot send: {error}");
    }
}

const TCP_ACK: u8 = 0x10;

/// A TCP segment of flow `flow` from a client to 192.0.2.10:80, as a frame of `len` bytes. The
/// director does not verify the TCP checksum of what it forwards; it stays 0.
fn tcp_frame(len: usize, flow: u32, flags: u8) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].copy_from_slice(&DIRECTOR_MAC.0);
    frame[6..12].copy_from_slice(&CLIENT_MAC.0);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip_len = (len - 14) as u16;
    frame[14..16].copy_from_slice(&[0x45, 0]);
    frame[16..18].copy_from_slice(&ip_len.to_be_bytes());
    frame[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
    frame[30..34].copy_from_slice(&[192, 0, 2, 10]);
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[46..48].copy_from_slice(&[0x50, flags]);
    frame[48..50].copy_from_slice(&[0xff, 0xff]);
    set_flow(&mut frame, flow);
    frame
}

/// Gives a frame the client address and port of a flow: 1024 clients with 1024 ports each.
fn set_flow(frame: &mut [u8], flow: u32) {
    let client = 0x0a01_0000 + (flow >> 10);
    let port = 20_000 + (flow & 1023) as u16;
    frame[26..30].copy_from_slice(&client.to_be_bytes());
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[24..26].copy_from_slice(&[0, 0]);
    let words = frame[14..34].chunks_exact(2);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// A socket whose frames go straight into the interface, past its queueing discipline.
fn packet_socket(interface: u32) -> OwnedFd {
    // SAFETY: no pointers; the result is checked before it is owned.
    let descriptor =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(descriptor >= 0, "AF_PACKET: {}", std::io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: all zeros is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = interface.cast_signed();
    // SAFETY: the address lives through the call, and its length is told.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
    let on: libc::c_int = 1;
    // SAFETY: the value lives through the call, and its length is told.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    assert_eq!(set, 0, "PACKET_QDISC_BYPASS: {}", std::io::Error::last_os_error());
    socket
}

fn borrow(port: &TapPort) -> BorrowedFd<'_> {
    // SAFETY: the port keeps its descriptor open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(port.descriptor()) }
}

/// Frames that the host's end of a TAP has received from us. The file is of this thread's
/// namespace, which /sys/class/net is not.
fn received_by_host(tap: &str) -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/dev").expect("procfs is mounted");
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(tap));
    let packets = line.and_then(|line| line.split_whitespace().nth(2));
    packets.and_then(|number| number.parse().ok()).expect("the TAP is listed")
}

fn interface_index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).expect("no zero byte in a name");
    // SAFETY: a string that ends with a zero byte and lives through the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// The cores of the sender and of the forwarder: the first and the last that we may use.
fn cores() -> (usize, usize) {
    let allowed = rustix::thread::sched_getaffinity(None).expect("our own affinity");
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let first = cores.next().expect("at least one core");
    let last = cores.next_back().unwrap_or(first);
    if first == last {
        println!("only one core: the sender and the forwarder share it, the figures mislead");
    }
    (first, last)
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("a core that we may use");
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned() as u32)
}

fn print_table(plan: &Plan, results: &[Series]) {
    println!(
        "\nTAP to TAP, one core; medians of {} interleaved rounds of {} ms each (range)",
        plan.rounds,
        plan.turn.as_millis()
    );
    println!(
        "\n| frame | connections | way | frames a second | ratio to the copy loop | CPU ns a frame |"
    );
    println!("|---:|---:|---|---:|---:|---:|");
    let mut unsaturated = 0;
    for series in results {
        let floor = results
            .iter()
            .find(|other| other.workload == series.workload && other.way == Way::CopyLoop)
            .expect("every workload has its floor");
        let rates = Spread::of(series.samples.iter().map(|sample| sample.frames_per_second));
        let ratios = Spread::of(
            series
                .samples
                .iter()
                .zip(&floor.samples)
                .map(|(sample, floor)| sample.frames_per_second / floor.frames_per_second),
        );
        let nanos = Spread::of(series.samples.iter().map(|sample| sample.nanos_per_frame));
        unsaturated += series.samples.iter().filter(|sample| !sample.saturated).count();
        println!(
            "| {} B | {} | {} | {:.0} k ({:.0}–{:.0}) | {:.2} ({:.2}–{:.2}) | {:.0} ({:.0}–{:.0}) |",
            series.workload.frame_len,
            series.workload.flows,
            series.way.name(),
            rates.median / 1e3,
            rates.low / 1e3,
            rates.high / 1e3,
            ratios.median,
            ratios.low,
            ratios.high,
            nanos.median,
            nanos.low,
            nanos.high,
        );
    }
    if unsaturated > 0 {
        println!(
            "\nIn {unsaturated} turns the sender was the slower side: their frames a second are \
             the sender's; compare the processor time."
        );
    }
}

struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Spread { median, low: sorted[0], high: sorted[sorted.len() - 1] }
    }
}
