//! What a new configuration costs: reading and validating it (off the packet path), and taking it
//! into force (the pause between two bursts). 1,000 services with 20 real servers each.
//!
//! Prints medians and the spread; asserts nothing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use vipr::config::{self, Snapshot};
use vipr::director::{Director, Instant, Limits};

const SERVICES: usize = 1_000;
const REAL_SERVERS: usize = 20;
const ROUNDS: usize = 31;

fn main() {
    let base = configuration(0, 0, REAL_SERVERS);
    println!("{SERVICES} services x {REAL_SERVERS} real servers, {} KiB of TOML", base.len() >> 10);
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Clock::now();
        let snapshot = config::parse(&base, "bench.toml").expect("it is valid");
        times.push(start.elapsed());
        drop(snapshot);
    }
    show("read and validate (off the packet path)", &mut times);

    let edits: [(&str, String); 5] = [
        ("nothing", base.clone()),
        ("one weight", base.replacen("weight = 1\n", "weight = 2\n", 1)),
        ("every weight", configuration(1, 0, REAL_SERVERS)),
        ("one real server more", configuration(0, 1, REAL_SERVERS)),
        ("one real server less in each service", configuration(0, 0, REAL_SERVERS - 1)),
    ];
    let before = Arc::new(read(&base));
    for (name, text) in edits {
        let mut after = read(&text);
        after.share(&before);
        let after = Arc::new(after);
        let mut director = Director::new(Instant::ZERO, before.clone(), Limits::default(), 1);
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            there.push(apply(&mut director, &after));
            back.push(apply(&mut director, &before));
        }
        show(&format!("apply: {name}"), &mut there);
        show("       and back", &mut back);
    }
}

fn apply(director: &mut Director, snapshot: &Arc<Snapshot>) -> Duration {
    let start = Clock::now();
    director.apply(Instant::ZERO, snapshot.clone());
    start.elapsed()
}

fn read(text: &str) -> Snapshot {
    config::parse(text, "bench.toml").unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn show(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{name:<44} {median:>10.1?}  ({least:.1?} … {most:.1?})");
}

/// The configuration, with these weights added to each, so many real servers more in the first
/// service, and so many in each.
fn configuration(weight: usize, more: usize, real_servers: usize) -> String {
    let mut text = String::from(
        "[segment.front]\nrole = \"vip\"\ntap = \"front\"\naddress = [\"192.0.2.2/24\"]\n\
         [segment.back]\nrole = \"backend\"\ntap = \"back\"\naddress = [\"10.0.0.1/8\"]\n",
    );
    for service in 0..SERVICES {
        let _ = write!(
            text,
            "[[service]]\nname = \"s{service}\"\nvip = \"198.18.{}.{}\"\nprotocol = \"tcp\"\n\
             ports = 80\nscheduler = \"wrr\"\n",
            service / 250,
            service % 250 + 1
        );
        let count = real_servers + if service == 0 { more } else { 0 };
        for server in 0..count {
            let _ = write!(
                text,
                "[[service.real_server]]\nname = \"r{server}\"\naddress = \"10.{}.{}.{}\"\n\
                 segment = \"back\"\nweight = {}\n",
                service / 250 + 1,
                service % 250,
                server + 1,
                1 + weight
            );
        }
    }
    text
}
