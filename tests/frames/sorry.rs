//! A quorum, and a sorry server for when there is none.

use std::time::Duration;

use vipr::director::Command;
use vipr::director::report::RealServerState;

use crate::harness::frames::{ping, tcp};
use crate::harness::*;

const SORRY_MAC: &str = "52:54:00:00:00:99";

fn sorry(more: &str) -> String {
    web().replace(
        "scheduler = \"wrr\"",
        &format!(
            "scheduler = \"wrr\"\n{more}\n[service.sorry_server]\nname = \"sorry\"\n\
             address = \"10.0.0.99\"\nmac = \"{SORRY_MAC}\"\nsegment = \"back\"\n"
        ),
    )
}

fn set_weight(world: &mut World, real_server: &str, weight: u32) {
    let (service, real_server) = ("web".to_owned(), real_server.to_owned());
    let command = Command::Weight { service, real_server, weight: Some(weight) };
    world.director.handle_command(world.now, command);
    // Up to something that is due, after which events are told.
    world.advance(Duration::from_secs(2));
}

#[test]
fn without_any_real_server_new_connections_go_to_the_sorry_server() {
    let mut world = World::new(&sorry(""));
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    world.take_events();
    for name in ["rs1", "rs2", "rs3"] {
        set_weight(&mut world, name, 0);
    }
    assert_eq!(
        world.take_events(),
        ["service web: down, its real servers that are up weigh 0 and its quorum is 1; new \
          connections go to sorry server sorry"]
    );
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "forwarded sorry");
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded rs1", "what goes on");
    assert_eq!(world.tell("front", &ping(VIP, b"up?")), "dropped vip_down");
    let service = world.status().services[0].clone();
    assert!(!service.up);
    let report = service.sorry_server.unwrap();
    assert_eq!((report.state, report.inactive + report.active), (RealServerState::Sorry, 1));
    assert_eq!(service.real_servers.len(), 3, "it is none of them");

    set_weight(&mut world, "rs2", 1);
    assert_eq!(
        world.take_events(),
        ["service web: up, its real servers that are up weigh 1 and its quorum is 1"]
    );
    assert_eq!(world.tell("front", &tcp(3, "S").bytes()), "forwarded rs2");
    assert_eq!(world.tell("front", &tcp(2, "A").bytes()), "forwarded sorry", "what goes on");
    assert_eq!(world.tell("front", &ping(VIP, b"up?")), "replied");
}

#[test]
fn without_a_sorry_server_there_is_an_answer_only() {
    let mut world = World::new(&web());
    for name in ["rs1", "rs2", "rs3"] {
        set_weight(&mut world, name, 0);
    }
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "replied", "port unreachable");
}

#[test]
fn the_sorry_server_takes_what_overloaded_real_servers_cannot() {
    let limited = sorry("").replace("weight = 4", "weight = 4\nupper_threshold = 1");
    let one = limited.split("\n[[service.real_server]]\nname = \"rs2\"").next().unwrap();
    let mut world = World::new(one);
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "forwarded sorry");
    assert!(world.status().services[0].live_weight > 0, "it is up, but full");
}

/// Weights 4, 3, 2; keepalived's rule: lost below quorum − hysteresis, gained from quorum +
/// hysteresis on.
#[test]
fn a_quorum_has_hysteresis() {
    let mut world = World::new(&sorry("quorum = 5\nquorum_hysteresis = 2"));
    let steps = [
        // rs1's weight, of the others 5 together: the sum, and who gets a new connection.
        ([4, 3, 2], true),
        ([0, 3, 2], true),
        ([0, 1, 2], true),
        ([0, 0, 2], false),
        ([0, 3, 2], false),
        ([1, 3, 2], false),
        ([2, 3, 2], true),
        ([0, 2, 1], true),
        ([0, 1, 1], false),
    ];
    for (port, (weights, up)) in steps.into_iter().enumerate() {
        // Upwards first: only the sum that comes out is to count.
        for (name, weight) in ["rs1", "rs2", "rs3"].into_iter().zip(weights).rev() {
            set_weight(&mut world, name, weight);
        }
        let sum: u32 = weights.iter().sum();
        let service = world.status().services[0].clone();
        assert_eq!((service.live_weight, service.up), (u64::from(sum), up), "{weights:?}");
        let told = world.tell("front", &tcp(100 + port as u16, "S").bytes());
        assert_eq!(told == "forwarded sorry", !up, "{weights:?}: {told}");
    }
}

#[test]
fn without_a_sorry_server_the_rest_goes_on_below_the_quorum() {
    let toml = web().replace("scheduler = \"wrr\"", "scheduler = \"wrr\"\nquorum = 6");
    let mut world = World::new(&toml);
    set_weight(&mut world, "rs1", 0);
    let told = world.take_events();
    assert_eq!(
        told,
        ["service web: down, its real servers that are up weigh 5 and its quorum is 6; those \
          that are left go on"]
    );
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs2");
    assert_eq!(world.tell("front", &ping(VIP, b"up?")), "dropped vip_down");
}

#[test]
fn a_persistent_client_comes_back_from_the_sorry_server() {
    let mut world = World::new(&sorry("quorum = 6\npersistence = {}"));
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    set_weight(&mut world, "rs2", 0);
    set_weight(&mut world, "rs3", 0);
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "forwarded sorry");
    assert_eq!(world.tell("front", &tcp(3, "S").bytes()), "forwarded sorry");
    set_weight(&mut world, "rs2", 3);
    assert_eq!(world.tell("front", &tcp(4, "S").bytes()), "forwarded rs1", "its own again");
}

#[test]
fn a_quorum_and_a_sorry_server_may_change_while_connections_go_on() {
    let mut world = World::new(&sorry("quorum = 20"));
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded sorry");
    // Another sorry server: the old one finishes what it has.
    let other = sorry("quorum = 20")
        .replace(
            "name = \"sorry\"\naddress = \"10.0.0.99\"",
            "name = \"new\"\naddress = \"10.0.0.98\"",
        )
        .replace(SORRY_MAC, "52:54:00:00:00:98");
    world.director.apply(world.now, snapshot(&other));
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded sorry");
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "forwarded new");
    // None: the rest goes on.
    world.director.apply(world.now, snapshot(&web().replace("\"wrr\"", "\"wrr\"\nquorum = 20")));
    assert_eq!(world.tell("front", &tcp(2, "A").bytes()), "forwarded new");
    assert_eq!(world.tell("front", &tcp(3, "S").bytes()), "forwarded rs1");
    // The first again: it is the one that drains.
    world.director.apply(world.now, snapshot(&sorry("quorum = 20")));
    let report = world.status().services[0].sorry_server.clone().unwrap();
    assert_eq!((report.name.as_str(), report.active), ("sorry", 1));
    // It becomes a real server, and keeps its connection.
    let promoted = format!("{}{}", web(), real_server("sorry", 99, 1, ""));
    world.director.apply(world.now, snapshot(&promoted));
    let names: Vec<(String, u32)> = world.status().services[0]
        .real_servers
        .iter()
        .filter(|found| found.state != RealServerState::Draining)
        .map(|found| (found.name.clone(), found.active))
        .collect();
    assert_eq!(names[3], ("sorry".to_owned(), 1));
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded sorry");
    // A lower quorum is there at once.
    world.director.apply(world.now, snapshot(&sorry("quorum = 9")));
    assert!(world.tell("front", &tcp(7, "S").bytes()).starts_with("forwarded rs"));
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded sorry");
}

#[test]
fn a_sorry_server_goes_with_its_service_and_with_reset_at_once() {
    for (on_removal, after) in [("drain", "forwarded sorry"), ("reset", "dropped not_vip")] {
        let toml = sorry(&format!("quorum = 20\non_removal = \"{on_removal}\""));
        let mut world = World::new(&toml);
        assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded sorry");
        world.director.apply(world.now, snapshot(SEGMENTS));
        assert_eq!(world.tell("front", &tcp(1, "A").bytes()), after, "{on_removal}");
        world.advance(Duration::from_secs(1000));
        assert_eq!(world.status().services, [], "{on_removal}");
    }
}
