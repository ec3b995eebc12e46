//! `vipr run`: puts the router together, and takes care that nothing half-made stays behind.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use log::LevelFilter;

use super::Failure;
use crate::config::Snapshot;
use crate::port::bridge_netfilter;
use crate::shell::control::Control;
use crate::shell::devices::Devices;
use crate::shell::event_loop::{EventLoop, StartError};
use crate::shell::file::LoadError;
use crate::shell::metrics::Metrics;
use crate::shell::signals::Signals;
use crate::shell::watch::Loaded;
use crate::shell::{logger, systemd};

/// Segments and services named in the first line of the log.
const NAMES_LISTED_MAX: usize = 8;
/// Those of [`LevelFilter`].
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The router, in the foreground.
///
/// SIGHUP reads the configuration again, SIGTERM and SIGINT end it.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file; it is watched.
    #[arg(
        short,
        long = "config",
        value_name = "FILE",
        env = "VIPR_CONFIG",
        default_value = "/etc/vipr/vipr.toml"
    )]
    config: PathBuf,
    /// How much to log: off, error, warn, info, debug or trace.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "VIPR_LOG",
        default_value = "info",
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(LEVELS).try_map(|level| level.parse::<LevelFilter>())
    )]
    log: LevelFilter,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    logger::start(arguments.log);
    // From here on a signal ends the router in good order, however far it has come.
    let signals = Signals::catch().map_err(|error| failed(&StartError::System(error)))?;
    let loaded = Loaded::read(&arguments.config)?;
    let snapshot = loaded.snapshot.clone();
    let path = loaded.path.clone();
    // First what shows that another router runs here, before anything of its is touched.
    let control = Control::bind(&snapshot.router.control_socket).map_err(|error| failed(&error))?;
    let metrics =
        snapshot.router.metrics.map(Metrics::bind).transpose().map_err(|error| failed(&error))?;
    // Keyed by the system's randomness.
    let seed = RandomState::new().hash_one(std::process::id());
    let mut event_loop = EventLoop::start(loaded, Devices, seed).map_err(|error| failed(&error))?;
    let served = event_loop
        .obey(signals)
        .and_then(|()| event_loop.serve_control(control))
        .and_then(|()| event_loop.serve_metrics(metrics));
    served.map_err(|error| failed(&StartError::System(error)))?;

    log::info!(
        "vipr {}: router {}; segments: {}; services: {}; configuration: {}",
        env!("CARGO_PKG_VERSION"),
        snapshot.router.name,
        listed(snapshot.segments.iter().map(|segment| &segment.name)),
        listed(snapshot.services.iter().map(|service| &service.name)),
        path.display()
    );
    log_details(&snapshot);
    if snapshot.segments.iter().any(|segment| segment.bridge().is_some()) {
        for warning in bridge_netfilter::check() {
            log::warn!("{warning}");
        }
    }
    // All that can fail has not: what is taken up now is not lost to a start that comes to nothing.
    event_loop.take_up_state();
    systemd::notify(systemd::READY);
    event_loop.run().map_err(|error| failed(&StartError::System(error)))?;
    event_loop.leave_state();
    log::info!("router {}: ended by a signal", snapshot.router.name);
    Ok(())
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        let LoadError::Refused(diagnostics) = &error else {
            return Failure::Usage(error.to_string());
        };
        let (origin, count) = (diagnostics.origin(), diagnostics.count());
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        Failure::Usage(format!("{origin}: {count} {mistakes}\n\n{diagnostics}"))
    }
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::Running(error.to_string())
}

/// `web, dns and 12 more`.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a Arc<str>>) -> String {
    let more = names.len().saturating_sub(NAMES_LISTED_MAX);
    let listed = names.take(NAMES_LISTED_MAX).map(|name| &**name).collect::<Vec<_>>().join(", ");
    match (listed.as_str(), more) {
        ("", _) => "none".to_owned(),
        (_, 0) => listed,
        (_, more) => format!("{listed} and {more} more"),
    }
}

fn log_details(snapshot: &Snapshot) {
    for segment in &snapshot.segments {
        log::debug!(
            "segment {}: {} {}, bridge {}, MAC {}, addresses {:?}",
            segment.name,
            segment.attach.kind().name(),
            segment.device(),
            segment.bridge().map_or("none", |bridge| bridge),
            segment.mac,
            segment.addresses
        );
    }
    for service in &snapshot.services {
        log::debug!(
            "service {}: {}, {}, {} real servers",
            service.name,
            service.endpoint(),
            service.scheduler.name(),
            service.real_servers.len()
        );
    }
    log::debug!("control socket: {}", snapshot.router.control_socket.display());
    if let Some(address) = snapshot.router.metrics {
        log::debug!("metrics: http://{address}/metrics");
    }
}
