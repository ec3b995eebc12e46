//! What a reload would do to the connections of now, and to whoever else relies on things as they
//! are.

use crate::config::Snapshot;
use crate::config::snapshot::{AttachKind, OnRemoval, Segment, Service};
use crate::director::report::{RealServerReport, RealServerState, ServiceReport, StatusReport};

/// One line each; `before` is what `report` is about.
pub(super) fn effects(report: &StatusReport, before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    let (from, to) = (&before.router.control_socket, &after.router.control_socket);
    if from != to {
        lines.push(format!("router: commands need --socket {} from then on", to.display()));
    }
    for segment in &before.segments {
        let next = after.segments.iter().find(|next| next.name == segment.name);
        segment_effects(&mut lines, report, segment, next);
    }
    for service in report.services.iter().filter(|service| service.configured) {
        let find = |snapshot: &'_ Snapshot| -> Option<usize> {
            snapshot.services.iter().position(|known| is_same(known, service))
        };
        match (find(before), find(after)) {
            (_, Some(next)) => {
                let next = &after.services[next];
                let kept = service.real_servers.iter().filter(|known| has_segment(after, known));
                service_effects(&mut lines, &service.name, kept, next);
            }
            (Some(known), None) => {
                let known = &before.services[known];
                let kept = service.real_servers.iter().filter(|known| has_segment(after, known));
                let count = kept.map(connections).sum();
                lines.extend(
                    ending(count, "", known.on_removal)
                        .map(|what| format!("service {}: {what}", service.name)),
                );
            }
            // It came while we asked.
            (None, None) => {}
        }
    }
    lines
}

fn segment_effects(
    lines: &mut Vec<String>,
    report: &StatusReport,
    segment: &Segment,
    next: Option<&Segment>,
) {
    let name = &segment.name;
    let Some(next) = next else {
        let real_servers = report.services.iter().flat_map(|service| &service.real_servers);
        let there = real_servers.filter(|real_server| *real_server.segment == **name);
        let count: u32 = there.map(connections).sum();
        if count > 0 {
            let are = if count == 1 { "is" } else { "are" };
            lines.push(format!(
                "segment {name}: {} to real servers there {are} cut off",
                counted(count)
            ));
        }
        return;
    };
    let differs = match next.attach.kind() {
        // The MAC is part of what the interface, or the switch, lets through.
        AttachKind::Packet | AttachKind::Xdp | AttachKind::Qemu => segment.mac != next.mac,
        // A TAP is opened with or without headers for it.
        AttachKind::Tap => segment.offload != next.offload,
    };
    if (&segment.attach, segment.mtu) != (&next.attach, next.mtu) || differs {
        lines.push(format!(
            "segment {name}: its port closes and opens again; frames that come meanwhile are lost"
        ));
    }
    if segment.mac != next.mac && next.role.has_vips() {
        lines.push(format!(
            "segment {name}: who knows the old MAC address is not served until the announcement \
             of the new one has come"
        ));
    }
}

/// What becomes of the connections to a service's `real_servers`; of those on a segment that goes,
/// that was said.
fn service_effects<'a>(
    lines: &mut Vec<String>,
    name: &str,
    real_servers: impl Iterator<Item = &'a RealServerReport>,
    next: &Service,
) {
    let subject = format!("service {name}");
    for real_server in real_servers {
        if real_server.state == RealServerState::Draining {
            continue;
        }
        let kept = next.real_servers.iter().find(|kept| {
            kept.address == real_server.address && *kept.segment == *real_server.segment
        });
        let name = &real_server.name;
        let count = connections(real_server);
        let to = format!(" to real server {name}");
        let Some(kept) = kept else {
            let ending = ending(count, &to, next.on_removal);
            lines.extend(ending.map(|what| format!("{subject}: {what}")));
            continue;
        };
        if kept.weight == real_server.configured_weight {
            continue;
        }
        if real_server.weight != real_server.configured_weight {
            lines.push(format!(
                "{subject}: real server {name} weight {} set by hand gives way to {}",
                real_server.weight, kept.weight
            ));
        }
        if kept.weight == 0 && count > 0 {
            let stay = if count == 1 { "stays" } else { "stay" };
            lines.push(format!("{subject}: {}{to} {stay}, no new ones begin", counted(count)));
        }
    }
}

/// What becomes of connections whose service or real server is removed; `to` says which.
fn ending(count: u32, to: &str, on_removal: OnRemoval) -> Option<String> {
    let what = match (on_removal, count) {
        (_, 0) => return None,
        (OnRemoval::Drain, 1) => "finishes, no new ones begin",
        (OnRemoval::Drain, _) => "finish, no new ones begin",
        (OnRemoval::Reset, 1) => "is reset",
        (OnRemoval::Reset, _) => "are reset",
    };
    Some(format!("{}{to} {what}", counted(count)))
}

fn is_same(known: &Service, report: &ServiceReport) -> bool {
    if report.listen.is_empty() {
        // A router of an earlier version: it has no groups.
        let [only] = &*known.listen else { return false };
        return only.vip == report.vip
            && only.protocol == report.protocol
            && only.ports.to_string() == report.ports;
    }
    known.listen.iter().map(ToString::to_string).eq(report.listen.iter().cloned())
}

fn has_segment(snapshot: &Snapshot, real_server: &RealServerReport) -> bool {
    snapshot.segments.iter().any(|segment| *segment.name == *real_server.segment)
}

fn connections(real_server: &RealServerReport) -> u32 {
    real_server.active + real_server.inactive
}

fn counted(count: u32) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// What `tests/data/status.json` is a report of.
    const RUNNING: &str = r#"
[segment.front]
role = "vip"
tap = "vipr-front"
bridge = "br-vip"
mac = "02:00:00:00:01:01"
address = ["192.0.2.2/24"]

[segment.back]
role = "backend"
tap = "vipr-back"
mac = "02:00:00:00:01:02"
address = ["10.0.0.1/24"]

[[service]]
name = "web"
vip = "192.0.2.10"
protocol = "tcp"
ports = 80
scheduler = "wrr"

[[service.real_server]]
name = "rs1"
address = "10.0.0.11"
segment = "back"
weight = 3

[[service.real_server]]
name = "rs2"
address = "10.0.0.12"
segment = "back"
weight = 1

[[service]]
vip = "2001:db8::10"
protocol = "udp"
ports = [53, 853]
scheduler = "rr"

[[service.real_server]]
name = "ns1"
address = "2001:db8:1::11"
segment = "back"
weight = 0
"#;

    fn parse(text: &str) -> Snapshot {
        config::parse(text, "test.toml").unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    fn report() -> StatusReport {
        let status: crate::shell::protocol::RouterStatus =
            serde_json::from_str(include_str!("../../tests/data/status.json")).unwrap();
        status.report
    }

    fn of_edit(from: &str, to: &str) -> Vec<String> {
        assert!(RUNNING.contains(from), "{from}");
        effects(&report(), &parse(RUNNING), &parse(&RUNNING.replacen(from, to, 1)))
    }

    #[test]
    fn every_edit_has_the_effects_it_has_on_connections() {
        let rs1 = &RUNNING[RUNNING.find("\n[[service.real_server]]\nname = \"rs1\"").unwrap()
            ..RUNNING.find("\n[[service.real_server]]\nname = \"rs2\"").unwrap()];
        let web =
            &RUNNING[RUNNING.find("[[service]]").unwrap()..RUNNING.rfind("[[service]]").unwrap()];
        let reset = "ports = 80\non_removal = \"reset\"";
        let socket = "[router]\ncontrol_socket = \"/run/other.sock\"\n[segment.front]";
        let rows: [(&str, &str, &[&str]); 9] = [
            ("weight = 3", "weight = 5", &[]),
            (
                "weight = 3",
                "weight = 0",
                &["service web: 15 connections to real server rs1 stay, no new ones begin"],
            ),
            (
                rs1,
                "",
                &["service web: 15 connections to real server rs1 finish, no new ones begin"],
            ),
            (web, "", &["service web: 17 connections finish, no new ones begin"]),
            ("ports = 80", reset, &[]),
            (
                "ports = 80",
                "ports = 81",
                &["service web: 17 connections finish, no new ones begin"],
            ),
            (
                "vipr-back",
                "vipr-b",
                &["segment back: its port closes and opens again; frames that come meanwhile are \
                   lost"],
            ),
            (
                "02:00:00:00:01:01",
                "02:00:00:00:01:09",
                &["segment front: who knows the old MAC address is not served until the \
                   announcement of the new one has come"],
            ),
            (
                "[segment.front]",
                socket,
                &["router: commands need --socket /run/other.sock from then on"],
            ),
        ];
        for (from, to, expected) in rows {
            assert_eq!(of_edit(from, to), *expected, "{from:?} → {to:?}");
        }
        let with_reset = RUNNING.replacen("ports = 80", reset, 1).replacen(rs1, "", 1);
        assert_eq!(
            effects(&report(), &parse(RUNNING), &parse(&with_reset)),
            ["service web: 15 connections to real server rs1 are reset"]
        );
    }

    #[test]
    fn a_weight_set_by_hand_gives_way_only_to_another_in_the_configuration() {
        let mut report = report();
        report.services[0].real_servers[0].weight = 0;
        let of_edit = |from: &str, to: &str| {
            effects(&report, &parse(RUNNING), &parse(&RUNNING.replacen(from, to, 1)))
        };
        assert_eq!(
            of_edit("weight = 3", "weight = 5"),
            ["service web: real server rs1 weight 0 set by hand gives way to 5"]
        );
        assert_eq!(of_edit("weight = 1", "weight = 5"), [] as [&str; 0]);
    }

    #[test]
    fn a_removed_segment_cuts_its_connections_off() {
        let moved = RUNNING
            .replace("[segment.back]", "[segment.other]")
            .replace("segment = \"back\"", "segment = \"other\"");
        let lines = effects(&report(), &parse(RUNNING), &parse(&moved));
        assert_eq!(lines, ["segment back: 17 connections to real servers there are cut off"]);
    }
}
