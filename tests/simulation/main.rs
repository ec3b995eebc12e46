//! A LAN around the core: learning switches, clients that resolve, connect and retransmit, real
//! servers that answer directly, links that lose, repeat and reorder. Virtual time, one seed,
//! and oracles that watch every frame. `VIPR_SIMULATION_SEED=n` runs one seed again,
//! `VIPR_SIMULATION_SEEDS=n` the first n of them.

#[path = "../harness/mod.rs"]
mod harness;

mod lan;
mod oracles;
mod random;
mod reload;
mod stations;

use std::time::Duration;

use lan::{Faults, Lan, Topology};

/// Seeds of one run of the tests. Each is a LAN of its own for a minute of its own time.
const SEEDS: u64 = 30;

fn seeds() -> Vec<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
    };
    match number("VIPR_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("VIPR_SIMULATION_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// Faults for a while, then none: nothing may go wrong in the first phase, and everything must
/// go right in the second.
fn live_through(topology: Topology, faults: Faults) {
    for seed in seeds() {
        let mut lan = Lan::new(seed, topology, faults);
        lan.open_flows(40, Duration::from_secs(20));
        lan.run(Duration::from_secs(30));
        lan.heal();
        // What the faults have left is over by now, or goes on now.
        lan.run(Duration::from_secs(60));
        let before = lan.finished();
        lan.open_flows(20, Duration::from_secs(5));
        lan.run(Duration::from_secs(30));
        assert_eq!(
            lan.finished(),
            before + 20,
            "seed {seed}: every flow of a healthy LAN ends well"
        );
        lan.check_at_the_end();
    }
}

#[test]
fn on_two_healthy_segments_every_flow_ends_well() {
    for seed in seeds() {
        let mut lan = Lan::new(seed, Topology::TwoSegments, Faults::NONE);
        lan.open_flows(60, Duration::from_secs(10));
        lan.run(Duration::from_secs(40));
        assert_eq!(lan.finished(), 60, "seed {seed}");
        lan.check_at_the_end();
        lan.check_spread();
    }
}

#[test]
fn two_segments_that_lose_repeat_and_reorder() {
    live_through(Topology::TwoSegments, Faults::BAD);
}

#[test]
fn one_segment_that_loses_repeats_and_reorders() {
    live_through(Topology::OneArm, Faults::BAD);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let digest = |seed| {
        let mut lan = Lan::new(seed, Topology::TwoSegments, Faults::BAD);
        lan.open_flows(20, Duration::from_secs(5));
        lan.run(Duration::from_secs(20));
        lan.digest()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}
