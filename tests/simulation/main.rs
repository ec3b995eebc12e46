//! A LAN around the core: learning switches, clients that resolve, connect and retransmit, real
//! servers that answer directly, links that lose, repeat and reorder. Virtual time, one seed,
//! and oracles that watch every frame. `VIPR_SIMULATION_SEED=n` runs one seed again,
//! `VIPR_SIMULATION_SEEDS=n` the first n of them.

#[path = "../harness/mod.rs"]
mod harness;

mod family;
mod lan;
mod oracles;
mod random;
mod reload;
mod stations;

use std::time::Duration;

use family::Family;
use lan::{Faults, Lan, Purpose, SORRY, Topology};

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
    seeds().into_iter().for_each(|seed| live_through_in(Family::V4, seed, topology, faults));
}

fn live_through_in(family: Family, seed: u64, topology: Topology, faults: Faults) {
    let mut lan = Lan::of(family, seed, topology, faults);
    lan.open_flows(40, Duration::from_secs(20));
    lan.run(Duration::from_secs(30));
    lan.heal();
    // What the faults have left is over by now, or goes on now.
    lan.run(Duration::from_secs(60));
    let before = lan.finished();
    lan.open_flows(20, Duration::from_secs(5));
    lan.run(Duration::from_secs(30));
    assert_eq!(lan.finished(), before + 20, "seed {seed}: every flow of a healthy LAN ends well");
    lan.check_at_the_end();
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
fn with_one_real_server_that_leaks_every_flow_ends_well() {
    for seed in seeds() {
        for topology in [Topology::TwoSegments, Topology::OneArm] {
            let mut lan = Lan::new(seed, topology, Faults::NONE);
            lan.leak(2);
            lan.open_flows(60, Duration::from_secs(120));
            lan.run(Duration::from_secs(150));
            assert_eq!(lan.finished(), 60, "seed {seed} {topology:?}");
            let conflicts = lan.status().conflicts;
            assert_eq!(conflicts.len(), 1, "seed {seed} {topology:?}: {conflicts:?}");
            assert_eq!(conflicts[0].real_server.as_deref(), Some("rs2"));
            // Three clients that ask every twenty seconds at most, five frames each time, and a
            // reminder each 0.9 s.
            let told = lan.told();
            assert!(
                (1..=3 * (8 * 5 + 5 + 167)).contains(&told),
                "seed {seed} {topology:?}: {told}"
            );
            lan.check_at_the_end();
        }
    }
}

/// A dead real server is out after two failed checks of at most three attempts each; it is back after
/// two good ones.
const CHECK: &str = "[service.check]\nkind = \"tcp\"\ninterval = \"1s\"\ntimeout = \"300ms\"\n\
                     retries = 2\ndelay_before_retry = \"100ms\"\nfall = 2\nrise = 2\n";
/// Both take less on a LAN without faults.
const NOTICED_WITHIN: Duration = Duration::from_secs(6);

/// Services that die and come back, first while links are bad, then while they are good. All along no
/// connection begins at a real server that is down by its check.
fn live_through_deaths(family: Family, seed: u64, topology: Topology) {
    let mut lan = Lan::with(Purpose::Checked(CHECK), family, seed, topology, Faults::BAD);
    lan.run(Duration::from_secs(5));
    let mut seen = 0;
    for round in 0..4 {
        let victim = 1 + ((seed + round) % 3) as u8;
        lan.set_serving(victim, false);
        lan.open_flows(20, Duration::from_secs(15));
        lan.run(Duration::from_secs(15));
        seen += usize::from(lan.down().contains(&format!("rs{victim}")));
        lan.set_serving(victim, true);
        lan.run(Duration::from_secs(10));
    }
    assert_eq!(seen, 4, "seed {seed} {topology:?}: who is dead for 15 s is down");
    lan.heal();
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.down(), [""; 0], "seed {seed} {topology:?}: on a healthy LAN all are up");

    lan.set_serving(2, false);
    lan.run(NOTICED_WITHIN);
    assert_eq!(lan.down(), ["rs2"], "seed {seed} {topology:?}");
    let (finished, of_it) = (lan.finished(), lan.flows_of(2));
    lan.open_flows(24, Duration::from_secs(5));
    lan.run(Duration::from_secs(15));
    assert_eq!(lan.finished(), finished + 24, "seed {seed} {topology:?}: on the other two");
    assert_eq!(lan.flows_of(2), of_it, "seed {seed} {topology:?}: none on the dead one");

    lan.set_serving(2, true);
    lan.run(NOTICED_WITHIN);
    assert_eq!(lan.down(), [""; 0], "seed {seed} {topology:?}: it is back");
    lan.open_flows(24, Duration::from_secs(5));
    lan.run(Duration::from_secs(15));
    assert_eq!(lan.finished(), finished + 48, "seed {seed} {topology:?}");
    assert!(lan.flows_of(2) > of_it, "seed {seed} {topology:?}: it has its share again");
    lan.check_at_the_end();
}

#[test]
fn services_that_die_and_come_back_are_out_and_in_again() {
    for seed in seeds() {
        for topology in [Topology::TwoSegments, Topology::OneArm] {
            live_through_deaths(Family::V4, seed, topology);
        }
    }
}

#[test]
fn in_ipv6_services_that_die_and_come_back_are_out_and_in_again() {
    for seed in seeds().into_iter().step_by(5) {
        for topology in [Topology::TwoSegments, Topology::OneArm] {
            live_through_deaths(Family::V6, seed, topology);
        }
    }
}

/// A third of the seeds: what the families share has been seen already.
#[test]
fn in_ipv6_both_topologies_live_through_the_same() {
    for seed in seeds().into_iter().step_by(3) {
        for topology in [Topology::TwoSegments, Topology::OneArm] {
            live_through_in(Family::V6, seed, topology, Faults::BAD);
        }
    }
}

#[test]
fn in_ipv6_restarts_that_keep_the_connections_harm_no_flow() {
    for seed in seeds().into_iter().step_by(10) {
        let finished = live_through_restarts(Family::V6, seed, Topology::TwoSegments, true);
        assert_eq!(finished, 60, "seed {seed}");
    }
}

/// Flows while the director is restarted again and again; how many ended well.
fn live_through_restarts(family: Family, seed: u64, topology: Topology, takes_up: bool) -> usize {
    let mut lan = Lan::of(family, seed, topology, Faults::SLOW);
    // First without: the clients find the VIP, the director its real servers.
    lan.run(Duration::from_secs(2));
    lan.open_flows(60, Duration::from_secs(20));
    for round in 0..20 {
        // Not in step with those who try again every second.
        lan.run(Duration::from_millis(1100 + 37 * round));
        lan.restart(Duration::from_millis(300 - 10 * round), takes_up);
    }
    lan.run(Duration::from_secs(60));
    lan.check_at_the_end();
    lan.finished()
}

#[test]
fn restarts_that_keep_the_connections_harm_no_flow() {
    for seed in seeds() {
        for topology in [Topology::TwoSegments, Topology::OneArm] {
            let finished = live_through_restarts(Family::V4, seed, topology, true);
            assert_eq!(finished, 60, "seed {seed} {topology:?}");
        }
    }
}

#[test]
fn restarts_that_do_not_keep_them_do() {
    let worst = (0..3)
        .map(|seed| live_through_restarts(Family::V4, seed, Topology::TwoSegments, false))
        .min();
    assert!(worst.is_some_and(|finished| finished < 60), "{worst:?}");
}

/// New flows go to the sorry server exactly while there is no quorum, and a client keeps to one
/// real server on both ports of the group.
#[test]
fn with_a_quorum_and_a_group_new_flows_go_where_the_rules_say() {
    let (mut turns, mut sorry, mut others) = (0, 0, 0);
    for seed in seeds() {
        for (family, topology) in
            [(Family::V4, Topology::TwoSegments), (Family::V6, Topology::OneArm)]
        {
            let faults = if seed % 2 == 0 { Faults::NONE } else { Faults::BAD };
            let mut lan = Lan::with(Purpose::Group, family, seed, topology, faults);
            lan.run(Duration::from_secs(2));
            lan.open_flows(80, Duration::from_secs(40));
            lan.change_weights(60, Duration::from_secs(40));
            lan.run(Duration::from_secs(60));
            lan.heal();
            let before = lan.finished();
            lan.open_flows(10, Duration::from_secs(5));
            lan.run(Duration::from_secs(60));
            assert!(lan.finished() >= before + 10, "seed {seed}");
            lan.check_at_the_end();
            turns += lan.group().turns;
            for (&(server, port), count) in &lan.group().placements {
                assert!([80, 443].contains(&port), "seed {seed}");
                *(if server == SORRY { &mut sorry } else { &mut others }) += count;
            }
            let ports = |of: u16| lan.group().placements.keys().any(|(_, port)| *port == of);
            assert!(ports(80) && ports(443), "seed {seed}: both are used");
        }
    }
    // One seed may have none; all together have many, or nothing was tried.
    if seeds().len() > 10 {
        assert!(turns > 100 && sorry > 200 && others > 1000, "{turns} {sorry} {others}");
    }
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
