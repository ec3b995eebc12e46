//! Beside the kernel's own director: what a packet costs with vipr and with IPVS, above the bare
//! path that a packet takes when nobody directs it.
//!
//! For a machine with one processor whose clock counts instructions (`make bench-ipvs` boots one),
//! which has ip_vs and nothing else to do: all of a turn is measured, the sender's part and the
//! kernel's as well, and each contender is sent the same frames. Caches and waiting for memory are
//! not in it.

#[allow(dead_code, reason = "the forwarding benchmark uses the rest")]
mod support;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use support::contender::{Contender, CopyLoop};
use support::frames::{DIRECTOR_MAC, Establish, Kind, REAL_SERVER_MAC, Workload, vip};
use support::place::{self, Cores};
use support::router::{Router, Setup};
use support::sender::Outgoing;
use support::session::{Spread, TURN_FRAMES};
use support::table::{self, Bound, Row};
use support::taps::Taps;
use vipr::shell::devices::Devices;

const ROUNDS: usize = 9;
const CONNECTIONS: u32 = 1024;
/// Far longer than a turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    if let Some(code) = place::enter_namespace() {
        return code;
    }
    if !Command::new("ipvsadm").arg("-l").output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: this kernel has no ip_vs, or ipvsadm is not there: make bench-ipvs");
        return ExitCode::SUCCESS;
    }
    place::pin(Cores::find().forwarder);
    let lanes = [
        Lane::new(nobody()),
        Lane::new(bridge()),
        Lane::new(ipvs()),
        Lane::new(tapped("vt", |taps| Router::ready(&setup(), taps))),
        Lane::new(tapped("vc", |taps| CopyLoop::over(&taps))),
        Lane::new(direct("packet", "vp")),
        Lane::new(direct("xdp", "vx")),
    ];
    table::print_header();
    let known = Kind::Established { connections: CONNECTIONS, services: 1 };
    print("a packet", known, lanes);
    ExitCode::SUCCESS
}

/// A contender, and the cables to it and from it.
struct Lane {
    contender: Box<dyn Contender>,
    entrance: String,
    exit: String,
}

impl Lane {
    fn new((contender, entrance, exit): (Box<dyn Contender>, String, String)) -> Lane {
        Lane { contender, entrance, exit }
    }

    /// Nanoseconds a frame, all in: which is instructions where the clock counts those.
    fn turn(&mut self, sender: &mut Outgoing, kind: Kind) -> f64 {
        self.contender.prepare();
        let until = place::received(&self.exit) + TURN_FRAMES;
        let start = Instant::now();
        sender.fill(&self.entrance, Workload::of(kind, 60), TURN_FRAMES);
        self.contender.forward(TURN_FRAMES);
        while place::received(&self.exit) < until {
            let left = until - place::received(&self.exit);
            let name = self.contender.name();
            assert!(
                start.elapsed() < TURN_TIMEOUT,
                "{name}: {left} frames did not arrive; the interfaces:\n{}",
                std::fs::read_to_string("/proc/net/dev").unwrap_or_default()
            );
            // A bridge has now and then a word of its own to say, for which a frame stays behind.
            self.contender.prepare();
            std::thread::yield_now();
        }
        let taken = start.elapsed();
        self.contender.finish();
        taken.as_nanos() as f64 / TURN_FRAMES as f64
    }
}

/// Measures and prints, in the order of the lanes in `main`.
fn print(what: &str, kind: Kind, mut lanes: [Lane; 7]) {
    let mut sender = Outgoing::default();
    let mut samples = [const { Vec::new() }; 7];
    for round in 0..=ROUNDS {
        for (lane, samples) in lanes.iter_mut().zip(&mut samples) {
            let sample = lane.turn(&mut sender, kind);
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let [bare, bridge, ipvs, tap, copy, packet, xdp] = &samples;
    // Ratios within a round.
    let above = |of: &[f64]| {
        let rounds = of.iter().zip(bare).zip(ipvs);
        Spread::of(rounds.map(|((of, bare), ipvs)| (of - bare) / (ipvs - bare)))
    };
    let alone = |of: &[f64]| Spread::of(of.iter().copied());
    let note = |of: &[f64]| {
        let [of, bare, ipvs] = [of, bare, ipvs].map(|samples| alone(samples).median);
        format!("instructions {of:.0}, bare {bare:.0}, IPVS {ipvs:.0}")
    };
    let row = |name: &str, of: &[f64], must, aim| Row {
        what: format!("{what} above the bare path, {name}, of what it costs with IPVS"),
        must,
        aim,
        measured: above(of),
        note: note(of),
    };
    table::print(&[
        row("plain TAPs on bridges", tap, Bound::AtMost(3.0), Bound::AtMost(3.0)),
        row("attach = \"packet\"", packet, Bound::AtMost(1.5), Bound::AtMost(1.1)),
        row("attach = \"xdp\"", xdp, Bound::None, Bound::AtMost(0.9)),
        row("copy loop between TAPs on bridges", copy, Bound::None, Bound::None),
        Row::told(format!("instructions {what}, bare path: one cable"), alone(bare), ""),
        Row::told(format!("instructions {what}, a bridge of the kernel's"), alone(bridge), ""),
        Row::told(format!("instructions {what}, IPVS"), alone(ipvs), ""),
    ]);
}

/// What the kernel does all by itself, on the sender's time.
struct Kernel(&'static str);

impl Contender for Kernel {
    fn name(&self) -> String {
        self.0.to_owned()
    }

    fn forward(&mut self, _frames: u64) {}
}

/// A cable at whose other end frames are thrown away.
fn nobody() -> (Box<dyn Contender>, String, String) {
    place::veth("vn-o", "vn-i");
    (Box::new(Kernel("nobody")), "vn-o".to_owned(), "vn-i".to_owned())
}

fn bridge() -> (Box<dyn Contender>, String, String) {
    place::veth("vb-oa", "vb-ia");
    place::veth("vb-ob", "vb-ib");
    place::ip("link add vb type bridge");
    for end in ["vb-ia", "vb-ib"] {
        place::ip(&format!("link set {end} master vb"));
    }
    place::ip("link set vb up");
    // It knows where they are to go.
    let mac = DIRECTOR_MAC;
    let words = ["fdb", "replace", &mac.to_string(), "dev", "vb-ib", "master", "static"];
    let status = Command::new("bridge").args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "bridge fdb");
    (Box::new(Kernel("bridge")), "vb-oa".to_owned(), "vb-ob".to_owned())
}

/// The kernel as the director, with the connections established.
fn ipvs() -> (Box<dyn Contender>, String, String) {
    // This host has the VIP and a card in every segment: it answers nobody's ARP.
    std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "8").expect("a setting of IPv4");
    place::veth("vk-oa", "vk-ia");
    place::veth("vk-ob", "vk-ib");
    let vip = vip(0);
    for words in [
        format!("link set vk-ia address {DIRECTOR_MAC}"),
        format!("address add {vip}/32 dev vk-ia"),
        "address add 10.99.0.254/32 dev vk-ib".to_owned(),
        "route add 10.99.0.1/32 dev vk-ib".to_owned(),
        format!("neigh replace 10.99.0.1 lladdr {REAL_SERVER_MAC} dev vk-ib nud permanent"),
        // It goes by where clients are: anywhere in front.
        "route add default dev vk-ia".to_owned(),
    ] {
        place::ip(&words);
    }
    let service = format!("{vip}:80");
    for words in [
        vec!["-A", "-t", &service, "-s", "rr"],
        vec!["-a", "-t", &service, "-r", "10.99.0.1:80", "-g", "-w", "1"],
    ] {
        let status = Command::new("ipvsadm").args(&words).status();
        assert!(status.is_ok_and(|status| status.success()), "ipvsadm {words:?}");
    }
    let mut establish = Establish::new(CONNECTIONS, 1);
    let mut sender = Outgoing::default();
    while let Some(frame) = establish.next() {
        sender.send("vk-oa", frame);
    }
    (Box::new(Kernel("IPVS")), "vk-oa".to_owned(), "vk-ob".to_owned())
}

fn setup() -> Setup {
    Setup { connections_max: 1 << 16, ..Setup::with_connections(CONNECTIONS) }
}

fn tapped<C: Contender + 'static>(
    prefix: &str,
    contender: impl FnOnce(Taps) -> Box<C>,
) -> (Box<dyn Contender>, String, String) {
    let taps = Taps::bridged(prefix);
    let (entrance, exit) = (taps.entrance.clone(), taps.exit.clone());
    (contender(taps), entrance, exit)
}

fn direct(attach: &str, prefix: &str) -> (Box<dyn Contender>, String, String) {
    let [oa, ia, ob, ib] = ["oa", "ia", "ob", "ib"].map(|end| format!("{prefix}-{end}"));
    place::veth(&oa, &ia);
    place::veth(&ob, &ib);
    let lines = |interface: &str| format!("attach = \"{attach}\"\ninterface = \"{interface}\"");
    let setup = Setup { front: lines(&ia), back: lines(&ib), ..setup().named(attach) };
    (Router::ready(&setup, Devices), oa, ob)
}
