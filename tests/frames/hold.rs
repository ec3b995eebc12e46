//! Real servers' MACs found by ARP: asked for at once, frames held meanwhile, silence told.

use std::time::Duration;

use vipr::director::report::RealServerState;
use vipr::director::{DropReason, Limits};

use crate::harness::frames::{arp_reply, arp_request, tcp, with_macs};
use crate::harness::*;

/// Two real servers without MACs.
fn unresolved() -> String {
    let server = |name, last| {
        real_server(name, last, 1, "").replace(&format!("mac = \"52:54:00:00:00:{last}\"\n"), "")
    };
    format!(
        "{SEGMENTS}\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\n\
         ports = 80\nscheduler = \"rr\"\n{}{}",
        server("rs1", 11),
        server("rs2", 12)
    )
}

fn on_back(world: &mut World) -> Vec<Vec<u8>> {
    let sent = world.take_sent();
    sent.into_iter().filter(|sent| sent.segment == "back").map(|sent| sent.bytes).collect()
}

#[test]
fn real_servers_are_asked_for_before_traffic_needs_them() {
    let mut world = World::new(&unresolved());
    let expected = [arp_request(BACK_MAC, BACK_DIP, RS1), arp_request(BACK_MAC, BACK_DIP, RS2)];
    assert_eq!(on_back(&mut world), expected);
}

#[test]
fn without_an_address_of_its_own_the_director_probes() {
    let toml = unresolved().replace("address = [\"10.0.0.1/24\"]", "");
    let mut world = World::new(&toml);
    assert_eq!(on_back(&mut world)[0], arp_request(BACK_MAC, [0; 4], RS1));
}

#[test]
fn the_director_asks_from_its_address_in_the_real_servers_network() {
    let several = "address = [\"172.16.0.1/24\", \"10.0.0.1/24\", \"10.9.0.1/24\"]";
    let toml = unresolved().replace("address = [\"10.0.0.1/24\"]", several);
    let asked = on_back(&mut World::new(&toml));
    assert_eq!(asked[0], arp_request(BACK_MAC, BACK_DIP, RS1));
}

#[test]
fn frames_are_held_and_released_in_order_when_the_answer_comes() {
    let mut world = World::new(&unresolved());
    world.take_sent();
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "held rs1");
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "held rs2");
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "held rs1");
    assert_eq!(world.director.counters().held, 3);
    assert_eq!(world.take_sent(), []);
    assert_eq!(world.tell("back", &arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP)), "consumed");
    let released = on_back(&mut world);
    let mut expected = tcp(1, "S").bytes();
    expected[..12].copy_from_slice(&[RS1_MAC.0, BACK_MAC.0].concat());
    assert_eq!(released, [expected.clone(), expected]);
    assert_eq!(world.director.counters().held, 1);
    assert_eq!(world.director.counters().forwarded, 2);
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded rs1");
    let told = world.take_events();
    assert_eq!(told, ["real server rs1 (10.0.0.11): up on segment back, at 52:54:00:00:00:11"]);
}

#[test]
fn a_silent_real_server_is_down_for_new_connections_and_says_so() {
    let mut world = World::new(&unresolved());
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "held rs1");
    world.tell("back", &arp_reply(RS2_MAC, RS2, BACK_MAC, BACK_DIP));
    let states = |world: &mut World| {
        let status = world.status();
        status.services[0].real_servers.iter().map(|server| server.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&mut world), [RealServerState::Resolving, RealServerState::Up]);
    world.advance(Duration::from_secs(3));
    assert_eq!(states(&mut world), [RealServerState::Down, RealServerState::Up]);
    assert!(world.take_events().iter().any(|line| line.contains("rs1 (10.0.0.11): down")));
    assert_eq!(world.drops(DropReason::HoldExpired), 1, "what was held is dropped, counted");
    for port in 10..20 {
        assert_eq!(world.tell("front", &tcp(port, "S").bytes()), "forwarded rs2");
    }
    // The client's retransmitted SYN goes to a server that is there.
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs2");
    // And it comes back.
    world.tell("back", &arp_request(RS1_MAC, RS1, BACK_DIP));
    assert_eq!(states(&mut world), [RealServerState::Up, RealServerState::Up]);
}

#[test]
fn a_real_server_that_was_found_is_asked_again_by_unicast_then_by_broadcast() {
    let mut world = World::new(&unresolved());
    world.tell("back", &arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP));
    world.advance(Duration::from_secs(1));
    on_back(&mut world);
    world.advance(Duration::from_secs(35));
    let broadcast = arp_request(BACK_MAC, BACK_DIP, RS1);
    let unicast = with_macs(&broadcast, RS1_MAC, BACK_MAC);
    let mut asked = on_back(&mut world);
    asked.retain(|frame| frame[38..42] == RS1);
    assert_eq!(asked, [vec![unicast; 3], vec![broadcast; 3]].concat());
}

#[test]
fn connections_of_a_real_server_that_went_silent_go_to_its_last_mac() {
    let mut world = World::new(&unresolved());
    world.tell("back", &arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP));
    world.tell("back", &arp_reply(RS2_MAC, RS2, BACK_MAC, BACK_DIP));
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    world.tell("front", &tcp(1, "A").bytes());
    world.advance(Duration::from_secs(60));
    assert_eq!(world.status().services[0].real_servers[0].state, RealServerState::Down);
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded rs1");
}

#[test]
fn strangers_and_other_segments_teach_nothing() {
    let mut world = World::new(&unresolved());
    let stranger = arp_reply(RS3_MAC, RS3, BACK_MAC, BACK_DIP);
    assert_eq!(world.tell("back", &stranger), "dropped arp_not_ours");
    let elsewhere = arp_reply(RS1_MAC, RS1, FRONT_MAC, FRONT_DIP);
    assert_eq!(world.tell("front", &elsewhere), "consumed", "noted as a card of rs1, no more");
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "held rs1");
}

#[test]
fn the_hold_queue_is_bounded_and_counts_what_it_turned_away() {
    let limits = Limits { hold_frames: 2, ..Limits::default() };
    let mut world = World::with_limits(&unresolved(), limits);
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "held rs1");
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "held rs2");
    assert_eq!(world.tell("front", &tcp(3, "S").bytes()), "dropped hold_full rs1");
    assert_eq!(world.drops(DropReason::HoldFull), 1);
}
