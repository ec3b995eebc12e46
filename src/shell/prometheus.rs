//! A status report in Prometheus's text format, version 0.0.4.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::protocol::{ReloadsReport, RouterStatus};
use crate::director::report::{
    CheckReport, GuardianReport, RealServerReport, SegmentReport, ServiceReport,
};

/// The whole exposition.
pub(super) fn render(status: &RouterStatus) -> String {
    let mut text = Text::default();
    router(&mut text, status);
    reloads(&mut text, &status.configuration.reloads);
    frames(&mut text, status);
    // One that is no longer configured may share its name with one that is, and two samples of one
    // name and one set of labels spoil the whole exposition.
    let configured: Vec<&ServiceReport> =
        status.report.services.iter().filter(|service| service.configured).collect();
    services(&mut text, &configured);
    real_servers(&mut text, &configured);
    sorry_servers(&mut text, &configured);
    checks(&mut text, &configured);
    segments(&mut text, &status.report.segments);
    text.0
}

fn router(text: &mut Text, status: &RouterStatus) {
    let report = &status.report;
    text.family("vipr_info", GAUGE, "The router: always 1.");
    text.sample("vipr_info", &[("name", &report.name), ("version", &report.version)], 1);
    let connections = report.connections;
    let configuration = &status.configuration;
    for (name, kind, help, value) in [
        ("vipr_uptime_seconds", GAUGE, "Since the start.", report.uptime_seconds),
        ("vipr_generation", GAUGE, "Configurations in force so far.", report.generation),
        (
            "vipr_configuration_loaded_timestamp_seconds",
            GAUGE,
            "When the configuration in force was read, in seconds since 1970.",
            configuration.loaded_at_unix,
        ),
        (
            "vipr_configuration_pending",
            GAUGE,
            "Settings of it that are not in effect yet.",
            configuration.pending.len() as u64,
        ),
        ("vipr_weights_overridden", GAUGE, "Weights set by hand.", overridden(&report.services)),
        (
            "vipr_configuration_failures_total",
            COUNTER,
            "Configurations refused.",
            configuration.failures,
        ),
        (
            "vipr_configuration_stale",
            GAUGE,
            "1 while the file on disk is not the one running.",
            u64::from(configuration.error.is_some()),
        ),
        ("vipr_connections", GAUGE, "Connections now.", u64::from(connections.current)),
        ("vipr_connections_max", GAUGE, "Room for connections.", u64::from(connections.max)),
        (
            "vipr_connections_evicted_total",
            COUNTER,
            "Connections that went early to make room.",
            connections.evicted,
        ),
    ] {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    }
}

fn overridden(services: &[ServiceReport]) -> u64 {
    let real_servers = services.iter().flat_map(|service| &service.real_servers);
    real_servers.filter(|found| found.weight != found.configured_weight).count() as u64
}

fn reloads(text: &mut Text, reloads: &ReloadsReport) {
    let name = "vipr_reloads_total";
    text.family(name, COUNTER, "New configurations taken into force.");
    text.sample(name, &[], reloads.count);
    let name = "vipr_reload_pauses_over_1_ms_total";
    text.family(name, COUNTER, "Those for which frames waited longer than a millisecond.");
    text.sample(name, &[], reloads.pauses_over_1_ms);
    for (name, help, pause_us) in [
        (
            "vipr_reload_pause_seconds",
            "How long frames waited the last time.",
            reloads.last_pause_us,
        ),
        ("vipr_reload_pause_max_seconds", "How long at most.", reloads.max_pause_us),
    ] {
        text.family(name, GAUGE, help);
        text.sample(name, &[], Duration::from_micros(pause_us).as_secs_f64());
    }
}

fn frames(text: &mut Text, status: &RouterStatus) {
    let counters = &status.report.counters;
    for (name, kind, help, value) in [
        ("vipr_frames_received_total", COUNTER, "Frames that arrived.", counters.received),
        ("vipr_frames_forwarded_total", COUNTER, "Frames handed on.", counters.forwarded),
        ("vipr_frames_replied_total", COUNTER, "Frames answered.", counters.replied),
        ("vipr_frames_consumed_total", COUNTER, "Frames taken note of.", counters.consumed),
        ("vipr_frames_held", GAUGE, "Frames waiting for a MAC address.", counters.held),
    ] {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    }
    text.family("vipr_frames_dropped_total", COUNTER, "Frames dropped, by reason.");
    for (reason, count) in &counters.drops {
        text.sample("vipr_frames_dropped_total", &[("reason", reason)], *count);
    }
    text.family("vipr_vip_conflicts_total", COUNTER, "Claims to a VIP by someone else.");
    for conflict in &status.report.conflicts {
        let (vip, mac) = (conflict.vip.to_string(), conflict.mac.to_string());
        let labels =
            [("vip", vip.as_str()), ("segment", conflict.segment.as_str()), ("mac", mac.as_str())];
        text.sample("vipr_vip_conflicts_total", &labels, conflict.count);
    }
    guardian(text, &status.report.guardian);
}

fn guardian(text: &mut Text, report: &GuardianReport) {
    for (name, kind, help, value) in [
        ("vipr_guardian_asked_total", COUNTER, "Questions for its own VIPs.", report.asked),
        (
            "vipr_guardian_defended_total",
            COUNTER,
            "Claims answered by an announcement.",
            report.defended,
        ),
        (
            "vipr_guardian_repaired_total",
            COUNTER,
            "Frames that told one station who has a VIP.",
            report.repaired,
        ),
        (
            "vipr_guardian_repairs_refused_total",
            COUNTER,
            "The same, held back.",
            report.repairs_refused,
        ),
        ("vipr_guardian_stations", GAUGE, "Stations that asked for a VIP.", report.stations),
        (
            "vipr_guardian_stations_refused_total",
            COUNTER,
            "Such stations without room.",
            report.stations_refused,
        ),
        (
            "vipr_guardian_adopted_total",
            COUNTER,
            "Connections taken up that had gone to a claimant.",
            report.adopted,
        ),
        (
            "vipr_guardian_contested_total",
            COUNTER,
            "Connections opened to a claimant because the client may believe it.",
            report.contested,
        ),
        (
            "vipr_guardian_unknowable_total",
            COUNTER,
            "Segments of connections to one of several claimants.",
            report.unknowable,
        ),
    ] {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    }
}

/// A metric of one item of a list.
type Column<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

fn services(text: &mut Text, services: &[&ServiceReport]) {
    let columns: [Column<ServiceReport>; 7] = [
        ("vipr_service_up", GAUGE, "1 if a real server can take a connection.", |service| {
            u64::from(service.up)
        }),
        ("vipr_service_quorum", GAUGE, "The weight that has to be up.", |service| {
            u64::from(service.quorum)
        }),
        ("vipr_service_live_weight", GAUGE, "The weight that is up.", |service| {
            service.live_weight
        }),
        (
            "vipr_service_diverted",
            GAUGE,
            "1 while the sorry server gets its new connections.",
            |service| u64::from(service.diverted),
        ),
        ("vipr_service_connections_total", COUNTER, "Connections scheduled.", |service| {
            service.traffic.connections
        }),
        ("vipr_service_packets_total", COUNTER, "Packets from clients.", |service| {
            service.traffic.packets
        }),
        ("vipr_service_bytes_total", COUNTER, "Bytes from clients.", |service| {
            service.traffic.bytes
        }),
    ];
    for (name, kind, help, value) in columns {
        text.family(name, kind, help);
        for service in services {
            let (vip, protocol) = (service.vip.to_string(), service.protocol.to_string());
            let labels = [
                ("service", service.name.as_str()),
                ("vip", vip.as_str()),
                ("protocol", protocol.as_str()),
                ("ports", service.ports.as_str()),
            ];
            text.sample(name, &labels, value(service));
        }
    }
}

/// What checks said, and how long those took that passed.
fn checks(text: &mut Text, services: &[&ServiceReport]) {
    let checked: Vec<(&ServiceReport, &RealServerReport, &CheckReport)> = services
        .iter()
        .flat_map(|service| service.real_servers.iter().map(move |found| (*service, found)))
        .filter_map(|(service, found)| Some((service, found, found.check.as_ref()?)))
        .collect();
    let columns: [Column<CheckReport>; 4] = [
        ("vipr_check_healthy", GAUGE, "1 if its check lets it have connections.", |check| {
            u64::from(check.healthy)
        }),
        ("vipr_checks_passed_total", COUNTER, "Checks that passed.", |check| check.passed),
        ("vipr_checks_failed_total", COUNTER, "Checks that failed.", |check| check.failed),
        ("vipr_checks_late_total", COUNTER, "Checks that began a second late or more.", |check| {
            check.late
        }),
    ];
    for (name, kind, help, value) in columns {
        text.family(name, kind, help);
        for (service, real_server, check) in &checked {
            text.sample(name, &labels_of(service, real_server), value(check));
        }
    }
    let name = "vipr_check_duration_seconds";
    text.family(name, HISTOGRAM, "How long checks took that passed.");
    for (service, real_server, check) in &checked {
        let labels = labels_of(service, real_server);
        let mut below = 0;
        for bucket in &check.latency {
            below += bucket.count;
            let le = bucket.le.map_or_else(|| "+Inf".to_owned(), |le| le.to_string());
            let with_le: Vec<(&str, &str)> =
                labels.iter().copied().chain([("le", le.as_str())]).collect();
            text.sample(&format!("{name}_bucket"), &with_le, below);
        }
        text.sample(&format!("{name}_sum"), &labels, check.latency_sum_seconds);
        text.sample(&format!("{name}_count"), &labels, below);
    }
}

fn labels_of<'r>(
    service: &'r ServiceReport,
    real_server: &'r RealServerReport,
) -> [(&'static str, &'r str); 3] {
    [
        ("service", service.name.as_str()),
        ("real_server", real_server.name.as_str()),
        ("segment", real_server.segment.as_str()),
    ]
}

fn real_servers(text: &mut Text, services: &[&ServiceReport]) {
    use crate::director::report::RealServerState::Up;

    let columns: [Column<RealServerReport>; 9] = [
        ("vipr_real_server_up", GAUGE, "1 if it gets new connections.", |real_server| {
            u64::from(real_server.state == Up)
        }),
        ("vipr_real_server_weight", GAUGE, "Its weight in force.", |real_server| {
            u64::from(real_server.weight)
        }),
        ("vipr_real_server_configured_weight", GAUGE, "As configured.", |real_server| {
            u64::from(real_server.configured_weight)
        }),
        ("vipr_real_server_connections_active", GAUGE, "Established.", |real_server| {
            u64::from(real_server.active)
        }),
        ("vipr_real_server_connections_inactive", GAUGE, "The others.", |real_server| {
            u64::from(real_server.inactive)
        }),
        (
            "vipr_real_server_persistence_templates",
            GAUGE,
            "Persistent clients, or networks of them, that are its.",
            |real_server| u64::from(real_server.templates),
        ),
        ("vipr_real_server_connections_total", COUNTER, "Scheduled.", |real_server| {
            real_server.traffic.connections
        }),
        ("vipr_real_server_packets_total", COUNTER, "Packets handed to it.", |real_server| {
            real_server.traffic.packets
        }),
        ("vipr_real_server_bytes_total", COUNTER, "Bytes handed to it.", |real_server| {
            real_server.traffic.bytes
        }),
    ];
    of_real_servers(text, services, &columns, |service| &service.real_servers);
}

/// Those that get connections while their service has nobody else.
fn sorry_servers(text: &mut Text, services: &[&ServiceReport]) {
    use crate::director::report::RealServerState::Sorry;

    let columns: [Column<RealServerReport>; 6] = [
        ("vipr_sorry_server_up", GAUGE, "1 if it answers.", |sorry| {
            u64::from(sorry.state == Sorry)
        }),
        ("vipr_sorry_server_connections_active", GAUGE, "Established.", |sorry| {
            u64::from(sorry.active)
        }),
        ("vipr_sorry_server_connections_inactive", GAUGE, "The others.", |sorry| {
            u64::from(sorry.inactive)
        }),
        ("vipr_sorry_server_connections_total", COUNTER, "Scheduled.", |sorry| {
            sorry.traffic.connections
        }),
        ("vipr_sorry_server_packets_total", COUNTER, "Packets handed to it.", |sorry| {
            sorry.traffic.packets
        }),
        ("vipr_sorry_server_bytes_total", COUNTER, "Bytes handed to it.", |sorry| {
            sorry.traffic.bytes
        }),
    ];
    of_real_servers(text, services, &columns, |service| service.sorry_server.as_slice());
}

fn of_real_servers(
    text: &mut Text,
    services: &[&ServiceReport],
    columns: &[Column<RealServerReport>],
    of: impl Fn(&ServiceReport) -> &[RealServerReport],
) {
    for (name, kind, help, value) in columns {
        text.family(name, kind, help);
        for service in services {
            for real_server in of(service) {
                let address = real_server.address.to_string();
                let labels = [
                    ("service", service.name.as_str()),
                    ("real_server", real_server.name.as_str()),
                    ("address", address.as_str()),
                    ("segment", real_server.segment.as_str()),
                ];
                text.sample(name, &labels, value(real_server));
            }
        }
    }
}

fn segments(text: &mut Text, segments: &[SegmentReport]) {
    let columns: [Column<SegmentReport>; 7] = [
        ("vipr_segment_up", GAUGE, "1 if its port works.", |segment| u64::from(segment.up)),
        ("vipr_segment_received_frames_total", COUNTER, "Frames that arrived.", |segment| {
            segment.received_frames
        }),
        ("vipr_segment_received_bytes_total", COUNTER, "Their bytes.", |segment| {
            segment.received_bytes
        }),
        (
            "vipr_segment_missed_frames_total",
            COUNTER,
            "Frames on their way here that the device lost.",
            |segment| segment.missed_frames,
        ),
        ("vipr_segment_sent_frames_total", COUNTER, "Frames given to the port.", |segment| {
            segment.sent_frames
        }),
        ("vipr_segment_sent_bytes_total", COUNTER, "Their bytes.", |segment| segment.sent_bytes),
        ("vipr_segment_send_errors_total", COUNTER, "Frames it did not take.", |segment| {
            segment.send_errors
        }),
    ];
    for (name, kind, help, value) in columns {
        text.family(name, kind, help);
        for segment in segments {
            text.sample(name, &[("segment", &segment.name)], value(segment));
        }
    }
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, content)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for character in content.chars() {
                match character {
                    '\\' => self.0.push_str(r"\\"),
                    '"' => self.0.push_str(r#"\""#),
                    '\n' => self.0.push_str(r"\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted_so_that_no_name_can_forge_a_line() {
        let mut text = Text::default();
        text.sample("m", &[("a", "x\"} 1\nm 2\\"), ("b", "é")], 7);
        assert_eq!(text.0, "m{a=\"x\\\"} 1\\nm 2\\\\\",b=\"é\"} 7\n");
    }
}
