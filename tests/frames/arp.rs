//! ARP: answered for VIPs on VIP segments and for DIPs on their own, and for nothing else.

use std::time::Duration;

use etherparse::ArpOperation;
use vipr::wire::MacAddr;

use crate::harness::frames::{arp, arp_reply, arp_request};
use crate::harness::*;

const NOBODY: [u8; 4] = [0, 0, 0, 0];

#[test]
fn requests_and_probes_for_a_vip_are_answered_by_unicast() {
    let mut world = World::new(&web());
    for sender in [CLIENT, NOBODY] {
        world.take_sent();
        let request = arp_request(CLIENT_MAC, sender, VIP);
        assert_eq!(world.tell("front", &request), "replied");
        let expected = arp(ArpOperation::REPLY, CLIENT_MAC, (FRONT_MAC, VIP), (CLIENT_MAC, sender));
        assert_eq!(world.take_one("front"), expected);
    }
}

#[test]
fn a_request_sent_to_the_director_alone_is_answered_too() {
    let mut world = World::new(&web());
    world.take_sent();
    let request = arp(ArpOperation::REQUEST, FRONT_MAC, (CLIENT_MAC, CLIENT), (MacAddr::ZERO, VIP));
    assert_eq!(world.tell("front", &request), "replied");
    assert_eq!(&world.take_one("front")[..6], CLIENT_MAC.0);
}

#[test]
fn a_dip_is_answered_on_its_own_segment_only() {
    let mut world = World::new(&web());
    let rows = [
        ("front", FRONT_DIP, "replied"),
        ("back", BACK_DIP, "replied"),
        ("front", BACK_DIP, "dropped arp_not_ours"),
        ("back", FRONT_DIP, "dropped arp_not_ours"),
    ];
    for (segment, target, expected) in rows {
        let request = arp_request(CLIENT_MAC, [192, 0, 2, 77], target);
        assert_eq!(world.tell(segment, &request), expected, "{target:?} on {segment}");
    }
}

#[test]
fn nothing_else_is_ever_answered() {
    let mut world = World::new(&web());
    world.take_sent();
    let mut rows = vec![
        ("back", VIP, "dropped arp_not_ours"),
        ("front", RS1, "dropped arp_not_ours"),
        ("back", RS1, "dropped arp_not_ours"),
        ("front", CLIENT, "dropped arp_not_ours"),
    ];
    for last in (0..=255).filter(|last| ![VIP[3], FRONT_DIP[3]].contains(last)) {
        rows.push(("front", [192, 0, 2, last], "dropped arp_not_ours"));
    }
    for (segment, target, expected) in rows {
        let request = arp_request(CLIENT_MAC, [198, 51, 100, 9], target);
        assert_eq!(world.tell(segment, &request), expected, "{target:?} on {segment}");
    }
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_request_to_another_station_is_not_answered() {
    let mut world = World::new(&web());
    let request = arp(ArpOperation::REQUEST, RS1_MAC, (CLIENT_MAC, CLIENT), (MacAddr::ZERO, VIP));
    assert_eq!(world.tell("front", &request), "dropped foreign_mac");
}

#[test]
fn impossible_senders_are_dropped() {
    let mut world = World::new(&web());
    let group = MacAddr([0x03, 0, 0, 0, 0, 1]);
    let mut sender_is_a_group = arp_request(CLIENT_MAC, CLIENT, VIP);
    sender_is_a_group[22..28].copy_from_slice(&group.0);
    let mut other_hardware = arp_request(CLIENT_MAC, CLIENT, VIP);
    other_hardware[15] = 6;
    let mut sender_is_the_director = arp_request(CLIENT_MAC, VIP, VIP);
    sender_is_the_director[22..28].copy_from_slice(&BACK_MAC.0);
    let rows = [
        (sender_is_the_director, "dropped own_frame"),
        (arp_request(group, CLIENT, VIP), "dropped bad_source_mac"),
        (sender_is_a_group, "dropped arp_malformed"),
        (arp_request(CLIENT_MAC, [255; 4], VIP), "dropped arp_malformed"),
        (arp_request(CLIENT_MAC, [224, 0, 0, 1], VIP), "dropped arp_malformed"),
        (arp_request(CLIENT_MAC, [127, 0, 0, 1], VIP), "dropped arp_malformed"),
        (other_hardware, "dropped arp_malformed"),
        (arp_request(CLIENT_MAC, CLIENT, VIP)[..41].to_vec(), "dropped arp_malformed"),
        (arp_request(FRONT_MAC, CLIENT, VIP), "dropped own_frame"),
    ];
    for (frame, expected) in rows {
        assert_eq!(world.tell("front", &frame), expected, "{frame:02x?}");
    }
}

#[test]
fn a_vip_is_announced_five_times_at_once_and_five_times_after_five_seconds() {
    let mut world = World::new(&web());
    let announcement = arp_request(FRONT_MAC, VIP, VIP);
    // It also asks for the VIP; see `guardian.rs`.
    let question = arp_request(FRONT_MAC, FRONT_DIP, VIP);
    let take_sent = |world: &mut World| {
        let mut sent = world.take_sent();
        sent.retain(|sent| sent.bytes != question);
        sent
    };
    let five = vec![Sent { segment: "front".into(), bytes: announcement }; 5];
    assert_eq!(take_sent(&mut world), five);
    world.advance(Duration::from_millis(4999));
    assert_eq!(take_sent(&mut world), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(take_sent(&mut world), five);
    world.advance(Duration::from_millis(54_999));
    assert_eq!(take_sent(&mut world), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(take_sent(&mut world), five[..1], "one each minute");
    world.advance(Duration::from_secs(120));
    assert_eq!(take_sent(&mut world), five[..2]);
}

#[test]
fn a_vip_is_announced_again_when_its_segment_has_another_device() {
    let mut world = World::new(&web());
    world.advance(Duration::from_secs(10));
    let sent = |world: &mut World| {
        world.advance(Duration::ZERO);
        let sent = world.take_sent();
        (sent.len(), sent.iter().all(|sent| *sent.segment == *"front"))
    };
    world.take_sent();
    let (front, back) = (world.segment("front"), world.segment("back"));
    let now = world.now;
    world.director.device_opened(now, front, 1500);
    assert_eq!(sent(&mut world), (0, true), "the first device is no news");
    world.director.device_opened(now, front, 1500);
    assert_eq!(sent(&mut world), (5, true));
    world.director.device_opened(now, back, 1500);
    world.director.device_opened(now, back, 1500);
    assert_eq!(sent(&mut world), (0, true), "no VIP is on the segment of the real servers");
}

#[test]
fn the_number_of_announcements_is_configurable() {
    let toml = format!(
        "[announce]\ncount = 1\nrepeat = 2\nrepeat_after = \"1s\"\nrefresh = \"10s\"\n{}",
        web()
    );
    let mut world = World::new(&toml);
    let announcement = arp_request(FRONT_MAC, VIP, VIP);
    let count = |world: &mut World| {
        world.take_sent().iter().filter(|sent| sent.bytes == announcement).count()
    };
    assert_eq!(count(&mut world), 1);
    world.advance(Duration::from_secs(9));
    assert_eq!(count(&mut world), 2);
    world.advance(Duration::from_secs(21));
    assert_eq!(count(&mut world), 3);
}

#[test]
fn another_claimant_of_a_vip_is_named_counted_and_answered_with_an_announcement() {
    let mut world = World::new(&web());
    world.take_sent();
    // A real server with arp_announce=0 asks for the client with the VIP as its own address.
    let request = arp_request(RS1_FRONT_MAC, VIP, CLIENT);
    assert_eq!(world.tell("front", &request), "consumed");
    world.advance(Duration::ZERO);
    assert_eq!(world.take_one("front"), arp_request(FRONT_MAC, VIP, VIP));
    let events = world.take_events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].starts_with("real server rs1: claims VIP 192.0.2.10 on segment front"));

    // Again at once: counted, but neither told nor answered again so soon.
    let reply = arp_reply(RS1_FRONT_MAC, VIP, FRONT_MAC, FRONT_DIP);
    assert_eq!(world.tell("front", &reply), "consumed");
    world.advance(Duration::ZERO);
    assert_eq!((world.take_sent(), world.take_events()), (vec![], vec![]));
    let conflicts = world.status().conflicts;
    assert_eq!(conflicts.len(), 1);
    assert_eq!((conflicts[0].mac, conflicts[0].count), (RS1_FRONT_MAC, 2));
    assert_eq!(conflicts[0].real_server.as_deref(), Some("rs1"));
    assert_eq!(conflicts[0].segment, "front");

    // A stranger: until then it may turn out who it is.
    assert_eq!(world.tell("front", &arp_request(CLIENT_MAC, VIP, VIP)), "consumed");
    world.advance(Duration::from_millis(300));
    assert!(world.take_events()[0].ends_with("which is no real server"));
    assert_eq!(world.status().conflicts.len(), 2);
}
