//! What a choice costs: nanoseconds for a SYN that opens a connection, by scheduler, among few
//! real servers and among a thousand.
//!
//! `cargo bench --bench schedulers`; words after `--` select schedulers. Each case is measured in
//! many short rounds of new connections, everything about them included; between rounds they all
//! end. Without `--bench` all is done once and small, as a test of itself.

#[path = "support/frames.rs"]
#[allow(dead_code, reason = "the forwarding benchmark uses the rest")]
mod frames;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use frames::{Kind, Writer};
use vipr::config::snapshot::SchedulerKind;
use vipr::director::{Action, Director, Instant, Limits, SegmentId};
use vipr::wire::Frame;

/// Connections of a round.
const OPENED: u32 = 4096;
const SIZES: [usize; 3] = [3, 100, 1000];

fn main() {
    let is_benchmark = std::env::args().any(|word| word == "--bench");
    let rounds = if is_benchmark { 41 } else { 1 };
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!("ns a new connection: median (quartiles) of {rounds} rounds of {OPENED}");
    print!("{:<12}", "scheduler");
    SIZES.iter().for_each(|size| print!(" {:>24}", format!("{size} real servers")));
    println!();
    for kind in SchedulerKind::ALL {
        if !words.is_empty() && !words.iter().any(|word| word == kind.name()) {
            continue;
        }
        print!("{:<12}", kind.name());
        for size in SIZES {
            let mut bench = Bench::new(kind, size);
            let mut costs: Vec<f64> = (0..rounds).map(|_| bench.round()).collect();
            costs.sort_by(f64::total_cmp);
            let [low, median, high] = [1, 2, 3].map(|quarter| costs[(rounds - 1) * quarter / 4]);
            print!(" {:>24}", format!("{median:.0} ({low:.0} - {high:.0})"));
        }
        println!();
    }
}

/// A director with one service.
struct Bench {
    director: Director,
    front: SegmentId,
    now: Instant,
    number: u32,
}

impl Bench {
    fn new(kind: SchedulerKind, real_servers: usize) -> Bench {
        let mut toml = format!(
            "[router]\nconnections_max = 65536\n\
             [segment.front]\nrole = \"vip\"\ntap = \"f\"\nmac = \"02:00:00:00:01:01\"\n\
             [segment.back]\nrole = \"backend\"\ntap = \"b\"\n\
             [[service]]\nvip = \"198.18.0.1\"\nprotocol = \"tcp\"\nports = 80\n\
             scheduler = \"{}\"\n",
            kind.name()
        );
        for number in 0..real_servers {
            let (high, low) = (number / 250, number % 250 + 1);
            // Three have room for a round, as ovf counts.
            let weight = 1500 + number % 7;
            let _ = write!(
                toml,
                "[[service.real_server]]\naddress = \"10.0.{high}.{low}\"\nweight = {weight}\n\
                 mac = \"52:54:00:01:{high:02x}:{low:02x}\"\n"
            );
        }
        let snapshot = vipr::config::parse(&toml, "bench")
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let director = Director::new(Instant::ZERO, Arc::new(snapshot), Limits::default(), 1);
        let front = director.segments()[0].0;
        Bench { director, front, now: Instant::ZERO, number: 0 }
    }

    /// Nanoseconds a connection.
    fn round(&mut self) -> f64 {
        let first = self.number;
        self.number += OPENED;
        let mut writer = Writer::new(Kind::Open { services: 1 }, first);
        let mut frames = vec![writer.template(60); OPENED as usize];
        frames.iter_mut().for_each(|frame| writer.write(frame));
        let start = Clock::now();
        for bytes in &mut frames {
            self.now += Duration::from_nanos(100);
            let verdict =
                self.director.handle_frame(self.now, self.front, &mut Frame::plain(bytes));
            assert!(matches!(verdict.action, Action::Forward { .. }), "{verdict:?}");
        }
        let nanos = start.elapsed().as_nanos() as f64 / f64::from(OPENED);
        self.rest();
        nanos
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
