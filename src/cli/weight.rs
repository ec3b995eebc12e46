//! `vipr drain`, `vipr undrain`, `vipr weight`: a real server's weight by hand.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::client::{Client, Target};
use super::{Failure, output};
use crate::config::{WEIGHT_MAX, format_duration, parse_duration};
use crate::director::report::RealServerState;
use crate::director::{Command, Response};
use crate::shell::protocol::{Reply, Request};

/// How often to look whether a real server's connections are gone.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Give a real server no new connections; those it has stay.
///
/// Weight 0 by hand. It stays until `vipr undrain`, until the configuration gives the real server
/// another weight, or until the router ends without keeping its state.
#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    real_server: RealServer,
    /// Return when its last connection is gone.
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this (as 90, 5m, 1h30m), and fail.
    #[arg(long, requires = "wait", default_value = "1h", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    target: Target,
}

/// Give a real server the weight in the configuration again.
#[derive(Debug, Args)]
pub(super) struct Undrain {
    #[command(flatten)]
    real_server: RealServer,
    #[command(flatten)]
    target: Target,
}

/// Give a real server another weight than the configuration does.
///
/// It stays until `vipr undrain`, until the configuration gives the real server another weight, or
/// until the router ends without keeping its state.
#[derive(Debug, Args)]
pub(super) struct Weight {
    #[command(flatten)]
    real_server: RealServer,
    /// The weight; 0 drains.
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(WEIGHT_MAX)))]
    weight: u32,
    #[command(flatten)]
    target: Target,
}

/// Which real server is meant.
#[derive(Debug, Args)]
pub(super) struct RealServer {
    /// The service: its name, or VIP:port/protocol.
    pub service: String,
    /// The real server: its name, or its address.
    pub real_server: String,
}

pub(super) fn drain(arguments: &Drain) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.target)?;
    order(&mut client, &arguments.real_server, Some(0))?;
    if arguments.wait {
        wait_until_drained(&mut client, &arguments.real_server, arguments.timeout)?;
    }
    Ok(())
}

pub(super) fn undrain(arguments: &Undrain) -> Result<(), Failure> {
    order(&mut Client::connect(&arguments.target)?, &arguments.real_server, None)
}

pub(super) fn set(arguments: &Weight) -> Result<(), Failure> {
    let client = &mut Client::connect(&arguments.target)?;
    order(client, &arguments.real_server, Some(arguments.weight))
}

fn order(client: &mut Client, of: &RealServer, weight: Option<u32>) -> Result<(), Failure> {
    let RealServer { service, real_server } = of;
    let (service, real_server) = (service.clone(), real_server.clone());
    let request = Request::Director(Command::Weight { service, real_server, weight });
    match client.ask(&request)? {
        Reply::Director(Response::Done(done)) => {
            output::print(|output| Ok(writeln!(output, "{done}")?))
        }
        // Nothing of that name: the command line is wrong.
        Reply::Director(Response::Refused(why)) => Err(Failure::Usage(why)),
        _ => Err(client.unexpected()),
    }
}

fn wait_until_drained(
    client: &mut Client,
    of: &RealServer,
    timeout: Duration,
) -> Result<(), Failure> {
    let RealServer { service, real_server } = of;
    let subject = format!("service {service}: real server {real_server}");
    let end = Instant::now() + timeout;
    loop {
        let (service, real_server) = (service.clone(), real_server.clone());
        let request = Request::Director(Command::RealServer { service, real_server });
        let connections = match client.ask(&request)? {
            Reply::Director(Response::RealServer(report)) => {
                if report.weight > 0 && report.state != RealServerState::Draining {
                    let weight = report.weight;
                    return Err(Failure::Running(format!(
                        "{subject} was given weight {weight} meanwhile"
                    )));
                }
                report.active + report.inactive
            }
            // A new configuration took it out, and its last connection is gone.
            Reply::Director(Response::Refused(_)) => 0,
            _ => return Err(client.unexpected()),
        };
        if connections == 0 {
            let line = format!("{subject} has no connections any more");
            return output::print(|output| Ok(writeln!(output, "{line}")?));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Running(format!(
                "{subject} still has {connections} connections after {}; it stays drained",
                format_duration(timeout)
            )));
        }
        thread::sleep(left.min(LOOK_INTERVAL));
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected seconds, or as 5m or 1h30m".to_owned())
}
