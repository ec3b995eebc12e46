//! IPv6 traffic: routed by rewriting two MAC addresses and nothing else, answered where IPv4 is,
//! and refused for reasons of its own.

use std::net::Ipv6Addr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::harness::frames::with_macs;
use crate::harness::frames6::*;
use crate::harness::*;

/// The answer's addresses and transport, its checksums right.
fn transport(frame: &[u8]) -> (Ipv6Addr, Ipv6Addr, TransportSlice<'_>) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("no IPv6") };
    let header = ip.header().to_header();
    let transport = sliced.transport.unwrap();
    match &transport {
        TransportSlice::Tcp(tcp) => {
            let sum = tcp.calc_checksum_ipv6(header.source, header.destination).unwrap();
            assert_eq!(tcp.checksum(), sum);
        }
        TransportSlice::Icmpv6(icmp) => {
            assert!(icmp.is_checksum_valid(header.source, header.destination));
        }
        other => panic!("{other:?}"),
    }
    (header.source.into(), header.destination.into(), transport)
}

/// Type, code, the four bytes after the checksum, and the quotation of an ICMPv6 error.
fn error(frame: &[u8]) -> (u8, u8, [u8; 4], Vec<u8>) {
    let (source, destination, transport) = transport(frame);
    assert_eq!((source, destination), (VIP6, CLIENT6));
    let TransportSlice::Icmpv6(icmp) = transport else { panic!("no ICMPv6") };
    (icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8(), icmp.payload().to_vec())
}

#[test]
fn a_connection_stays_with_its_real_server_and_only_macs_change() {
    let mut world = World::new(&web6());
    world.take_sent();
    let syn = from_client6().tcp(40_000, 80, "S", b"");
    // IPVS's rr begins behind the first.
    assert_eq!(world.tell("front", &syn), "forwarded six1");
    assert_eq!(world.take_one("back"), with_macs(&syn, RS1_MAC, BACK_MAC));
    let other = from_client6().tcp(40_001, 80, "S", b"");
    assert_eq!(world.tell("front", &other), "forwarded four2", "a v4 address is as good");
    assert_eq!(world.take_one("back"), with_macs(&other, RS2_MAC, BACK_MAC));
    for flags in ["A", "FA", "A"] {
        let segment = from_client6().tcp(40_000, 80, flags, b"hello");
        assert_eq!(world.tell("front", &segment), "forwarded six1");
    }
    let connections = world.connections();
    assert!(connections.iter().all(|connection| connection.client == CLIENT6));
    assert_eq!(connections.len(), 2);
    // Another client with the same port is another connection.
    let stranger = Packet6 { source: "2001:db8:c::8".parse().unwrap(), ..from_client6() };
    assert_eq!(world.tell("front", &stranger.tcp(40_000, 80, "A", b"")), "replied");
}

#[test]
fn a_vip_of_ipv4_with_a_real_server_of_ipv6_is_the_same_the_other_way_round() {
    let toml = web6()
        .replace("2001:db8:0:1::10", "192.0.2.10")
        .replace("address = \"10.0.0.12\"", "address = \"2001:db8:0:2::12\"");
    let mut world = World::new(&toml);
    let syn = crate::harness::frames::tcp(40_000, "S").bytes();
    assert!(world.tell("front", &syn).starts_with("forwarded six1"));
}

#[test]
fn persistence_masks_clients_by_their_prefix() {
    let toml = web6().replace("scheduler =", "persistence = { netmask = 56 }\nscheduler =");
    let mut world = World::new(&toml);
    let from = |source: &str, port| {
        let packet = Packet6 { source: source.parse().unwrap(), ..from_client6() };
        packet.tcp(port, 80, "S", b"")
    };
    let first = world.tell("front", &from("2001:db8:a:1::1", 1));
    assert_eq!(world.tell("front", &from("2001:db8:a:ff::2", 2)), first, "the same /56");
    assert_ne!(world.tell("front", &from("2001:db8:a:100::1", 3)), first, "the next one");
}

#[test]
fn extension_headers_are_passed_over_and_stay() {
    let mut world = World::new(&web6());
    world.take_sent();
    let syn = from_client6().tcp(40_000, 80, "S", b"");
    let behind = |next, headers: &[u8]| from_client6().raw(next, &[headers, &syn[54..]].concat());
    let options = [6, 0, 1, 4, 0, 0, 0, 0];
    let frame = behind(60, &options);
    assert_eq!(world.tell("front", &frame), "forwarded six1");
    assert_eq!(world.take_one("back"), with_macs(&frame, RS1_MAC, BACK_MAC));
    let atomic = behind(44, &[6, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(world.tell("front", &atomic), "forwarded six1", "the same connection");
    let rows = [
        (behind(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(9)), "dropped ipv6_extensions_too_many"),
        (behind(60, &[6, 9, 1, 4, 0, 0, 0, 0]), "dropped ipv6_extension"),
        (behind(50, &[]), "dropped protocol_unsupported"),
        (from_client6().raw(59, &[]), "dropped protocol_unsupported"),
        (from_client6().raw(6, &[0; 19]), "dropped transport_header"),
    ];
    for (frame, expected) in rows {
        assert_eq!(world.tell("front", &frame), expected);
    }
}

/// RFC 8200, 4.4: a routing header with segments left, of a type that is not known here (as none
/// is), is a parameter problem with code 0 that points at the type.
#[test]
fn a_route_to_follow_is_refused_and_its_sender_told() {
    let mut world = World::new(&web6());
    world.take_sent();
    let syn = from_client6().tcp(40_000, 80, "S", b"");
    let segment = &syn[54..];
    let routed = |packet: Packet6, headers: &[u8]| packet.raw(43, &[headers, segment].concat());
    let to_go = |next: u8| [next, 0, 4, 1, 0, 0, 0, 0];
    for (headers, at) in
        [(to_go(6).to_vec(), 42_u32), ([[43, 0, 0, 0, 0, 0, 0, 0], to_go(6)].concat(), 50)]
    {
        let frame = routed(from_client6(), &headers);
        assert_eq!(world.tell("front", &frame), "replied");
        let answer = world.take_one("front");
        assert_eq!(answer[..12], [CLIENT_MAC.0, FRONT_MAC.0].concat());
        assert_eq!(error(&answer), (4, 0, at.to_be_bytes(), frame[14..].to_vec()));
    }
    assert_eq!(world.connections(), [], "nothing was opened");
    // At its end it is passed over: RFC 8200 has it ignored.
    let done = routed(from_client6(), &[6, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!(world.tell("front", &done), "forwarded six1");
    world.take_sent();

    // Whom nobody may tell, or who is none of ours: a drop with a name.
    let client = from_client6();
    let error_about = client.raw(43, &[&to_go(58)[..], &[1, 4, 0, 0, 0, 0, 0, 0]].concat());
    let to_nobody = Packet6 { destination: FRONT_DIP6, ..client };
    let from_group = Packet6 { source: ALL_NODES, ..client };
    let to_all = Packet6 { macs: (CLIENT_MAC, group_mac(ALL_NODES)), ..client };
    let back = Packet6 { macs: (CLIENT_MAC, BACK_MAC), ..client };
    let looped = Packet6 { macs: (RS1_MAC, FRONT_MAC), ..client };
    let rows = [
        ("front", error_about, "dropped ipv6_route"),
        ("front", routed(to_nobody, &to_go(6)), "dropped ipv6_route"),
        ("front", routed(from_group, &to_go(6)), "dropped bad_source_address"),
        ("front", routed(to_all, &to_go(6)), "dropped ipv6_route"),
        ("back", routed(back, &to_go(6)), "dropped ipv6_route"),
        ("front", routed(looped, &to_go(6)), "dropped loop six1"),
        ("front", routed(client, &[6, 9, 4, 1, 0, 0, 0, 0]), "dropped ipv6_extension"),
    ];
    for (segment, frame, expected) in rows {
        assert_eq!(world.tell(segment, &frame), expected);
    }
    assert_eq!(world.take_sent(), []);
    // Such answers are as limited as all errors are.
    let frame = routed(client, &to_go(6));
    let told: Vec<String> = (0..2000).map(|_| world.tell("front", &frame)).collect();
    assert_eq!(told[0], "replied");
    assert_eq!(told[1999], "dropped rate_limited");
}

#[test]
fn what_is_not_for_a_vip_or_from_no_client_is_dropped() {
    let mut world = World::new(&web6());
    let to = |destination| Packet6 { destination, ..from_client6() }.tcp(1, 80, "S", b"");
    let from = |source| Packet6 { source, ..from_client6() }.tcp(1, 80, "S", b"");
    let rows = [
        (to(FRONT_DIP6), "dropped not_vip"),
        (to(ALL_NODES), "dropped not_vip"),
        (from(NOBODY), "dropped bad_source_address"),
        (from(Ipv6Addr::LOCALHOST), "dropped bad_source_address"),
        (from(ALL_NODES), "dropped bad_source_address"),
        (from(VIP6), "dropped bad_source_address"),
        (from(FRONT_DIP6), "dropped bad_source_address"),
        (from("::ffff:192.0.2.7".parse().unwrap()), "dropped bad_source_address"),
        (from("fe80::ff:fe00:101".parse().unwrap()), "dropped bad_source_address"),
        (from("fe80::7".parse().unwrap()), "forwarded six1"),
    ];
    for (frame, expected) in rows {
        assert_eq!(world.tell("front", &frame), expected);
    }
    let syn = from_client6().tcp(2, 80, "S", b"");
    let on_backend = with_macs(&syn, BACK_MAC, CLIENT_MAC);
    assert_eq!(world.tell("back", &on_backend), "dropped vip_on_backend");
    let group = with_macs(&syn, group_mac(ALL_NODES), CLIENT_MAC);
    assert_eq!(world.tell("front", &group), "dropped group_mac", "TCP is never for all");
    let looped = Packet6 { macs: (RS1_MAC, FRONT_MAC), ..from_client6() };
    assert_eq!(world.tell("front", &looped.tcp(3, 80, "S", b"")), "dropped loop six1");
}

#[test]
fn unmatched_traffic_is_rejected_as_in_ipv4() {
    let mut world = World::new(&web6());
    world.take_sent();
    assert_eq!(world.tell("front", &from_client6().tcp(40_000, 81, "S", b"")), "replied");
    let answer = world.take_one("front");
    assert_eq!(answer[..12], [CLIENT_MAC.0, FRONT_MAC.0].concat());
    let (source, destination, TransportSlice::Tcp(reset)) = transport(&answer) else { panic!() };
    assert_eq!((source, destination), (VIP6, CLIENT6));
    assert!(reset.rst() && reset.ack() && reset.acknowledgment_number() == 1001);
    assert_eq!((reset.source_port(), reset.destination_port()), (81, 40_000));

    let datagram = from_client6().udp(40_000, 81, &[7; 2000]);
    assert_eq!(world.tell("front", &datagram), "replied");
    let answer = world.take_one("front");
    let (kind, code, rest, quote) = error(&answer);
    assert_eq!((kind, code, rest), (1, 4, [0; 4]), "port unreachable");
    assert_eq!(answer.len() - 14, 1280, "as much of the packet as the smallest MTU holds");
    assert_eq!(quote, datagram[14..14 + quote.len()]);

    let mut without_checksum = from_client6().udp(40_000, 81, b"x");
    without_checksum[60..62].fill(0);
    assert_eq!(world.tell("front", &without_checksum), "dropped transport_checksum");
    let rows = [
        (from_client6().tcp(40_000, 81, "R", b""), "dropped unmatched_unanswerable"),
        (from_client6().icmp(1, 4, [0; 4], &datagram[14..80]), "dropped icmp_unrelated"),
        (from_client6().icmp(133, 0, [0; 4], &[]), "dropped icmp_unsupported"),
        (from_client6().icmp(137, 0, [0; 4], &[0; 40]), "dropped icmp_unsupported"),
    ];
    for (frame, expected) in rows {
        assert_eq!(world.tell("front", &frame), expected);
    }
    assert_eq!(world.take_sent(), []);
}

#[test]
fn an_echo_request_is_answered_while_a_service_is_up() {
    let mut world = World::new(&web6());
    world.take_sent();
    let request = from_client6().icmp(128, 0, [0x12, 0x34, 0, 1], b"abcdefg");
    assert_eq!(world.tell("front", &request), "replied");
    let answer = world.take_one("front");
    let (kind, code, rest, data) = error(&answer);
    assert_eq!((kind, code, rest, &data[..]), (129, 0, [0x12, 0x34, 0, 1], &b"abcdefg"[..]));
    let mut wrong = request.clone();
    wrong[60] ^= 1;
    assert_eq!(world.tell("front", &wrong), "dropped transport_checksum");
    let other = Packet6 { destination: FRONT_DIP6, ..from_client6() };
    assert_eq!(world.tell("front", &other.icmp(128, 0, [0; 4], b"")), "dropped not_vip");
    let toml = web6().replace("mac = \"52:54:00:00:00:1", "weight = 0\nmac = \"52:54:00:00:00:1");
    let mut down = World::new(&toml);
    assert_eq!(down.tell("front", &request), "dropped vip_down");
}

#[test]
fn an_icmp_error_about_a_reply_reaches_its_real_server() {
    let mut world = World::new(&web6());
    world.tell("front", &from_client6().tcp(1, 80, "S", b""));
    assert_eq!(world.tell("front", &from_client6().tcp(2, 80, "S", b"")), "forwarded four2");
    world.take_sent();
    let reply = Packet6 { source: VIP6, destination: CLIENT6, ..from_client6() };
    let quoted = reply.tcp(80, 2, "A", &[0; 1400])[14..].to_vec();
    let router = Packet6 { source: "2001:db8:ffff::1".parse().unwrap(), ..from_client6() };
    for kept in [48, 60, 1232] {
        let too_big = router.icmp(2, 0, 1400u32.to_be_bytes(), &quoted[..kept]);
        assert_eq!(world.tell("front", &too_big), "forwarded four2", "{kept} bytes quoted");
        assert_eq!(world.take_one("back"), with_macs(&too_big, RS2_MAC, BACK_MAC));
    }
    for kind in [1, 3, 4] {
        let error = router.icmp(kind, 0, [0; 4], &quoted[..100]);
        assert_eq!(world.tell("front", &error), "forwarded four2", "type {kind}");
    }
    let rows = [
        (router.icmp(2, 0, [0; 4], &quoted[..47]), "dropped icmp_unrelated"),
        (router.icmp(5, 0, [0; 4], &quoted), "dropped icmp_unsupported"),
    ];
    for (frame, expected) in rows {
        assert_eq!(world.tell("front", &frame), expected);
    }
    let foreign = Packet6 { source: RS1_6, ..reply }.tcp(80, 2, "A", b"")[14..].to_vec();
    let error = router.icmp(1, 0, [0; 4], &foreign);
    assert_eq!(world.tell("front", &error), "dropped icmp_unrelated");
}

#[test]
fn a_packet_too_big_for_the_next_segment_is_told_its_mtu() {
    let toml = web6().replace("tap = \"vipr-back\"", "tap = \"vipr-back\"\nmtu = 1280");
    let mut world = World::new(&toml);
    world.tell("front", &from_client6().tcp(40_000, 80, "S", b""));
    world.take_sent();
    let fits = from_client6().tcp(40_000, 80, "A", &[0; 1220]);
    assert_eq!(world.tell("front", &fits), "forwarded six1");
    world.take_sent();
    let too_big = from_client6().tcp(40_000, 80, "A", &[0; 1221]);
    assert_eq!(world.tell("front", &too_big), "replied");
    let answer = world.take_one("front");
    let (kind, code, mtu, quote) = error(&answer);
    assert_eq!((kind, code, u32::from_be_bytes(mtu)), (2, 0, 1280));
    assert_eq!(quote, too_big[14..14 + 1232]);
}
