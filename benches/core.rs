//! What the core costs: nanoseconds an operation, and the same as a ratio to etherparse's strict
//! slicing of the same frame.
//!
//! Frames come in bursts, as from a port; only what the core does with them is timed. Every case
//! is measured in many short rounds, each next to a round of slicing, so that whatever else the
//! machine does meets both, and breaks into few. `cargo bench --bench core`; words after `--`
//! select cases by name. Without `--bench` all is done once and small, as a test of itself.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use etherparse::SlicedPacket;
use vipr::director::connections::{ConnectionState, ConnectionTable};
use vipr::director::flow::FlowKey;
use vipr::director::{Action, BURST_MAX, DestinationId, Director, Instant, Limits, SegmentId};
use vipr::port::Batch;
use vipr::wire::Offload;

/// Operations of a round, and bursts of as many frames.
const OPERATIONS: u32 = 2048;
const BURSTS: u32 = OPERATIONS / BURST_MAX as u32;
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    /// Rounds of a case; the table gives their quartiles.
    rounds: u32,
    /// Connections of the large cases, a power of two.
    many: u32,
}

/// The default `connections_max`.
const BENCHMARK: Scale = Scale { rounds: 301, many: 1 << 20 };
/// Enough for the look-ahead to have its part.
const TEST: Scale = Scale { rounds: 1, many: 1 << 15 };

const CONFIGURATION: &str = r#"
[router]
connections_max = MANY

[segment.front]
role = "vip"
tap = "vipr-front"
mac = "02:00:00:00:01:01"
address = ["192.0.2.2/24"]

[segment.back]
role = "backend"
tap = "vipr-back"
address = ["10.0.0.1/24"]

[[service]]
vip = "192.0.2.10"
protocol = "tcp"
ports = 80
scheduler = "wrr"
real_server = [
    { name = "rs1", address = "10.0.0.11", mac = "52:54:00:00:00:11", weight = 4 },
    { name = "rs2", address = "10.0.0.12", mac = "52:54:00:00:00:12", weight = 3 },
    { name = "rs3", address = "10.0.0.13", mac = "52:54:00:00:00:13", weight = 2 },
]
"#;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Something to measure: what `make` makes does it [`OPERATIONS`] times and says how long that
/// took.
struct Case {
    name: &'static str,
    /// Nanoseconds an operation that it is to stay within, if there is a promise.
    target: Option<f64>,
    make: fn(Scale) -> Box<dyn FnMut() -> Duration>,
}

const CASES: [Case; 9] = [
    Case { name: "frame: of the only connection", target: Some(60.0), make: forward_one },
    Case { name: "frame: of one of many connections", target: Some(200.0), make: forward_many },
    Case { name: "frame: a SYN that opens a connection", target: Some(400.0), make: open },
    Case { name: "frame: a SYN that evicts another", target: None, make: evict },
    Case { name: "table: look up the only one", target: None, make: look_up_one },
    Case { name: "table: look up one of many", target: None, make: look_up_many },
    Case { name: "table: look up and note a packet", target: None, make: note_packets },
    Case { name: "table: insert and remove", target: None, make: insert_and_remove },
    Case { name: "table: expire", target: None, make: expire },
];

fn main() {
    let scale = if std::env::args().any(|word| word == "--bench") { BENCHMARK } else { TEST };
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!("{} rounds of {OPERATIONS}; many connections: {}", scale.rounds, scale.many);
    println!(
        "{:<40} {:>7} {:>7}   {:<15} {:>9}",
        "ns an operation", "target", "median", "quartiles", "x slicing"
    );
    for case in &CASES {
        if words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())) {
            measure(case, scale);
        }
    }
}

fn measure(case: &Case, scale: Scale) {
    let mut run = (case.make)(scale);
    let (mut costs, mut ratios) = (Vec::new(), Vec::new());
    let frame = frame(0, ACK);
    for _ in 0..scale.rounds {
        let nanos = run().as_nanos() as f64 / f64::from(OPERATIONS);
        costs.push(nanos);
        ratios.push(nanos / slice(&frame));
    }
    let [low, median, high] = quartiles(&mut costs);
    let [_, ratio, _] = quartiles(&mut ratios);
    let target = case.target.map_or("-".to_owned(), |target| format!("{target:.0}"));
    let spread = format!("{low:.1} - {high:.1}");
    println!("{:<40} {target:>7} {median:>7.1}   {spread:<15} {ratio:>9.2}", case.name);
}

/// Nanoseconds to slice a frame strictly with etherparse.
fn slice(frame: &[u8]) -> f64 {
    let elapsed = timed(|_| {
        assert!(black_box(SlicedPacket::from_ethernet(black_box(frame))).is_ok());
    });
    elapsed.as_nanos() as f64 / f64::from(OPERATIONS)
}

fn timed(mut operation: impl FnMut(u32)) -> Duration {
    let start = Clock::now();
    for number in 0..OPERATIONS {
        operation(number);
    }
    start.elapsed()
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// A TCP segment of a flow to the VIP. 60 bytes, as the shortest frame is without its check
/// sequence.
fn frame(number: u32, flags: u8) -> [u8; 60] {
    let mut bytes = [0; 60];
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 9, 9]);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6]);
    bytes[26..30].copy_from_slice(&client(number).octets());
    bytes[30..34].copy_from_slice(&VIP.octets());
    bytes[34..36].copy_from_slice(&(number as u16).to_be_bytes());
    bytes[36..38].copy_from_slice(&80_u16.to_be_bytes());
    bytes[46..48].copy_from_slice(&[0x50, flags]);
    let words = bytes[14..34].chunks_exact(2);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !(sum + (sum >> 16)) as u16;
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Sixteen flows a client.
fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0B00_0000 + (number >> 4))
}

fn key(number: u32) -> FlowKey {
    FlowKey::v4(6, client(number), number as u16, VIP, 80)
}

/// Numbers below a power of two in an order no prefetcher knows.
struct Shuffled {
    state: u32,
    many: u32,
}

impl Shuffled {
    fn below(many: u32) -> Shuffled {
        Shuffled { state: 1, many }
    }

    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(0x915F_77F5).wrapping_add(0x6C07_8965);
        (self.state >> 7) % self.many
    }
}

/// A director at work.
struct Bench {
    director: Director,
    front: SegmentId,
    now: Instant,
    batch: Batch,
}

impl Bench {
    fn new(scale: Scale) -> Bench {
        let configuration = CONFIGURATION.replace("MANY", &scale.many.to_string());
        let snapshot = vipr::config::parse(&configuration, "bench")
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let director = Director::new(Instant::ZERO, Arc::new(snapshot), Limits::default(), 1);
        let front = director.segments()[0].0;
        Bench { director, front, now: Instant::ZERO, batch: Batch::new(BURST_MAX) }
    }

    /// With this many established connections.
    fn with_connections(scale: Scale, connections: u32) -> Bench {
        let mut bench = Bench::new(scale);
        for flags in [SYN, ACK] {
            let mut numbers = 0..connections;
            while !numbers.is_empty() {
                bench.forward_burst(flags, || numbers.next());
            }
        }
        bench
    }

    /// Segments of these flows, all of which are to be forwarded. How long
    /// the director takes for it.
    fn forward_burst(&mut self, flags: u8, mut next: impl FnMut() -> Option<u32>) -> Duration {
        self.batch.clear();
        while !self.batch.is_full()
            && let Some(number) = next()
        {
            let written = self.batch.push_with(|buffer| {
                buffer[..60].copy_from_slice(&frame(number, flags));
                Ok::<_, ()>((60, Offload::default()))
            });
            assert!(written.is_ok());
        }
        self.now += Duration::from_nanos(100) * self.batch.len() as u32;
        let start = Clock::now();
        self.director.handle_batch(self.now, self.front, &mut self.batch, |_, verdict, _| {
            assert!(matches!(verdict.action, Action::Forward { .. }), "{verdict:?}");
        });
        start.elapsed()
    }

    fn forward_round(&mut self, flags: u8, mut next: impl FnMut() -> u32) -> Duration {
        (0..BURSTS).map(|_| self.forward_burst(flags, || Some(next()))).sum()
    }

    /// Lets everything expire.
    fn rest(&mut self) {
        self.now += Duration::from_secs(1000);
        while self.director.poll_timeout().is_some_and(|due| due <= self.now) {
            self.director.handle_timeout(self.now);
            while self.director.poll_transmit().is_some() {}
            while self.director.poll_event().is_some() {}
        }
    }
}

fn forward_one(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    let mut bench = Bench::with_connections(scale, 1);
    Box::new(move || bench.forward_round(ACK, || 0))
}

fn forward_many(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    let mut bench = Bench::with_connections(scale, scale.many);
    let mut shuffled = Shuffled::below(scale.many);
    Box::new(move || bench.forward_round(ACK, || shuffled.next()))
}

/// Into memory that has held connections before.
fn open(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    assert!(scale.rounds * OPERATIONS < scale.many, "none is evicted");
    let mut bench = Bench::with_connections(scale, scale.many);
    bench.rest();
    let mut numbers = scale.many..;
    Box::new(move || bench.forward_round(SYN, || numbers.next().unwrap_or(0)))
}

fn evict(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    let mut bench = Bench::new(scale);
    let mut numbers = 0..;
    for _ in 0..scale.many / OPERATIONS {
        bench.forward_round(SYN, || numbers.next().unwrap_or(0));
    }
    Box::new(move || bench.forward_round(SYN, || numbers.next().unwrap_or(0)))
}

/// A table of established connections.
fn table(scale: Scale, connections: u32) -> ConnectionTable {
    let mut table = ConnectionTable::new(Instant::ZERO, scale.many, (1, 2));
    for number in 0..connections {
        let deadline = Instant::ZERO + Duration::from_secs(900);
        let state = ConnectionState::Established;
        assert!(table.insert(key(number), DestinationId::NOWHERE, state, deadline).is_ok());
    }
    table
}

fn look_up_one(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    let table = table(scale, 1);
    Box::new(move || timed(|_| assert!(black_box(table.find(&black_box(key(0)))).is_some())))
}

fn look_up_many(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    let table = table(scale, scale.many);
    let mut shuffled = Shuffled::below(scale.many);
    Box::new(move || timed(|_| assert!(black_box(table.find(&key(shuffled.next()))).is_some())))
}

fn note_packets(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    let mut table = table(scale, scale.many);
    let mut shuffled = Shuffled::below(scale.many);
    let mut now = Instant::ZERO;
    Box::new(move || {
        timed(|_| {
            now += Duration::from_nanos(100);
            let id = table.find(&key(shuffled.next())).expect("every number is in the table");
            let state = table.get(id).expect("it was just found").state;
            table.update(id, state, now + Duration::from_secs(900));
        })
    })
}

fn insert_and_remove(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    let mut table = table(scale, scale.many - 1);
    let deadline = Instant::ZERO + Duration::from_secs(60);
    let mut number = scale.many;
    Box::new(move || {
        timed(|_| {
            number += 1;
            let state = ConnectionState::SynRecv;
            let id = table.insert(key(number), DestinationId::NOWHERE, state, deadline);
            table.remove(id.expect("there is room for one"));
        })
    })
}

fn expire(scale: Scale) -> Box<dyn FnMut() -> Duration> {
    assert!(scale.rounds * OPERATIONS < scale.many, "enough to expire");
    let mut table = ConnectionTable::new(Instant::ZERO, scale.many, (1, 2));
    let mut shuffled = Shuffled::below(scale.many);
    for number in 0..scale.many {
        let deadline = Instant::ZERO + Duration::from_millis(u64::from(shuffled.next() % 60_000));
        let state = ConnectionState::SynRecv;
        assert!(table.insert(key(number), DestinationId::NOWHERE, state, deadline).is_ok());
    }
    let now = Instant::ZERO + Duration::from_secs(61);
    let mut budget = u32::MAX;
    Box::new(move || timed(|_| assert!(table.expire(now, &mut budget).is_some())))
}
