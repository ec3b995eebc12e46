//! Neighbor and listener discovery: solicitations answered for VIPs on VIP segments and for the
//! director's own addresses on their own, and for nothing else; real servers looked for; listeners
//! reported.

use std::net::Ipv6Addr;
use std::time::Duration;

use vipr::wire::MacAddr;

use crate::harness::frames6::*;
use crate::harness::*;

/// The link-local addresses that belong to the director's MACs.
const FRONT_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0x101);
const BACK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0x102);
const QUERIER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A world that has said all it says of its own accord at first.
fn settled(toml: &str) -> World {
    let mut world = World::new(toml);
    world.advance(Duration::from_secs(10));
    world.take_sent();
    world.take_events();
    world
}

#[test]
fn solicitations_for_a_vip_are_answered_to_the_one_who_asks() {
    let mut world = settled(&web6());
    let expected = advertisement((FRONT_MAC, CLIENT_MAC), CLIENT6, 0x60, VIP6);
    assert_eq!(world.tell("front", &solicitation(CLIENT_MAC, CLIENT6, VIP6)), "replied");
    assert_eq!(world.take_one("front"), expected);
    let again = solicitation_to((CLIENT_MAC, FRONT_MAC), CLIENT6, VIP6);
    assert_eq!(world.tell("front", &again), "replied");
    assert_eq!(world.take_one("front"), expected);
}

#[test]
fn who_asks_whether_a_vip_is_taken_is_told_so_together_with_all() {
    let mut world = settled(&web6());
    assert_eq!(world.tell("front", &solicitation(CLIENT_MAC, NOBODY, VIP6)), "replied");
    let expected = advertisement((FRONT_MAC, group_mac(ALL_NODES)), ALL_NODES, 0x20, VIP6);
    assert_eq!(world.take_one("front"), expected);
}

#[test]
fn an_own_address_is_answered_for_on_its_own_segment_only_and_nothing_else_is() {
    let mut world = settled(&web6());
    let rows = [
        ("front", FRONT_DIP6, "replied"),
        ("back", BACK_DIP6, "replied"),
        ("front", FRONT_LOCAL, "replied"),
        ("back", BACK_LOCAL, "replied"),
        ("front", BACK_DIP6, "dropped nd_not_ours"),
        ("back", FRONT_DIP6, "dropped nd_not_ours"),
        ("front", BACK_LOCAL, "dropped nd_not_ours"),
        ("back", VIP6, "dropped nd_not_ours"),
        ("front", RS1_6, "dropped nd_not_ours"),
        ("back", RS1_6, "dropped nd_not_ours"),
        ("front", "2001:db8:0:1::11".parse().unwrap(), "dropped nd_not_ours"),
        ("front", "2001:db8:9:1::10".parse().unwrap(), "dropped nd_not_ours"),
    ];
    for (segment, target, expected) in rows {
        let asked = solicitation(CLIENT_MAC, "2001:db8:0:1::77".parse().unwrap(), target);
        assert_eq!(world.tell(segment, &asked), expected, "{target} on {segment}");
    }
    assert_eq!(world.take_sent().len(), 4);
}

#[test]
fn without_anything_of_ipv6_there_is_no_address_of_ipv6() {
    let mut world = settled(&web());
    let asked = solicitation(CLIENT_MAC, CLIENT6, FRONT_LOCAL);
    assert_eq!(world.tell("front", &asked), "dropped nd_not_ours");
    world.advance(Duration::from_secs(60));
    assert!(world.take_sent().iter().all(|sent| sent.bytes[12..14] == [8, 6]));
}

#[test]
fn what_may_not_be_heeded_is_dropped() {
    let mut world = settled(&web6());
    let right = solicitation(CLIENT_MAC, CLIENT6, VIP6);
    let with = |at: usize, byte| {
        let mut frame = right.clone();
        frame[at] = byte;
        frame
    };
    let rows = [
        (with(21, 254), "dropped nd_malformed"),
        (with(60, 1), "dropped nd_malformed"),
        (with(12, 8), "dropped group_mac"),
        (with(2, 0xfe), "dropped group_mac"),
        (solicitation(FRONT_MAC, CLIENT6, VIP6), "dropped own_frame"),
        (solicitation(MacAddr([3, 0, 0, 0, 0, 1]), CLIENT6, VIP6), "dropped bad_source_mac"),
        (solicitation_to((CLIENT_MAC, RS1_MAC), CLIENT6, VIP6), "dropped foreign_mac"),
    ];
    for (frame, expected) in rows {
        assert_eq!(world.tell("front", &frame), expected);
    }
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_vip_is_announced_three_times_a_second_apart_and_again_later() {
    let mut world = World::new(&web6());
    let announcement = advertisement((FRONT_MAC, group_mac(ALL_NODES)), ALL_NODES, 0x20, VIP6);
    let mut seconds = Vec::new();
    for second in 0..=70 {
        let sent = world.take_sent();
        let said = sent.iter().filter(|sent| sent.bytes == announcement).count();
        assert!(sent.iter().all(|sent| sent.segment == "front" || sent.bytes != announcement));
        seconds.extend(vec![second; said]);
        world.advance(Duration::from_secs(1));
    }
    assert_eq!(seconds, [0, 1, 2, 5, 6, 7, 60]);
}

#[test]
fn another_claimant_of_a_vip_is_named_counted_and_answered_as_in_ipv4() {
    let toml = web6().replace(
        "mac = \"52:54:00:00:00:11\"",
        "mac = \"52:54:00:00:00:11\"\nvip_mac = [\"52:54:00:00:01:11\"]",
    );
    let mut world = settled(&toml);
    let announcement = advertisement((FRONT_MAC, group_mac(ALL_NODES)), ALL_NODES, 0x20, VIP6);
    // It says it has the VIP, and then asks for the client from it.
    let leak = advertisement((RS1_FRONT_MAC, group_mac(ALL_NODES)), ALL_NODES, 0x20, VIP6);
    assert_eq!(world.tell("front", &leak), "consumed");
    world.advance(Duration::ZERO);
    assert_eq!(world.take_one("front"), announcement);
    let events = world.take_events();
    assert!(
        events[0].starts_with("real server six1: claims VIP 2001:db8:0:1::10 on segment front")
    );
    let asked = solicitation(RS1_FRONT_MAC, VIP6, CLIENT6);
    assert_eq!(world.tell("front", &asked), "consumed");
    let conflicts = world.status().conflicts;
    assert_eq!((conflicts.len(), conflicts[0].mac, conflicts[0].count), (1, RS1_FRONT_MAC, 2));
    assert_eq!(conflicts[0].real_server.as_deref(), Some("six1"));
    // On a segment without VIPs it is none.
    assert_eq!(world.tell("back", &leak), "dropped nd_not_ours");
    assert_eq!(world.status().conflicts.len(), 1);
}

#[test]
fn a_real_server_is_looked_for_by_solicitation_from_an_address_it_can_answer() {
    for (dip, source) in [(true, BACK_DIP6), (false, BACK_LOCAL)] {
        let mut toml = web6().replace("mac = \"52:54:00:00:00:11\"\n", "");
        if !dip {
            toml = toml.replace(", \"2001:db8:0:2::1/64\"", "");
        }
        let mut world = World::new(&toml);
        let asked = solicitation(BACK_MAC, source, RS1_6);
        let sent = world.take_sent();
        let asks = |sent: &Sent| sent.segment == "back" && sent.bytes == asked;
        assert_eq!(sent.iter().filter(|sent| asks(sent)).count(), 1, "{source}");
        let syn = from_client6().tcp(40_000, 80, "S", b"");
        assert_eq!(world.tell("front", &syn), "held six1");
        let answer = advertisement((RS1_MAC, BACK_MAC), source, 0x60, RS1_6);
        assert_eq!(world.tell("back", &answer), "consumed");
        assert_eq!(world.take_one("back")[..12], [RS1_MAC.0, BACK_MAC.0].concat());
        assert!(world.take_events().iter().any(|event| event.contains("six1")));
        // Asked again by unicast after half a minute.
        world.advance(Duration::from_secs(40));
        let again = solicitation_to((BACK_MAC, RS1_MAC), source, RS1_6);
        let sent = world.take_sent();
        assert!(sent.iter().any(|sent| sent.bytes == again), "{source}");
    }
}

#[test]
fn an_advertisement_that_does_not_override_moves_no_real_server() {
    let mut world = settled(&web6().replace("mac = \"52:54:00:00:00:11\"\n", ""));
    let from = |mac, flags| advertisement((mac, BACK_MAC), BACK_DIP6, flags, RS1_6);
    assert_eq!(world.tell("back", &from(RS1_MAC, 0x60)), "consumed");
    world.advance(Duration::from_secs(5));
    assert_eq!(world.tell("back", &from(RS3_MAC, 0x40)), "dropped nd_not_ours");
    let mac = |world: &mut World| world.status().services[0].real_servers[0].mac;
    assert_eq!(mac(&mut world), Some(RS1_MAC));
    assert_eq!(world.tell("back", &from(RS3_MAC, 0x60)), "consumed");
    assert_eq!(mac(&mut world), Some(RS3_MAC));
}

/// A query from the bridge, of version 1 (24 bytes) or 2 (28), about one group or none.
fn query(group: Ipv6Addr, version: u8) -> Vec<u8> {
    let destination = if group.is_unspecified() { ALL_NODES } else { group };
    let macs = (MacAddr([2, 0, 0, 0, 9, 9]), group_mac(destination));
    let packet = Packet6 { macs, source: QUERIER, destination, hop_limit: 1 };
    let mut rest = group.octets().to_vec();
    rest.extend(vec![0; if version == 2 { 4 } else { 0 }]);
    let message = packet.icmp(130, 0, [0, 100, 0, 0], &rest);
    packet.raw(0, &[&[58, 0, 5, 2, 0, 0, 1, 0], &message[54..]].concat())
}

/// Record type and groups of each report of version 2 on a segment; destinations of version 1.
fn reports(sent: &[Sent], segment: &str) -> (Vec<(u8, Vec<Ipv6Addr>)>, Vec<Ipv6Addr>) {
    let address = |bytes: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap());
    let (mut v2, mut v1) = (Vec::new(), Vec::new());
    for Sent { bytes, .. } in sent.iter().filter(|sent| sent.segment == segment) {
        if bytes[12..14] != [0x86, 0xdd] || bytes[20] != 0 {
            continue;
        }
        assert_eq!((bytes[21], &bytes[54..62]), (1, &[58, 0, 5, 2, 0, 0, 1, 0][..]));
        match bytes[62] {
            143 => {
                let records = bytes[70..].chunks(20);
                let groups = records.map(|record| address(&record[4..])).collect();
                v2.push((bytes[70], groups));
            }
            131 => v1.push(address(&bytes[38..54])),
            other => panic!("type {other}"),
        }
    }
    (v2, v1)
}

#[test]
fn listeners_are_reported_at_once_on_change_and_on_query() {
    let mut groups: Vec<Ipv6Addr> =
        [VIP6, FRONT_DIP6, FRONT_LOCAL].into_iter().map(solicited_node).collect();
    groups.sort();
    let mut world = World::new(&web6());
    let sent = world.take_sent();
    assert_eq!(reports(&sent, "front").0, [(4, groups.clone())]);
    let (back, _) = reports(&sent, "back");
    assert_eq!(back[0].1.len(), 2, "the director's own addresses");
    world.advance(Duration::from_secs(1));
    assert_eq!(reports(&world.take_sent(), "front").0, [(4, groups.clone())], "and once more");
    world.advance(Duration::from_secs(120));
    assert_eq!(reports(&world.take_sent(), "front").0, [], "but no more unasked");

    for (version, (v2, v1)) in [(2, (1, 0)), (1, (0, groups.len()))] {
        assert_eq!(world.tell("front", &query(NOBODY, version)), "consumed");
        world.advance(Duration::from_millis(1100));
        let said = reports(&world.take_sent(), "front");
        assert_eq!((said.0.len(), said.1.len()), (v2, v1), "version {version}: {said:?}");
        assert!(said.0.iter().all(|said| *said == (2, groups.clone())));
    }
    world.advance(Duration::from_secs(300));
    world.take_sent();
    let mine = solicited_node(VIP6);
    assert_eq!(world.tell("front", &query(mine, 2)), "consumed");
    world.advance(Duration::from_secs(2));
    assert_eq!(reports(&world.take_sent(), "front").0, [(2, vec![mine])]);
    let other = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff99, 0x9999);
    assert_eq!(world.tell("front", &query(other, 2)), "consumed");
    world.advance(Duration::from_secs(2));
    assert_eq!(reports(&world.take_sent(), "front").0, []);
    let mut routed = query(NOBODY, 2);
    routed[21] = 2;
    assert_eq!(world.tell("front", &routed), "dropped mld_malformed");
}

#[test]
fn listeners_follow_a_reload() {
    let mut world = settled(&web6());
    let moved = web6().replace("vip = \"2001:db8:0:1::10\"", "vip = \"2001:db8:0:1::20\"");
    world.director.apply(world.now, snapshot(&moved));
    world.advance(Duration::ZERO);
    let vip: Ipv6Addr = "2001:db8:0:1::20".parse().unwrap();
    let (said, _) = reports(&world.take_sent(), "front");
    assert_eq!(said, [(4, vec![solicited_node(vip)]), (3, vec![solicited_node(VIP6)])]);
}
