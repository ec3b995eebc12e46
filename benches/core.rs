//! What the core costs: nanoseconds an operation, and the same as a ratio to etherparse's strict
//! slicing of the same frame.
//!
//! Every case is measured in many short rounds, each next to a round of the slicing, so that
//! whatever else the machine does meets both. Run with `cargo bench --bench core`, and a word to
//! select cases by name.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant as Clock};

use etherparse::SlicedPacket;
use vipr::director::connections::{ConnectionState, ConnectionTable};
use vipr::director::flow::FlowKey;
use vipr::director::{DestinationId, Instant};

/// Rounds of a case; the table gives their quartiles.
const ROUNDS: usize = 31;
/// Connections of the large cases: the default `connections_max`.
const MANY: u32 = 1 << 20;
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// Something to measure: does `operations` of it and says how long they took.
struct Case {
    name: &'static str,
    /// Nanoseconds an operation that it is to stay within, if there is a promise.
    target: Option<f64>,
    operations: u32,
    run: Box<dyn FnMut(u32) -> Duration>,
}

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let makers: [fn() -> Case; 5] =
        [look_up_one, look_up_many, note_packets, open_and_close, expire_many];
    println!(
        "{:<44} {:>8} {:>17} {:>8} {:>10}",
        "ns an operation", "median", "quartiles", "target", "x slicing"
    );
    for make in makers {
        let case = make();
        if words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())) {
            measure(case);
        }
    }
}

fn measure(mut case: Case) {
    let mut costs = Vec::with_capacity(ROUNDS);
    let mut ratios = Vec::with_capacity(ROUNDS);
    let frame = frame();
    // The first round warms up.
    for round in 0..=ROUNDS {
        let nanos = (case.run)(case.operations).as_nanos() as f64 / f64::from(case.operations);
        let slicing = slice(&frame, 20_000);
        if round > 0 {
            costs.push(nanos);
            ratios.push(nanos / slicing);
        }
    }
    let [low, median, high] = quartiles(&mut costs);
    let [_, ratio, _] = quartiles(&mut ratios);
    let target = case.target.map_or("-".to_owned(), |target| format!("{target:.0}"));
    println!(
        "{:<44} {median:>8.1} {:>17} {target:>8} {ratio:>10.2}",
        case.name,
        format!("{low:.1} - {high:.1}"),
    );
}

/// Nanoseconds to slice a frame strictly with etherparse.
fn slice(frame: &[u8], operations: u32) -> f64 {
    let start = Clock::now();
    for _ in 0..operations {
        let sliced = SlicedPacket::from_ethernet(black_box(frame));
        assert!(black_box(sliced).is_ok());
    }
    start.elapsed().as_nanos() as f64 / f64::from(operations)
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// A segment of a client's, 64 bytes with the frame check sequence that is never seen.
fn frame() -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 1, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6]);
    frame[26..30].copy_from_slice(&[198, 51, 100, 7]);
    frame[30..34].copy_from_slice(&VIP.octets());
    frame[34..38].copy_from_slice(&[0x9C, 0x40, 0, 80]);
    frame[46..48].copy_from_slice(&[0x50, 0x10]);
    frame
}

fn key(number: u32) -> FlowKey {
    FlowKey::v4(6, Ipv4Addr::from_bits(0x0B00_0000 + (number >> 4)), number as u16, VIP, 80)
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

/// Numbers below `MANY` in an order no prefetcher knows.
struct Shuffled(u32);

impl Shuffled {
    fn next(&mut self) -> u32 {
        // Full period for a power of two: odd increment, multiplier 1 modulo 4.
        self.0 = self.0.wrapping_mul(0x915F_77F5).wrapping_add(0x6C07_8965);
        (self.0 >> 7) % MANY
    }
}

fn timed(mut operation: impl FnMut(u32), operations: u32) -> Duration {
    let start = Clock::now();
    for number in 0..operations {
        operation(number);
    }
    start.elapsed()
}

fn look_up_one() -> Case {
    let table = table(1);
    let run = move |operations| {
        timed(|_| assert!(black_box(table.find(&black_box(key(0)))).is_some()), operations)
    };
    Case {
        name: "look up the only connection",
        target: None,
        operations: 20_000,
        run: Box::new(run),
    }
}

fn look_up_many() -> Case {
    let table = table(MANY);
    let mut shuffled = Shuffled(1);
    let run = move |operations| {
        timed(|_| assert!(black_box(table.find(&key(shuffled.next()))).is_some()), operations)
    };
    Case { name: "look up one of 1,048,576", target: None, operations: 50_000, run: Box::new(run) }
}

fn note_packets() -> Case {
    let mut table = table(MANY);
    let mut shuffled = Shuffled(1);
    let mut now = Instant::ZERO;
    let run = move |operations| {
        let mut note = |_| {
            now += Duration::from_nanos(100);
            let id = table.find(&key(shuffled.next())).expect("every number is in the table");
            let state = table.get(id).expect("it was just found").state;
            table.update(id, state, now + Duration::from_secs(900));
        };
        timed(&mut note, operations)
    };
    Case {
        name: "look up and note a packet of 1,048,576",
        target: None,
        operations: 50_000,
        run: Box::new(run),
    }
}

fn open_and_close() -> Case {
    let mut table = table(MANY - 1);
    let run = move |operations| {
        let mut open_and_close = |number| {
            let deadline = Instant::ZERO + Duration::from_secs(60);
            let state = ConnectionState::SynRecv;
            let key = key(MANY + number);
            let id = table.insert(key, DestinationId::NOWHERE, state, deadline);
            table.remove(id.expect("there is room for one"));
        };
        timed(&mut open_and_close, operations)
    };
    Case {
        name: "insert and remove the 1,048,576th",
        target: None,
        operations: 20_000,
        run: Box::new(run),
    }
}

fn expire_many() -> Case {
    let mut table = table(0);
    let mut now = Instant::ZERO;
    let run = move |operations| {
        let mut shuffled = Shuffled(7);
        while table.len() < operations {
            let deadline = now + Duration::from_millis(u64::from(shuffled.next() % 60_000));
            let key = key(table.len());
            let state = ConnectionState::SynRecv;
            assert!(table.insert(key, DestinationId::NOWHERE, state, deadline).is_ok());
        }
        now += Duration::from_secs(61);
        let mut budget = u32::MAX;
        let start = Clock::now();
        while table.expire(now, &mut budget).is_some() {}
        let elapsed = start.elapsed();
        assert!(table.is_empty());
        elapsed
    };
    Case {
        name: "expire, of 262,144 at once",
        target: None,
        operations: MANY / 4,
        run: Box::new(run),
    }
}
