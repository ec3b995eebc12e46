//! SCTP: associations as the client's half shows them, and what belongs to none.

use std::time::Duration;

use vipr::director::connections::ConnectionState::{
    self, SctpClosed, SctpEstablished, SctpInit, SctpInit1, SctpShutdownReceived,
};

use crate::harness::frames::{from_client, icmp_error, ip_payload, ipv4, udp};
use crate::harness::*;

const INIT: u8 = 1;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const SHUTDOWN_COMPLETE: u8 = 14;
const PORT: u16 = 3868;

fn diameter(more: &str) -> String {
    web().replace("\"tcp\"", "\"sctp\"").replace("ports = 80", &format!("ports = {PORT}\n{more}"))
}

/// CRC32c bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

fn packet(source_port: u16, tag: u32, chunks: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [source_port.to_be_bytes(), PORT.to_be_bytes()].concat();
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(chunks.concat());
    let crc = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// From the client, with a single chunk of this type.
fn sctp(source_port: u16, chunk: u8) -> Vec<u8> {
    let value: &[u8] = match chunk {
        INIT => &[INIT, 0, 0, 20, 0xca, 0xfe, 0, 1, 0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        ABORT => &[ABORT, 0, 0, 4],
        other => &[other, 0, 0, 8, 0, 0, 0, 0],
    };
    let tag = if chunk == INIT { 0 } else { 0xbeef };
    ipv4(132, None, &packet(source_port, tag, &[value]))
}

#[test]
fn an_association_goes_through_its_states() {
    let mut world = World::new(&diameter(""));
    let rows: &[(u8, ConnectionState, (u32, u32), u64)] = &[
        (INIT, SctpInit1, (0, 1), 4),
        (INIT, SctpInit, (0, 1), 61),
        (COOKIE_ECHO, SctpEstablished, (1, 0), 900),
        (0, SctpEstablished, (1, 0), 900),
        (INIT, SctpEstablished, (1, 0), 900),
        (SHUTDOWN, SctpShutdownReceived, (0, 1), 61),
        (SHUTDOWN_COMPLETE, SctpClosed, (0, 1), 61),
    ];
    for (chunk, state, counts, seconds) in rows {
        assert_eq!(world.tell("front", &sctp(1, *chunk)), "forwarded rs1", "{chunk}");
        let flow = world.connections()[0].clone();
        assert_eq!((flow.state, flow.expires_seconds), (*state, *seconds), "after {chunk}");
        let rs1 = world.status().services[0].real_servers[0].clone();
        assert_eq!((rs1.active, rs1.inactive), *counts, "after {chunk}");
    }
    assert_eq!(world.connections()[0].state.name(), "CLOSED", "as ipvsadm has it");
    world.advance(Duration::from_secs(62));
    assert_eq!(world.connections(), []);
}

#[test]
fn an_init_starts_over_where_an_association_is_closed() {
    let mut world = World::new(&diameter(""));
    // Weights 4, 3, 2: rs1, rs1, rs2, …
    world.tell("front", &sctp(9, INIT));
    for (chunk, expected) in [(INIT, "rs1"), (COOKIE_ECHO, "rs1"), (INIT, "rs1"), (ABORT, "rs1")] {
        assert_eq!(world.tell("front", &sctp(1, chunk)), format!("forwarded {expected}"));
    }
    assert_eq!(world.tell("front", &sctp(1, INIT)), "forwarded rs2");
    let flow = world.connections().into_iter().find(|flow| flow.client_port == 1).unwrap();
    assert_eq!(flow.state, SctpInit1);
}

#[test]
fn only_an_init_opens_and_with_sloppy_sctp_all_but_an_abort() {
    let sloppy = diameter("sloppy_sctp = true");
    for (chunk, strict, loose) in [
        (INIT, "forwarded rs1", "forwarded rs1"),
        (0, "replied", "forwarded rs1"),
        (COOKIE_ECHO, "replied", "forwarded rs1"),
        (SHUTDOWN_ACK, "replied", "forwarded rs1"),
        (SHUTDOWN_COMPLETE, "dropped unmatched_unanswerable", "forwarded rs1"),
        (ABORT, "dropped unmatched_unanswerable", "dropped unmatched_unanswerable"),
    ] {
        assert_eq!(World::new(&diameter("")).tell("front", &sctp(1, chunk)), strict, "{chunk}");
        assert_eq!(World::new(&sloppy).tell("front", &sctp(1, chunk)), loose, "sloppy {chunk}");
    }
    // Nothing at all in it.
    let empty = ipv4(132, None, &packet(1, 7, &[]));
    let unanswerable = "dropped unmatched_unanswerable";
    assert_eq!(World::new(&sloppy).tell("front", &empty), unanswerable);
    // It may be switched while it runs.
    let mut world = World::new(&sloppy);
    world.director.apply(world.now, snapshot(&diameter("")));
    assert_eq!(world.tell("front", &sctp(1, 0)), "replied");
}

/// RFC 9260, section 8.4: with the tag the peer goes by, and the T bit where that is its own.
#[test]
fn what_belongs_to_no_association_gets_an_abort_with_the_right_tag() {
    let mut world = World::new(&web());
    world.take_sent();
    for (chunk, tag, answer) in [
        (INIT, 0xcafe_0001_u32, [ABORT, 0, 0, 4]),
        (0, 0xbeef, [ABORT, 1, 0, 4]),
        (SHUTDOWN_ACK, 0xbeef, [SHUTDOWN_COMPLETE, 1, 0, 4]),
    ] {
        assert_eq!(world.tell("front", &sctp(40_000, chunk)), "replied", "{chunk}");
        let sent = world.take_one("front");
        assert_eq!((&sent[..6], &sent[6..12]), (&CLIENT_MAC.0[..], &FRONT_MAC.0[..]));
        assert_eq!((sent[23], &sent[26..30], &sent[30..34]), (132, &VIP[..], &CLIENT[..]));
        let expected = {
            let mut bytes = [PORT.to_be_bytes(), 40_000_u16.to_be_bytes()].concat();
            bytes.extend(tag.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(answer);
            let crc = crc32c(&bytes);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            bytes
        };
        assert_eq!(ip_payload(&sent), expected, "{chunk}");
    }
    // Damaged, it might be anybody's.
    let mut damaged = sctp(40_000, 0);
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(world.tell("front", &damaged), "dropped transport_checksum");
    let mut world = World::new(&format!("[router]\nunmatched = \"drop\"\n{}", web()));
    assert_eq!(world.tell("front", &sctp(40_000, INIT)), "dropped unmatched");
}

#[test]
fn without_a_real_server_an_init_is_answered_by_icmp_as_in_ipvs() {
    let none = diameter("").replace("weight = 4", "weight = 0").replace("weight = 3", "weight = 0");
    let mut world = World::new(&none.replace("weight = 2", "weight = 0"));
    world.take_sent();
    assert_eq!(world.tell("front", &sctp(1, INIT)), "replied");
    let sent = world.take_one("front");
    assert_eq!((sent[23], sent[34], sent[35]), (1, 3, 3), "port unreachable");
}

#[test]
fn an_abort_behind_a_cookie_closes() {
    let mut world = World::new(&diameter(""));
    world.tell("front", &sctp(1, INIT));
    let echo = [COOKIE_ECHO, 0, 0, 6, 1, 2, 0, 0];
    let frame = ipv4(132, None, &packet(1, 0xbeef, &[&echo, &[ABORT, 0, 0, 4]]));
    assert_eq!(world.tell("front", &frame), "forwarded rs1");
    assert_eq!(world.connections()[0].state, SctpClosed);
}

#[test]
fn fragments_and_errors_follow_an_association() {
    let mut world = World::new(&diameter(""));
    assert_eq!(world.tell("front", &sctp(1, INIT)), "forwarded rs1");
    assert_eq!(world.tell("front", &sctp(2, INIT)), "forwarded rs1");
    assert_eq!(world.tell("front", &sctp(3, INIT)), "forwarded rs2");
    let data = packet(3, 0xbeef, &[&[0, 3, 0, 16], &[0; 12]]);
    let first = from_client().fragment(77, 0, true).raw(132, &data[..24]);
    let second = from_client().fragment(77, 3, false).raw(132, &data[24..]);
    assert_eq!(world.tell("front", &first), "forwarded rs2");
    assert_eq!(world.tell("front", &second), "forwarded rs2");
    let mut quoted = ipv4(132, None, &packet(3, 1, &[&[0, 3, 0, 4]]));
    // What the real server sent: the other way round.
    quoted[26..34].rotate_left(4);
    quoted[34..38].rotate_left(2);
    let error = icmp_error(3, 4, [0, 0, 5, 0], &quoted[14..]);
    assert_eq!(world.tell("front", &error), "forwarded rs2");
}

#[test]
fn a_port_of_sctp_is_not_that_of_udp() {
    let mut world = World::new(&diameter(""));
    assert_eq!(world.tell("front", &udp(1, PORT, b"x")), "replied", "port unreachable");
}

#[test]
fn half_open_associations_go_first_when_the_table_is_full() {
    let mut world = World::new(&format!("[router]\nconnections_max = 4\n{}", diameter("")));
    for chunk in [INIT, COOKIE_ECHO] {
        world.tell("front", &sctp(1, chunk));
    }
    for port in 100..120 {
        assert!(world.tell("front", &sctp(port, INIT)).starts_with("forwarded"));
    }
    assert!(world.connections().iter().any(|flow| flow.state == SctpEstablished));
}
