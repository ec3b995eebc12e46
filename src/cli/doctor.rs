//! `vipr doctor`: what is wrong with each real server, and what to do about it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::client::{Client, Target};
use super::{Failure, output};
use crate::director::examination::{ExaminationReport, ExaminedReport, Finding, Verdict};
use crate::director::{Command, Response};
use crate::shell::devices::Devices;
use crate::shell::doctor;
use crate::shell::protocol::{Reply, Request};
use crate::shell::watch::Loaded;

/// How often to look whether the examination has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Longer than any takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ask of each real server what can be wrong with it, over the path that clients' packets take.
///
/// A running router does the asking; with -c this program itself, where no router runs: it opens
/// the segments' ports for a few seconds, claims no VIP and forwards nothing. Exit status 1 if
/// anything is wrong.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this service's real servers: its name, or VIP:port/protocol.
    service: Option<String>,
    /// Only this real server: its name, or its address.
    real_server: Option<String>,
    /// Without a running router: by this configuration.
    #[arg(short, long = "config", value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (service, real_server) = (arguments.service.clone(), arguments.real_server.clone());
    let report = match &arguments.config {
        Some(config) => {
            let loaded = Loaded::read(config)?;
            doctor::examine(Arc::clone(&loaded.snapshot), Devices, service, real_server)
                .map_err(Failure::Running)?
        }
        None => ask(&arguments.target, service, real_server)?,
    };
    output::print(|output| {
        if arguments.json {
            serde_json::to_writer_pretty(&mut *output, &report).map_err(io::Error::from)?;
            return Ok(writeln!(output)?);
        }
        Ok(write_report(output, &report)?)
    })?;
    if faults(&report) > 0 { Err(Failure::Different) } else { Ok(()) }
}

/// Lets a running router do it.
fn ask(
    target: &Target,
    service: Option<String>,
    real_server: Option<String>,
) -> Result<ExaminationReport, Failure> {
    let mut client = Client::connect(target)?;
    let mut command = Command::Examine { service, real_server };
    let end = Instant::now() + PATIENCE;
    loop {
        match client.ask(&Request::Director(command))? {
            Reply::Director(Response::Examination(report)) if !report.running => return Ok(report),
            Reply::Director(Response::Examination(_)) => {}
            Reply::Director(Response::Refused(why)) => return Err(Failure::Usage(why)),
            _ => return Err(client.unexpected()),
        }
        if Instant::now() >= end {
            let waited = PATIENCE.as_secs();
            return Err(Failure::Running(format!(
                "the examination has not ended after {waited} s"
            )));
        }
        thread::sleep(LOOK_INTERVAL);
        command = Command::Examination;
    }
}

fn all_findings(report: &ExaminationReport) -> impl Iterator<Item = &Finding> {
    let of_real_servers = report.real_servers.iter().flat_map(|examined| &examined.findings);
    of_real_servers.chain(&report.strangers)
}

fn faults(report: &ExaminationReport) -> usize {
    all_findings(report).filter(|finding| finding.verdict == Verdict::Fault).count()
}

fn write_report(output: &mut dyn Write, report: &ExaminationReport) -> io::Result<()> {
    let mut service = "";
    for examined in &report.real_servers {
        if examined.service != service {
            service = &examined.service;
            writeln!(output, "service {service}, VIP {}", examined.vip)?;
        }
        write_real_server(output, examined)?;
    }
    for stranger in &report.strangers {
        write_finding(output, stranger)?;
    }
    match (report.real_servers.len(), faults(report)) {
        (0, _) => writeln!(output, "there are no real servers"),
        (count, 0) => writeln!(output, "{count} examined, nothing wrong"),
        (count, 1) => writeln!(output, "{count} examined, 1 fault"),
        (count, faults) => writeln!(output, "{count} examined, {faults} faults"),
    }
}

fn write_real_server(output: &mut dyn Write, examined: &ExaminedReport) -> io::Result<()> {
    let ExaminedReport { real_server, address, segment, .. } = examined;
    writeln!(output, "  real server {real_server} ({address} on {segment})")?;
    for finding in &examined.findings {
        write_finding(output, finding)?;
    }
    Ok(())
}

fn write_finding(output: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    let mark = match finding.verdict {
        Verdict::Fine => '✓',
        Verdict::Fault => '✗',
        Verdict::Untested => '–',
    };
    writeln!(output, "    {mark} {:<9} {}", finding.item.name(), finding.text)?;
    for remedy in &finding.remedy {
        writeln!(output, "                → {remedy}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::examination::Item;

    fn finding(item: Item, verdict: Verdict, remedy: &[&str]) -> Finding {
        let remedy = remedy.iter().map(|line| (*line).to_owned()).collect();
        Finding { item, verdict, text: "as seen".to_owned(), remedy }
    }

    #[test]
    fn a_fault_stands_out_with_its_remedy_below() {
        let findings = vec![
            finding(Item::Neighbor, Verdict::Fine, &[]),
            finding(Item::Hidden, Verdict::Fault, &["sysctl -w a=1", "or else"]),
            finding(Item::Checks, Verdict::Untested, &[]),
        ];
        let report = ExaminationReport {
            running: false,
            real_servers: vec![ExaminedReport {
                service: "web".to_owned(),
                vip: "192.0.2.10".parse().unwrap(),
                real_server: "rs1".to_owned(),
                address: "10.0.0.11".parse().unwrap(),
                segment: "back".to_owned(),
                findings,
            }],
            strangers: vec![],
        };
        let mut output = Vec::new();
        write_report(&mut output, &report).unwrap();
        insta::assert_snapshot!(String::from_utf8(output).unwrap(), @r"
        service web, VIP 192.0.2.10
          real server rs1 (10.0.0.11 on back)
            ✓ neighbor  as seen
            ✗ hidden    as seen
                        → sysctl -w a=1
                        → or else
            – checks    as seen
        1 examined, 1 fault
        ");
        assert_eq!(faults(&report), 1);
    }
}
