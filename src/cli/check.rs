//! `vipr check`: says everything that is wrong with a configuration, or sums it up on one screen.

use core::fmt::Write as _;
use std::sync::Arc;

use clap::Args;

use super::input::Input;
use super::{Failure, output};
use crate::config::format_duration;
use crate::config::snapshot::{RealServer, Router, Segment, Service, Snapshot, Unmatched};

/// Lines of the summary, more or less: what fits on a screen.
const SCREEN_LINES: usize = 40;
/// Segments listed in it.
const SEGMENTS_SHOWN_MAX: usize = 8;
/// Addresses listed for a segment, and ports for a service.
const ELEMENTS_SHOWN_MAX: usize = 4;

/// Validate a configuration, without privileges or devices.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration; - reads it from standard input.
    file: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Input { origin, snapshot } = Input::read(&arguments.file)?;
    output::print(|output| Ok(write!(output, "{origin}: valid\n\n{}", summary(&snapshot))?))
}

/// What the configuration says, on one screen.
fn summary(snapshot: &Snapshot) -> String {
    let mut lines = router_lines(&snapshot.router);
    lines.push(String::new());
    lines.extend(segment_lines(&snapshot.segments));
    lines.push(String::new());
    let room = SCREEN_LINES.saturating_sub(lines.len());
    lines.extend(service_lines(&snapshot.services, room));
    lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn router_lines(router: &Router) -> Vec<String> {
    let unmatched = match router.unmatched {
        Unmatched::Reject => "reject",
        Unmatched::Drop => "drop",
    };
    aligned(&[
        vec!["router".into(), router.name.to_string()],
        vec!["control socket".into(), router.control_socket.display().to_string()],
        vec!["metrics".into(), router.metrics.map_or("off".into(), |at| at.to_string())],
        vec!["connections".into(), format!("at most {}", router.connections_max)],
        vec!["unmatched".into(), unmatched.into()],
    ])
}

fn segment_lines(segments: &[Segment]) -> Vec<String> {
    let header =
        ["SEGMENT", "ROLE", "ATTACH", "DEVICE", "BRIDGE", "MAC", "MTU", "DEFEND", "ADDRESSES"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(segments.iter().take(SEGMENTS_SHOWN_MAX).map(|segment| {
        let role = match (segment.role.has_vips(), segment.role.has_real_servers()) {
            (true, true) => "both",
            (true, false) => "vip",
            (false, _) => "backend",
        };
        let addresses: Vec<String> = segment.addresses.iter().map(ToString::to_string).collect();
        vec![
            segment.name.to_string(),
            role.into(),
            segment.attach.kind().name().into(),
            match segment.vlan {
                Some(vlan) => format!("{} vlan {vlan}", segment.device()),
                None => segment.device().to_string(),
            },
            bridge(segment),
            segment.mac.to_string(),
            segment.mtu.map_or("device's".into(), |mtu| mtu.to_string()),
            defence(segment),
            if addresses.is_empty() { "-".into() } else { shortened(&addresses, " ") },
        ]
    }));
    let mut lines = aligned(&rows);
    lines.extend(rest("segment", segments.len().saturating_sub(SEGMENTS_SHOWN_MAX)));
    lines
}

/// The bridge, and the card that joins it to the outside: `br-vip+eth0`.
fn bridge(segment: &Segment) -> String {
    match (segment.bridge(), segment.uplink()) {
        (Some(bridge), Some(uplink)) => format!("{bridge}+{uplink}"),
        (Some(bridge), None) => bridge.to_string(),
        (None, _) => "-".into(),
    }
}

/// What is done about other claimants of a VIP, where there are VIPs.
fn defence(segment: &Segment) -> String {
    match (segment.role.has_vips(), segment.arp_guard) {
        (false, _) => "-".to_owned(),
        (true, false) => segment.defend.name().to_owned(),
        (true, true) => format!("{}, guard", segment.defend.name()),
    }
}

/// Services with as many of their real servers as there is `room` for: the same number of each.
fn service_lines(services: &[Arc<Service>], room: usize) -> Vec<String> {
    if services.is_empty() {
        return vec!["no services".into()];
    }
    let real_servers: usize = services.iter().map(|service| service.real_servers.len()).sum();
    let mut lines = vec![format!(
        "{}, {}",
        counted(services.len(), "service"),
        counted(real_servers, "real server")
    )];
    let room = room.saturating_sub(lines.len());
    let lines_needed = |shown: usize| -> usize {
        let of_service = |count: usize| 1 + count.min(shown) + usize::from(count > shown);
        services.iter().map(|service| of_service(service.real_servers.len())).sum()
    };
    // Without any real server shown, their number stands in the line of the service.
    let shown = (1..=room).rev().find(|shown| lines_needed(*shown) <= room).unwrap_or(0);
    let fits = services.len() <= room;
    let services_shown = if fits { services.len() } else { room.saturating_sub(1) };
    let listed = &services[..services_shown];

    let service_rows: Vec<_> = listed.iter().map(|service| service_row(service, shown)).collect();
    let real_server_rows: Vec<_> = listed
        .iter()
        .flat_map(|service| {
            service.real_servers.iter().take(shown).map(|found| real_server_row(found))
        })
        .collect();
    let mut real_server_lines = aligned(&real_server_rows).into_iter();
    for (service, line) in listed.iter().zip(aligned(&service_rows)) {
        lines.push(line);
        let count = service.real_servers.len();
        let of_service = real_server_lines.by_ref().take(count.min(shown));
        lines.extend(of_service.map(|line| format!("  {line}")));
        if shown > 0 {
            lines
                .extend(rest("real server", count.saturating_sub(shown)).map(|l| format!("  {l}")));
        }
    }
    lines.extend(rest("service", services.len() - services_shown));
    lines
}

fn service_row(service: &Service, real_servers_shown: usize) -> Vec<String> {
    let mut remarks = Vec::new();
    if real_servers_shown == 0 || service.real_servers.is_empty() {
        remarks.push(counted(service.real_servers.len(), "real server"));
    }
    remarks.extend(service.scheduler_options.words(service.scheduler));
    if let Some(persistence) = service.persistence {
        let timeout = format_duration(persistence.timeout);
        let netmasks = service.netmasks().unwrap_or_default();
        remarks.push(format!("persistent {timeout} per /{netmasks}"));
    }
    if service.one_packet {
        remarks.push("one packet".to_owned());
    }
    let switches = [
        (service.sloppy_tcp, "sloppy tcp"),
        (service.sloppy_sctp, "sloppy sctp"),
        (service.expire_quiescent, "expires quiescent"),
        (service.expire_nodest, "expires without server"),
    ];
    remarks.extend(switches.iter().filter(|(on, _)| *on).map(|(_, what)| (*what).to_owned()));
    match (service.quorum, service.quorum_hysteresis) {
        (1, 0) => {}
        (quorum, 0) => remarks.push(format!("quorum {quorum}")),
        (quorum, hysteresis) => remarks.push(format!("quorum {quorum} ± {hysteresis}")),
    }
    if let Some(sorry_server) = &service.sorry_server {
        remarks.push(format!("sorry server {}", sorry_server.name));
    }
    if let Some(check) = &service.check {
        remarks.push(format!("checked by {check}"));
    }
    if service.syn_rescue {
        remarks.push("SYNs rescued".to_owned());
    }
    let endpoint = service.endpoint();
    let name = if *service.name == *endpoint { "-" } else { &*service.name };
    if service.listen.len() > 1 {
        let listen: Vec<String> = service.listen.iter().map(ToString::to_string).collect();
        let endpoint = shortened(&listen, " + ");
        let name = if *service.name == *service.endpoint() { "-" } else { &*service.name };
        return vec![name.into(), endpoint, service.scheduler.name().into(), remarks.join(", ")];
    }
    let ports: Vec<String> = endpoint.split(',').map(str::to_owned).collect();
    let (Some((_, protocol)), true) = (endpoint.rsplit_once('/'), ports.len() > ELEMENTS_SHOWN_MAX)
    else {
        return vec![name.into(), endpoint, service.scheduler.name().into(), remarks.join(", ")];
    };
    let endpoint = format!("{}/{protocol}", shortened(&ports, ","));
    vec![name.into(), endpoint, service.scheduler.name().into(), remarks.join(", ")]
}

fn real_server_row(real_server: &RealServer) -> Vec<String> {
    let mut remarks = String::new();
    if real_server.upper_threshold > 0 {
        let _ = write!(remarks, "at most {} connections", real_server.upper_threshold);
    }
    let address = real_server.address.to_string();
    let is_named = *real_server.name != *address;
    let resolution = if real_server.address.is_ipv4() { "by ARP" } else { "by ND" };
    vec![
        if is_named { real_server.name.to_string() } else { "-".into() },
        address,
        format!("on {}", real_server.segment),
        real_server.mac.map_or(resolution.into(), |mac| mac.to_string()),
        format!("weight {}", real_server.weight),
        remarks,
    ]
}

/// The first few, and how many more there are.
fn shortened(elements: &[String], separator: &str) -> String {
    if elements.len() <= ELEMENTS_SHOWN_MAX {
        return elements.join(separator);
    }
    let shown = elements[..ELEMENTS_SHOWN_MAX].join(separator);
    format!("{shown}{separator}… and {} more", elements.len() - ELEMENTS_SHOWN_MAX)
}

fn rest(what: &str, count: usize) -> Option<String> {
    (count > 0).then(|| {
        let plural = if count == 1 { "" } else { "s" };
        format!("… and {count} more {what}{plural}")
    })
}

fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// One line a row, its columns as wide as their widest cell and two spaces apart.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}
