//! `vipr status`: services and real servers, as `ipvsadm -Ln` prints them, and below them what
//! ipvsadm has no word for: segments, drops, conflicts.

use std::io::{self, Write};

use clap::Args;

use super::Failure;
use super::client::{Client, Target};
use super::output::{self, age, endpoint, short};
use crate::config::snapshot::Role;
use crate::director::Command;
use crate::director::counters::Traffic;
use crate::director::report::{
    LastCheckReport, Rates, RealServerReport, RealServerState, ServiceReport, StatusReport,
};
use crate::shell::protocol::{ConfigurationReport, Reply, Request, RouterStatus};

/// Show services and real servers.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long, conflicts_with_all = ["stats", "rate", "persistent_conn", "thresholds"])]
    json: bool,
    /// Show connections, packets and bytes since the start.
    #[arg(long)]
    stats: bool,
    /// Show connections, packets and bytes a second.
    #[arg(long)]
    rate: bool,
    /// Show persistent clients of each real server.
    #[arg(long)]
    persistent_conn: bool,
    /// Show the thresholds of each real server.
    #[arg(long)]
    thresholds: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.target)?;
    let Reply::Status(status) = client.ask(&Request::Director(Command::Status))? else {
        return Err(client.unexpected());
    };
    output::print(|output| {
        if arguments.json {
            serde_json::to_writer_pretty(&mut *output, &status).map_err(io::Error::from)?;
            return Ok(writeln!(output)?);
        }
        Ok(write_status(output, &status, &arguments.views())?)
    })
}

impl Arguments {
    fn views(&self) -> Vec<View> {
        let asked = [
            (self.persistent_conn, View::Persistence),
            (self.thresholds, View::Thresholds),
            (self.stats, View::Totals),
            (self.rate, View::Rates),
        ];
        let views: Vec<View> =
            asked.into_iter().filter(|(asked, _)| *asked).map(|(_, view)| view).collect();
        if views.is_empty() { vec![View::Connections] } else { views }
    }
}

/// Which columns a table of services has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Weight, connections now, state, MAC.
    Connections,
    /// Weight, persistent clients, connections now.
    Persistence,
    /// Thresholds, connections now.
    Thresholds,
    /// Since the start.
    Totals,
    /// A second.
    Rates,
}

fn write_status(output: &mut dyn Write, status: &RouterStatus, views: &[View]) -> io::Result<()> {
    write_router(output, &status.report, &status.configuration)?;
    for (i, view) in views.iter().enumerate() {
        if i > 0 {
            writeln!(output)?;
        }
        write_services(output, &status.report.services, *view)?;
    }
    write_segments(output, &status.report)?;
    write_frames(output, &status.report)?;
    write_guards(output, &status.report)?;
    write_conflicts(output, &status.report)
}

fn write_router(
    output: &mut dyn Write,
    report: &StatusReport,
    configuration: &ConfigurationReport,
) -> io::Result<()> {
    writeln!(
        output,
        "vipr {}: router {}, generation {}, up {}, {} of {} connections",
        report.version,
        report.name,
        report.generation,
        age(report.uptime_seconds),
        report.connections.current,
        report.connections.max,
    )?;
    write!(output, "configuration {}, loaded {}", configuration.path, configuration.loaded_at)?;
    match configuration.failures {
        0 => writeln!(output)?,
        failures => writeln!(output, "; {failures} refused since the start")?,
    }
    let reloads = &configuration.reloads;
    if reloads.count > 0 {
        writeln!(
            output,
            "reloads: {}; frames waited {} for the last, {} at most; over 1 ms: {}",
            reloads.count,
            pause(reloads.last_pause_us),
            pause(reloads.max_pause_us),
            reloads.pauses_over_1_ms,
        )?;
    }
    for line in &configuration.pending {
        writeln!(output, "{line}")?;
    }
    if let Some(error) = &configuration.error {
        write!(output, "configuration on disk is not the one running:")?;
        match error.trim_end() {
            // As `vipr check` has it.
            diagnostics if diagnostics.contains('\n') => writeln!(output, "\n\n{diagnostics}\n")?,
            line => writeln!(output, " {line}")?,
        }
    }
    Ok(())
}

/// `85 µs`, `1.20 ms`.
fn pause(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        _ => format!("{:.2} ms", micros as f64 / 1000.0),
    }
}

fn write_services(
    output: &mut dyn Write,
    services: &[ServiceReport],
    view: View,
) -> io::Result<()> {
    match view {
        View::Connections => {
            writeln!(output, "Prot LocalAddress:Port Scheduler Flags")?;
            writeln!(
                output,
                "  -> {:<28} {:<7} {:<6} {:<10} {:<10} {:<10} {:<17} Name",
                "RemoteAddress:Port",
                "Forward",
                "Weight",
                "ActiveConn",
                "InActConn",
                "State",
                "MAC"
            )?;
        }
        View::Persistence => {
            numbers_header(output, ["Weight", "PersistConn", "ActiveConn", "InActConn"])?;
        }
        View::Thresholds => {
            numbers_header(output, ["Uppthresh", "Lowthresh", "ActiveConn", "InActConn"])?;
        }
        View::Totals => totals_header(output, ["Conns", "InPkts", "InBytes"])?,
        View::Rates => totals_header(output, ["CPS", "InPPS", "InBPS"])?,
    }
    for service in services {
        let protocol = service.protocol.to_string().to_uppercase();
        let address = endpoint(service.vip, &service.ports);
        match counts(view, service.traffic, service.rates) {
            None => writeln!(output, "{protocol:<4} {address} {}", flags(service))?,
            Some(counts) => writeln!(output, "{protocol:<4} {address:<28} {}", columns(counts))?,
        }
        for further in service.listen.iter().skip(1) {
            writeln!(output, "   + {further}")?;
        }
        for real_server in service.real_servers.iter().chain(&service.sorry_server) {
            let address = endpoint(real_server.address, &service.ports);
            let columns = match (view, counts(view, real_server.traffic, real_server.rates)) {
                (_, Some(counts)) => columns(counts),
                (View::Persistence, None) => {
                    numbers(real_server, [real_server.weight, real_server.templates])
                }
                (View::Thresholds, None) => {
                    numbers(real_server, [real_server.upper_threshold, real_server.lower_threshold])
                }
                (_, None) => state_columns(real_server),
            };
            writeln!(output, "  -> {address:<28} {columns}")?;
        }
    }
    if view == View::Connections {
        write_overrides(output, services)?;
        write_failing(output, services)?;
    }
    Ok(())
}

/// What the stars among the weights mean.
fn write_overrides(output: &mut dyn Write, services: &[ServiceReport]) -> io::Result<()> {
    for service in services {
        for real_server in service.real_servers.iter().filter(|found| is_overridden(found)) {
            writeln!(
                output,
                "* set by hand: service {}: real server {} has the weight {} in the configuration",
                service.name, real_server.name, real_server.configured_weight
            )?;
        }
    }
    Ok(())
}

/// Why real servers are down that answer ARP.
fn write_failing(output: &mut dyn Write, services: &[ServiceReport]) -> io::Result<()> {
    for service in services {
        for real_server in &service.real_servers {
            let Some(check) = real_server.check.as_ref().filter(|check| !check.healthy) else {
                continue;
            };
            write!(
                output,
                "! service {}: real server {}: its {} check fails",
                service.name, real_server.name, check.kind
            )?;
            match &check.last {
                Some(LastCheckReport { reason: Some(reason), age_seconds, .. }) => {
                    writeln!(output, ": {reason} ({} ago)", age(*age_seconds as u64))?;
                }
                _ => writeln!(output, " no longer, and has to pass more often")?,
            }
        }
    }
    Ok(())
}

fn is_overridden(real_server: &RealServerReport) -> bool {
    real_server.weight != real_server.configured_weight
}

/// The numbers of a view that shows numbers only.
fn counts(view: View, traffic: Traffic, rates: Rates) -> Option<[u64; 3]> {
    match view {
        View::Connections | View::Persistence | View::Thresholds => None,
        View::Totals => Some([traffic.connections, traffic.packets, traffic.bytes]),
        View::Rates => {
            Some([rates.connections_per_second, rates.packets_per_second, rates.bytes_per_second])
        }
    }
}

/// Two of a real server's numbers, and its connections.
fn numbers(real_server: &RealServerReport, [a, b]: [u32; 2]) -> String {
    let RealServerReport { active, inactive, name, .. } = real_server;
    format!("{a:<11} {b:<11} {active:<10} {inactive:<10} {name}")
}

fn columns(counts: [u64; 3]) -> String {
    let [a, b, c] = counts.map(short);
    format!("{a:>8} {b:>8} {c:>8}")
}

/// `wrr persistent 300 name web`.
fn flags(service: &ServiceReport) -> String {
    let mut flags = service.scheduler.name().to_owned();
    if !service.scheduler_options.is_empty() {
        flags += &format!(" ({})", service.scheduler_options.join(","));
    }
    if let Some(seconds) = service.persistence {
        flags += &format!(" persistent {seconds}");
    }
    flags += &format!(" name {}", service.name);
    if !service.configured {
        flags += " draining";
    } else if !service.up {
        flags += " down";
    }
    if service.live_weight < u64::from(service.quorum) && service.configured {
        flags += &format!(" quorum {} of {}", service.live_weight, service.quorum);
    }
    flags
}

fn state_columns(real_server: &RealServerReport) -> String {
    let mac = real_server.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
    let star = if is_overridden(real_server) { "*" } else { "" };
    format!(
        "{:<7} {:<6} {:<10} {:<10} {:<10} {mac:<17} {}",
        "Route",
        format!("{}{star}", real_server.weight),
        real_server.active,
        real_server.inactive,
        state_name(real_server.state),
        real_server.name,
    )
}

const fn state_name(state: RealServerState) -> &'static str {
    match state {
        RealServerState::Up => "up",
        RealServerState::Resolving => "resolving",
        RealServerState::Down => "down",
        RealServerState::Quiesced => "quiesced",
        RealServerState::Overloaded => "overloaded",
        RealServerState::Draining => "draining",
        RealServerState::Sorry => "sorry",
    }
}

fn write_segments(output: &mut dyn Write, report: &StatusReport) -> io::Result<()> {
    writeln!(
        output,
        "\n{:<12} {:<7} {:<6} {:<15} {:<15} {:<17} {:>5} {:<5} {:>8} {:>8} {:>8} {:>8}",
        "Segment",
        "Role",
        "Attach",
        "Device",
        "Bridge",
        "MAC",
        "MTU",
        "State",
        "RxFrames",
        "RxMissed",
        "TxFrames",
        "TxErrors"
    )?;
    for segment in &report.segments {
        let role = match segment.role {
            Role::Vip => "vip",
            Role::Backend => "backend",
            Role::Both => "both",
        };
        writeln!(
            output,
            "{:<12} {role:<7} {:<6} {:<15} {:<15} {} {:>5} {:<5} {:>8} {:>8} {:>8} {:>8}",
            segment.name,
            segment.attach.name(),
            segment.tap,
            segment.bridge.as_deref().unwrap_or("-"),
            segment.mac,
            segment.mtu,
            if segment.up { "up" } else { "down" },
            short(segment.received_frames),
            short(segment.missed_frames),
            short(segment.sent_frames),
            short(segment.send_errors),
        )?;
    }
    Ok(())
}

fn write_frames(output: &mut dyn Write, report: &StatusReport) -> io::Result<()> {
    let counters = &report.counters;
    writeln!(
        output,
        "\nFrames: {} received = {} forwarded + {} replied + {} consumed + {} held + {} dropped",
        counters.received,
        counters.forwarded,
        counters.replied,
        counters.consumed,
        counters.held,
        counters.dropped,
    )?;
    for (reason, count) in counters.drops.iter().filter(|(_, count)| **count > 0) {
        writeln!(output, "  dropped {reason:<24} {count}")?;
    }
    Ok(())
}

/// Bridges that are guarded, and those that should be.
fn write_guards(output: &mut dyn Write, report: &StatusReport) -> io::Result<()> {
    for segment in &report.segments {
        let Some(guard) = &segment.arp_guard else { continue };
        let name = &segment.name;
        match &guard.error {
            Some(error) => writeln!(output, "Guard of segment {name}: OFF: {error}")?,
            None => writeln!(output, "Guard of segment {name}: claims blocked {}", guard.blocked)?,
        }
    }
    Ok(())
}

fn write_conflicts(output: &mut dyn Write, report: &StatusReport) -> io::Result<()> {
    if !report.conflicts.is_empty() {
        writeln!(output)?;
    }
    for conflict in &report.conflicts {
        let ago = report.uptime_seconds.saturating_sub(conflict.last as u64);
        writeln!(
            output,
            "Conflict: VIP {} is claimed on segment {} by {} ({}); claims: {}, {}the last {} ago",
            conflict.vip,
            conflict.segment,
            conflict.mac,
            match &conflict.real_server {
                Some(name) => format!("real server {name}"),
                None => "no real server".to_owned(),
            },
            conflict.count,
            conflict.first_at.as_ref().map_or_else(String::new, |at| format!("since {at}, ")),
            age(ago),
        )?;
    }
    write_guardian(output, report)
}

/// What was done about claims, if there ever were any.
fn write_guardian(output: &mut dyn Write, report: &StatusReport) -> io::Result<()> {
    let guardian = &report.guardian;
    if report.conflicts.is_empty() && guardian.defended == 0 && guardian.repaired == 0 {
        return Ok(());
    }
    if report.conflicts.is_empty() {
        writeln!(output)?;
    }
    writeln!(
        output,
        "Guardian: announced again {}, stations told {}, connections adopted {}",
        guardian.defended, guardian.repaired, guardian.adopted
    )?;
    for (count, what) in [
        (guardian.repairs_refused, "frames to stations held back, too many at once"),
        (guardian.stations_refused, "stations without room in the table"),
        (guardian.unknowable, "segments of connections to one of several claimants"),
    ] {
        if count > 0 {
            writeln!(output, "  {count} {what}")?;
        }
    }
    Ok(())
}

fn numbers_header(output: &mut dyn Write, titles: [&str; 4]) -> io::Result<()> {
    let [a, b, c, d] = titles;
    writeln!(output, "Prot LocalAddress:Port Scheduler Flags")?;
    writeln!(output, "  -> {:<28} {a:<11} {b:<11} {c:<10} {d:<10} Name", "RemoteAddress:Port")
}

fn totals_header(output: &mut dyn Write, titles: [&str; 3]) -> io::Result<()> {
    let [a, b, c] = titles;
    writeln!(output, "{:<33} {a:>8} {b:>8} {c:>8}", "Prot LocalAddress:Port")?;
    writeln!(output, "  -> RemoteAddress:Port")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::protocol::ReloadsReport;

    fn status() -> RouterStatus {
        serde_json::from_str(include_str!("../../tests/data/status.json")).unwrap()
    }

    fn printed(status: &RouterStatus, views: &[View]) -> String {
        let mut output = Vec::new();
        write_status(&mut output, status, views).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn the_table_lines_up_as_that_of_ipvsadm() {
        insta::assert_snapshot!(printed(&status(), &[View::Connections]), @r"
        vipr 0.1.0: router edge-1, generation 3, up 2 h 3 min, 17 of 1048576 connections
        configuration /etc/vipr/vipr.toml, loaded 2026-11-22T14:38:05.120Z; 2 refused since the start
        Prot LocalAddress:Port Scheduler Flags
          -> RemoteAddress:Port           Forward Weight ActiveConn InActConn  State      MAC               Name
        TCP  192.0.2.10:80 wrr persistent 300 name web
          -> 10.0.0.11:80                 Route   3      12         3          up         52:54:00:00:00:11 rs1
          -> 10.0.0.12:80                 Route   1      0          2          down       -                 rs2
        UDP  [2001:db8::10]:53,853 rr name [2001:db8::10]:53,853/udp down quorum 0 of 1
          -> [2001:db8:1::11]:53,853      Route   0      0          0          quiesced   52:54:00:00:00:11 ns1
          -> [2001:db8:1::99]:53,853      Route   1      0          5          sorry      52:54:00:00:00:99 sorry
        ! service web: real server rs2: its http check fails: HTTP 500 (12 s ago)

        Segment      Role    Attach Device          Bridge          MAC                 MTU State RxFrames RxMissed TxFrames TxErrors
        front        vip     tap    vipr-front      br-vip          02:00:00:00:01:01  1500 up     123457K        0      211        0
        back         backend packet eth1            -               02:00:00:00:01:02  9000 down       400       12  123456K        4

        Frames: 123457400 received = 123456789 forwarded + 11 replied + 395 consumed + 0 held + 205 dropped
          dropped foreign_mac              200
          dropped loop                     5

        Conflict: VIP 192.0.2.10 is claimed on segment front by 52:54:00:00:00:12 (real server rs2); claims: 40, since 2026-11-22T12:36:01.500Z, the last 3 min 3 s ago
        Conflict: VIP 192.0.2.10 is claimed on segment front by 52:54:00:00:00:99 (no real server); claims: 1, the last 4 s ago
        Guardian: announced again 9, stations told 120, connections adopted 3
          2 stations without room in the table
        ");
    }

    #[test]
    fn persistence_and_thresholds_have_tables_of_their_own() {
        let tables = printed(&status(), &[View::Persistence, View::Thresholds]);
        let tables = tables.lines().skip(2).take(15).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(tables, @r"
        Prot LocalAddress:Port Scheduler Flags
          -> RemoteAddress:Port           Weight      PersistConn ActiveConn InActConn  Name
        TCP  192.0.2.10:80 wrr persistent 300 name web
          -> 10.0.0.11:80                 3           7           12         3          rs1
          -> 10.0.0.12:80                 1           0           0          2          rs2
        UDP  [2001:db8::10]:53,853 rr name [2001:db8::10]:53,853/udp down quorum 0 of 1
          -> [2001:db8:1::11]:53,853      0           0           0          0          ns1
          -> [2001:db8:1::99]:53,853      1           0           0          5          sorry

        Prot LocalAddress:Port Scheduler Flags
          -> RemoteAddress:Port           Uppthresh   Lowthresh   ActiveConn InActConn  Name
        TCP  192.0.2.10:80 wrr persistent 300 name web
          -> 10.0.0.11:80                 100         80          12         3          rs1
          -> 10.0.0.12:80                 0           0           0          2          rs2
        UDP  [2001:db8::10]:53,853 rr name [2001:db8::10]:53,853/udp down quorum 0 of 1
        ");
    }

    #[test]
    fn totals_and_rates_have_tables_of_their_own() {
        insta::assert_snapshot!(printed(&status(), &[View::Totals, View::Rates]), @r"
        vipr 0.1.0: router edge-1, generation 3, up 2 h 3 min, 17 of 1048576 connections
        configuration /etc/vipr/vipr.toml, loaded 2026-11-22T14:38:05.120Z; 2 refused since the start
        Prot LocalAddress:Port               Conns   InPkts  InBytes
          -> RemoteAddress:Port
        TCP  192.0.2.10:80                    1204  123456K 9876543K
          -> 10.0.0.11:80                      903 92592591 7407407K
          -> 10.0.0.12:80                      301 30864198 2469135K
        UDP  [2001:db8::10]:53,853               0        0        0
          -> [2001:db8:1::11]:53,853             0        0        0
          -> [2001:db8:1::99]:53,853             5        6      640

        Prot LocalAddress:Port                 CPS    InPPS    InBPS
          -> RemoteAddress:Port
        TCP  192.0.2.10:80                      12     4321   654321
          -> 10.0.0.11:80                        9     3240   490740
          -> 10.0.0.12:80                        3     1081   163581
        UDP  [2001:db8::10]:53,853               0        0        0
          -> [2001:db8:1::11]:53,853             0        0        0
          -> [2001:db8:1::99]:53,853             1        1      120

        Segment      Role    Attach Device          Bridge          MAC                 MTU State RxFrames RxMissed TxFrames TxErrors
        front        vip     tap    vipr-front      br-vip          02:00:00:00:01:01  1500 up     123457K        0      211        0
        back         backend packet eth1            -               02:00:00:00:01:02  9000 down       400       12  123456K        4

        Frames: 123457400 received = 123456789 forwarded + 11 replied + 395 consumed + 0 held + 205 dropped
          dropped foreign_mac              200
          dropped loop                     5

        Conflict: VIP 192.0.2.10 is claimed on segment front by 52:54:00:00:00:12 (real server rs2); claims: 40, since 2026-11-22T12:36:01.500Z, the last 3 min 3 s ago
        Conflict: VIP 192.0.2.10 is claimed on segment front by 52:54:00:00:00:99 (no real server); claims: 1, the last 4 s ago
        Guardian: announced again 9, stations told 120, connections adopted 3
          2 stations without room in the table
        ");
    }

    #[test]
    fn a_configuration_that_is_not_running_is_named_at_the_top() {
        let mut status = status();
        status.configuration.error = Some("vipr.toml: No such file\n".to_owned());
        let text = printed(&status, &[View::Connections]);
        assert_eq!(
            text.lines().nth(2),
            Some("configuration on disk is not the one running: vipr.toml: No such file")
        );
        let diagnostics = "error: unknown key `vpi`\n--> vipr.toml:3:1";
        status.configuration.error = Some(diagnostics.to_owned());
        let text = printed(&status, &[View::Connections]);
        let expected =
            format!("configuration on disk is not the one running:\n\n{diagnostics}\n\n");
        assert!(text.contains(&expected), "{text}");
    }

    #[test]
    fn pauses_are_told_once_there_was_a_reload() {
        let mut status = status();
        assert!(!printed(&status, &[View::Totals]).contains("reloads:"));
        status.configuration.reloads =
            ReloadsReport { count: 7, last_pause_us: 85, max_pause_us: 1204, pauses_over_1_ms: 1 };
        let line = "reloads: 7; frames waited 85 µs for the last, 1.20 ms at most; over 1 ms: 1";
        assert_eq!(printed(&status, &[View::Totals]).lines().nth(2), Some(line));
    }

    #[test]
    fn what_waits_for_a_restart_is_named_at_the_top() {
        let mut status = status();
        let line = "router: connections_max 1048576 → 4096 takes effect at the next start";
        status.configuration.pending = vec![line.to_owned()];
        assert_eq!(printed(&status, &[View::Totals]).lines().nth(2), Some(line));
    }

    #[test]
    fn a_weight_set_by_hand_has_a_star_and_a_word_on_what_is_configured() {
        let mut status = status();
        status.report.services[0].real_servers[0].weight = 0;
        let text = printed(&status, &[View::Connections]);
        let row = "  -> 10.0.0.11:80                 Route   0*     12         3          up ";
        assert!(text.contains(row), "{text}");
        let note =
            "* set by hand: service web: real server rs1 has the weight 3 in the configuration";
        let notes: Vec<&str> = text.lines().filter(|line| line.starts_with('*')).collect();
        assert_eq!(notes, [note]);
        assert!(!printed(&status, &[View::Totals]).contains('*'));
    }
}
