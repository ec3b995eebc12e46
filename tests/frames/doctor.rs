//! `vipr doctor` in the core: what answers and what does not, and what is concluded from it.

use std::time::Duration;

use vipr::director::examination::{ExaminationReport, Item, Verdict};
use vipr::director::{Command, Response};
use vipr::wire::MacAddr;

use super::checks::{Asked, answer, live_with_arp};
use crate::harness::frames::arp_reply;
use crate::harness::frames6::web6;
use crate::harness::servers::{RealServer, Service, serve_with};
use crate::harness::*;

const OTHER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x77]);

/// A real server on which everything is as it should be.
fn serving(question: &Asked) -> Vec<Vec<u8>> {
    match question.flags.as_str() {
        "S" => vec![answer(question, "SA", b"")],
        "" => question.echo_reply().into_iter().collect(),
        _ => vec![],
    }
}

/// Examines rs1; real servers answer ARP and everything else by these stubs.
fn examine(
    toml: &str,
    arp: impl Fn(&str, [u8; 4]) -> Vec<Vec<u8>>,
    stub: impl Fn(&Asked) -> Vec<Vec<u8>>,
) -> ExaminationReport {
    let mut world = World::new(toml);
    world.take_sent();
    let (service, real_server) = (Some("web".to_owned()), Some("rs1".to_owned()));
    let begun = world.command(Command::Examine { service, real_server });
    assert!(matches!(begun, Response::Examination(report) if report.running));
    live_with_arp(&mut world, Duration::from_secs(10), &arp, &stub);
    match world.command(Command::Examination) {
        Response::Examination(report) => report,
        other => panic!("{other:?}"),
    }
}

fn usual_arp(segment: &str, asked: [u8; 4]) -> Vec<Vec<u8>> {
    match (segment, asked) {
        ("back", RS1) => vec![arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP)],
        _ => vec![],
    }
}

/// The faults, as `item: text`.
fn faults(report: &ExaminationReport) -> Vec<String> {
    assert!(!report.running, "{report:?}");
    assert_eq!(report.real_servers.len(), 1);
    let findings = report.real_servers[0].findings.iter();
    findings
        .filter(|finding| finding.verdict == Verdict::Fault)
        .map(|finding| {
            assert!(!finding.remedy.is_empty(), "{finding:?}");
            format!("{}: {}", finding.item.name(), finding.text)
        })
        .collect()
}

#[test]
fn a_healthy_real_server_has_no_fault_and_all_is_looked_at() {
    let report = examine(&web(), usual_arp, serving);
    assert_eq!(faults(&report), [""; 0]);
    let items: Vec<Item> = report.real_servers[0].findings.iter().map(|found| found.item).collect();
    let all = [
        Item::Neighbor,
        Item::Hidden,
        Item::Vip,
        Item::Service,
        Item::Clients,
        Item::Mtu,
        Item::Checks,
    ];
    assert_eq!(items, all);
    assert_eq!(report.strangers, []);
}

#[test]
fn each_fault_is_told_from_the_others() {
    let silent = |_: &Asked| vec![];
    let to_rip_only = |question: &Asked| {
        if question.destination == RS1 { serving(question) } else { vec![] }
    };
    let refuses = |question: &Asked| match question.flags.as_str() {
        "S" if question.destination == VIP => vec![answer(question, "RA", b"")],
        _ => serving(question),
    };
    let refuses_everywhere = |question: &Asked| match question.flags.as_str() {
        "S" => vec![answer(question, "RA", b"")],
        _ => serving(question),
    };
    let drops_tcp = |question: &Asked| match question.flags.as_str() {
        "S" if question.destination == VIP => vec![],
        _ => serving(question),
    };
    let not_to_clients = |question: &Asked| {
        if question.source == FRONT_DIP { vec![] } else { serving(question) }
    };
    let small = |question: &Asked| if question.len > 1400 { vec![] } else { serving(question) };
    type Row<'r> = (&'r dyn Fn(&Asked) -> Vec<Vec<u8>>, &'r str);
    let rows: [Row<'_>; 7] = [
        (&silent, "VIP: it answers ARP, but no packet at all"),
        (&to_rip_only, "VIP: 192.0.2.10 is not on it: no answer at 192.0.2.10, while 10.0.0.11"),
        (&refuses, "service: nobody listens on 192.0.2.10:80/tcp, but on 10.0.0.11:80/tcp"),
        (&refuses_everywhere, "service: nobody listens on 192.0.2.10:80/tcp"),
        (&drops_tcp, "service: 192.0.2.10:80/tcp does not answer, though 192.0.2.10 is there"),
        (&not_to_clients, "clients: does not answer 192.0.2.2, though it does answer"),
        (
            &small,
            "MTU: does not take packets of 1500 bytes, as segment back carries, but does \
                  those of 1400",
        ),
    ];
    for (stub, expected) in rows {
        let found = faults(&examine(&web(), usual_arp, stub));
        assert_eq!(found.len(), 1, "{expected}: {found:?}");
        assert!(found[0].starts_with(expected), "{expected}: {found:?}");
    }
}

/// The faults of the first real server, which has a TCP stack of its own: of either family.
fn faults_of(is_v4: bool, change: impl Fn(&mut RealServer)) -> Vec<String> {
    let (toml, service, name, vip, rip) = match is_v4 {
        true => (web(), "web", "rs1", "192.0.2.10", "10.0.0.11"),
        false => (web6(), "web6", "six1", "2001:db8:0:1::10", "2001:db8:0:2::11"),
    };
    let (vip, rip) = (vip.parse().expect("an address"), rip.parse().expect("an address"));
    let mut world = World::new(&toml);
    world.take_sent();
    let mut servers = [RealServer::new(RS1_MAC, vip, 80, Service::Silent)];
    change(&mut servers[0]);
    let (service, real_server) = (Some(service.to_owned()), Some(name.to_owned()));
    let begun = world.command(Command::Examine { service, real_server });
    assert!(matches!(begun, Response::Examination(report) if report.running));
    let neighbors = [("back", rip, RS1_MAC)];
    serve_with(&mut world, Duration::from_secs(10), &mut servers, &neighbors);
    match world.command(Command::Examination) {
        Response::Examination(report) => faults(&report),
        other => panic!("{other:?}"),
    }
}

#[test]
fn either_family_is_examined() {
    for is_v4 in [true, false] {
        let (vip, at) = match is_v4 {
            true => ("192.0.2.10", "192.0.2.10:80"),
            false => ("2001:db8:0:1::10", "[2001:db8:0:1::10]:80"),
        };
        assert_eq!(faults_of(is_v4, |_| {}), [""; 0], "{vip}");
        let off = faults_of(is_v4, |server| server.up = false);
        assert_eq!(off.len(), 1, "{off:?}");
        let asked_by = if is_v4 { "ARP" } else { "neighbor solicitations" };
        let expected = format!("VIP: it answers {asked_by}, but no packet at all");
        assert!(off[0].starts_with(&expected), "{off:?}");
        let other_port = faults_of(is_v4, |server| {
            let vip = vip.parse().expect("an address");
            *server = RealServer::new(RS1_MAC, vip, 81, Service::Silent);
        });
        assert_eq!(other_port, [format!("service: nobody listens on {at}/tcp")]);
    }
}

#[test]
fn an_mtu_on_the_way_is_measured_or_told_by_whoever_has_it() {
    let cases = [(true, "10.0.0.254"), (false, "2001:db8:0:2::fe")];
    for (is_v4, router) in cases {
        let silent = faults_of(is_v4, |server| server.passes = (1400, None));
        let measured = "MTU: does not take packets of 1500 bytes, as segment back carries, but does \
                        those of 1400";
        assert_eq!(silent, [measured], "{router}");
        let by = router.parse().expect("an address");
        // 1387 is none of those that are tried.
        let told = faults_of(is_v4, |server| server.passes = (1387, Some(by)));
        let expected = format!(
            "MTU: packets of 1500 bytes do not fit through {router} on the way to it, those of \
             1387 do"
        );
        assert_eq!(told, [expected]);
    }
}

#[test]
fn who_answers_arp_for_what_is_looked_at() {
    let twice = |segment: &str, asked: [u8; 4]| match (segment, asked) {
        ("back", RS1) => vec![
            arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP),
            arp_reply(OTHER_MAC, RS1, BACK_MAC, BACK_DIP),
        ],
        _ => vec![],
    };
    let other = |segment: &str, asked: [u8; 4]| match (segment, asked) {
        ("back", RS1) => vec![arp_reply(OTHER_MAC, RS1, BACK_MAC, BACK_DIP)],
        _ => vec![],
    };
    let elsewhere = |segment: &str, asked: [u8; 4]| match (segment, asked) {
        ("front", RS1) => vec![arp_reply(OTHER_MAC, RS1, FRONT_MAC, FRONT_DIP)],
        _ => vec![],
    };
    let leaks = |segment: &str, asked: [u8; 4]| match (segment, asked) {
        ("front", VIP) => vec![arp_reply(RS1_FRONT_MAC, VIP, FRONT_MAC, FRONT_DIP)],
        _ => usual_arp(segment, asked),
    };
    type Row<'r> = (&'r dyn Fn(&str, [u8; 4]) -> Vec<Vec<u8>>, &'r str);
    let rows: [Row<'_>; 5] = [
        (&|_, _| vec![], "neighbor: no answer for 10.0.0.11 on segment back"),
        (&twice, "neighbor: 10.0.0.11 is answered for by 52:54:00:00:00:11 and 52:54:00:00:00:77"),
        (&other, "neighbor: 10.0.0.11 is at 52:54:00:00:00:77, not at 52:54:00:00:00:11 as"),
        (&elsewhere, "neighbor: 10.0.0.11 answers on segment front, not on back"),
        (&leaks, "hidden: answers ARP for 192.0.2.10 on segment front, from 52:54:00:00:01:11"),
    ];
    for (arp, expected) in rows {
        let found = faults(&examine(&web(), arp, serving));
        assert_eq!(found.len(), 1, "{expected}: {found:?}");
        assert!(found[0].starts_with(expected), "{expected}: {found:?}");
    }
    // Somebody else does.
    let stranger = |segment: &str, asked: [u8; 4]| match (segment, asked) {
        ("front", VIP) => vec![arp_reply(OTHER_MAC, VIP, FRONT_MAC, FRONT_DIP)],
        _ => usual_arp(segment, asked),
    };
    let report = examine(&web(), stranger, serving);
    assert_eq!(faults(&report), [""; 0]);
    assert_eq!(report.strangers.len(), 1, "{:?}", report.strangers);
}

#[test]
fn who_only_looks_claims_no_vip_and_takes_no_connection() {
    let mut world = World::new(&web());
    world.director.observe();
    world.take_sent();
    world.advance(Duration::from_secs(100));
    // It may ask who has the VIP, but never as one who has it.
    let claims = |sent: &Sent| sent.bytes[12..14] == [8, 6] && sent.bytes[28..32] == VIP;
    assert!(!world.take_sent().iter().any(claims));
    assert_eq!(world.tell("front", &frames::tcp(1000, "S").bytes()), "dropped unmatched");
    world.tell("front", &frames::arp_request(CLIENT_MAC, CLIENT, VIP));
    assert_eq!(world.take_sent(), []);
}
