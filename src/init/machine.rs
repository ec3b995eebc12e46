//! The machine's life: everything that PID 1 waits for.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{WaitOptions, wait};
use signal_hook_mio::v1_0::Signals;

use super::options::Options;
use super::power::Button;
use super::push::{Push, Pushed};
use super::relay::Relay;
use super::router::Router;
use super::source::{self, COPY, Source};
use super::virtio::{Arrived, HostPort};
use super::{setup, source::write_copy};
use crate::config::snapshot::Uplink;
use crate::config::{self, Snapshot};
use crate::port::cards::{self, CardInfo};
use crate::shell::file;
use crate::shell::protocol::{ReloadOutcome, Reply, Request, ShellCommand};
use crate::shell::watch::CHANGES_TOLD_MAX;

/// How often a source is looked at that does not say when it changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// By then the router has done what it does at its start.
const WEIGH_AFTER: Duration = Duration::from_secs(3);
/// How long the router may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long the router may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

const SIGNALS: Token = Token(0);
const CONFIG_PORT: Token = Token(1);
const CONTROL_PORT: Token = Token(2);
const CONTROL_SOCKET: Token = Token(3);
const BUTTONS: Token = Token(4);

struct Machine {
    poll: Poll,
    signals: Signals,
    buttons: Vec<Button>,
    config_port: Option<HostPort>,
    push: Push,
    relay: Option<Relay>,
    source: Source,
    router: Router,
    /// What the router's copy says.
    text: String,
    control_socket: PathBuf,
    look_at: Option<Instant>,
    /// When to say what all this takes.
    weigh_at: Option<Instant>,
}

/// Sets the machine up and runs it until it is told to power off.
pub fn run(options: &Options) -> Result<(), String> {
    for complaint in &options.complaints {
        log::warn!("kernel command line: {complaint}");
    }
    setup::load_modules("start");
    setup::load_card_modules();
    setup::apply_settings();
    log::info!("vipr {}: the only program of this machine", env!("CARGO_PKG_VERSION"));
    match cards::all() {
        Ok(cards) => log::info!("cards: {}", cards::listed(&cards)),
        Err(error) => log::error!("cards: cannot be asked for: {error}"),
    }
    let mut machine = Machine::new(options).map_err(|error| format!("event loop: {error}"))?;
    machine.take_source();
    // After the router has been started: clients wait for that.
    machine.find_buttons().map_err(|error| format!("power button: {error}"))?;
    machine.live()
}

impl Machine {
    fn new(options: &Options) -> std::io::Result<Machine> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        let mut signals = Signals::new([libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGPWR])?;
        registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
        let wait_for = |fd, token| registry.register(&mut SourceFd(&fd), token, Interest::READABLE);
        let config_port = HostPort::open("vipr.config");
        if let Some(port) = &config_port {
            wait_for(port.descriptor(), CONFIG_PORT)?;
        }
        let relay = HostPort::open("vipr.control").map(|port| Relay::new(port, CONTROL_SOCKET));
        if let Some(relay) = &relay {
            wait_for(relay.port().descriptor(), CONTROL_PORT)?;
        }
        let program = std::env::current_exe().unwrap_or_else(|_| "/init".into());
        Ok(Machine {
            signals,
            buttons: Vec::new(),
            config_port,
            push: Push::default(),
            relay,
            source: options.config.clone(),
            router: Router::new(program, options.log),
            text: String::new(),
            control_socket: "/run/vipr.sock".into(),
            look_at: None,
            weigh_at: log::log_enabled!(log::Level::Debug).then(|| Instant::now() + WEIGH_AFTER),
            poll,
        })
    }

    /// Starts the router on what the source says.
    fn take_source(&mut self) {
        match self.source.open() {
            Ok(None) => log::info!("configuration: waiting for the host to send one"),
            Ok(Some(text)) => {
                if matches!(self.source, Source::Virtiofs(_)) {
                    self.look_at = Some(Instant::now() + LOOK_INTERVAL);
                }
                // The router itself says what is wrong with it, and is started again and again.
                match self.put(text) {
                    Ok(()) => self.router.start(),
                    Err(error) => log::error!("configuration: {error}"),
                }
            }
            Err(error) => {
                let hint = if self.config_port.is_some() {
                    "waiting for the host to send one"
                } else {
                    "there is nothing to run on: power off and mend that"
                };
                log::error!("{error}; {hint}");
            }
        }
    }

    /// Waits for the power button from now on.
    fn find_buttons(&mut self) -> std::io::Result<()> {
        setup::load_modules("button");
        self.buttons = Button::all();
        for button in &self.buttons {
            let mut source = SourceFd(&button.descriptor());
            self.poll.registry().register(&mut source, BUTTONS, Interest::READABLE)?;
        }
        Ok(())
    }

    fn live(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(16);
        // What arrived before it was waited for makes no event on a port.
        self.handle_config_port();
        loop {
            let due = [self.router.start_at(), self.look_at, self.weigh_at];
            let due = due.into_iter().flatten().min();
            let timeout = due.map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("event loop: {error}"));
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    SIGNALS if self.handle_signals() => return self.end("a signal"),
                    BUTTONS if self.is_button_pressed() => return self.end("the power button"),
                    CONFIG_PORT => self.handle_config_port(),
                    CONTROL_PORT => {
                        if let Some(relay) = &mut self.relay {
                            relay.handle_port(self.poll.registry(), &self.control_socket);
                        }
                    }
                    CONTROL_SOCKET => {
                        if let Some(relay) = &mut self.relay {
                            relay.handle_router();
                        }
                    }
                    _ => {}
                }
            }
            self.handle_timeout(Instant::now());
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.router.start_at().is_some_and(|at| at <= now) {
            setup::load_card_modules();
            self.router.start();
        }
        if self.weigh_at.is_some_and(|at| at <= now) {
            self.weigh_at = None;
            let own = resident_kb("self");
            let router = self.router.pid().map_or(0, |pid| resident_kb(&pid.to_string()));
            log::debug!("init: memory: router {router} kB, init {own} kB resident");
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = Some(now + LOOK_INTERVAL);
            if let Some(text) = self.source.look()
                && text != self.text
            {
                // The router follows its copy, and says what it thinks of it.
                if let Err(error) = self.put(text) {
                    log::error!("configuration: {error}");
                }
                self.router.start();
            }
        }
    }

    /// Whether the machine is to end.
    fn handle_signals(&mut self) -> bool {
        let mut ends = false;
        for signal in self.signals.pending() {
            ends |= signal != libc::SIGCHLD;
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if !ends {
                self.router.reaped(pid, status);
            }
        }
        ends
    }

    fn is_button_pressed(&mut self) -> bool {
        // All of them: each has to be read.
        self.buttons.iter_mut().fold(false, |pressed, button| button.was_pressed() | pressed)
    }

    fn handle_config_port(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while let Some(port) = &mut self.config_port {
            match port.receive(&mut buffer) {
                Arrived::Nothing => return,
                Arrived::Nobody => return self.push.reset(),
                Arrived::Bytes(len) => {
                    for pushed in self.push.take(&buffer[..len]) {
                        let outcome = match pushed {
                            Pushed::Text(text) => self.accept(text),
                            Pushed::Bad(diagnostics) => refused(diagnostics),
                        };
                        self.answer(&outcome);
                    }
                }
            }
        }
    }

    fn answer(&mut self, outcome: &Reply) {
        let (Some(port), Ok(mut line)) = (&mut self.config_port, serde_json::to_vec(outcome))
        else {
            return;
        };
        line.push(b'\n');
        if let Err(error) = port.send(&line) {
            log::warn!("port vipr.config: the answer was not taken: {error}");
        }
    }

    /// Takes a configuration that the host sent, if it is one that can run here.
    fn accept(&mut self, text: String) -> Reply {
        let snapshot = match file::parse(Path::new("vipr.toml"), &text) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                log::error!(
                    "configuration from the host: refused\n{}",
                    error.to_string().trim_end()
                );
                return refused(error.to_string());
            }
        };
        // One may have been plugged in.
        setup::load_card_modules();
        if let Some(missing) = missing_cards(&snapshot, &cards::all().unwrap_or_default()) {
            log::error!("configuration from the host: refused: {}", missing.trim_end());
            return refused(missing);
        }
        let before = file::parse(Path::new("vipr.toml"), &self.text).ok();
        if let Err(error) = self.put(text) {
            return refused(format!("{COPY}: cannot be written: {error}"));
        }
        if self.router.is_running() {
            let changes = before.map(|before| config::diff(&before, &snapshot));
            return told(self.reload(), changes.unwrap_or_default());
        }
        log::info!("configuration from the host: the router starts with it");
        self.router.start();
        let changes = vec!["the router starts with it".to_owned()];
        Reply::Reload(ReloadOutcome::Applied { generation: 1, changes, more: 0 })
    }

    /// Has the running router read its copy again, and waits for its answer.
    fn reload(&self) -> Reply {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(&self.control_socket)?;
            stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
            let mut line = serde_json::to_vec(&Request::Shell(ShellCommand::Reload))?;
            line.push(b'\n');
            stream.write_all(&line)?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        match ask().map(|line| serde_json::from_str(&line)) {
            Ok(Ok(reply)) => reply,
            // It has just been started: it reads the new copy by itself.
            Ok(Err(_)) | Err(_) => Reply::Reload(ReloadOutcome::Applied {
                generation: 0,
                changes: vec!["the router is just starting and will read it".to_owned()],
                more: 0,
            }),
        }
    }

    /// Writes the router's copy.
    fn put(&mut self, text: String) -> std::io::Result<()> {
        write_copy(&text)?;
        if let Ok(snapshot) = file::parse(Path::new(source::COPY), &text)
            && !self.router.is_running()
        {
            self.control_socket = snapshot.router.control_socket.clone();
        }
        self.text = text;
        Ok(())
    }

    /// Ends the router and waits for that.
    fn end(&mut self, why: &str) -> Result<(), String> {
        log::info!("init: ended by {why}");
        if !self.router.stop() {
            return Ok(());
        }
        let end = Instant::now() + STOP_PATIENCE;
        let mut events = Events::with_capacity(16);
        while Instant::now() < end {
            let _ = self.poll.poll(&mut events, Some(end - Instant::now().min(end)));
            self.signals.pending().for_each(drop);
            loop {
                match wait(WaitOptions::NOHANG) {
                    // No child is left.
                    Err(_) => return Ok(()),
                    Ok(None) => break,
                    Ok(Some(_)) => {}
                }
            }
        }
        log::warn!("router: still there after {} s", STOP_PATIENCE.as_secs());
        Ok(())
    }
}

/// What a process has in memory. `VmRSS` is kept too coarsely to tell of processes this small.
fn resident_kb(process: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"));
    let rollup = rollup.unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// The router's answer for whoever sent the configuration. The router watches its copy, and may have
/// taken it into force before it was asked to: then to it nothing has changed.
fn told(answer: Reply, mut changes: Vec<String>) -> Reply {
    match answer {
        Reply::Reload(ReloadOutcome::Unchanged { generation }) if !changes.is_empty() => {
            let count = changes.len();
            changes.truncate(CHANGES_TOLD_MAX);
            let more = count - changes.len();
            Reply::Reload(ReloadOutcome::Applied { generation, changes, more })
        }
        answer => answer,
    }
}

fn refused(diagnostics: String) -> Reply {
    Reply::Reload(ReloadOutcome::Refused { generation: 0, diagnostics })
}

/// The uplinks of a configuration that this machine has no card for: a line each.
fn missing_cards(snapshot: &Snapshot, there: &[CardInfo]) -> Option<String> {
    let mut lines = String::new();
    for segment in &snapshot.segments {
        let Some(uplink) = segment.uplink() else { continue };
        let is_there = there.iter().any(|card| match uplink {
            Uplink::Name(name) => card.name == **name,
            Uplink::Mac(mac) => card.mac == *mac,
        });
        if !is_there {
            let _ = writeln!(
                lines,
                "segment {}: this machine has no card {uplink}; there are: {}: name one of them \
                 as uplink",
                segment.name,
                cards::listed(there)
            );
        }
    }
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MacAddr;

    #[test]
    fn who_sent_a_configuration_is_told_what_it_changed_even_if_the_router_was_quicker() {
        let unchanged = || Reply::Reload(ReloadOutcome::Unchanged { generation: 2 });
        let applied = |changes: &[&str], more| {
            let changes = changes.iter().map(ToString::to_string).collect();
            Reply::Reload(ReloadOutcome::Applied { generation: 2, changes, more })
        };
        assert_eq!(told(unchanged(), Vec::new()), unchanged());
        assert_eq!(told(unchanged(), vec!["a".to_owned()]), applied(&["a"], 0));
        assert_eq!(told(applied(&["b"], 0), vec!["a".to_owned()]), applied(&["b"], 0));
        let many = vec!["a".to_owned(); CHANGES_TOLD_MAX + 3];
        assert_eq!(told(unchanged(), many), applied(&["a"; CHANGES_TOLD_MAX], 3));
    }

    #[test]
    fn a_card_that_is_not_there_is_named_with_those_that_are() {
        let text =
            "[segment.front]\nrole = \"both\"\ntap = \"t\"\nbridge = \"b\"\nuplink = \"UP\"\n";
        let there = [CardInfo { name: "eth0".into(), mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]) }];
        let missing = |uplink: &str| {
            let snapshot = crate::config::parse(&text.replace("UP", uplink), "vipr.toml").unwrap();
            missing_cards(&snapshot, &there)
        };
        assert_eq!(missing("eth0"), None);
        assert_eq!(missing("52:54:00:00:00:01"), None);
        let line = missing("eth1").unwrap();
        assert!(line.contains("front") && line.contains("eth1"), "{line}");
        assert!(line.contains("eth0 (52:54:00:00:00:01)"), "{line}");
        assert!(missing("52:54:00:00:00:02").is_some());
    }
}
