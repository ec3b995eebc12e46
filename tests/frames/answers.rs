//! What the director answers itself: resets, unreachables, echo replies; and what it never does.

use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use vipr::director::{Command, Limits, Response};

use crate::harness::frames::{Tcp, icmp_error, ip_payload, ipv4, ping, tcp, udp};
use crate::harness::*;

/// Source port, destination port, sequence, acknowledgement, and whether ACK is set, of a RST
/// whose checksums are right.
fn reset(frame: &[u8]) -> (u16, u16, u32, u32, bool) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("no IPv4") };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP") };
    let header = tcp.to_header();
    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(VIP, CLIENT).unwrap());
    assert!(header.rst && !header.syn && !header.fin);
    (
        header.source_port,
        header.destination_port,
        header.sequence_number,
        header.acknowledgment_number,
        header.ack,
    )
}

#[test]
fn tcp_to_no_service_is_reset() {
    let rows = [
        ("S", 0, (81, 40_000, 0, 1001, true)),
        ("S", 5, (81, 40_000, 0, 1006, true)),
        ("SF", 5, (81, 40_000, 0, 1007, true)),
        ("SA", 0, (81, 40_000, 2000, 0, false)),
        ("A", 9, (81, 40_000, 2000, 0, false)),
        ("F", 0, (81, 40_000, 0, 1001, true)),
    ];
    for (flags, payload, expected) in rows {
        let mut world = World::new(&web());
        world.take_sent();
        let segment = Tcp { destination_port: 81, payload: vec![7; payload], ..tcp(40_000, flags) };
        assert_eq!(world.tell("front", &segment.bytes()), "replied", "{flags}");
        let answer = world.take_one("front");
        assert_eq!(answer[..12], [CLIENT_MAC.0, FRONT_MAC.0].concat(), "back where it came from");
        assert_eq!(reset(&answer), expected, "{flags}");
    }
}

#[test]
fn tcp_that_neither_opens_nor_belongs_to_a_connection_is_reset() {
    let mut world = World::new(&web());
    world.take_sent();
    assert_eq!(world.tell("front", &tcp(40_000, "A").bytes()), "replied");
    assert_eq!(reset(&world.take_one("front")).2, 2000);
    assert_eq!(world.connections(), []);
}

#[test]
fn a_reset_or_an_icmp_error_is_never_answered() {
    let mut world = World::new(&web());
    world.take_sent();
    let to_81 = |flags| Tcp { destination_port: 81, ..tcp(40_000, flags) }.bytes();
    let quoted = [ip_payload(&udp(1, 2, b"x")), &[0; 20]].concat();
    let rows = [
        (to_81("R"), "dropped unmatched_unanswerable"),
        (to_81("RA"), "dropped unmatched_unanswerable"),
        (to_81("SR"), "dropped unmatched_unanswerable"),
        (tcp(40_000, "R").bytes(), "dropped unmatched_unanswerable"),
        (icmp_error(3, 3, [0; 4], &quoted), "dropped icmp_unrelated"),
    ];
    for (frame, expected) in rows {
        assert_eq!(world.tell("front", &frame), expected);
    }
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_segment_with_a_wrong_checksum_is_not_answered() {
    let mut world = World::new(&web());
    world.take_sent();
    let mut bad = Tcp { destination_port: 81, ..tcp(40_000, "S") }.bytes();
    bad[50] ^= 1;
    let mut bad_udp = udp(5000, 81, b"hello");
    bad_udp[40] ^= 1;
    let mut bad_ping = ping(VIP, b"hello");
    bad_ping[36] ^= 1;
    for frame in [bad, bad_udp, bad_ping] {
        assert_eq!(world.tell("front", &frame), "dropped transport_checksum");
    }
    assert_eq!(world.take_sent(), []);
}

#[test]
fn udp_to_no_service_is_answered_with_port_unreachable() {
    let mut world = World::new(&web());
    world.take_sent();
    let frame = udp(5000, 81, b"hello");
    assert_eq!(world.tell("front", &frame), "replied");
    let answer = world.take_one("front");
    assert_eq!(answer[..12], [CLIENT_MAC.0, FRONT_MAC.0].concat());
    assert_eq!(answer[26..34], [VIP, CLIENT].concat());
    assert_eq!(answer[34..36], [3, 3]);
    assert_eq!(answer[42..], frame[14..], "all of a small packet is quoted");
}

#[test]
fn the_policy_drop_answers_nothing() {
    let mut world = World::new(&format!("[router]\nunmatched = \"drop\"\n{}", web()));
    world.take_sent();
    let rows = [
        Tcp { destination_port: 81, ..tcp(40_000, "S") }.bytes(),
        tcp(40_000, "A").bytes(),
        udp(5000, 81, b"hello"),
    ];
    for frame in rows {
        assert_eq!(world.tell("front", &frame), "dropped unmatched");
    }
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_connection_that_no_real_server_can_take_is_unreachable() {
    let toml = web().replace("weight = 4", "weight = 0").replace("weight = 3", "weight = 0");
    let mut world = World::new(&toml.replace("weight = 2", "weight = 0"));
    world.take_sent();
    assert_eq!(world.tell("front", &tcp(40_000, "S").bytes()), "replied");
    assert_eq!(world.take_one("front")[34..36], [3, 3]);
    assert_eq!(world.tell("front", &ping(VIP, b"?")), "dropped vip_down");
    assert_eq!(world.tell("front", &tcp(40_000, "SR").bytes()), "dropped unmatched_unanswerable");
}

#[test]
fn an_echo_request_to_a_vip_comes_back() {
    let mut world = World::new(&web());
    world.take_sent();
    let request = ping(VIP, b"are you there");
    assert_eq!(world.tell("front", &request), "replied");
    let answer = world.take_one("front");
    assert_eq!(answer[..12], [CLIENT_MAC.0, FRONT_MAC.0].concat());
    assert_eq!(answer[26..34], [VIP, CLIENT].concat());
    assert_eq!(answer[34..36], [0, 0]);
    assert_eq!(answer[38..], request[38..], "identifier, sequence and data");
    assert!(SlicedPacket::from_ethernet(&answer).is_ok());
    assert_eq!(world.tell("front", &ping(FRONT_DIP, b"?")), "dropped not_vip");
    assert_eq!(world.tell("front", &ping([192, 0, 2, 99], b"?")), "dropped not_vip");
}

#[test]
fn an_echo_request_is_answered_while_any_real_server_can_take_a_connection() {
    let one =
        format!("{SEGMENTS}\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80\n");
    let two = format!(
        "{one}{}{}",
        real_server("rs1", 11, 1, "upper_threshold = 1"),
        real_server("rs2", 12, 1, "")
    );
    let mut world = World::new(&two);
    let answered = |world: &mut World| world.tell("front", &ping(VIP, b"?")) == "replied";
    let set = |world: &mut World, name: &str, weight| {
        let (service, real_server) = ("192.0.2.10:80/tcp".to_owned(), name.to_owned());
        let order = Command::Weight { service, real_server, weight };
        let done = world.director.handle_command(world.now, order);
        assert!(matches!(done, Response::Done(_)), "{done:?}");
    };
    assert!(answered(&mut world));
    set(&mut world, "rs2", Some(0));
    set(&mut world, "rs2", Some(0));
    assert!(answered(&mut world), "rs1");
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    assert!(!answered(&mut world), "one is quiesced, the other at its threshold");
    set(&mut world, "rs2", None);
    assert!(answered(&mut world), "rs2");
    for (toml, expected) in
        [(&one, false), (&two, true), (&two.replace("weight = 1", "weight = 0"), false)]
    {
        world.director.apply(world.now, snapshot(toml));
        assert_eq!(answered(&mut world), expected, "{toml}");
    }
}

#[test]
fn resets_and_icmp_errors_are_limited_each_by_itself() {
    let limits = Limits { replies_per_second: 10, replies_burst: 3, ..Limits::default() };
    let mut world = World::with_limits(&web(), limits);
    let syn = |port| Tcp { destination_port: 81, ..tcp(port, "S") }.bytes();
    for port in 1..=3 {
        assert_eq!(world.tell("front", &syn(port)), "replied");
    }
    assert_eq!(world.tell("front", &syn(4)), "dropped rate_limited");
    assert_eq!(world.tell("front", &udp(5000, 81, b"x")), "replied", "a limit of its own");
    world.advance(Duration::from_millis(100));
    assert_eq!(world.tell("front", &syn(5)), "replied");
    assert_eq!(world.tell("front", &syn(6)), "dropped rate_limited");
}

#[test]
fn later_fragments_and_first_fragments_of_tcp_are_not_answered() {
    let mut world = World::new(&web());
    world.take_sent();
    let segment = Tcp { destination_port: 81, ..tcp(40_000, "S") }.bytes();
    let first = ipv4(6, Some((9, 0, true)), ip_payload(&[&segment[..], &[0; 4]].concat()));
    assert_eq!(world.tell("front", &first), "dropped unmatched_unanswerable");
    assert_eq!(world.take_sent(), []);
}
