//! `vipr check-now`: checks a real server and waits for the result.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::client::{Client, Target};
use super::weight::{RealServer, duration};
use super::{Failure, output};
use crate::config::format_duration;
use crate::director::report::{CheckReport, RealServerReport};
use crate::director::{Command, Response};
use crate::shell::protocol::{Reply, Request};

/// How often to look whether the check has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Check a real server now, and say what came of it.
///
/// The service must have [service.check]. Attempts are repeated as configured; the result counts
/// like that of every other check. Exit status 1 if it failed.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    real_server: RealServer,
    /// Wait no longer than this (as 90, 5m).
    #[arg(long, default_value = "1m", value_parser = duration)]
    timeout: Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.target)?;
    let RealServer { service, real_server } = &arguments.real_server;
    let (service, real_server) = (service.clone(), real_server.clone());
    let order = Command::CheckNow { service: service.clone(), real_server: real_server.clone() };
    let before = ended(&check_of(ask(&mut client, order)?)?);
    let end = Instant::now() + arguments.timeout;
    let check = loop {
        let (service, real_server) = (service.clone(), real_server.clone());
        let check = check_of(ask(&mut client, Command::RealServer { service, real_server })?)?;
        if ended(&check) > before {
            break check;
        }
        if Instant::now() >= end {
            let waited = format_duration(arguments.timeout);
            return Err(Failure::Running(format!("the check has not ended after {waited}")));
        }
        thread::sleep(LOOK_INTERVAL);
    };
    let passed = check.last.as_ref().is_some_and(|last| last.passed);
    output::print(|output| {
        if arguments.json {
            serde_json::to_writer_pretty(&mut *output, &check).map_err(io::Error::from)?;
            return Ok(writeln!(output)?);
        }
        Ok(writeln!(output, "service {service}: real server {real_server}: {}", words(&check))?)
    })?;
    // The line has said it.
    if passed { Ok(()) } else { Err(Failure::Different) }
}

/// `http check passed in 1.20 ms; healthy`, `tcp check failed: no answer; no new connections`.
fn words(check: &CheckReport) -> String {
    let health = if check.healthy { "it gets connections" } else { "it gets no new connections" };
    let result = match &check.last {
        Some(last) => match &last.reason {
            Some(reason) => format!("failed: {reason}"),
            None => format!("passed in {:.2} ms", last.latency_seconds * 1e3),
        },
        None => "has not ended".to_owned(),
    };
    format!("{} check {result}; {health}", check.kind)
}

/// How many checks have ended.
fn ended(check: &CheckReport) -> u64 {
    check.passed + check.failed
}

fn ask(client: &mut Client, command: Command) -> Result<RealServerReport, Failure> {
    match client.ask(&Request::Director(command))? {
        Reply::Director(Response::RealServer(report)) => Ok(*report),
        Reply::Director(Response::Refused(why)) => Err(Failure::Usage(why)),
        _ => Err(client.unexpected()),
    }
}

fn check_of(report: RealServerReport) -> Result<CheckReport, Failure> {
    report.check.ok_or_else(|| Failure::Running("the check was taken away".to_owned()))
}
