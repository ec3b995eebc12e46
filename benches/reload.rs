//! What a new configuration costs: reading and validating it (off the packet path), and taking it
//! into force, in steps between which frames are handled: all of them, and the longest. 1,000 services with 20 real servers each: machines
//! of their own, and then the same 20 machines for all.
//!
//! Each configuration is read anew, on another thread, as the router does it: it comes into force
//! from another core's cache. Prints medians and the spread; asserts nothing. An argument chooses
//! edits whose name has it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant as Clock};

use vipr::config::{self, Snapshot};
use vipr::director::{Director, Instant, Limits};

const SERVICES: usize = 1_000;
const REAL_SERVERS: usize = 20;
const ROUNDS: usize = 15;

/// A configuration, by what it has.
#[derive(Clone, Copy)]
struct Configuration {
    services: usize,
    real_servers: usize,
    /// Of the first real server of the first service.
    first_weight: usize,
    weight: usize,
    /// Real servers that only the first service has.
    more: usize,
    /// Real servers at the head of each service's list that are left out.
    skipped: usize,
    /// Whether all services are on the same machines.
    shared: bool,
}

const BASE: Configuration = Configuration {
    services: SERVICES,
    real_servers: REAL_SERVERS,
    first_weight: 1,
    weight: 1,
    more: 0,
    skipped: 0,
    shared: false,
};

const EDITS: [(&str, Configuration); 8] = [
    ("nothing", BASE),
    ("one weight", Configuration { first_weight: 2, ..BASE }),
    ("every weight", Configuration { weight: 2, first_weight: 2, ..BASE }),
    ("one real server more", Configuration { more: 1, ..BASE }),
    ("the last real server of each less", Configuration { real_servers: 19, ..BASE }),
    ("the first real server of each less", Configuration { skipped: 1, ..BASE }),
    ("one service less", Configuration { services: 999, ..BASE }),
    ("half the services less", Configuration { services: 500, ..BASE }),
];

fn main() {
    // Cargo passes options of its own.
    let chosen = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for shared in [false, true] {
        let base = Configuration { shared, ..BASE };
        let text = base.text();
        let machines = if shared { "the same for all" } else { "of their own" };
        println!(
            "{SERVICES} services x {REAL_SERVERS} real servers {machines}, {} KiB of TOML",
            text.len() >> 10
        );
        let mut times: Vec<Duration> = (0..5)
            .map(|_| {
                let start = Clock::now();
                let snapshot = config::parse(&text, "bench.toml");
                let took = start.elapsed();
                assert!(snapshot.is_ok());
                took
            })
            .collect();
        show("read and validate (off the packet path)", &mut times);

        for (name, edit) in EDITS {
            if chosen.as_ref().is_some_and(|chosen| !name.contains(chosen)) {
                continue;
            }
            let edited = Configuration { shared, ..edit }.text();
            let mut running = read(&text, None);
            let mut director = Director::new(Instant::ZERO, running.clone(), Limits::default(), 1);
            let (mut there, mut back) = (Applied::default(), Applied::default());
            for _ in 0..ROUNDS {
                apply(&mut director, &mut running, &edited, &mut there);
                apply(&mut director, &mut running, &text, &mut back);
            }
            there.show(name);
            back.show("  and back");
        }
    }
}

#[derive(Default)]
struct Applied {
    all: Vec<Duration>,
    longest_steps: Vec<Duration>,
    steps: usize,
}

fn apply(director: &mut Director, running: &mut Arc<Snapshot>, text: &str, applied: &mut Applied) {
    let next = thread::scope(|scope| scope.spawn(|| read(text, Some(running))).join());
    let next = next.unwrap_or_else(|_| panic!("the other thread ended early"));
    let mut steps = vec![timed(|| {
        director.begin_apply(Instant::ZERO, next.clone());
    })];
    while director.is_applying() {
        steps.push(timed(|| {
            director.continue_apply(Instant::ZERO);
        }));
    }
    applied.all.push(steps.iter().sum());
    applied.longest_steps.extend(steps.iter().max());
    applied.steps = steps.len();
    // Freed only now: the router leaves that to the other thread.
    *running = next;
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = Clock::now();
    act();
    start.elapsed()
}

impl Applied {
    fn show(&mut self, name: &str) {
        show(&format!("{name}: longest of {} steps", self.steps), &mut self.longest_steps);
        show("    all of them", &mut self.all);
    }
}

fn read(text: &str, running: Option<&Arc<Snapshot>>) -> Arc<Snapshot> {
    let mut snapshot = config::parse(text, "bench.toml").unwrap_or_else(|wrong| panic!("{wrong}"));
    if let Some(running) = running {
        snapshot.share(running);
    }
    Arc::new(snapshot)
}

fn show(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{name:<52} {median:>10.1?}  ({least:.1?} … {most:.1?})");
}

impl Configuration {
    fn text(&self) -> String {
        let mut text = String::from(
            "[segment.front]\nrole = \"vip\"\ntap = \"front\"\naddress = [\"192.0.2.2/24\"]\n\
             [segment.back]\nrole = \"backend\"\ntap = \"back\"\naddress = [\"10.0.0.1/8\"]\n",
        );
        for service in 0..self.services {
            let _ = write!(
                text,
                "[[service]]\nname = \"s{service}\"\nvip = \"198.18.{}.{}\"\nprotocol = \"tcp\"\n\
                 ports = 80\nscheduler = \"wrr\"\n",
                service / 250,
                service % 250 + 1
            );
            let more = if service == 0 { self.more } else { 0 };
            for server in self.skipped..self.real_servers + more {
                let first = service == 0 && server == 0;
                let weight = if first { self.first_weight } else { self.weight };
                let place = if self.shared { 0 } else { service };
                let _ = write!(
                    text,
                    "[[service.real_server]]\nname = \"r{server}\"\naddress = \"10.{}.{}.{}\"\n\
                     segment = \"back\"\nweight = {weight}\n",
                    place / 250 + 1,
                    place % 250,
                    server + 1,
                );
            }
        }
        text
    }
}
