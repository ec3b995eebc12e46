//! Health checks: asked the way a client's packets go, judged by the answer, and what follows.

use std::collections::BTreeMap;
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use vipr::director::report::{CheckReport, RealServerState};
use vipr::director::{Command, Response};
use vipr::wire::MacAddr;

use crate::harness::frames::{FrameBuilder, Tcp, arp_reply, tcp};
use crate::harness::*;

const MACS: [MacAddr; 3] = [RS1_MAC, RS2_MAC, RS3_MAC];

/// [`web`] with a check of a kind, and other keys of it.
fn checked(kind: &str, more: &str) -> String {
    format!(
        "{}\n[service.check]\nkind = \"{kind}\"\ninterval = \"1s\"\ntimeout = \"500ms\"\n\
         retries = 0\nwarmup = 0\n{more}\n",
        web()
    )
}

/// A packet of the director's to a real server.
#[derive(Clone, Debug)]
pub struct Asked {
    pub mac: MacAddr,
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    /// Of TCP.
    pub flags: String,
    pub payload: Vec<u8>,
    /// Of the IP packet.
    pub len: u16,
}

impl Asked {
    /// What answers it, if it is an echo request.
    pub fn echo_reply(&self) -> Option<Vec<u8>> {
        if self.source_port != 0 || self.payload.first() != Some(&8) {
            return None;
        }
        let mut payload = self.payload.clone();
        (payload[0], payload[2], payload[3]) = (0, 0, 0);
        let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        let sum: u32 = payload.chunks(2).map(word).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        payload.splice(2..4, checksum.to_be_bytes());
        let (from, to) = ((self.mac, self.destination), (BACK_MAC, self.source));
        Some(FrameBuilder::new(from, to).raw(1, &payload))
    }
}

/// What was sent since last asked to real servers, ARP apart.
fn asked(world: &mut World) -> Vec<Asked> {
    let sent = world.take_sent().into_iter().filter(|sent| sent.segment == "back");
    sent.filter_map(|sent| read(&sent.bytes)).collect()
}

fn read(frame: &[u8]) -> Option<Asked> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let etherparse::NetSlice::Ipv4(ip) = packet.net? else { return None };
    let ip = ip.header();
    assert_eq!(frame[6..12], BACK_MAC.0);
    let mut asked = Asked {
        mac: MacAddr(frame[..6].try_into().unwrap()),
        source: ip.source(),
        destination: ip.destination(),
        source_port: 0,
        destination_port: 0,
        sequence: 0,
        flags: String::new(),
        payload: Vec::new(),
        len: ip.total_len(),
    };
    match packet.transport? {
        TransportSlice::Tcp(tcp) => {
            (asked.source_port, asked.destination_port) =
                (tcp.source_port(), tcp.destination_port());
            asked.sequence = tcp.sequence_number();
            let flags = [('S', tcp.syn()), ('F', tcp.fin()), ('R', tcp.rst()), ('A', tcp.ack())];
            asked.flags.extend(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag));
            asked.payload = tcp.payload().to_vec();
        }
        TransportSlice::Udp(udp) => {
            (asked.source_port, asked.destination_port) =
                (udp.source_port(), udp.destination_port());
            asked.payload = udp.payload().to_vec();
        }
        TransportSlice::Icmpv4(icmp) => asked.payload = icmp.slice().to_vec(),
        TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => return None,
    }
    Some(asked)
}

/// What a real server answers to a segment.
pub fn answer(to: &Asked, flags: &'static str, payload: &[u8]) -> Vec<u8> {
    let len = to.payload.len() as u32 + u32::from(to.flags.contains('S'));
    Tcp {
        source_mac: to.mac,
        destination_mac: BACK_MAC,
        source: to.destination,
        destination: to.source,
        source_port: to.destination_port,
        destination_port: to.source_port,
        sequence: if flags.contains('S') { 7000 } else { 7001 },
        acknowledgement: to.sequence + len,
        payload: payload.to_vec(),
        ..tcp(0, flags)
    }
    .bytes()
}

fn check_of(world: &mut World, real_server: usize) -> CheckReport {
    world.status().services[0].real_servers[real_server].check.clone().expect("it is checked")
}

fn state_of(world: &mut World, real_server: usize) -> RealServerState {
    world.status().services[0].real_servers[real_server].state
}

/// Lets time pass in small steps, every packet that is asked answered by `stub`.
fn live(world: &mut World, time: Duration, stub: impl FnMut(&Asked) -> Vec<Vec<u8>>) {
    live_with_arp(world, time, |_, _| vec![], stub);
}

/// The same, and every ARP request, by segment and target, by `arp`. Answers go to the segment
/// whose address they are for.
pub fn live_with_arp(
    world: &mut World,
    time: Duration,
    mut arp: impl FnMut(&str, [u8; 4]) -> Vec<Vec<u8>>,
    mut stub: impl FnMut(&Asked) -> Vec<Vec<u8>>,
) {
    world.converse(time, |_, frame| {
        if frame.bytes[12..14] == [8, 6] {
            let target = frame.bytes[38..42].try_into().unwrap();
            let replies = arp(&frame.segment, target).into_iter();
            return replies.map(|reply| (frame.segment.clone(), reply)).collect();
        }
        let Some(question) = read(&frame.bytes).filter(|_| frame.segment == "back") else {
            return Vec::new();
        };
        let segment = if question.source == FRONT_DIP { "front" } else { "back" };
        let towards = |mut reply: Vec<u8>| {
            if segment == "front" {
                reply.splice(..6, FRONT_MAC.0);
            }
            (segment.to_owned(), reply)
        };
        stub(&question).into_iter().map(towards).collect()
    });
}

/// A real server on which everything works.
fn healthy(question: &Asked) -> Vec<Vec<u8>> {
    serving(question, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")
}

fn serving(question: &Asked, response: &[u8]) -> Vec<Vec<u8>> {
    match (question.flags.as_str(), question.payload.is_empty()) {
        ("S", _) => vec![answer(question, "SA", b"")],
        ("A", false) => vec![answer(question, "PA", response)],
        _ => vec![],
    }
}

#[test]
fn a_check_goes_the_way_a_client_goes_and_its_answer_is_consumed() {
    let mut world = World::new(&checked("tcp", ""));
    let mut macs = Vec::new();
    for question in asked(&mut world) {
        assert_eq!((question.source, question.destination), (BACK_DIP, VIP));
        assert_eq!((question.destination_port, question.flags.as_str()), (80, "S"));
        macs.push(question.mac);
        assert_eq!(world.tell("back", &answer(&question, "SA", b"")), "consumed");
        let rest = asked(&mut world);
        assert_eq!(rest.last().unwrap().flags, "RA", "neither end remembers it: {rest:?}");
        assert_eq!(rest.last().unwrap().mac, question.mac);
        // What comes after the end is nobody's.
        assert_eq!(world.tell("back", &answer(&question, "SA", b"")), "dropped not_vip");
    }
    assert_eq!(macs, MACS);
    for at in 0..3 {
        let check = check_of(&mut world, at);
        assert_eq!((check.passed, check.failed, check.healthy), (1, 0, true));
        assert_eq!(check.latency.iter().map(|class| class.count).sum::<u64>(), 1);
    }
    assert_eq!(world.take_events(), [] as [&str; 0]);
}

#[test]
fn without_a_check_nothing_is_asked() {
    let mut world = World::new(&web());
    world.take_sent();
    world.advance(Duration::from_secs(50));
    assert_eq!(world.take_sent().iter().filter(|sent| sent.segment == "back").count(), 0);
    assert!(world.status().services[0].real_servers[0].check.is_none());
    let command = Command::CheckNow { service: "web".into(), real_server: "rs1".into() };
    let Response::Refused(why) = world.director.handle_command(world.now, command) else {
        panic!()
    };
    assert!(why.contains("no [service.check]"), "{why}");
}

#[test]
fn three_refusals_take_a_real_server_out_and_two_good_checks_bring_it_back() {
    let mut world = World::new(&checked("tcp", "fall = 3\nrise = 2"));
    let refusing = |question: &Asked| match (question.flags.as_str(), question.mac) {
        ("S", RS2_MAC) => vec![answer(question, "RA", b"")],
        _ => healthy(question),
    };
    live(&mut world, Duration::from_millis(1900), refusing);
    assert_eq!(state_of(&mut world, 1), RealServerState::Up, "two failures are not three");
    live(&mut world, Duration::from_millis(200), refusing);
    assert_eq!(
        world.take_events(),
        ["service web: real server rs2 down (3 failed checks: connection refused); no new \
             connections until it passes"]
    );
    assert_eq!(state_of(&mut world, 1), RealServerState::Down);
    let mut given = BTreeMap::new();
    for port in 1000..1060 {
        *given.entry(world.tell("front", &tcp(port, "S").bytes())).or_insert(0) += 1;
    }
    assert_eq!(given, [("forwarded rs1".into(), 40), ("forwarded rs3".into(), 20)].into());
    world.take_sent();

    live(&mut world, Duration::from_millis(1000), healthy);
    assert_eq!(state_of(&mut world, 1), RealServerState::Down);
    live(&mut world, Duration::from_millis(1000), healthy);
    assert_eq!(world.take_events(), ["service web: real server rs2 up (2 passed checks)"]);
    assert_eq!(state_of(&mut world, 1), RealServerState::Up);
}

#[test]
fn a_failed_attempt_is_repeated_before_it_counts() {
    let toml =
        checked("tcp", "").replace("retries = 0", "retries = 2\ndelay_before_retry = \"2s\"");
    let mut world = World::new(&toml.replace("interval = \"1s\"", "interval = \"30s\""));
    let mut attempts = 0;
    let mut silent = |question: &Asked| match (question.flags.as_str(), question.mac) {
        ("S", RS1_MAC) => {
            attempts += 1;
            vec![]
        }
        _ => healthy(question),
    };
    live(&mut world, Duration::from_millis(5400), &mut silent);
    assert_eq!(check_of(&mut world, 0).failed, 0);
    live(&mut world, Duration::from_millis(100), &mut silent);
    assert_eq!(attempts, 3, "one and two more");
    let check = check_of(&mut world, 0);
    assert_eq!((check.failed, check.healthy), (1, false));
    assert_eq!(check.last.unwrap().reason.as_deref(), Some("no answer"));
    assert_eq!(world.take_events().len(), 1);
}

#[test]
fn an_http_answer_counts_by_status_and_text() {
    let rows: [(&str, &[u8], Option<&str>); 5] = [
        ("", b"HTTP/1.1 200 OK\r\n\r\n", None),
        ("", b"HTTP/1.1 500 Oh\r\n\r\n", Some("HTTP 500")),
        ("status = [200, \"500-503\"]", b"HTTP/1.1 500 Oh\r\n\r\n", None),
        ("body = \"well\"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell", None),
        (
            "body = \"well\"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsick",
            Some("the answer lacks the text expected"),
        ),
    ];
    for (keys, response, reason) in rows {
        let mut world = World::new(&checked("http", &format!("path = \"/health\"\n{keys}")));
        let mut requests = Vec::new();
        live(&mut world, Duration::from_millis(100), |question| {
            if !question.payload.is_empty() {
                requests.push(String::from_utf8(question.payload.clone()).unwrap());
            }
            serving(question, response)
        });
        assert_eq!(requests.len(), 3);
        assert!(requests[0].starts_with("GET /health HTTP/1.1\r\nHost: 192.0.2.10\r\n"));
        let last = check_of(&mut world, 0).last.expect("it was checked");
        assert_eq!(last.reason.as_deref(), reason, "{keys}");
    }
}

#[test]
fn a_tls_server_answers_a_client_hello() {
    let rows: [(&[u8], Option<&str>); 3] = [
        (&[22, 3, 3, 0, 80, 2, 0, 0, 76], None),
        (&[21, 3, 3, 0, 2, 2, 40], Some("TLS alert 40")),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Some("the answer is not TLS")),
    ];
    for (response, reason) in rows {
        let mut world = World::new(&checked("tls", "server_name = \"www.example.org\""));
        let mut hellos = Vec::new();
        live(&mut world, Duration::from_millis(100), |question| {
            hellos.extend((!question.payload.is_empty()).then(|| question.payload.clone()));
            serving(question, response)
        });
        assert_eq!((hellos.len(), hellos[0][0]), (3, 22));
        let last = check_of(&mut world, 0).last.expect("it was checked");
        assert_eq!(last.reason.as_deref(), reason);
    }
}

#[test]
fn what_comes_back_instead_of_an_answer_is_named() {
    let loop_back = |question: &Asked| {
        Tcp {
            source_mac: question.mac,
            destination_mac: BACK_MAC,
            source: question.source,
            destination: question.destination,
            source_port: question.source_port,
            destination_port: question.destination_port,
            sequence: question.sequence,
            ..tcp(0, "S")
        }
        .bytes()
    };
    let unreachable = |question: &Asked, code| {
        let quoted = loop_back(question)[14..].to_vec();
        FrameBuilder::new((question.mac, RS1), (BACK_MAC, question.source))
            .icmp_error(3, code, [0; 4], &quoted)
    };
    let from_rip =
        |question: &Asked| answer(&Asked { destination: RS1, ..question.clone() }, "SA", b"");
    type Row<'r> = (&'r dyn Fn(&Asked) -> Vec<u8>, &'r str, &'r str);
    let rows: [Row<'_>; 5] = [
        (&|question| answer(question, "RA", b""), "consumed", "connection refused"),
        (&|q| unreachable(q, 1), "consumed", "host unreachable, says 10.0.0.11"),
        (&|q| unreachable(q, 13), "consumed", "prohibited by a filter, says 10.0.0.11"),
        (&loop_back, "dropped loop rs1", "it sends the check back: it lacks the VIP"),
        (&from_rip, "consumed", "answered from 10.0.0.11"),
    ];
    for (fault, verdict, reason) in rows {
        let mut world = World::new(&checked("tcp", ""));
        let question = asked(&mut world).into_iter().find(|asked| asked.mac == RS1_MAC).unwrap();
        assert_eq!(world.tell("back", &fault(&question)), verdict, "{reason}");
        assert_eq!(check_of(&mut world, 0).last.unwrap().reason.as_deref(), Some(reason));
    }
}

#[test]
fn answers_to_others_and_broken_ones_change_nothing() {
    let mut world = World::new(&checked("tcp", ""));
    let question = asked(&mut world).into_iter().find(|asked| asked.mac == RS1_MAC).unwrap();
    let fine = answer(&question, "SA", b"");
    let mut bad_checksum = fine.clone();
    bad_checksum[50] ^= 1;
    let other_port = answer(&Asked { source_port: 999, ..question.clone() }, "SA", b"");
    let other_service = answer(&Asked { destination_port: 81, ..question.clone() }, "SA", b"");
    let other_address = answer(&Asked { source: [10, 0, 0, 99], ..question.clone() }, "SA", b"");
    for (frame, verdict) in [
        (bad_checksum, "dropped transport_checksum"),
        (other_port, "dropped not_vip"),
        (other_service, "dropped not_vip"),
        (other_address, "dropped not_vip"),
    ] {
        assert_eq!(world.tell("back", &frame), verdict);
    }
    assert_eq!(world.tell("front", &fine), "dropped foreign_mac");
    assert_eq!(check_of(&mut world, 0).passed, 0);
    assert_eq!(world.tell("back", &fine), "consumed");
    assert_eq!(check_of(&mut world, 0).passed, 1);
}

#[test]
fn an_echo_request_to_the_vip_is_a_check_too() {
    let mut world = World::new(&checked("icmp", ""));
    let questions = asked(&mut world);
    assert_eq!(questions.len(), 3);
    let question = &questions[0];
    assert_eq!((question.mac, question.destination, question.payload[0]), (RS1_MAC, VIP, 8));
    let reply = question.echo_reply().expect("it is an echo request");
    assert_eq!(world.tell("back", &reply), "consumed");
    live(&mut world, Duration::from_millis(600), |_| vec![]);
    assert_eq!(check_of(&mut world, 0).passed, 1);
    assert_eq!(check_of(&mut world, 1).last.unwrap().reason.as_deref(), Some("no answer"));
}

#[test]
fn datagrams_and_dns_queries_are_judged_by_their_answers() {
    let udp = |keys: &str, kind: &str| {
        checked(kind, keys).replace("protocol = \"tcp\"", "protocol = \"udp\"").replace("80", "53")
    };
    let reply = |question: &Asked, payload: &[u8]| {
        vec![FrameBuilder::new((question.mac, VIP), (BACK_MAC, question.source)).udp(
            question.destination_port,
            question.source_port,
            payload,
        )]
    };
    let dns = |rcode: u8| {
        move |question: &Asked| {
            let mut answer = question.payload.clone();
            (answer[2], answer[3]) = (0x81, 0x80 | rcode);
            answer
        }
    };
    type Row<'r> = (&'r str, &'r str, &'r dyn Fn(&Asked) -> Vec<u8>, Option<&'r str>);
    let rows: [Row<'_>; 5] = [
        ("udp", "send = \"ping\"\nexpect = \"pong\"", &|_| b"a pong".to_vec(), None),
        (
            "udp",
            "send = \"ping\"\nexpect = \"hex:0102\"",
            &|_| b"a pong".to_vec(),
            Some("the answer lacks the text expected"),
        ),
        ("dns", "query = \"example.org\"", &dns(0), None),
        ("dns", "query = \"example.org\"", &dns(2), Some("DNS SERVFAIL")),
        ("dns", "query = \"example.org\"\nrcode = \"REFUSED\"", &dns(5), None),
    ];
    for (kind, keys, stub, reason) in rows {
        let mut world = World::new(&udp(keys, kind));
        live(&mut world, Duration::from_millis(100), |question| {
            assert_eq!(question.destination_port, 53);
            reply(question, &stub(question))
        });
        let last = check_of(&mut world, 1).last.expect("it was answered");
        assert_eq!(last.reason.as_deref(), reason, "{kind} {keys}");
    }
}

#[test]
fn a_check_of_kind_arp_asks_even_for_a_configured_mac() {
    let mut world = World::new(&checked("arp", ""));
    let requests = |world: &mut World| {
        let sent = world.take_sent().into_iter();
        sent.filter(|sent| sent.segment == "back" && sent.bytes[12..14] == [8, 6]).count()
    };
    assert_eq!(requests(&mut world), 3);
    world.tell("back", &arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP));
    world.tell("back", &arp_reply(RS3_MAC, RS2, BACK_MAC, BACK_DIP));
    world.advance(Duration::from_millis(600));
    let reasons: Vec<_> = (0..3).map(|at| check_of(&mut world, at).last.unwrap().reason).collect();
    let expected = [None, Some("another MAC answers for it"), Some("no answer")];
    assert_eq!(reasons, expected.map(|reason| reason.map(str::to_owned)));
}

#[test]
fn first_checks_are_spread_over_the_warm_up_time() {
    let mut toml = checked("tcp", "").replace("warmup = 0", "warmup = \"1s\"");
    let more: String = (20..70).map(|last| real_server(&format!("x{last}"), last, 1, "")).collect();
    let at = toml.find("\n[service.check]").unwrap();
    toml.insert_str(at, &more);
    let mut world = World::new(&toml);
    for tenth in 0..10 {
        let mut begun = 0;
        live(&mut world, Duration::from_millis(100), |question| {
            begun += usize::from(question.flags == "S");
            healthy(question)
        });
        assert!((4..=7).contains(&begun), "{begun} in tenth {tenth}");
    }
}

#[test]
fn a_reload_restarts_the_checks_it_changes_and_no_other() {
    let other = "\n[[service]]\nname = \"other\"\nvip = \"192.0.2.11\"\nprotocol = \"tcp\"\n\
                 ports = 80\n[service.check]\nkind = \"tcp\"\ninterval = \"1s\"\nwarmup = 0\n";
    let other = format!("{other}{}", real_server("rs1", 11, 1, ""));
    let before = format!("{}{other}", checked("tcp", ""));
    let mut world = World::new(&before);
    let refusing = |question: &Asked| match question.flags.as_str() {
        "S" if question.mac == RS1_MAC => vec![answer(question, "RA", b"")],
        _ => healthy(question),
    };
    live(&mut world, Duration::from_millis(3500), refusing);
    let counts = |world: &mut World| -> Vec<(u64, bool)> {
        let services = world.status().services;
        let real_servers = services.iter().flat_map(|service| &service.real_servers);
        let checks = real_servers.map(|found| found.check.clone().unwrap());
        checks.map(|check| (check.passed + check.failed, check.healthy)).collect()
    };
    assert_eq!(counts(&mut world), [(4, false), (4, true), (4, true), (2, false)]);

    // Something else changes: checks and health stay as they are.
    let next = before.replace("scheduler = \"wrr\"", "scheduler = \"rr\"");
    world.director.apply(world.now, snapshot(&next));
    assert_eq!(counts(&mut world), [(4, false), (4, true), (4, true), (2, false)]);
    // The check of one service changes: it starts anew, with the health it has.
    let next = next.replace("timeout = \"500ms\"", "timeout = \"400ms\"");
    world.director.apply(world.now, snapshot(&next));
    assert_eq!(counts(&mut world), [(0, false), (0, true), (0, true), (2, false)]);
    // And goes: then nothing is held against anyone.
    let (start, end) = (
        next.find("[service.check]").unwrap(),
        next.find("\n[[service]]\nname = \"other\"").unwrap(),
    );
    let next = format!("{}{}", &next[..start], &next[end..]);
    world.director.apply(world.now, snapshot(&next));
    let status = world.status();
    assert_eq!(status.services[0].real_servers[0].state, RealServerState::Up);
    assert_eq!(status.services[1].real_servers[0].state, RealServerState::Down);
}

#[test]
fn persistent_clients_stay_with_an_inhibited_real_server_and_leave_a_removed_one() {
    for (on_failure, stays) in [("inhibit", true), ("remove", false)] {
        let toml = checked("tcp", &format!("on_failure = \"{on_failure}\"")).replace(
            "scheduler = \"wrr\"",
            "scheduler = \"rr\"\npersistence = { timeout = \"5m\" }",
        );
        let mut world = World::new(&toml);
        live(&mut world, Duration::from_millis(100), healthy);
        let first = world.tell("front", &tcp(1000, "S").bytes());
        let mac = MACS[first.trim_start_matches("forwarded rs").parse::<usize>().unwrap() - 1];
        world.take_sent();
        live(&mut world, Duration::from_secs(2), |question| match question.flags.as_str() {
            "S" if question.mac == mac => vec![answer(question, "RA", b"")],
            _ => healthy(question),
        });
        assert_eq!(world.tell("front", &tcp(1000, "A").bytes()), first, "connections stay");
        let next = world.tell("front", &tcp(1001, "S").bytes());
        assert_eq!(next == first, stays, "{on_failure}: {next}");
    }
}

#[test]
fn a_check_asked_for_begins_at_once() {
    let mut world = World::new(&checked("tcp", "").replace("\"1s\"", "\"1h\""));
    live(&mut world, Duration::from_secs(5), healthy);
    assert_eq!(check_of(&mut world, 1).passed, 1);
    let command = Command::CheckNow { service: "web".into(), real_server: "rs2".into() };
    let answered = world.command(command);
    assert!(matches!(answered, Response::RealServer(_)), "{answered:?}");
    live(&mut world, Duration::from_millis(10), healthy);
    assert_eq!((check_of(&mut world, 1).passed, check_of(&mut world, 0).passed), (2, 1));
}

#[test]
fn syns_that_come_again_bring_the_check_forward() {
    let mut world = World::new(&checked("tcp", "").replace("\"1s\"", "\"1h\""));
    live(&mut world, Duration::from_secs(5), healthy);
    world.take_events();
    let first = world.tell("front", &tcp(1000, "S").bytes());
    let at = first.trim_start_matches("forwarded rs").parse::<usize>().unwrap() - 1;
    for retransmission in 1..=3 {
        world.advance(Duration::from_secs(1));
        world.take_sent();
        assert_eq!(world.tell("front", &tcp(1000, "S").bytes()), first);
        let events = world.take_events();
        assert_eq!(events.len(), usize::from(retransmission == 3), "{events:?}");
    }
    world.take_sent();
    let mut checked = Vec::new();
    live(&mut world, Duration::from_millis(10), |question| {
        checked.push(question.mac);
        healthy(question)
    });
    assert!(!checked.is_empty() && checked.iter().all(|mac| *mac == MACS[at]), "{checked:?}");
}

#[test]
fn a_syn_that_comes_again_moves_to_another_real_server_where_that_is_wanted() {
    // Whether it is wanted, whether another connection made progress meanwhile, whether it moves.
    for (rescue, progress, moves) in
        [(true, false, true), (false, false, false), (true, true, false)]
    {
        let toml = web()
            .replace("scheduler = \"wrr\"", &format!("scheduler = \"rr\"\nsyn_rescue = {rescue}"));
        let mut world = World::new(&toml);
        let first = world.tell("front", &tcp(1000, "S").bytes());
        let [_, _] = [1001, 1002].map(|port| world.tell("front", &tcp(port, "S").bytes()));
        // It comes to the same real server as the first.
        let fellow = world.tell("front", &tcp(1003, "S").bytes());
        assert_eq!(fellow, first);
        world.advance(Duration::from_secs(1));
        if progress {
            assert_eq!(world.tell("front", &tcp(1003, "A").bytes()), first);
        }
        let again = world.tell("front", &tcp(1000, "S").bytes());
        assert_eq!(again != first, moves, "rescue {rescue}, progress {progress}: {again}");
        assert_eq!(world.tell("front", &tcp(1000, "A").bytes()), again, "and stays there");
    }
}
