//! Fragments of both families follow the first one of their packet, be they before it or after;
//! packets without DF leave in fragments where the next segment carries less.

use std::time::Duration;

use vipr::director::DropReason;

use crate::harness::frames::{FrameBuilder, ip_payload, ipv4, udp, with_macs};
use crate::harness::frames6::*;
use crate::harness::*;

/// A service of UDP in both families; the first flow of each goes to rs1, the second to rs2.
fn dns() -> String {
    let service = |vip: &str| {
        format!(
            "[[service]]\nvip = \"{vip}\"\nprotocol = \"udp\"\nports = 80\nscheduler = \"rr\"\n{}{}",
            real_server("rs1", 11, 1, ""),
            real_server("rs2", 12, 1, "")
        )
    };
    format!("{}\n{}\n{}", segments6(), service("192.0.2.10"), service("2001:db8:0:1::10"))
}

/// A world whose last flow in each family went to rs1, so that the next goes to rs2.
fn world(toml: &str) -> World {
    let mut world = World::new(toml);
    let other = from_client6().udp(1, 80, b"x");
    while world.tell("front", &udp(1, 80, b"x")) != "forwarded rs1" {
        world.advance(Duration::from_secs(400));
    }
    while world.tell("front", &other) != "forwarded rs1" {
        world.advance(Duration::from_secs(400));
    }
    world.advance(Duration::from_millis(1));
    world.take_sent();
    world
}

/// A datagram of 3000 bytes in three fragments of one family, the packet's number as given.
fn fragments(is_ipv6: bool, number: u32) -> [Vec<u8>; 3] {
    let data = [0xab; 2992];
    if is_ipv6 {
        let datagram = from_client6().datagram(5000, 80, &data);
        let cut = |at: usize, end: usize| {
            let more = end < datagram.len();
            from_client6().fragment(17, number, at as u16, more, &datagram[at..end])
        };
        return [cut(0, 1448), cut(1448, 2896), cut(2896, datagram.len())];
    }
    let whole = udp(5000, 80, &data);
    let payload = ip_payload(&whole);
    let cut = |at: usize, end: usize| {
        let more = end < payload.len();
        ipv4(17, Some((number as u16, at as u16, more)), &payload[at..end])
    };
    [cut(0, 1480), cut(1480, 2960), cut(2960, payload.len())]
}

#[test]
fn later_fragments_follow_their_first_fragment() {
    for is_ipv6 in [false, true] {
        let mut world = world(&dns());
        let [first, middle, last] = fragments(is_ipv6, 9);
        for fragment in [&first, &last, &middle] {
            assert_eq!(world.tell("front", fragment), "forwarded rs2");
            assert_eq!(world.take_one("back"), with_macs(fragment, RS2_MAC, BACK_MAC));
        }
        let [_, other, _] = fragments(is_ipv6, 10);
        assert_eq!(world.tell("front", &other), "held", "of another packet");
        world.advance(Duration::from_secs(30));
        assert_eq!(world.tell("front", &middle), "held", "nobody remembers its first");
    }
}

#[test]
fn fragments_that_come_before_the_first_wait_for_it_and_follow_in_order() {
    for is_ipv6 in [false, true] {
        let mut world = world(&dns());
        let [first, middle, last] = fragments(is_ipv6, 9);
        assert_eq!(world.tell("front", &last), "held");
        assert_eq!(world.tell("front", &middle), "held");
        assert_eq!(world.director.counters().held, 2);
        assert_eq!(world.take_sent(), []);
        assert_eq!(world.tell("front", &first), "forwarded rs2");
        let sent: Vec<Vec<u8>> = world.take_sent().into_iter().map(|sent| sent.bytes).collect();
        let expected = [&first, &last, &middle].map(|frame| with_macs(frame, RS2_MAC, BACK_MAC));
        assert_eq!(sent, expected);
        assert_eq!(world.director.counters().held, 0);
    }
}

#[test]
fn fragments_whose_first_never_comes_are_dropped_after_a_second() {
    let mut world = world(&dns());
    let [_, middle, last] = fragments(true, 9);
    world.tell("front", &middle);
    world.advance(Duration::from_millis(500));
    world.tell("front", &last);
    world.advance(Duration::from_millis(499));
    assert_eq!(world.drops(DropReason::FragmentUnknown), 0);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.drops(DropReason::FragmentUnknown), 2);
    assert_eq!(world.director.counters().held, 0);
}

#[test]
fn no_more_fragments_are_held_than_there_is_room_for() {
    let mut world = world(&dns());
    let [_, middle, _] = fragments(false, 1);
    let said: Vec<String> = (0..100).map(|_| world.tell("front", &middle)).collect();
    assert_eq!(said.iter().filter(|said| *said == "held").count(), 64, "of one packet");
    assert_eq!(said[99], "dropped fragment_hold_full");
    let others = (2..1000).filter(|&n| world.tell("front", &fragments(false, n)[1]) == "held");
    assert_eq!(others.count(), 256 - 64, "in all");
    let [first, ..] = fragments(false, 1);
    assert_eq!(world.tell("front", &first), "forwarded rs2");
    assert_eq!(world.take_sent().len(), 1 + 64);
}

#[test]
fn what_goes_nowhere_is_not_held() {
    let mut world = world(&dns());
    let later = |destination: [u8; 4]| {
        FrameBuilder::new((CLIENT_MAC, CLIENT), (FRONT_MAC, destination)).fragment(9, 185, true)
    };
    let from_rs1 = Packet6 { macs: (RS1_MAC, FRONT_MAC), ..from_client6() };
    let rows = [
        (later(VIP).raw(1, &[0; 80]), "dropped fragment_unknown"),
        (later(VIP).raw(47, &[0; 80]), "dropped fragment_unknown"),
        (later([192, 0, 2, 77]).raw(17, &[0; 80]), "dropped not_vip"),
        (from_client6().fragment(58, 9, 1448, true, &[0; 80]), "dropped fragment_unknown"),
        (from_rs1.fragment(17, 9, 1448, true, &[0; 80]), "dropped loop rs1"),
        (
            Packet6 { source: NOBODY, ..from_client6() }.fragment(17, 9, 1448, true, &[0; 80]),
            "dropped bad_source_address",
        ),
    ];
    for (frame, expected) in rows {
        assert_eq!(world.tell("front", &frame), expected);
    }
}

#[test]
fn fragments_that_overlap_change_nothing_about_where_their_packet_goes() {
    for is_ipv6 in [false, true] {
        let mut world = world(&dns());
        let [first, middle, last] = fragments(is_ipv6, 9);
        // One that would put other ports over those of the first, had it a say.
        let lie = if is_ipv6 {
            from_client6().fragment(17, 9, 8, true, &[0; 80])
        } else {
            ipv4(17, Some((9, 8, true)), &[0; 80])
        };
        assert_eq!(world.tell("front", &lie), "held");
        for fragment in [&first, &lie, &middle, &first, &last] {
            assert_eq!(world.tell("front", fragment), "forwarded rs2");
        }
        // A "first" one for nobody's port is judged by itself, and takes nothing with it.
        let mut other = first.clone();
        let ports = if is_ipv6 { 62 } else { 34 };
        other[ports + 2..ports + 4].copy_from_slice(&81u16.to_be_bytes());
        assert!(["replied", "dropped rate_limited"].contains(&&*world.tell("front", &other)));
        assert_eq!(world.tell("front", &middle), "forwarded rs2");
    }
}

#[test]
fn a_packet_without_df_leaves_in_fragments_and_one_with_df_does_not() {
    let toml = dns().replace("tap = \"vipr-back\"", "tap = \"vipr-back\"\nmtu = 1280");
    let mut world = world(&toml);
    let builder = FrameBuilder::new((CLIENT_MAC, CLIENT), (FRONT_MAC, VIP));
    let packet = builder.identified(77).udp(5000, 80, &[0xcd; 1400]);
    assert_eq!(world.tell("front", &packet), "fragmented rs2");
    let sent = world.take_sent();
    let lens: Vec<usize> = sent.iter().map(|sent| sent.bytes.len() - 14).collect();
    assert_eq!(lens, [20 + 1256, 20 + 152]);
    let joined: Vec<u8> = sent.iter().flat_map(|sent| sent.bytes[34..].to_vec()).collect();
    assert_eq!(joined, packet[34..]);
    for Sent { segment, bytes } in &sent {
        assert_eq!((&**segment, &bytes[..12]), ("back", &[RS2_MAC.0, BACK_MAC.0].concat()[..]));
    }
    let kept = builder.udp(5000, 80, &[0xcd; 1400]);
    assert_eq!(world.tell("front", &kept), "replied", "with DF its sender is told");
    world.take_sent();
    let status = world.status();
    let rs2 = &status.services[0].real_servers[1];
    assert_eq!(
        (rs2.name.as_str(), rs2.traffic.packets),
        ("rs2", 1),
        "one packet, whatever it left in"
    );
}

#[test]
fn a_packet_held_for_an_unknown_mac_leaves_in_fragments_too() {
    let toml = dns()
        .replace("tap = \"vipr-back\"", "tap = \"vipr-back\"\nmtu = 1280")
        .replace("mac = \"52:54:00:00:00:11\"\n", "")
        .replace("mac = \"52:54:00:00:00:12\"\n", "");
    let mut world = World::new(&toml);
    world.take_sent();
    let builder = FrameBuilder::new((CLIENT_MAC, CLIENT), (FRONT_MAC, VIP));
    let packet = builder.identified(77).udp(5000, 80, &[0xcd; 1400]);
    let said = world.tell("front", &packet);
    assert!(said.starts_with("held rs"), "{said}");
    for (mac, rip) in [(RS1_MAC, RS1), (RS2_MAC, RS2)] {
        world.tell("back", &frames::arp_reply(mac, rip, BACK_MAC, BACK_DIP));
    }
    let sent = world.take_sent();
    assert_eq!(sent.iter().filter(|sent| sent.bytes[23] == 17).count(), 2, "{sent:?}");
}

#[test]
fn a_super_frame_is_as_large_as_the_packets_it_stands_for() {
    use vipr::director::Action;
    use vipr::wire::{Frame, Offload};
    let toml = web6().replace("tap = \"vipr-back\"", "tap = \"vipr-back\"\nmtu = 1280");
    let mut world = World::new(&toml);
    world.tell("front", &from_client6().tcp(40_000, 80, "S", b""));
    let large = from_client6().tcp(40_000, 80, "A", &[0; 20_000]);
    let front = world.segment("front");
    for (segment_size, fits) in [(1220, true), (1221, false)] {
        let offload = Offload { segment_size, ..Offload::default() };
        let mut bytes = large.clone();
        let mut frame = Frame { bytes: &mut bytes, offload };
        let verdict = world.director.handle_frame(world.now, front, &mut frame);
        assert_eq!(matches!(verdict.action, Action::Forward { .. }), fits, "{verdict:?}");
        assert_eq!(verdict.action == Action::Reply, !fits);
    }
}
