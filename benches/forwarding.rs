//! Side by side: how many frames a second pass from one TAP to another, by vipr and by the least
//! program that could do it.
//!
//! In a network namespace of its own, a sender on one core fills the queue of TAP A from the
//! host's end (AF_PACKET). Then a forwarder on another core empties it to TAP B, and that is
//! timed. It does so in turns, within the same run and on the same TAPs, by
//!
//! - **copy loop**: blocking read, rewrite of 12 bytes, blocking write; the floor,
//! - **port only**: vipr's ports and batches around that same rewrite,
//! - **vipr**: the whole event loop of `vipr run`: poll, burst, parse, connection look-up,
//!   rewrite, timers.
//!
//! The sender rests meanwhile: if both ran at once, the figures would tell how two cores fight
//! over a ring, and on a busy machine when which of them was not running.
//!
//! Each figure is the median over the rounds, with the quartiles; a ratio is that of two turns in
//! the same round, so that what disturbs the machine disturbs both. Every frame must arrive at B:
//! that much is asserted, no time ever is. Above 1.00 vipr is the faster one, in both columns of
//! ratios; processor time is the steadier measure on a machine that does other things as well.
//!
//! `cargo bench --bench forwarding`; without `--bench` one short round, as a test of itself.

use std::cell::{Cell, RefCell};
use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use vipr::config::snapshot::Segment;
use vipr::port::{Batch, Port, Readiness, TapConfig, TapPort};
use vipr::shell::event_loop::EventLoop;
use vipr::shell::ports::{OpenError, Opener};
use vipr::shell::watch::Loaded;
use vipr::wire::{MacAddr, Offload};

/// Says that this process has its namespace.
const INSIDE: &str = "VIPR_BENCH_INSIDE";
const TAP_A: &str = "vipr-bench-a";
const TAP_B: &str = "vipr-bench-b";
/// Frames of a burst, as in `vipr run`.
const BURST: usize = 64;
/// Frames of a turn: whole bursts that fit the queue of a TAP that vipr made (4000).
const TURN_FRAMES: u64 = 62 * BURST as u64;
/// Far longer than any turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

const DIRECTOR_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 1, 1]);
const REAL_SERVER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x11]);
const BACKEND_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 2, 1]);
const CLIENT_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xcc]);

const CONFIGURATION: &str = r#"
[segment.front]
role = "vip"
tap = "vipr-bench-a"
mac = "02:00:00:00:01:01"

[segment.back]
role = "backend"
tap = "vipr-bench-b"
mac = "02:00:00:00:02:01"

[[service]]
vip = "192.0.2.10"
protocol = "tcp"
ports = 80
scheduler = "rr"

[[service.real_server]]
name = "rs1"
address = "10.0.0.11"
mac = "52:54:00:00:00:11"
"#;

fn main() -> ExitCode {
    let whole = env::args().any(|argument| argument == "--bench");
    if env::var_os(INSIDE).is_none() {
        return enter_namespace();
    }
    let plans: &[Plan] = if whole {
        &[Plan { rounds: 101, flows: 10_000 }, Plan { rounds: 101, flows: 1_000_000 }]
    } else {
        &[Plan { rounds: 1, flows: 1_000 }]
    };
    let cores = cores();
    for plan in plans {
        let results = Bench::new(plan, cores).run(plan);
        print_table(plan, &results);
    }
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
    /// Established connections in the director's table, and in the workloads with many.
    flows: u32,
}

/// What the sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Workload {
    /// Bytes of the frame, Ethernet header included.
    frame_len: usize,
    /// Whether the frames are of all connections, in a scattered order, or all of one.
    scattered: bool,
}

const WORKLOADS: [Workload; 4] = [
    Workload { frame_len: 64, scattered: false },
    Workload { frame_len: 64, scattered: true },
    Workload { frame_len: 1500, scattered: false },
    Workload { frame_len: 1500, scattered: true },
];

/// A way to get frames from A to B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    CopyLoop,
    PortOnly,
    Vipr,
}

const WAYS: [Way; 3] = [Way::CopyLoop, Way::PortOnly, Way::Vipr];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::CopyLoop => "copy loop",
            Way::PortOnly => "port only",
            Way::Vipr => "vipr",
        }
    }
}

/// One turn of one way.
#[derive(Clone, Copy, Debug)]
struct Sample {
    frames_per_second: f64,
    /// Processor time of the forwarding thread.
    nanos_per_frame: f64,
}

/// The samples of one way under one workload, a round each.
struct Series {
    workload: Workload,
    way: Way,
    samples: Vec<Sample>,
}

struct Bench {
    // First, so that it ends before its TAP goes.
    traffic: Traffic,
    event_loop: EventLoop<Taps>,
    a: Tap,
    b: Tap,
    batch: Batch,
    /// The configuration file, which the event loop watches.
    _directory: TempDir,
}

impl Bench {
    /// The TAPs, the sender, and a router with every connection established.
    fn new(plan: &Plan, (sender_core, forwarder_core): (usize, usize)) -> Bench {
        let taps = Taps::open(plan.flows);
        let (a, b) = (taps.a.clone(), taps.b.clone());
        let directory = tempfile::tempdir().expect("a directory for the configuration");
        let file = directory.path().join("vipr.toml");
        fs::write(&file, CONFIGURATION).expect("a file for the configuration");
        let loaded = Loaded::read(&file).unwrap_or_else(|error| panic!("{error}"));
        let event_loop =
            EventLoop::start(loaded, taps, 1).unwrap_or_else(|error| panic!("{error}"));
        let traffic = Traffic::start(interface_index(TAP_A), sender_core, plan.flows);
        pin(forwarder_core);
        let mut bench =
            Bench { traffic, event_loop, a, b, batch: Batch::new(BURST), _directory: directory };
        bench.forward_through_vipr(2 * u64::from(plan.flows));
        bench.b.discard.set(false);
        bench
    }

    fn run(&mut self, plan: &Plan) -> Vec<Series> {
        let mut results: Vec<Series> = WORKLOADS
            .iter()
            .flat_map(|&workload| {
                WAYS.map(|way| Series { workload, way, samples: Vec::with_capacity(plan.rounds) })
            })
            .collect();
        // The first round warms everything up and does not count.
        for round in 0..=plan.rounds {
            for workload in 0..WORKLOADS.len() {
                // Whoever goes first in one round goes last in another.
                for turn in 0..WAYS.len() {
                    let way = (turn + round) % WAYS.len();
                    let series = &mut results[workload * WAYS.len() + way];
                    let sample = self.turn(series.workload, series.way);
                    if round > 0 {
                        series.samples.push(sample);
                    }
                }
            }
        }
        results
    }

    /// Fills the queue, and empties it by one way.
    fn turn(&mut self, workload: Workload, way: Way) -> Sample {
        self.set_blocking(way == Way::CopyLoop);
        self.traffic.fill(workload);
        let before = received_by_host(TAP_B);
        let (start, start_cpu) = (Instant::now(), thread_time());
        match way {
            Way::CopyLoop => self.copy_loop(),
            Way::PortOnly => self.port_only(),
            Way::Vipr => self.forward_through_vipr(TURN_FRAMES),
        }
        let (elapsed, cpu) = (start.elapsed(), thread_time() - start_cpu);
        let arrived = received_by_host(TAP_B) - before;
        assert_eq!(arrived, TURN_FRAMES, "{}: every frame arrives", way.name());
        Sample {
            frames_per_second: TURN_FRAMES as f64 / elapsed.as_secs_f64(),
            nanos_per_frame: cpu.as_nanos() as f64 / TURN_FRAMES as f64,
        }
    }

    fn copy_loop(&mut self) {
        // SAFETY: the TAPs stay open as long as `self`.
        let (from, to) =
            unsafe { (BorrowedFd::borrow_raw(self.a.raw), BorrowedFd::borrow_raw(self.b.raw)) };
        let mut buffer = [0; 2048];
        for _ in 0..TURN_FRAMES {
            let len = rustix::io::read(from, &mut buffer).expect("TAP A gives frames");
            buffer[..6].copy_from_slice(&REAL_SERVER_MAC.0);
            buffer[6..12].copy_from_slice(&BACKEND_MAC.0);
            rustix::io::write(to, &buffer[..len]).expect("TAP B takes frames");
        }
    }

    fn port_only(&mut self) {
        let (mut a, mut b) = (self.a.port.borrow_mut(), self.b.port.borrow_mut());
        let mut passed = 0;
        while passed < TURN_FRAMES {
            self.batch.clear();
            a.receive(&mut self.batch).expect("TAP A gives frames");
            assert!(!self.batch.is_empty(), "frames were lost on the way to TAP A's reader");
            for index in 0..self.batch.len() {
                let mut frame = self.batch.frame(index);
                frame.rewrite_macs(REAL_SERVER_MAC, BACKEND_MAC);
                b.send(frame.bytes, Offload::default()).expect("TAP B takes frames");
            }
            b.flush().expect("TAP B takes frames");
            passed += self.batch.len() as u64;
        }
    }

    /// Runs the event loop until it has sent so many frames to B.
    fn forward_through_vipr(&mut self, frames: u64) {
        let until = self.b.sent.get() + frames;
        let start = Instant::now();
        while self.b.sent.get() < until {
            self.event_loop.step(Some(Duration::from_millis(100))).expect("the event loop runs");
            let left = until.saturating_sub(self.b.sent.get());
            assert!(start.elapsed() < TURN_TIMEOUT, "{left} of {frames} frames are missing");
        }
        assert_eq!(self.b.sent.get(), until, "vipr sends nothing else to the real server");
    }

    fn set_blocking(&self, blocking: bool) {
        for tap in [&self.a, &self.b] {
            // SAFETY: the TAPs stay open as long as `self`.
            let descriptor = unsafe { BorrowedFd::borrow_raw(tap.raw) };
            let flags = rustix::fs::fcntl_getfl(descriptor).expect("the TAP is open");
            let flags = if blocking { flags - OFlags::NONBLOCK } else { flags | OFlags::NONBLOCK };
            rustix::fs::fcntl_setfl(descriptor, flags).expect("the TAP is open");
        }
    }
}

/// The two TAPs, for the event loop to take.
struct Taps {
    a: Tap,
    b: Tap,
}

/// A TAP that the event loop and the other ways share. To begin with it feeds the loop the
/// frames that establish the connections, as if they came from the device.
#[derive(Clone)]
struct Tap {
    port: Rc<RefCell<TapPort>>,
    raw: RawFd,
    feed: Rc<RefCell<Feed>>,
    /// Frames sent by the event loop.
    sent: Rc<Cell<u64>>,
    /// Whether frames sent are only counted.
    discard: Rc<Cell<bool>>,
}

/// A SYN and an ACK of each flow.
struct Feed {
    frames: u32,
    end: u32,
    syn: Vec<u8>,
    ack: Vec<u8>,
}

impl Taps {
    fn open(flows: u32) -> Taps {
        let tap = |name, flows: u32, discard| {
            let port = TapPort::open(&TapConfig {
                tap: name,
                bridge: None,
                uplink: None,
                mtu: Some(1500),
            })
            .unwrap_or_else(|error| panic!("{error}"));
            let (syn, ack) = (tcp_frame(64, 0, TCP_SYN), tcp_frame(64, 0, TCP_ACK));
            Tap {
                raw: port.descriptor(),
                port: Rc::new(RefCell::new(port)),
                feed: Rc::new(RefCell::new(Feed { frames: 0, end: 2 * flows, syn, ack })),
                sent: Rc::new(Cell::new(0)),
                discard: Rc::new(Cell::new(discard)),
            }
        };
        Taps { a: tap(TAP_A, flows, false), b: tap(TAP_B, 0, true) }
    }
}

impl Opener for Taps {
    type Port = Tap;

    fn open(&mut self, segment: &Segment) -> Result<Tap, OpenError> {
        Ok(if **segment.device() == *TAP_A { self.a.clone() } else { self.b.clone() })
    }
}

impl Port for Tap {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        let feed = &mut *self.feed.borrow_mut();
        if feed.frames == feed.end {
            return self.port.borrow_mut().receive(batch);
        }
        while !batch.is_full() && feed.frames < feed.end {
            let frame = if feed.frames.is_multiple_of(2) { &mut feed.syn } else { &mut feed.ack };
            set_flow(frame, feed.frames / 2);
            feed.frames += 1;
            batch.push_with(|buffer| {
                buffer[..frame.len()].copy_from_slice(frame);
                Ok::<_, io::Error>((frame.len(), Offload::default()))
            })?;
        }
        Ok(Readiness::More)
    }

    fn send(&mut self, bytes: &[u8], offload: Offload) -> io::Result<()> {
        self.sent.set(self.sent.get() + 1);
        if self.discard.get() {
            return Ok(());
        }
        self.port.borrow_mut().send(bytes, offload)
    }

    fn descriptor(&self) -> RawFd {
        self.raw
    }

    fn mtu(&self) -> io::Result<u16> {
        self.port.borrow().mtu()
    }
}

/// The sender: a thread that fills the queue of TAP A when asked.
struct Traffic {
    orders: Option<Sender<Workload>>,
    done: Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    fn start(interface: u32, core: usize, flows: u32) -> Traffic {
        let (orders, ordered) = mpsc::channel::<Workload>();
        let (tell_done, done) = mpsc::channel();
        let thread = thread::spawn(move || {
            pin(core);
            let socket = packet_socket(interface);
            let mut next_flow = 0;
            for workload in ordered {
                let flows = if workload.scattered { flows } else { 1 };
                send_turn(&socket, workload.frame_len, flows, &mut next_flow);
                if tell_done.send(()).is_err() {
                    return;
                }
            }
        });
        Traffic { orders: Some(orders), done, thread: Some(thread) }
    }

    /// Has [`TURN_FRAMES`] put into the queue.
    fn fill(&self, workload: Workload) {
        let orders = self.orders.as_ref().expect("taken only by drop");
        orders.send(workload).expect("the sender lives");
        self.done.recv().expect("the sender lives");
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // Without orders it ends.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends [`TURN_FRAMES`] of `flows` connections.
fn send_turn(socket: &OwnedFd, frame_len: usize, flows: u32, next_flow: &mut u32) {
    let mut frames: Vec<Vec<u8>> = vec![tcp_frame(frame_len, 0, TCP_ACK); BURST];
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
    for _ in 0..TURN_FRAMES / BURST as u64 {
        for frame in &mut frames {
            set_flow(frame, *next_flow % flows);
            // An odd stride near the golden ratio of 2^32: no flow is near the one before.
            *next_flow = next_flow.wrapping_add(0x9e37_79b1);
        }
        // SAFETY: the messages point to `parts`, these to `frames`; all live, and nothing else
        // touches the frames during the call, which only reads them.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BURST as u32, 0) };
        assert_eq!(sent, BURST as i32, "the sender: {}", io::Error::last_os_error());
    }
}

const TCP_SYN: u8 = 0x02;
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
        "TAP to TAP on one core, {} connections in vipr's table; medians (and quartiles) of {} \
         rounds, interleaved, of {} frames",
        plan.flows, plan.rounds, TURN_FRAMES
    );
    println!(
        "\n| frame | connections hit | way | k frames a second | ratio | CPU ns a frame | ratio |"
    );
    println!("|---:|---:|---|---:|---:|---:|---:|");
    for series in results {
        let floor = results
            .iter()
            .find(|other| other.workload == series.workload && other.way == Way::CopyLoop)
            .expect("every workload has its floor");
        let rounds = || series.samples.iter().zip(&floor.samples);
        let rates = Spread::of(rounds().map(|(this, _)| this.frames_per_second / 1e3));
        let nanos = Spread::of(rounds().map(|(this, _)| this.nanos_per_frame));
        let rate_ratios = Spread::of(
            rounds().map(|(this, floor)| this.frames_per_second / floor.frames_per_second),
        );
        let nanos_ratios =
            Spread::of(rounds().map(|(this, floor)| floor.nanos_per_frame / this.nanos_per_frame));
        println!(
            "| {} B | {} | {} | {rates:.0} | {rate_ratios:.2} | {nanos:.0} | {nanos_ratios:.2} |",
            series.workload.frame_len,
            if series.workload.scattered { plan.flows } else { 1 },
            series.way.name(),
        );
    }
}

/// The median of some values, and the quartiles around it.
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        Spread { median: at(2), low: at(1), high: at(3) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, low, high } = self;
        let digits = formatter.precision().unwrap_or(0);
        write!(formatter, "{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}
