//! Segments on VLANs: which frames are theirs, and with which tag theirs go out.

use crate::harness::frames::{arp_reply, arp_request, tcp, with_macs};
use crate::harness::*;

/// Clients on VLAN 10 and real servers on VLAN 20 of one TAP.
fn trunk() -> String {
    web()
        .replace("tap = \"vipr-front\"", "tap = \"trunk\"\nvlan = 10")
        .replace("tap = \"vipr-back\"", "tap = \"trunk\"\nvlan = 20")
}

/// A frame with a tag: its EtherType, priority bits and VLAN.
fn tagged(frame: &[u8], ether_type: u16, control: u16) -> Vec<u8> {
    let tag = [ether_type.to_be_bytes(), control.to_be_bytes()].concat();
    [&frame[..12], &tag, &frame[12..]].concat()
}

const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;

#[test]
fn on_a_trunk_a_frame_comes_with_one_tag_and_goes_with_another() {
    let mut world = World::new(&trunk());
    world.take_sent();
    for flags in ["S", "A"] {
        let frame = tcp(1, flags).bytes();
        assert_eq!(world.tell("front", &tagged(&frame, Q, 10)), "forwarded rs1");
        let expected = tagged(&with_macs(&frame, RS1_MAC, BACK_MAC), Q, 20);
        assert_eq!(world.take_one("back"), expected, "nothing else changed");
    }
    // Whichever of the two has the port: the tag decides.
    assert_eq!(world.tell("back", &tagged(&tcp(1, "A").bytes(), Q, 10)), "forwarded rs1");
    let report = world.status().segments;
    assert_eq!((report[0].received_frames, report[1].received_frames), (3, 0));
}

#[test]
fn the_priority_goes_along_and_a_tag_with_nothing_else_is_none() {
    let mut world = World::new(&trunk());
    world.take_sent();
    let frame = tcp(1, "S").bytes();
    world.tell("front", &tagged(&frame, Q, 0xb000 | 10));
    let sent = world.take_one("back");
    assert_eq!(sent[12..16], [0x81, 0x00, 0xb0, 20], "priority 5, drop eligible");
    assert_eq!(world.tell("front", &tagged(&frame, Q, 0xb000)), "dropped vlan_missing");

    let mut plain = World::new(&web());
    plain.take_sent();
    assert_eq!(plain.tell("front", &tagged(&frame, Q, 0xb000)), "forwarded rs1");
    assert_eq!(plain.take_one("back"), with_macs(&frame, RS1_MAC, BACK_MAC), "without a tag");
}

#[test]
fn what_is_on_no_segments_vlan_is_dropped_with_its_reason() {
    let frame = tcp(1, "S").bytes();
    let twice = tagged(&tagged(&frame, Q, 7), Q, 10);
    let rows = [
        (frame.clone(), "dropped vlan_missing", "forwarded rs1"),
        (tagged(&frame, Q, 11), "dropped vlan_unknown", "dropped vlan_tag"),
        (tagged(&frame, Q, 4095), "dropped vlan_unknown", "dropped vlan_tag"),
        (tagged(&frame, AD, 10), "dropped vlan_unknown", "dropped vlan_tag"),
        (twice, "dropped vlan_tag", "dropped vlan_tag"),
        (tagged(&frame, 0x9100, 10), "dropped vlan_missing", "dropped vlan_tag"),
        // VLAN 20 is that of the real servers.
        (tagged(&frame, Q, 20), "dropped foreign_mac", "dropped vlan_tag"),
    ];
    for (frame, on_trunk, on_plain) in rows {
        assert_eq!(World::new(&trunk()).tell("front", &frame), on_trunk, "{frame:02x?}");
        assert_eq!(World::new(&web()).tell("front", &frame), on_plain, "{frame:02x?}");
    }
}

#[test]
fn a_provider_tag_is_another_vlan_than_a_customers() {
    let toml = trunk().replace("vlan = 10", "vlan = { id = 20, protocol = \"802.1ad\" }");
    let mut world = World::new(&toml);
    world.take_sent();
    let frame = tcp(1, "S").bytes();
    assert_eq!(world.tell("front", &tagged(&frame, AD, 20)), "forwarded rs1");
    assert_eq!(world.take_one("back")[12..16], [0x81, 0x00, 0, 20]);
    assert_eq!(world.tell("front", &tagged(&frame, Q, 10)), "dropped vlan_unknown");
}

#[test]
fn one_of_a_trunk_may_be_without_a_tag() {
    let mut world = World::new(&trunk().replace("vlan = 10\n", ""));
    world.take_sent();
    let frame = tcp(1, "S").bytes();
    assert_eq!(world.tell("front", &frame), "forwarded rs1");
    assert_eq!(world.take_one("back")[12..16], [0x81, 0x00, 0, 20]);
    assert_eq!(world.tell("back", &tagged(&frame, Q, 9)), "dropped vlan_unknown");
}

#[test]
fn what_the_director_says_itself_has_the_tag_of_its_segment() {
    let unresolved = trunk().replace("mac = \"52:54:00:00:00:11\"\n", "");
    let mut world = World::new(&unresolved);
    let tag_of = |sent: &Sent| u16::from_be_bytes([sent.bytes[14], sent.bytes[15]]);
    let sent = world.take_sent();
    assert!(sent.iter().any(|frame| frame.segment == "front"), "an announcement");
    for frame in &sent {
        assert_eq!(frame.bytes[12..14], [0x81, 0x00]);
        assert_eq!(tag_of(frame), if frame.segment == "front" { 10 } else { 20 });
    }
    // An answer to ARP, and a reset.
    let asked = tagged(&arp_request(CLIENT_MAC, CLIENT, VIP), Q, 10);
    assert_eq!(world.tell("front", &asked), "replied");
    assert_eq!(tag_of(&world.take_sent()[0]), 10);
    assert_eq!(world.tell("front", &tagged(&tcp(9, "A").bytes(), Q, 10)), "replied");
    assert_eq!(tag_of(&world.take_sent()[0]), 10);
    // A frame that was held goes out later, with the right tag, and its priority.
    assert_eq!(world.tell("front", &tagged(&tcp(1, "S").bytes(), Q, 0x6000 | 10)), "held rs1");
    let found = tagged(&arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP), Q, 20);
    assert_eq!(world.tell("front", &found), "consumed");
    let sent = world.take_sent();
    assert_eq!(tag_of(sent.last().unwrap()), 0x6000 | 20);
}

#[test]
fn vlans_may_change_while_connections_go_on() {
    let mut world = World::new(&trunk());
    let frame = |flags| tcp(1, flags).bytes();
    assert_eq!(world.tell("front", &tagged(&frame("S"), Q, 10)), "forwarded rs1");
    let other = trunk().replace("vlan = 20", "vlan = 30").replace("vlan = 10", "vlan = 11");
    world.director.apply(world.now, snapshot(&other));
    world.take_sent();
    assert_eq!(world.tell("front", &tagged(&frame("A"), Q, 10)), "dropped vlan_unknown");
    assert_eq!(world.tell("front", &tagged(&frame("A"), Q, 11)), "forwarded rs1");
    assert_eq!(world.take_one("back")[12..16], [0x81, 0x00, 0, 30]);
    // And off.
    world.director.apply(world.now, snapshot(&web()));
    assert_eq!(world.tell("front", &frame("A")), "forwarded rs1");
    assert_eq!(world.take_one("back")[12..14], [0x08, 0x00]);
}
