//! `vipr status`: services and real servers, as `ipvsadm -Ln` prints them, and below them what
//! ipvsadm has no word for: segments, drops, conflicts.

use std::io::{self, Write};

use clap::Args;

use super::client::{Client, Target};
use super::output::{self, age, endpoint, short};
use super::Failure;
use crate::director::Command;
use crate::director::report::{RealServerReport, RealServerState, ServiceReport, StatusReport};
use crate::shell::protocol::{ConfigurationReport, Reply, Request, RouterStatus};

/// Show services and real servers.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long, conflicts_with_all = ["stats", "rate"])]
    json: bool,
    /// Show connections, packets and bytes since the start.
    #[arg(long)]
    stats: bool,
    /// Show connections, packets and bytes a second.
    #[arg(long)]
    rate: bool,
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
        let views = match (arguments.stats, arguments.rate) {
            (false, false) => &[View::Connections][..],
            (true, false) => &[View::Totals],
            (false, true) => &[View::Rates],
            (true, true) => &[View::Totals, View::Rates],
        };
        Ok(write_status(output, &status, views)?)
    })
}

/// Which columns a table of services has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Weight, connections now, state, MAC.
    Connections,
    /// Since the start.
    Totals,
    /// A second.
    Rates,
}

fn write_status(output: &mut dyn Write, status: &RouterStatus, views: &[View]) -> io::Result<()> {
    write_router(output, &status.report, &status.configuration)?;
    for view in views {
        write_services(output, &status.report.services, *view)?;
    }
    write_segments(output, &status.report)?;
    write_frames(output, &status.report)?;
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
    if let Some(error) = &configuration.error {
        writeln!(output, "configuration on disk is not the one running: {}", error.trim_end())?;
    }
    Ok(())
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
                "RemoteAddress:Port", "Forward", "Weight", "ActiveConn", "InActConn", "State", "MAC"
            )?;
        }
        View::Totals => totals_header(output, ["Conns", "InPkts", "InBytes"])?,
        View::Rates => totals_header(output, ["CPS", "InPPS", "InBPS"])?,
    }
    for service in services {
        let traffic = (service.traffic, service.rates);
        let counts = match view {
            View::Connections => None,
            View::Totals => {
                Some([traffic.0.connections, traffic.0.packets, traffic.0.bytes])
            }
            View::Rates => Some([
                traffic.1.connections_per_second,
                traffic.1.packets_per_second,
                traffic.1.bytes_per_second,
            ]),
        };
        let protocol = service.protocol.to_string().to_uppercase();
        let address = endpoint(service.vip, &service.ports);
        match counts {
            None => writeln!(output, "{protocol:<4} {address} {}", flags(service))?,
            Some(counts) => {
                writeln!(output, "{protocol:<4} {address:<28} {}", columns(counts))?;
            }
        }
        for real_server in &service.real_servers {
            let address = endpoint(real_server.address, &service.ports);
            writeln!(output, "  -> {address:<28} {}", real_server_columns(real_server, view))?;
        }
    }
    Ok(())
}

fn totals_header(output: &mut dyn Write, titles: [&str; 3]) -> io::Result<()> {
    let [a, b, c] = titles;
    writeln!(output, "{:<33} {a:>8} {b:>8} {c:>8}", "Prot LocalAddress:Port")?;
    writeln!(output, "  -> RemoteAddress:Port")
}

fn columns(counts: [u64; 3]) -> String {
    let [a, b, c] = counts.map(short);
    format!("{a:>8} {b:>8} {c:>8}")
}
