//! `vipr tune`: what on this host costs speed, changed and changed back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::input::Input;
use super::{Failure, output};
use crate::config::snapshot::{AttachKind, OffloadMode, Segment, Snapshot};
use crate::port::host_settings::{self, BridgePorts, Setting};

/// What on this host costs speed, given a configuration; with --apply, change it.
///
/// Nothing of it is kept over a restart of the host. --undo puts back what --apply changed, except
/// where somebody else changed it since.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration; - reads it from standard input.
    #[arg(
        short,
        long = "config",
        value_name = "FILE",
        env = "VIPR_CONFIG",
        default_value = "/etc/vipr/vipr.toml"
    )]
    config: String,
    /// Only say what costs speed, and what --apply would change; the default.
    #[arg(long, conflicts_with_all = ["apply", "undo"])]
    check: bool,
    /// Change it, and note what was there before.
    #[arg(long, conflicts_with = "undo")]
    apply: bool,
    /// Put back what was there before.
    #[arg(long)]
    undo: bool,
    /// Where --apply notes what was there before.
    #[arg(long, value_name = "FILE", default_value = "/run/vipr-tune.json")]
    record: PathBuf,
}

/// A setting that costs speed.
struct Finding {
    setting: Setting,
    value: u32,
    why: String,
}

/// A change that was made, as it is kept in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    kind: Kind,
    name: String,
    before: u32,
    after: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    BridgeNetfilter,
    QueueLen,
    Gro,
}

impl Change {
    fn of(setting: &Setting, before: u32, after: u32) -> Change {
        let (kind, name) = match setting {
            Setting::BridgeNetfilter { table } => (Kind::BridgeNetfilter, table),
            Setting::QueueLen { device } => (Kind::QueueLen, device),
            Setting::Gro { device } => (Kind::Gro, device),
        };
        Change { kind, name: name.clone(), before, after }
    }

    fn setting(&self) -> Setting {
        let name = self.name.clone();
        match self.kind {
            Kind::BridgeNetfilter => Setting::BridgeNetfilter { table: name },
            Kind::QueueLen => Setting::QueueLen { device: name },
            Kind::Gro => Setting::Gro { device: name },
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.undo {
        return undo(&arguments.record);
    }
    let Input { snapshot, .. } = Input::read(&arguments.config)?;
    let findings = findings(&snapshot)?;
    let advice = advice(&snapshot)?;
    if arguments.apply {
        apply(&findings, &arguments.record)?;
    }
    output::print(|output| {
        for Finding { setting, value, why } in &findings {
            let (wanted, verb) = (setting.wanted(), if arguments.apply { "was" } else { "is" });
            writeln!(output, "{setting}: {verb} {value}: {why}")?;
            let done = if arguments.apply { "now" } else { "--apply: would be" };
            writeln!(output, "    {done} {wanted}")?;
        }
        for line in &advice {
            writeln!(output, "{line}")?;
        }
        if findings.is_empty() && advice.is_empty() {
            writeln!(output, "nothing on this host costs speed")?;
        }
        Ok(())
    })
}

/// What costs speed and can be changed.
fn findings(snapshot: &Snapshot) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    let mut look = |setting: Setting, why: String| -> Result<(), Failure> {
        let value = setting.read().map_err(|error| cannot("read", &setting, &error))?;
        if let Some(value) = value.filter(|&value| setting.is_costly(value)) {
            findings.push(Finding { setting, value, why });
        }
        Ok(())
    };
    let segments = &snapshot.segments;
    if segments.iter().any(|segment| segment.bridge().is_some()) {
        for table in ["iptables", "ip6tables", "arptables"] {
            let why = format!(
                "every bridged frame passes the firewall, a fifth of what it costs; with 0, rules of \
                 {table} no longer see bridged frames"
            );
            look(Setting::BridgeNetfilter { table: table.to_owned() }, why)?;
        }
    }
    for segment in segments.iter().filter(|segment| segment.attach.kind() == AttachKind::Tap) {
        let device = segment.device().to_string();
        let why = "bursts that find no room are lost, thousands of frames in bulk TCP".to_owned();
        look(Setting::QueueLen { device }, why)?;
    }
    let off = segments.iter().find(|segment| segment.offload == OffloadMode::Off);
    if let Some(off) = off {
        for segment in segments {
            for device in uplinks(segment)? {
                let why = format!(
                    "it joins frames that are cut again, as segment {} has offload = \"off\"",
                    off.name
                );
                look(Setting::Gro { device }, why)?;
            }
        }
    }
    Ok(findings)
}

/// The interfaces by which the frames of a segment come into this host.
fn uplinks(segment: &Segment) -> Result<Vec<String>, Failure> {
    match segment.attach.kind() {
        AttachKind::Packet | AttachKind::Xdp => Ok(vec![segment.device().to_string()]),
        AttachKind::Qemu => Ok(Vec::new()),
        AttachKind::Tap => Ok(ports_of(segment)?.map(|ports| ports.others).unwrap_or_default()),
    }
}

fn ports_of(segment: &Segment) -> Result<Option<BridgePorts>, Failure> {
    let Some(bridge) = segment.bridge() else { return Ok(None) };
    host_settings::bridge_ports(bridge)
        .map_err(|error| Failure::Running(format!("bridge {bridge}: cannot be looked at: {error}")))
}

/// What only another configuration can change.
fn advice(snapshot: &Snapshot) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for segment in &snapshot.segments {
        let (Some(bridge), Some(ports)) = (segment.bridge(), ports_of(segment)?) else { continue };
        let [uplink] = ports.others.as_slice() else { continue };
        let name = &segment.name;
        lines.push(format!(
            "segment {name}: {bridge} joins nothing but {uplink} to the TAP: attach = \"packet\" with \
             interface = \"{uplink}\" would spare the bridge, half of what a frame costs{}",
            if ports.has_address {
                format!(" (first move the host's addresses from {bridge} to {uplink})")
            } else {
                String::new()
            }
        ));
    }
    Ok(lines)
}

/// Makes the changes; each is in the record before the next is made.
fn apply(findings: &[Finding], record: &Path) -> Result<(), Failure> {
    let mut changes = read_record(record)?;
    for Finding { setting, value, .. } in findings {
        let change = Change::of(setting, *value, setting.wanted());
        let same = |known: &Change| (known.kind, &known.name) == (change.kind, &change.name);
        match changes.iter_mut().find(|known| same(known)) {
            // What was there before the first time.
            Some(known) => known.after = change.after,
            None => changes.push(change),
        }
        write_record(record, &changes)?;
        let written = setting.write(setting.wanted());
        written.map_err(|error| cannot("set", setting, &error))?;
    }
    Ok(())
}

/// Puts back what was changed, the last change first.
fn undo(record: &Path) -> Result<(), Failure> {
    let changes = read_record(record)?;
    let mut lines = Vec::new();
    for change in changes.iter().rev() {
        let setting = change.setting();
        let now = setting.read().map_err(|error| cannot("read", &setting, &error))?;
        lines.push(match now {
            None => format!("{setting}: gone"),
            Some(now) if now == change.before => format!("{setting}: is {now}, as before"),
            Some(now) if now != change.after => {
                format!("{setting}: is {now}, changed by somebody since: left alone")
            }
            Some(_) => {
                let written = setting.write(change.before);
                written.map_err(|error| cannot("set", &setting, &error))?;
                format!("{setting}: {} again", change.before)
            }
        });
    }
    if !changes.is_empty() {
        fs::remove_file(record).map_err(|error| unusable(record, &error))?;
    }
    output::print(|output| {
        lines.iter().try_for_each(|line| writeln!(output, "{line}"))?;
        if lines.is_empty() {
            writeln!(output, "{}: nothing to undo", record.display())?;
        }
        Ok(())
    })
}

fn read_record(record: &Path) -> Result<Vec<Change>, Failure> {
    match fs::read(record) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            Failure::Running(format!(
                "record {}: not one of vipr tune ({error}): move it away, or name another with \
                 --record",
                record.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unusable(record, &error)),
    }
}

fn write_record(record: &Path, changes: &[Change]) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(changes)
        .map_err(|error| Failure::Running(format!("record {}: {error}", record.display())))?;
    // Whole, or as it was.
    let next = record.with_extension("new");
    fs::write(&next, text + "\n")
        .and_then(|()| fs::rename(&next, record))
        .map_err(|error| unusable(record, &error))
}

fn unusable(record: &Path, error: &io::Error) -> Failure {
    let path = record.display();
    Failure::Running(format!("record {path}: {error}: run as root, or name another with --record"))
}

fn cannot(what: &str, setting: &Setting, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => ": run as root or with CAP_NET_ADMIN",
        _ => "",
    };
    Failure::Running(format!("{setting}: cannot be {what}: {error}{remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_its_setting_in_the_record_and_back() {
        for setting in [
            Setting::BridgeNetfilter { table: "iptables".to_owned() },
            Setting::QueueLen { device: "t0".to_owned() },
            Setting::Gro { device: "eth0".to_owned() },
        ] {
            let change = Change::of(&setting, 1000, 4000);
            let text = serde_json::to_string(&change).unwrap();
            let read: Change = serde_json::from_str(&text).unwrap();
            assert_eq!((read.setting(), read), (setting, change));
        }
    }

    #[test]
    fn only_what_costs_speed_is_a_finding() {
        let queue = Setting::QueueLen { device: "t0".to_owned() };
        assert!(queue.is_costly(1000) && !queue.is_costly(4000) && !queue.is_costly(10_000));
        let gro = Setting::Gro { device: "t0".to_owned() };
        assert!(gro.is_costly(1) && !gro.is_costly(0));
    }
}
