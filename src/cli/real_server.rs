//! `vipr realserver`: what a real server needs for direct routing, printed or done, and undone.
//!
//! It runs on the real server, where vipr's router does not. What is done is what is printed: the
//! same commands. Every step can be made twice and leaves the same, and if one fails, those before
//! it are taken back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Failure, output};

/// Prepare a real server for direct routing: the VIP on it, and hidden from ARP.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the commands, and do nothing.
    Print(Wanted),
    /// Do it. As often as you like: what is there already stays.
    Setup(Wanted),
    /// Undo it.
    Remove(Wanted),
}

#[derive(Debug, Args)]
struct Wanted {
    /// The VIP; repeat for several.
    #[arg(long = "vip", value_name = "ADDRESS", required = true)]
    vips: Vec<IpAddr>,
    /// How ARP for the VIP is prevented.
    #[arg(long, value_enum, default_value_t = Method::Sysctl)]
    method: Method,
    /// The interface that has the VIP.
    #[arg(long, value_name = "DEVICE", default_value = "lo")]
    interface: String,
    /// The real server's own address, which stands in for the VIP in its ARP requests
    /// (arptables, nft).
    #[arg(long, value_name = "ADDRESS")]
    rip: Option<IpAddr>,
    /// An interface by which requests come, where the answers leave by another: its reverse path
    /// filter is made loose. Repeat for several.
    #[arg(long = "requests-on", value_name = "DEVICE")]
    requests_on: Vec<String>,
    /// Where is kept what was there before.
    #[arg(long, value_name = "PATH", default_value = "/run/vipr-realserver.json")]
    state: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// arp_ignore and arp_announce.
    Sysctl,
    /// A rule of arptables for each VIP and direction.
    Arptables,
    /// A table of nftables, family arp.
    Nft,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (Action::Print(wanted) | Action::Setup(wanted) | Action::Remove(wanted)) =
        &arguments.action;
    let plan = Plan::new(wanted).map_err(Failure::Usage)?;
    match &arguments.action {
        Action::Print(_) => output::print(|output| Ok(write!(output, "{}", plan.script())?)),
        Action::Setup(_) => plan.set_up(),
        Action::Remove(_) => plan.remove(),
    }
}

/// What is to be done, in order.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    steps: Vec<Step>,
    vips: Vec<IpAddr>,
    state: PathBuf,
}

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A setting of the kernel that is at least so high.
    Sysctl { key: String, value: u32, why: &'static str },
    /// A command, and the one that undoes it. What comes before it, and may fail, makes it the same
    /// to run it twice.
    Run { why: &'static str, before: Vec<String>, set: Vec<String>, unset: Vec<String> },
}

/// What the settings were before the first set-up, and for whom they were changed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Before {
    sysctls: BTreeMap<String, u32>,
    vips: Vec<IpAddr>,
}

impl Plan {
    fn new(wanted: &Wanted) -> Result<Plan, String> {
        let mut steps = Vec::new();
        let any_v4 = wanted.vips.iter().any(IpAddr::is_ipv4);
        let interface_fits = |name: &str| {
            (1..=15).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        };
        for name in wanted.requests_on.iter().chain([&wanted.interface]) {
            if !interface_fits(name) {
                return Err(format!("{name}: not the name of an interface"));
            }
        }
        // First what hides the VIP, so that it is never there to be seen.
        if any_v4 && wanted.method == Method::Sysctl {
            steps.push(Step::Sysctl {
                key: "net/ipv4/conf/all/arp_ignore".to_owned(),
                value: 1,
                why: "answer ARP only on the interface that has the address",
            });
            steps.push(Step::Sysctl {
                key: "net/ipv4/conf/all/arp_announce".to_owned(),
                value: 2,
                why: "never name the VIP as the sender of an ARP request",
            });
        }
        if any_v4 && wanted.method != Method::Sysctl {
            let Some(IpAddr::V4(rip)) = wanted.rip else {
                return Err("--rip: the real server's own IPv4 address is needed for this \
                            method: its ARP requests name it in place of the VIP"
                    .to_owned());
            };
            for vip in wanted.vips.iter().filter(|vip| vip.is_ipv4()) {
                steps.extend(match wanted.method {
                    Method::Arptables => arptables(*vip, rip.into()),
                    Method::Nft | Method::Sysctl => nft(*vip, rip.into()),
                });
            }
        }
        for device in &wanted.requests_on {
            steps.push(Step::Sysctl {
                key: format!("net/ipv4/conf/{device}/rp_filter"),
                value: 2,
                why: "requests may come by another interface than the answers leave by",
            });
        }
        for vip in &wanted.vips {
            let prefix = if vip.is_ipv4() { 32 } else { 128 };
            let address = format!("{vip}/{prefix}");
            let words = |verb: &str| {
                let mut words = vec!["ip", "address", verb, &address, "dev", &wanted.interface];
                if vip.is_ipv6() && verb == "replace" {
                    // Everyone has it: nothing to detect.
                    words.push("nodad");
                }
                words.into_iter().map(str::to_owned).collect()
            };
            steps.push(Step::Run {
                why: "the VIP, for packets to it to be taken",
                before: Vec::new(),
                set: words("replace"),
                unset: words("delete"),
            });
        }
        Ok(Plan { steps, vips: wanted.vips.clone(), state: wanted.state.clone() })
    }

    /// The commands, for a shell.
    fn script(&self) -> String {
        let mut script =
            "#!/bin/sh\n# What this real server needs for direct routing.\nset -e\n".to_owned();
        for step in &self.steps {
            // Writing to a string does not fail.
            let _ = match step {
                Step::Sysctl { key, value, why } => {
                    writeln!(script, "# {why}\nsysctl -w {}={value}", dotted(key))
                }
                Step::Run { why, before, set, .. } => {
                    let _ = writeln!(script, "# {why}");
                    if !before.is_empty() {
                        let _ = writeln!(script, "{} 2>/dev/null || true", shell_words(before));
                    }
                    writeln!(script, "{}", shell_words(set))
                }
            };
        }
        script
    }

    fn set_up(&self) -> Result<(), Failure> {
        let mut before = self.recall()?;
        let mut done: Vec<(&Step, Option<u32>)> = Vec::new();
        for step in &self.steps {
            match step.set() {
                Ok(was) => done.push((step, was)),
                Err(error) => {
                    for (step, was) in done.iter().rev() {
                        // What cannot be undone either is said by the first error.
                        let _ = step.unset(*was);
                    }
                    return Err(Failure::Running(format!("{error}; nothing was changed")));
                }
            }
        }
        for (step, was) in &done {
            if let (Step::Sysctl { key, .. }, Some(was)) = (step, was) {
                before.sysctls.entry(key.clone()).or_insert(*was);
            }
        }
        for vip in &self.vips {
            if !before.vips.contains(vip) {
                before.vips.push(*vip);
            }
        }
        self.remember(&before)?;
        self.say("is set up for")
    }

    fn remove(&self) -> Result<(), Failure> {
        let mut before = self.recall()?;
        before.vips.retain(|vip| !self.vips.contains(vip));
        for step in self.steps.iter().rev() {
            match step {
                // Settings are everyone's: they stay until the last VIP goes.
                Step::Sysctl { .. } => {}
                Step::Run { .. } => step.unset(None).map_err(Failure::Running)?,
            }
        }
        if before.vips.is_empty() {
            for (key, value) in core::mem::take(&mut before.sysctls) {
                write_sysctl(&key, value).map_err(Failure::Running)?;
            }
        }
        self.remember(&before)?;
        self.say("no longer has")
    }

    fn say(&self, what: &str) -> Result<(), Failure> {
        let vips: Vec<String> = self.vips.iter().map(IpAddr::to_string).collect();
        output::print(|output| Ok(writeln!(output, "real server {what} {}", vips.join(", "))?))
    }

    fn recall(&self) -> Result<Before, Failure> {
        let failed = |why: String| Failure::Running(format!("{}: {why}", self.state.display()));
        match fs::read_to_string(&self.state) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| failed(format!("not what vipr wrote: {error}; remove it"))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Before::default()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn remember(&self, before: &Before) -> Result<(), Failure> {
        let failed =
            |error: std::io::Error| Failure::Running(format!("{}: {error}", self.state.display()));
        if before.vips.is_empty() && before.sysctls.is_empty() {
            return match fs::remove_file(&self.state) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_string_pretty(before).map_err(|error| failed(error.into()))?;
        let new = self.state.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &self.state)).map_err(failed)
    }
}

impl Step {
    /// Does it; of a setting what it was, if it was changed.
    fn set(&self) -> Result<Option<u32>, String> {
        match self {
            Step::Sysctl { key, value, .. } => {
                let was = read_sysctl(key)?;
                if was >= *value {
                    return Ok(None);
                }
                write_sysctl(key, *value)?;
                Ok(Some(was))
            }
            Step::Run { before, set, .. } => {
                if !before.is_empty() {
                    let _ = execute(before);
                }
                execute(set)?;
                Ok(None)
            }
        }
    }

    /// Undoes it. What is not there needs no undoing.
    fn unset(&self, was: Option<u32>) -> Result<(), String> {
        match self {
            Step::Sysctl { key, .. } => was.map_or(Ok(()), |was| write_sysctl(key, was)),
            Step::Run { unset, .. } => match execute(unset) {
                Err(error) if !is_absence(&error) => Err(error),
                _ => Ok(()),
            },
        }
    }
}

/// Red Hat's method: requests for the VIP are dropped, and one's own name the RIP.
fn arptables(vip: IpAddr, rip: IpAddr) -> Vec<Step> {
    let (vip, rip) = (vip.to_string(), rip.to_string());
    let step = |why, rule: &[&str]| {
        let command = |verb| {
            let words = ["arptables", verb].into_iter().chain(rule.iter().copied());
            words.map(str::to_owned).collect::<Vec<String>>()
        };
        Step::Run { why, before: command("-D"), set: command("-A"), unset: command("-D") }
    };
    vec![
        step("answer no ARP request for the VIP", &["INPUT", "-d", &vip, "-j", "DROP"]),
        step(
            "never name the VIP as the sender of an ARP request",
            &["OUTPUT", "-s", &vip, "-j", "mangle", "--mangle-ip-s", &rip],
        ),
    ]
}

/// The same for nftables: a table for each VIP, made and removed whole.
fn nft(vip: IpAddr, rip: IpAddr) -> Vec<Step> {
    let table = format!("vipr_{}", vip.to_string().replace('.', "_"));
    let rules = format!(
        "table arp {table} {{ \
         chain input {{ type filter hook input priority 0; arp daddr ip {vip} drop; }}; \
         chain output {{ type filter hook output priority 0; \
         arp saddr ip {vip} arp saddr ip set {rip}; }}; }}"
    );
    let delete = format!("delete table arp {table}");
    let command = |text: String| vec!["nft".to_owned(), text];
    vec![Step::Run {
        why: "answer no ARP request for the VIP, and name the RIP in one's own",
        before: command(delete.clone()),
        set: command(rules),
        unset: command(delete),
    }]
}

fn execute(words: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                format!("{program}: not found; install it, or use another --method")
            }
            _ => format!("{program}: {error}"),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default().trim();
    Err(format!("{}: {said} ({})", shell_words(words), output.status))
}

/// Whether a command failed because there is nothing to undo.
fn is_absence(error: &str) -> bool {
    // Of IPv6 the kernel says it in lower case.
    const ABSENT: [&str; 6] = [
        "address not found",
        "cannot assign requested address",
        "no such file or directory",
        "does not exist",
        "no chain/target/match by that name",
        "bad rule",
    ];
    let error = error.to_ascii_lowercase();
    ABSENT.iter().any(|absent| error.contains(absent))
}

fn read_sysctl(key: &str) -> Result<u32, String> {
    let path = format!("/proc/sys/{key}");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    text.trim().parse().map_err(|_| format!("{path}: {} is no number", text.trim()))
}

fn write_sysctl(key: &str, value: u32) -> Result<(), String> {
    let path = format!("/proc/sys/{key}");
    fs::write(&path, value.to_string()).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => format!("{path}: {error}; run this as root"),
        _ => format!("{path}: {error}"),
    })
}

/// `net.ipv4.conf.all.arp_ignore`; a device with a dot in its name keeps it by slashes.
fn dotted(key: &str) -> String {
    if key.contains('.') { key.to_owned() } else { key.replace('/', ".") }
}

fn shell_words(words: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/.:-_".contains(&b))
    };
    let word = |word: &String| {
        if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(vips: &[&str], method: Method, rip: Option<&str>) -> Wanted {
        Wanted {
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            method,
            interface: "lo".to_owned(),
            rip: rip.map(|rip| rip.parse().unwrap()),
            requests_on: Vec::new(),
            state: "/nowhere".into(),
        }
    }

    fn commands(wanted: &Wanted) -> Vec<String> {
        let script = Plan::new(wanted).unwrap().script();
        script.lines().skip(3).filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn the_vip_is_hidden_before_it_is_there() {
        assert_eq!(
            commands(&wanted(&["192.0.2.10", "2001:db8::10"], Method::Sysctl, None)),
            [
                "sysctl -w net.ipv4.conf.all.arp_ignore=1",
                "sysctl -w net.ipv4.conf.all.arp_announce=2",
                "ip address replace 192.0.2.10/32 dev lo",
                "ip address replace 2001:db8::10/128 dev lo nodad",
            ]
        );
        assert_eq!(
            commands(&wanted(&["192.0.2.10"], Method::Arptables, Some("10.0.0.11"))),
            [
                "arptables -D INPUT -d 192.0.2.10 -j DROP 2>/dev/null || true",
                "arptables -A INPUT -d 192.0.2.10 -j DROP",
                "arptables -D OUTPUT -s 192.0.2.10 -j mangle --mangle-ip-s 10.0.0.11 \
                 2>/dev/null || true",
                "arptables -A OUTPUT -s 192.0.2.10 -j mangle --mangle-ip-s 10.0.0.11",
                "ip address replace 192.0.2.10/32 dev lo",
            ]
        );
        let nft = commands(&wanted(&["192.0.2.10"], Method::Nft, Some("10.0.0.11")));
        assert!(nft[1].contains("arp saddr ip 192.0.2.10 arp saddr ip set 10.0.0.11"), "{nft:?}");
    }

    #[test]
    fn ipv6_needs_the_address_and_nothing_else() {
        for method in [Method::Sysctl, Method::Arptables, Method::Nft] {
            assert_eq!(
                commands(&wanted(&["2001:db8::10"], method, None)),
                ["ip address replace 2001:db8::10/128 dev lo nodad"]
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_done() {
        let refused = Plan::new(&wanted(&["192.0.2.10"], Method::Arptables, None)).unwrap_err();
        assert!(refused.contains("--rip"), "{refused}");
        let mut strange = wanted(&["192.0.2.10"], Method::Sysctl, None);
        strange.requests_on.push("../x".to_owned());
        assert!(Plan::new(&strange).is_err());
    }
}
