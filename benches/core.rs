//! What the core costs: nanoseconds an operation, and the same as a ratio to etherparse's strict
//! slicing of the same frame.
//!
//! Every case is measured in many short rounds, each next to a round of slicing, so that
//! whatever else the machine does meets both, and few rounds are broken into. Run with
//! `cargo bench --bench core`; words after `--` select cases by name.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use etherparse::SlicedPacket;
use vipr::director::connections::{ConnectionState, ConnectionTable};
use vipr::director::flow::FlowKey;
use vipr::director::{Action, DestinationId, Director, Instant, Limits, SegmentId};
use vipr::wire::Frame;

/// Rounds of a case; the table gives their quartiles.
const ROUNDS: usize = 301;
/// Operations of a round.
const OPERATIONS: u32 = 2000;
/// Connections of the large cases: the default `connections_max`.
const MANY: u32 = 1 << 20;
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

const CONFIGURATION: &str = r#"
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

/// Something to measure: `run` does it [`OPERATIONS`] times and says how long that took.
struct Case {
    name: &'static str,
    /// Nanoseconds an operation that it is to stay within, if there is a promise.
    target: Option<f64>,
    make: fn() -> Box<dyn FnMut() -> Duration>,
}

const CASES: [Case; 9] = [
    Case { name: "frame: of the only connection", target: Some(60.0), make: forward_one },
    Case { name: "frame: of one of 1,048,576", target: Some(200.0), make: forward_many },
    Case { name: "frame: a SYN that opens a connection", target: Some(400.0), make: open },
    Case { name: "frame: a SYN that evicts another", target: None, make: evict },
    Case { name: "table: look up the only one", target: None, make: look_up_one },
    Case { name: "table: look up one of 1,048,576", target: None, make: look_up_many },
    Case { name: "table: look up and note a packet", target: None, make: note_packets },
    Case { name: "table: insert and remove", target: None, make: insert_and_remove },
    Case { name: "table: expire", target: None, make: expire },
];

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!(
        "{:<40} {:>7} {:>7}   {:<15} {:>9}",
        "ns an operation", "target", "median", "quartiles", "x slicing"
    );
    for case in &CASES {
        if words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())) {
            measure(case);
        }
    }
}

fn measure(case: &Case) {
    let mut run = (case.make)();
    let (mut costs, mut ratios) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    let frame = Traffic::new(ACK).bytes;
    for _ in 0..ROUNDS {
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

/// TCP segments to the VIP, of as many flows as are asked for, in one buffer. 60 bytes, as the
/// shortest frame is without its check sequence.
struct Traffic {
    bytes: Vec<u8>,
    /// The header's sum without the client's address, to complete with it.
    partial_sum: u32,
}

impl Traffic {
    fn new(flags: u8) -> Traffic {
        let mut bytes = vec![0; 60];
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        bytes[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6]);
        bytes[30..34].copy_from_slice(&VIP.octets());
        bytes[36..38].copy_from_slice(&80_u16.to_be_bytes());
        bytes[46..48].copy_from_slice(&[0x50, flags]);
        let words = bytes[14..34].chunks_exact(2);
        let partial_sum = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let mut traffic = Traffic { bytes, partial_sum };
        traffic.of_flow(0);
        traffic
    }

    /// The frame of a flow as it arrives. The few nanoseconds this takes are in the results.
    fn of_flow(&mut self, number: u32) -> Frame<'_> {
        let client = client(number).to_bits();
        let sum = self.partial_sum + (client >> 16) + (client & 0xFFFF);
        let sum = (sum & 0xFFFF) + (sum >> 16);
        let checksum = !(sum + (sum >> 16)) as u16;
        self.bytes[..12].copy_from_slice(&[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 9, 9]);
        self.bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        self.bytes[26..30].copy_from_slice(&client.to_be_bytes());
        self.bytes[34..36].copy_from_slice(&(number as u16).to_be_bytes());
        Frame::plain(&mut self.bytes)
    }
}

/// Sixteen flows a client.
fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0B00_0000 + (number >> 4))
}

fn key(number: u32) -> FlowKey {
    FlowKey::v4(6, client(number), number as u16, VIP, 80)
}

/// Numbers below [`MANY`] in an order no prefetcher knows.
struct Shuffled(u32);

impl Shuffled {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(0x915F_77F5).wrapping_add(0x6C07_8965);
        (self.0 >> 7) % MANY
    }
}

/// A director at work.
struct Bench {
    director: Director,
    front: SegmentId,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let snapshot = vipr::config::parse(CONFIGURATION, "bench")
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let director = Director::new(Instant::ZERO, Arc::new(snapshot), Limits::default(), 1);
        let front = director.segments()[0].0;
        Bench { director, front, now: Instant::ZERO }
    }

    /// With this many established connections.
    fn with_connections(connections: u32) -> Bench {
        let mut bench = Bench::new();
        for flags in [SYN, ACK] {
            let mut traffic = Traffic::new(flags);
            (0..connections).for_each(|number| bench.forward(&mut traffic, number));
        }
        bench
    }

    /// A frame each 100 ns.
    #[inline]
    fn forward(&mut self, traffic: &mut Traffic, number: u32) {
        self.now += Duration::from_nanos(100);
        let verdict =
            self.director.handle_frame(self.now, self.front, &mut traffic.of_flow(number));
        assert!(matches!(verdict.action, Action::Forward { .. }), "{verdict:?}");
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

fn forward_one() -> Box<dyn FnMut() -> Duration> {
    let mut bench = Bench::with_connections(1);
    let mut traffic = Traffic::new(ACK);
    Box::new(move || timed(|_| bench.forward(&mut traffic, 0)))
}

fn forward_many() -> Box<dyn FnMut() -> Duration> {
    let mut bench = Bench::with_connections(MANY);
    let mut traffic = Traffic::new(ACK);
    let mut shuffled = Shuffled(1);
    Box::new(move || timed(|_| bench.forward(&mut traffic, shuffled.next())))
}

/// Into memory that has held connections before.
fn open() -> Box<dyn FnMut() -> Duration> {
    const { assert!(ROUNDS * (OPERATIONS as usize) < MANY as usize, "none is evicted") };
    let mut bench = Bench::with_connections(MANY);
    bench.rest();
    let mut traffic = Traffic::new(SYN);
    let mut number = MANY;
    Box::new(move || {
        timed(|_| {
            number += 1;
            bench.forward(&mut traffic, number);
        })
    })
}

fn evict() -> Box<dyn FnMut() -> Duration> {
    let mut bench = Bench::new();
    let mut traffic = Traffic::new(SYN);
    let mut number = 0;
    while number < MANY {
        bench.forward(&mut traffic, number);
        number += 1;
    }
    Box::new(move || {
        timed(|_| {
            number += 1;
            bench.forward(&mut traffic, number);
        })
    })
}

/// A table of established connections.
fn table(connections: u32) -> ConnectionTable {
    let mut table = ConnectionTable::new(Instant::ZERO, MANY, (1, 2));
    for number in 0..connections {
        let deadline = Instant::ZERO + Duration::from_secs(900);
        let state = ConnectionState::Established;
        assert!(table.insert(key(number), DestinationId::NOWHERE, state, deadline).is_ok());
    }
    table
}

fn look_up_one() -> Box<dyn FnMut() -> Duration> {
    let table = table(1);
    Box::new(move || timed(|_| assert!(black_box(table.find(&black_box(key(0)))).is_some())))
}

fn look_up_many() -> Box<dyn FnMut() -> Duration> {
    let table = table(MANY);
    let mut shuffled = Shuffled(1);
    Box::new(move || timed(|_| assert!(black_box(table.find(&key(shuffled.next()))).is_some())))
}

fn note_packets() -> Box<dyn FnMut() -> Duration> {
    let mut table = table(MANY);
    let mut shuffled = Shuffled(1);
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

fn insert_and_remove() -> Box<dyn FnMut() -> Duration> {
    let mut table = table(MANY - 1);
    let deadline = Instant::ZERO + Duration::from_secs(60);
    let mut number = MANY;
    Box::new(move || {
        timed(|_| {
            number += 1;
            let state = ConnectionState::SynRecv;
            let id = table.insert(key(number), DestinationId::NOWHERE, state, deadline);
            table.remove(id.expect("there is room for one"));
        })
    })
}

fn expire() -> Box<dyn FnMut() -> Duration> {
    const { assert!(ROUNDS * (OPERATIONS as usize) < MANY as usize, "enough to expire") };
    let mut table = ConnectionTable::new(Instant::ZERO, MANY, (1, 2));
    let mut shuffled = Shuffled(1);
    for number in 0..MANY {
        let deadline = Instant::ZERO + Duration::from_millis(u64::from(shuffled.next() % 60_000));
        let state = ConnectionState::SynRecv;
        assert!(table.insert(key(number), DestinationId::NOWHERE, state, deadline).is_ok());
    }
    let now = Instant::ZERO + Duration::from_secs(61);
    let mut budget = u32::MAX;
    Box::new(move || timed(|_| assert!(table.expire(now, &mut budget).is_some())))
}
