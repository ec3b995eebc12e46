//! Who gets a new connection.

use std::time::Duration;

use crate::harness::frames::{Tcp, tcp};
use crate::harness::*;
use vipr::director::Command;

fn sequence(world: &mut World, ports: std::ops::Range<u16>) -> Vec<String> {
    ports.map(|port| world.tell("front", &tcp(port, "S").bytes())).collect()
}

fn names(verdicts: &[String]) -> String {
    verdicts.iter().map(|verdict| &verdict["forwarded rs".len()..]).collect()
}

#[test]
fn wrr_for_weights_4_3_2() {
    let mut world = World::new(&web());
    assert_eq!(names(&sequence(&mut world, 1..19)), "112123123112123123");
}

#[test]
fn rr_goes_round_whatever_the_weights() {
    let mut world = World::new(&web().replace("wrr", "rr"));
    assert_eq!(names(&sequence(&mut world, 1..8)), "1231231");
}

#[test]
fn rr_goes_on_where_it_was_when_a_server_ahead_of_the_last_choice_goes() {
    let rr = web().replace("wrr", "rr");
    let mut world = World::new(&rr);
    assert_eq!(names(&sequence(&mut world, 1..3)), "12");
    let rs1 = real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]");
    assert!(rr.contains(&rs1));
    world.director.apply(world.now, snapshot(&rr.replace(&rs1, "")));
    assert_eq!(names(&sequence(&mut world, 3..6)), "323");
    world.director.apply(world.now, snapshot(&rr));
    assert_eq!(names(&sequence(&mut world, 6..9)), "123", "behind 3, from the head");
}

#[test]
fn hashed_clients_have_a_server_of_their_own_and_with_fallback_another_meanwhile() {
    for (scheduler, options) in [
        ("sh", "{ fallback = true }"),
        ("mh", "{ fallback = true, table_size = 251 }"),
        ("mh", "{}"),
    ] {
        let toml = web().replace(
            "scheduler = \"wrr\"",
            &format!("scheduler = \"{scheduler}\"\nscheduler_options = {options}"),
        );
        let mut world = World::new(&toml);
        let from = |source, port| Tcp { source: [198, 51, 100, source], ..tcp(port, "S") }.bytes();
        let first: Vec<String> =
            (0..60).map(|source| world.tell("front", &from(source, 1))).collect();
        for name in ["rs1", "rs2", "rs3"] {
            let all = first.iter().filter(|verdict| verdict.ends_with(name)).count();
            assert!(all > 3, "{scheduler}: {first:?}");
        }
        world.director.apply(world.now, snapshot(&toml.replace("weight = 4", "weight = 0")));
        for (source, before) in (0..60).zip(&first) {
            let now = world.tell("front", &from(source, 2));
            let expected = match (before.as_str(), options.contains("fallback"), scheduler) {
                ("forwarded rs1", true, _) => now != "forwarded rs1" && now != "replied",
                ("forwarded rs1", false, _) => now == "replied",
                (_, _, "mh") => now == *before,
                _ => now != "replied",
            };
            assert!(expected, "{scheduler} {options}: {before}, then {now}");
        }
        world.director.apply(world.now, snapshot(&toml));
        let after: Vec<String> =
            (0..60).map(|source| world.tell("front", &from(source, 3))).collect();
        assert_eq!(first, after, "{scheduler} {options}");
    }
}

/// A weight set by hand makes mh deal its slots anew, between frames if the table is large.
#[test]
fn a_large_table_is_dealt_in_steps_and_is_in_use_only_when_it_is_whole() {
    let toml = web().replace(
        "scheduler = \"wrr\"",
        "scheduler = \"mh\"\nscheduler_options = { table_size = 131071 }",
    );
    let mut world = World::new(&toml);
    let from = |source, port| Tcp { source: [198, 51, 100, source], ..tcp(port, "S") }.bytes();
    let ask = |world: &mut World, port| -> Vec<String> {
        (0..100).map(|source| world.tell("front", &from(source, port))).collect()
    };
    let before = ask(&mut world, 1);
    let order = Command::Weight {
        service: "web".to_owned(),
        real_server: "rs1".to_owned(),
        weight: Some(1),
    };
    world.director.handle_command(world.now, order);
    let (mut steps, mut port) = (0, 2);
    while world.director.is_applying() {
        assert_eq!(ask(&mut world, port), before, "step {steps}");
        world.director.continue_apply(world.now);
        (steps, port) = (steps + 1, port + 1);
    }
    assert!(steps > 2, "{steps} steps");
    let count = |verdicts: &[String]| verdicts.iter().filter(|v| v.ends_with("rs1")).count();
    let after = ask(&mut world, port);
    assert!(count(&after) < count(&before) / 2 + 5, "{} {}", count(&before), count(&after));
}

#[test]
fn lc_takes_the_least_loaded_and_wlc_by_weight() {
    let mut world = World::new(&web().replace("wrr", "lc"));
    assert_eq!(names(&sequence(&mut world, 1..7)), "123123");
    // The second server's connections end: it is next, twice.
    for port in [2, 5] {
        world.tell("front", &tcp(port, "A").bytes());
        world.tell("front", &tcp(port, "R").bytes());
    }
    // (A RST to a half-open connection leaves it half open, in IPVS too.)
    assert_eq!(names(&sequence(&mut world, 10..12)), "22");

    let mut world = World::new(&web().replace("wrr", "wlc"));
    let picks = names(&sequence(&mut world, 1..91));
    let count = |digit| picks.matches(digit).count();
    assert_eq!((count("1"), count("2"), count("3")), (40, 30, 20));
}

#[test]
fn a_quiesced_real_server_keeps_its_connections_and_gets_no_more() {
    let mut world = World::new(&web());
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    let quiesced = web().replace("weight = 4", "weight = 0");
    world.director.apply(world.now, snapshot(&quiesced));
    let picks = names(&sequence(&mut world, 2..12));
    assert!(!picks.contains('1'), "{picks}");
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded rs1");
}

#[test]
fn thresholds_have_hysteresis() {
    let limited = real_server("rs1", 11, 1, "upper_threshold = 4\nlower_threshold = 2");
    let mut world = World::new(&format!(
        "{SEGMENTS}\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80\n\
         scheduler = \"rr\"\n{limited}"
    ));
    assert_eq!(names(&sequence(&mut world, 1..5)), "1111");
    assert_eq!(world.tell("front", &tcp(5, "S").bytes()), "replied", "port unreachable");
    let ends = |world: &mut World, port| {
        world.tell("front", &tcp(port, "A").bytes());
        world.tell("front", &tcp(port, "R").bytes());
        world.advance(Duration::from_secs(11));
    };
    ends(&mut world, 1);
    ends(&mut world, 2);
    assert_eq!(world.tell("front", &tcp(6, "S").bytes()), "replied", "2 is not below 2");
    ends(&mut world, 3);
    assert_eq!(world.tell("front", &tcp(7, "S").bytes()), "forwarded rs1");
    let told = world.take_events();
    assert!(told[0].contains("has 4 connections, its upper threshold"), "{told:?}");
    assert!(told[1].contains("down to 1 connections"), "{told:?}");

    // Without a lower threshold: until below three quarters of the upper one.
    let mut world = World::new(&format!(
        "{SEGMENTS}\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80\n\
         scheduler = \"rr\"\n{}",
        real_server("rs1", 11, 1, "upper_threshold = 4")
    ));
    assert_eq!(names(&sequence(&mut world, 1..5)), "1111");
    ends(&mut world, 1);
    assert_eq!(world.tell("front", &tcp(6, "S").bytes()), "replied", "3 is not below 3");
    ends(&mut world, 2);
    assert_eq!(world.tell("front", &tcp(7, "S").bytes()), "forwarded rs1");
}

#[test]
fn exact_ports_beat_ranges_beat_any() {
    let service = |name: &str, ports: &str| {
        format!(
            "\n[[service]]\nname = \"{name}\"\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\n\
             ports = {ports}\nscheduler = \"rr\"\n{}",
            real_server(&format!("rs-{name}"), 11, 1, "")
        )
    };
    let mut world = World::new(&format!(
        "{SEGMENTS}{}{}{}",
        service("any", "\"any\""),
        service("range", "\"8000-8099\""),
        service("exact", "[80, 8080]"),
    ));
    let rows = [
        (80, "exact"),
        (8080, "exact"),
        (8000, "range"),
        (8099, "range"),
        (7999, "any"),
        (8100, "any"),
        (1, "any"),
        (65_535, "any"),
    ];
    for (destination_port, name) in rows {
        let frame = Tcp { destination_port, ..tcp(40_000, "S") }.bytes();
        assert_eq!(world.tell("front", &frame), format!("forwarded rs-{name}"));
    }
}

#[test]
fn persistent_clients_return_to_their_real_server() {
    let toml = web().replace(
        "scheduler = \"wrr\"",
        "scheduler = \"rr\"\npersistence = { timeout = \"5m\", netmask = 24 }",
    );
    let mut world = World::new(&toml);
    let from = |source: [u8; 4], port| Tcp { source, ..tcp(port, "S") }.bytes();
    assert_eq!(world.tell("front", &from([198, 51, 100, 7], 1)), "forwarded rs1");
    assert_eq!(world.tell("front", &from([198, 51, 101, 7], 1)), "forwarded rs2");
    assert_eq!(world.tell("front", &from([198, 51, 100, 7], 2)), "forwarded rs1");
    assert_eq!(world.tell("front", &from([198, 51, 100, 8], 1)), "forwarded rs1", "same /24");
    assert_eq!(world.tell("front", &from([198, 51, 102, 7], 1)), "forwarded rs3");
    let rs1 = world.status().services[0].real_servers[0].clone();
    assert_eq!((rs1.active, rs1.inactive), (3, 0), "templates are no connections");
}

#[test]
fn a_persistent_client_of_a_real_server_that_cannot_serve_it_goes_to_another() {
    let persistent = web()
        .replace("scheduler = \"wrr\"", "scheduler = \"rr\"\npersistence = { timeout = \"5m\" }");
    let rs1 = real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]");
    let rows = [
        ("quiesced", persistent.replace("weight = 4", "weight = 0"), true),
        (
            "at its threshold",
            persistent.replace("weight = 4", "weight = 4\nupper_threshold = 1"),
            true,
        ),
        ("removed", persistent.replace(&rs1, ""), false),
        ("not found", persistent.replace("mac = \"52:54:00:00:00:11\"", ""), false),
    ];
    for (what, next, stays) in rows {
        let mut world = World::new(&persistent);
        assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
        world.director.apply(world.now, snapshot(&next));
        world.advance(Duration::from_secs(4));
        let second = world.tell("front", &tcp(2, "S").bytes());
        assert_eq!(second == "forwarded rs1", stays, "{what}: {second}");
        assert_eq!(world.tell("front", &tcp(3, "S").bytes()), second, "{what}, from then on");
    }
}

#[test]
fn a_templates_deadline_binds_at_lookup_to_the_nanosecond() {
    let persistent = web()
        .replace("scheduler = \"wrr\"", "scheduler = \"rr\"\npersistence = { timeout = \"1m\" }");
    for (pause, expected) in [(59_999_999_999, "forwarded rs1"), (60_000_000_000, "forwarded rs2")]
    {
        let mut world = World::new(&persistent);
        assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
        world.tell("front", &tcp(1, "A").bytes());
        world.tell("front", &tcp(1, "R").bytes());
        world.advance(Duration::from_nanos(pause));
        assert_eq!(world.tell("front", &tcp(2, "S").bytes()), expected);
    }
}

#[test]
fn a_template_lives_as_long_as_connections_it_placed() {
    let toml = web().replace(
        "scheduler = \"wrr\"",
        "scheduler = \"rr\"\npersistence = { timeout = \"1m\", netmask = 32 }",
    );
    let mut world = World::new(&toml);
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    world.tell("front", &tcp(1, "A").bytes());
    world.advance(Duration::from_secs(300));
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "forwarded rs1", "1 is established");
    world.advance(Duration::from_secs(2000));
    assert_eq!(world.connections(), []);
    assert_eq!(world.tell("front", &tcp(3, "S").bytes()), "forwarded rs2", "forgotten");
}
