//! Where a benchmark happens: a network namespace of its own, a core to send from and one to
//! forward on.

use std::env;
use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Says that this process has its namespace.
const INSIDE: &str = "VIPR_BENCH_INSIDE";

/// Runs this program again in a network namespace of its own; `None` if it is there already.
pub fn enter_namespace() -> Option<ExitCode> {
    if env::var_os(INSIDE).is_some() {
        // The host says nothing on the interfaces here of its own accord.
        for which in ["all", "default"] {
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
        }
        return None;
    }
    let mut unshare = vec!["--net"];
    if !rustix::process::geteuid().is_root() {
        unshare.push("--map-root-user");
    }
    let tun = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let probe = Command::new("unshare").args(&unshare).arg("true").status();
    if tun.is_err() || !probe.is_ok_and(|status| status.success()) {
        println!("SKIPPED: it needs unshare(1), namespaces and /dev/net/tun");
        return Some(ExitCode::SUCCESS);
    }
    let status = Command::new("unshare")
        .args(&unshare)
        .arg(env::current_exe().expect("a program knows its file"))
        .args(env::args().skip(1))
        .env(INSIDE, "1")
        .status()
        .expect("unshare ran a moment ago");
    Some(ExitCode::from(if status.success() { 0 } else { 1 }))
}

/// Runs `ip` with these words.
///
/// # Panics
/// When it fails: the benchmark's own interfaces are not to be had.
pub fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {words}: {status}");
}

/// A pair of virtual cards, both up.
pub fn veth(one: &str, other: &str) {
    ip(&format!("link add {one} type veth peer name {other}"));
    for end in [one, other] {
        ip(&format!("link set {end} up"));
    }
}

pub fn interface_index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).expect("no zero byte in a name");
    // SAFETY: a string that ends with a zero byte and lives through the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// Frames that an interface has received, as the host counts. The file is of this thread's
/// namespace, which /sys/class/net is not.
pub fn received(interface: &str) -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/dev").expect("procfs is mounted");
    let line = table.lines().find_map(|line| {
        line.trim_start().strip_prefix(interface).and_then(|rest| rest.strip_prefix(':'))
    });
    let packets = line.and_then(|line| line.split_whitespace().nth(1));
    packets.and_then(|number| number.parse().ok()).expect("the interface is listed")
}

/// The cores of the sender and of the forwarder: the first and the last that we may use.
#[derive(Clone, Copy)]
pub struct Cores {
    pub sender: usize,
    pub forwarder: usize,
}

impl Cores {
    /// To be found before anything is pinned.
    pub fn find() -> Cores {
        let allowed = rustix::thread::sched_getaffinity(None).expect("our own affinity");
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let sender = cores.next().expect("at least one core");
        let forwarder = cores.next_back().unwrap_or(sender);
        if sender == forwarder {
            println!("only one core: the sender and the forwarder share it, the figures mislead");
        }
        Cores { sender, forwarder }
    }
}

/// Keeps this thread on one core.
pub fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("a core that we may use");
}

/// Processor time of this thread.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned() as u32)
}

/// Bytes of this process in memory. Not VmRSS, which is an estimate.
pub fn resident() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("procfs is mounted");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("it has Rss");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib << 10
}
