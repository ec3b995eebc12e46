//! Frames that a real server sends back instead of answering.

use std::time::Duration;

use vipr::director::connections::ConnectionState;

use crate::harness::frames::{Tcp, arp_request, tcp};
use crate::harness::*;

#[test]
fn a_frame_sent_back_is_dropped_and_the_real_server_named_once_a_minute() {
    let mut world = World::new(&web());
    assert_eq!(world.tell("front", &tcp(40_000, "S").bytes()), "forwarded rs1");
    let back = Tcp { source_mac: RS1_FRONT_MAC, ..tcp(40_000, "S") }.bytes();
    assert_eq!(world.tell("front", &back), "dropped loop rs1");
    let fresh = Tcp { source_mac: RS1_FRONT_MAC, ..tcp(40_001, "S") }.bytes();
    assert_eq!(world.tell("front", &fresh), "dropped loop rs1", "also without a connection");
    let told = world.take_events();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("real server rs1: sends traffic for VIP 192.0.2.10 back"));
    world.advance(Duration::from_secs(60));
    world.tell("front", &back);
    assert_eq!(world.take_events().len(), 1);
}

#[test]
fn the_service_named_is_the_one_the_frame_was_for() {
    let more = format!(
        "{}\n[[service]]\nname = \"tls\"\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 443\n{}",
        web(),
        real_server("rs1", 11, 1, "vip_mac = [\"52:54:00:00:01:11\"]")
    );
    let mut world = World::new(&more);
    for (destination_port, expected) in [(80, "web"), (443, "tls")] {
        let there = Tcp { destination_port, ..tcp(1, "S") };
        let back = Tcp { source_mac: RS1_FRONT_MAC, ..there.clone() }.bytes();
        for what in ["without a connection", "with one"] {
            let (verdict, _) = world.offer("front", &back);
            let service = verdict.service.and_then(|id| world.director.service_name(id)).cloned();
            assert_eq!(service.as_deref(), Some(expected), "{what}");
            world.offer("front", &there.bytes());
        }
    }
}

#[test]
fn a_real_server_that_is_a_client_itself_is_served() {
    let mut world = World::new(&web());
    let own = Tcp { source_mac: RS1_FRONT_MAC, source: RS1, ..tcp(40_000, "S") }.bytes();
    assert_eq!(world.tell("front", &own), "forwarded rs1");
}

#[test]
fn a_card_that_answered_for_a_rip_on_the_vip_segment_is_known_from_then_on() {
    let mut world = World::new(&web());
    let card = vipr::wire::MacAddr([0x52, 0x54, 0, 0, 9, 0x12]);
    let back = Tcp { source_mac: card, ..tcp(40_000, "S") }.bytes();
    assert_eq!(world.tell("front", &back), "forwarded rs1", "a station like any other so far");
    assert_eq!(world.tell("front", &arp_request(card, RS2, CLIENT)), "consumed");
    assert_eq!(world.tell("front", &back), "dropped loop rs2");

    // Not for ever: it might be another station's, and its clients must not suffer for that.
    world.advance(Duration::from_secs(299));
    assert_eq!(world.tell("front", &arp_request(card, RS2, CLIENT)), "consumed");
    world.advance(Duration::from_secs(299));
    assert_eq!(world.tell("front", &back), "dropped loop rs2", "heard of again");
    world.advance(Duration::from_secs(1));
    assert!(world.tell("front", &back).starts_with("forwarded"));
    assert_eq!(world.tell("front", &arp_request(card, RS2, CLIENT)), "consumed");
    assert_eq!(world.tell("front", &back), "dropped loop rs2");
}

#[test]
fn the_cards_learnt_for_a_rip_are_few_and_the_configured_ones_stay() {
    let mut world = World::new(&web());
    let card = |last| vipr::wire::MacAddr([0x52, 0x54, 0, 0, 9, last]);
    let is_known = |world: &mut World, mac| {
        let back = Tcp { source_mac: mac, ..tcp(40_000, "S") }.bytes();
        world.tell("front", &back) == "dropped loop rs1"
    };
    for _ in 0..2 {
        assert_eq!(world.tell("front", &arp_request(RS1_FRONT_MAC, RS1, CLIENT)), "consumed");
        for last in 0..100 {
            assert_eq!(world.tell("front", &arp_request(card(last), RS1, CLIENT)), "consumed");
        }
        let known = (0..100).filter(|last| is_known(&mut world, card(*last))).count();
        assert_eq!(known, 4);
        world.advance(Duration::from_secs(300));
        assert!(is_known(&mut world, RS1_FRONT_MAC));
        assert!(!is_known(&mut world, card(0)));
    }
}

#[test]
fn one_armed_the_real_servers_own_mac_gives_it_away() {
    let toml = format!(
        "[segment.lan]\nrole = \"both\"\ntap = \"vipr-lan\"\nmac = \"02:00:00:00:01:01\"\n\
         address = [\"10.0.0.1/24\"]\n\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\n\
         protocol = \"tcp\"\nports = 80\nscheduler = \"rr\"\n{}",
        real_server("rs1", 11, 1, "").replace("\"back\"", "\"lan\"")
    );
    let mut world = World::new(&toml);
    world.take_sent();
    assert_eq!(world.tell("lan", &tcp(40_000, "S").bytes()), "forwarded rs1");
    let forwarded = world.take_one("lan");
    assert_eq!(forwarded[..12], [RS1_MAC.0, FRONT_MAC.0].concat());
    assert_eq!(world.tell("lan", &forwarded), "dropped own_frame", "reflected by the bridge");
    let back = Tcp { source_mac: RS1_MAC, ..tcp(40_000, "S") }.bytes();
    assert_eq!(world.tell("lan", &back), "dropped loop rs1");
}

/// A SYN starts over in the place of a closing connection, but not one that came back.
#[test]
fn a_syn_that_came_back_ends_no_connection() {
    let mut world = World::new(&web());
    for flags in ["S", "A", "FA"] {
        assert_eq!(world.tell("front", &tcp(40_000, flags).bytes()), "forwarded rs1");
    }
    let back = Tcp { source_mac: RS1_FRONT_MAC, ..tcp(40_000, "S") }.bytes();
    assert_eq!(world.tell("front", &back), "dropped loop rs1");
    assert_eq!(world.connections()[0].state, ConnectionState::FinWait);
    assert_eq!(world.tell("front", &tcp(40_000, "S").bytes()), "forwarded rs1", "its own does");
    assert_eq!(world.status().services[0].traffic.connections, 2);
}
