//! The one thread that moves frames, and everything that takes turns with them.
//!
//! Ports are edge-triggered. One that had something is read in bursts of at most
//! [`BURST_MAX`](crate::director::BURST_MAX) frames, in turn with the others, until it is
//! drained; meanwhile nothing waits. Between bursts come timers, the control socket, metrics,
//! signals and a new configuration, each in bounded steps.
//!
//! # Waking
//! A frame that comes alone costs four system calls: the wait that it ends, its read, the read
//! that finds nothing more (an edge is told once), its write. As long as frames keep coming the
//! kernel is asked for events only every [`TURNS_PER_POLL`] turns: often enough that no other
//! port, client or signal waits for longer than a few hundred microseconds. What the ports have
//! goes before what is due by the clock, which is looked at once a turn.
//! `tests/namespaces/waking.sh` counts the calls.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Waker};

use super::control::{ClientId, Control};
use super::followed::Followed;
use super::metrics::Metrics;
use super::ports::{OpenError, Opener};
use super::protocol::{Reply, Request, ShellCommand};
use super::router::Router;
use super::signals::{Signal, Signals};
use super::tokens::{self, Subject};
use super::watch::{Configuration, Loaded};
use super::{clock, systemd};
use crate::config::snapshot;
use crate::director::{Command, Instant, Response};

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 128;
/// Turns between two steps of a new configuration as long as there are frames.
const TURNS_PER_STEP: u32 = 8;
/// Turns between two looks at what else has happened, as long as there are frames.
const TURNS_PER_POLL: u32 = 4;

/// A running router.
pub struct EventLoop<O: Opener> {
    poll: Poll,
    events: Events,
    router: Router<O>,
    followed: Followed,
    coming: Option<Coming>,
    signals: Option<Signals>,
    control: Option<Control>,
    metrics: Option<Metrics>,
    /// Turns since the kernel was last asked for events.
    turns_unpolled: u32,
    stopping: bool,
}

/// What has happened beside frames and requests.
#[derive(Default)]
struct Woken {
    by_watch: bool,
    by_signal: bool,
    by_command: bool,
}

/// A configuration on its way into force.
struct Coming {
    configuration: Arc<Configuration>,
    /// The longest that frames waited for a step of it.
    pause: Duration,
    /// Turns since the last step.
    turns: u32,
}

/// Why the router did not start. Each is one line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("segment {name}: {source}")]
    Port { name: Arc<str>, source: OpenError },
    #[error("event loop: {0}")]
    System(#[from] io::Error),
}

impl<O: Opener> EventLoop<O> {
    /// Opens the port of every segment and follows the configuration file from now on. `seed`
    /// keys the director's hashes: nobody outside may know it.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left behind.
    pub fn start(loaded: Loaded, opener: O, seed: u64) -> Result<EventLoop<O>, StartError> {
        let poll = Poll::new()?;
        let mut router = Router::new(Arc::clone(&loaded.snapshot), opener, seed);
        router
            .open_ports(poll.registry())
            .map_err(|(name, source)| StartError::Port { name, source })?;
        let waker = Waker::new(poll.registry(), tokens::WAKER)?;
        let followed = Followed::start(loaded, move || {
            // A loop that is gone needs no waking.
            let _ = waker.wake();
        })?;
        Ok(EventLoop {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            router,
            followed,
            coming: None,
            signals: None,
            control: None,
            metrics: None,
            turns_unpolled: 0,
            stopping: false,
        })
    }

    /// Obeys signals from now on.
    ///
    /// # Errors
    /// When the system refuses to have them waited for.
    pub fn obey(&mut self, mut signals: Signals) -> io::Result<()> {
        signals.register(self.poll.registry())?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Answers on this control socket from now on.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn serve_control(&mut self, mut control: Control) -> io::Result<()> {
        control.register(self.poll.registry())?;
        self.control = Some(control);
        Ok(())
    }

    /// Serves metrics here, in place of an earlier server; `None` ends that one.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn serve_metrics(&mut self, mut metrics: Option<Metrics>) -> io::Result<()> {
        if let Some(metrics) = &mut metrics {
            metrics.register(self.poll.registry())?;
        }
        if let Some(mut old) = std::mem::replace(&mut self.metrics, metrics) {
            old.deregister(self.poll.registry());
        }
        Ok(())
    }

    /// Takes up the connections that the router before this one left, if the configuration has it
    /// so. To be done before [`Self::run`].
    pub fn take_up_state(&mut self) {
        self.router.take_up_state();
    }

    /// Leaves the connections for the router after this one, if the configuration has it so. To be
    /// done after [`Self::run`].
    pub fn leave_state(&self) {
        self.router.leave_state();
    }

    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// When waiting for events fails.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.stopping {
            self.step(None)?;
        }
        systemd::notify(systemd::STOPPING);
        Ok(())
    }

    /// One turn: waits until there is something to do, `patience` at most, and gives everyone
    /// their share: at most one burst to each segment and one request to each client.
    ///
    /// # Errors
    /// When waiting for events fails.
    pub fn step(&mut self, patience: Option<Duration>) -> io::Result<()> {
        // What was due before this turn is done in it. What a burst makes due waits for the next.
        let deadline = self.poll_timeout();
        let woken = if self.router.has_work() && self.turns_unpolled < TURNS_PER_POLL {
            self.turns_unpolled += 1;
            Woken::default()
        } else {
            self.turns_unpolled = 0;
            self.wait(deadline, patience)?
        };
        let now = clock::now();
        self.router.handle_bursts(self.poll.registry(), now);
        if deadline.is_some_and(|at| at <= now) {
            self.handle_timeout(now);
        }
        if woken.by_command {
            self.router.handle_command_ends(self.poll.registry());
        }
        self.router.run_commands(self.poll.registry());
        if woken.by_signal {
            self.handle_signals();
        }
        if self.continue_configuration() || woken.by_watch {
            self.follow_configuration();
        }
        self.serve_clients();
        Ok(())
    }

    /// Takes events from the kernel, for which it waits if there is nothing else to do.
    fn wait(&mut self, deadline: Option<Instant>, patience: Option<Duration>) -> io::Result<Woken> {
        let timeout = match (self.timeout(deadline), patience) {
            (Some(timeout), Some(patience)) => Some(timeout.min(patience)),
            (timeout, patience) => timeout.or(patience),
        };
        let mut woken = Woken::default();
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(woken),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            match Subject::from(event.token()) {
                Subject::Port(index) => self.router.wake_port(index),
                Subject::Waker => woken.by_watch = true,
                Subject::Signals => woken.by_signal = true,
                Subject::Commands => woken.by_command = true,
                Subject::Control => wake(&mut self.control, Control::wake_listener),
                Subject::ControlClient(key) => wake(&mut self.control, |c| c.wake_client(key)),
                Subject::Metrics => wake(&mut self.metrics, Metrics::wake_listener),
                Subject::MetricsClient(key) => wake(&mut self.metrics, |m| m.wake_client(key)),
            }
        }
        Ok(woken)
    }

    fn handle_timeout(&mut self, now: Instant) {
        let registry = self.poll.registry();
        self.router.handle_timeout(registry, now);
        self.router.run_commands(registry);
        if let Some(control) = &mut self.control {
            control.handle_timeout(registry, now);
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.handle_timeout(registry, now);
        }
    }

    /// When [`Self::handle_timeout`] next has something to do.
    fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [
            self.router.poll_timeout(),
            self.control.as_ref().and_then(Control::poll_timeout),
            self.metrics.as_ref().and_then(Metrics::poll_timeout),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// How long there is nothing to do but wait, if something is due by `deadline`; `None` is for
    /// ever.
    fn timeout(&self, deadline: Option<Instant>) -> Option<Duration> {
        let has_work = self.router.has_work()
            || self.coming.is_some()
            || self.control.as_ref().is_some_and(Control::has_work)
            || self.metrics.as_ref().is_some_and(Metrics::has_work);
        if has_work {
            return Some(Duration::ZERO);
        }
        deadline.map(|at| at.since(clock::now()))
    }

    fn handle_signals(&mut self) {
        let Some(signals) = &mut self.signals else { return };
        for signal in signals.pending() {
            match signal {
                Signal::Terminate => self.stopping = true,
                Signal::Reload => {
                    log::info!("SIGHUP: reading the configuration again");
                    self.followed.reload();
                }
            }
        }
    }

    /// Begins to take into force what the watch has found. One after the other: what comes
    /// meanwhile is found when that is done.
    fn follow_configuration(&mut self) {
        if self.coming.is_some() {
            return;
        }
        let now = clock::now();
        match self.followed.next() {
            Some(next) => {
                self.router.begin_apply(self.poll.registry(), now, Arc::clone(&next.snapshot));
                let coming = Coming { configuration: next, pause: Duration::ZERO, turns: 0 };
                self.finish_step(now, coming);
            }
            None => self.answer_waiting(now, false),
        }
    }

    /// Makes the next step towards the configuration that is coming, if it is due; whether that
    /// was the last.
    fn continue_configuration(&mut self) -> bool {
        let Some(mut coming) = self.coming.take() else { return false };
        coming.turns += 1;
        if self.router.has_work() && coming.turns < TURNS_PER_STEP {
            self.coming = Some(coming);
            return false;
        }
        let now = clock::now();
        self.router.continue_apply(now);
        self.finish_step(now, coming);
        self.coming.is_none()
    }

    /// Notes how long a step took, and after the last one tells those who wait for it.
    fn finish_step(&mut self, start: Instant, coming: Coming) {
        let is_last = !self.router.is_applying();
        if is_last {
            self.follow_addresses(start, &coming.configuration.snapshot.router);
        }
        let pause = coming.pause.max(clock::now().since(start));
        if is_last {
            self.followed.applied(self.router.generation(), coming.configuration, pause);
            self.answer_waiting(start, true);
        } else {
            self.coming = Some(Coming { pause, turns: 0, ..coming });
        }
    }

    /// Answers who waits for a reload no longer. `is_new` says that one came into force just now.
    fn answer_waiting(&mut self, now: Instant, is_new: bool) {
        let outcomes = self.followed.outcomes(self.router.generation(), is_new);
        if let Some(control) = &mut self.control {
            for (client, outcome) in outcomes {
                control.answer(client, now, &Reply::Reload(outcome));
            }
        }
    }

    /// Moves the control socket and the metrics where the configuration now wants them. Where
    /// that does not work, they stay where they are.
    fn follow_addresses(&mut self, now: Instant, wanted: &snapshot::Router) {
        self.followed.unmoved.clear();
        if let Some(control) = &mut self.control
            && control.path() != wanted.control_socket
        {
            match control.relocate(self.poll.registry(), now, &wanted.control_socket) {
                Ok(()) => log::info!("control socket: now {}", wanted.control_socket.display()),
                Err(error) => {
                    let before = control.path().display();
                    let line = format!("router: control_socket stays at {before}: {error}");
                    log::error!("{line}");
                    self.followed.unmoved.push(line);
                }
            }
        }
        if self.metrics.as_ref().map(Metrics::address) != wanted.metrics {
            match (self.move_metrics(wanted.metrics), wanted.metrics) {
                (Ok(()), Some(address)) => log::info!("metrics: now at {address}"),
                (Ok(()), None) => log::info!("metrics: no longer served"),
                (Err(error), _) => {
                    let line = match self.metrics.as_ref().map(Metrics::address) {
                        Some(before) => format!("router: metrics stay at {before}: {error}"),
                        None => format!("router: metrics stay off: {error}"),
                    };
                    log::error!("{line}");
                    self.followed.unmoved.push(line);
                }
            }
        }
    }

    /// Serves metrics at `address`; if that does not work, where they were before.
    fn move_metrics(&mut self, address: Option<SocketAddr>) -> Result<(), Box<dyn Error>> {
        let before = self.metrics.as_ref().map(Metrics::address);
        // Two addresses with one port may exclude each other.
        self.serve_metrics(None)?;
        let moved = address.map(Metrics::bind).transpose().map_err(Box::from);
        match moved {
            Ok(metrics) => Ok(self.serve_metrics(metrics)?),
            Err(error) => {
                self.serve_metrics(before.map(Metrics::bind).transpose()?)?;
                Err(error)
            }
        }
    }

    fn serve_clients(&mut self) {
        if let Some(control) = &mut self.control
            && control.has_work()
        {
            let now = clock::now();
            control.work(self.poll.registry(), now, |client, request| {
                handle_request(&mut self.router, &mut self.followed, now, client, request)
            });
        }
        if let Some(metrics) = &mut self.metrics
            && metrics.has_work()
        {
            let now = clock::now();
            metrics.work(self.poll.registry(), now, || {
                match self.router.handle_command(now, Command::Status) {
                    Response::Status(report) => Some(self.followed.complete(*report)),
                    _ => None,
                }
            });
        }
    }
}

fn wake<T>(server: &mut Option<T>, wake: impl FnOnce(&mut T)) {
    if let Some(server) = server {
        wake(server);
    }
}

/// Answers a request; `None` if the answer comes later.
fn handle_request<O: Opener>(
    router: &mut Router<O>,
    followed: &mut Followed,
    now: Instant,
    client: ClientId,
    request: Request,
) -> Option<Reply> {
    match request {
        Request::Director(command) => Some(match router.handle_command(now, command) {
            Response::Status(report) => Reply::Status(Box::new(followed.complete(*report))),
            Response::Done(done) => {
                log::info!("{done}");
                Reply::Director(Response::Done(done))
            }
            response => Reply::from(response),
        }),
        Request::Shell(ShellCommand::Reload) => match followed.reload_for(client) {
            true => None,
            false => Some(Reply::Error("the watch on the configuration has ended".to_owned())),
        },
        Request::Shell(ShellCommand::Configuration { offset }) => {
            Some(match followed.page(router.generation(), offset) {
                Some(page) => Reply::Configuration(page),
                None => Reply::Error(format!("the configuration has no place {offset}")),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::Instant as Wall;

    use tempfile::TempDir;

    use super::super::fake::{Device, Lan};
    use super::*;
    use crate::director::BURST_MAX;
    use crate::director::report::StatusReport;
    use crate::shell::protocol::ReloadOutcome;
    use crate::wire::samples::{ARP_REQUEST, CLIENT_MAC, DIRECTOR_MAC, TCP_SYN, patched};

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    const REAL_SERVER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x11];
    const BACK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x01, 0x02];

    /// Two segments; the front has the MAC of the sample frames.
    fn text(socket: &Path, back_tap: &str, weight: u32) -> String {
        format!(
            r#"
            [router]
            control_socket = "{}"
            [segment.front]
            role = "vip"
            tap = "tap-front"
            mac = "{DIRECTOR_MAC}"
            [segment.back]
            role = "backend"
            tap = "{back_tap}"
            mac = "02:00:00:00:01:02"
            [[service]]
            name = "web"
            vip = "192.0.2.10"
            protocol = "tcp"
            ports = 80
            scheduler = "wrr"
            [[service.real_server]]
            name = "rs1"
            address = "10.0.0.11"
            mac = "52:54:00:00:00:11"
            segment = "back"
            weight = {weight}
            "#,
            socket.display()
        )
    }

    struct Fixture {
        event_loop: EventLoop<Lan>,
        lan: Lan,
        directory: TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let socket = directory.path().join("vipr.sock");
            Fixture::with(&text(&socket, "tap-back", 1), directory)
        }

        fn with(text: &str, directory: TempDir) -> Fixture {
            let path = directory.path().join("vipr.toml");
            let socket = directory.path().join("vipr.sock");
            fs::write(&path, text).unwrap();
            let loaded = Loaded::read(&path).unwrap();
            let lan = Lan::default();
            let mut event_loop = EventLoop::start(loaded, lan.clone(), 7).unwrap();
            let control = Control::bind(&socket).unwrap();
            event_loop.serve_control(control).unwrap();
            Fixture { event_loop, lan, directory }
        }

        fn write(&self, text: &str) {
            fs::write(self.directory.path().join("vipr.toml"), text).unwrap();
        }

        fn edit(&self, back_tap: &str, weight: u32) {
            self.write(&text(&self.directory.path().join("vipr.sock"), back_tap, weight));
        }

        /// Turns until it holds.
        fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Fixture) -> bool) {
            let end = Wall::now() + PATIENCE;
            while !holds(self) {
                assert!(Wall::now() < end, "{what}");
                self.event_loop.step(Some(Duration::from_millis(10))).unwrap();
            }
        }

        fn status(&mut self) -> StatusReport {
            match self.event_loop.router.handle_command(clock::now(), Command::Status) {
                Response::Status(report) => *report,
                other => panic!("{other:?}"),
            }
        }

        /// Configurations taken into force since the start.
        fn reloads(&mut self) -> u64 {
            let report = self.status();
            self.event_loop.followed.complete(report).configuration.reloads.count
        }

        /// Frames that arrived on each segment.
        fn received(&mut self) -> [u64; 2] {
            let segments = self.status().segments;
            [segments[0].received_frames, segments[1].received_frames]
        }

        fn generation(&self) -> u64 {
            self.event_loop.router.generation()
        }

        /// Asks over the control socket, and turns until there is an answer.
        fn ask(&mut self, request: &str) -> Reply {
            let mut stream = UnixStream::connect(self.directory.path().join("vipr.sock")).unwrap();
            stream.set_nonblocking(true).unwrap();
            writeln!(stream, "{request}").unwrap();
            let (mut stream, mut line) = (BufReader::new(stream), String::new());
            // What came of an unfinished line stays in `line`.
            self.until(request, |_| stream.read_line(&mut line).is_ok_and(|len| len > 0));
            serde_json::from_str(&line).unwrap()
        }
    }

    /// A frame that is dropped for its EtherType.
    fn junk() -> Vec<u8> {
        patched(&TCP_SYN, &[(12, &[0x88, 0xcc])])
    }

    #[test]
    fn a_frame_comes_out_of_the_other_port_with_only_its_addresses_changed() {
        let mut fixture = Fixture::new();
        fixture.lan.arrive("tap-front", [TCP_SYN.to_vec()]);
        fixture.until("forwarded", |fixture| {
            fixture.lan.device("tap-back", |device| device.sent.iter().any(|f| f.len() == 54))
        });
        let expected = patched(&TCP_SYN, &[(0, &REAL_SERVER_MAC), (6, &BACK_MAC)]);
        fixture.lan.device("tap-back", |device| assert!(device.sent.contains(&expected)));
    }

    #[test]
    fn an_answer_goes_out_in_the_turn_in_which_the_question_came() {
        let mut fixture = Fixture::new();
        fixture.until("announced", |fixture| {
            fixture.lan.device("tap-front", |device| !device.sent.is_empty())
        });
        fixture.lan.device("tap-front", |device| device.sent.clear());
        let before = fixture.received()[0];
        fixture.lan.arrive("tap-front", [ARP_REQUEST.to_vec()]);
        fixture.until("asked", |fixture| fixture.received()[0] > before);
        let to_client = |frame: &Vec<u8>| frame[..6] == CLIENT_MAC.0;
        let answered = |device: &mut Device| device.sent.iter().any(to_client);
        assert!(fixture.lan.device("tap-front", answered));
    }

    #[test]
    fn what_one_router_leaves_the_next_takes_up_before_it_reads_a_frame() {
        let ack = patched(&TCP_SYN, &[(47, &[0x10]), (50, &[0x90, 0x3b])]);
        let expected = patched(&ack, &[(0, &REAL_SERVER_MAC), (6, &BACK_MAC)]);
        // Whether the stop was a clean one, and what becomes of the connection.
        for (clean, survives) in [(true, true), (false, false)] {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            let state = format!("[router]\nstate = \"{}\"", at("state").display());
            let text = text(&at("vipr.sock"), "tap-back", 1).replace("[router]", &state);
            let mut fixture = Fixture::with(&text, directory);
            fixture.event_loop.take_up_state();
            fixture.lan.arrive("tap-front", [TCP_SYN.to_vec()]);
            fixture.until("forwarded", |fixture| {
                fixture.lan.device("tap-back", |device| device.sent.len() == 1)
            });
            if clean {
                fixture.event_loop.leave_state();
            }
            let Fixture { event_loop, directory, .. } = fixture;
            drop(event_loop);

            let mut fixture = Fixture::with(&text, directory);
            // It waits at the device already.
            fixture.lan.arrive("tap-front", [ack.clone()]);
            fixture.event_loop.take_up_state();
            fixture.until("judged", |fixture| fixture.received()[0] == 1);
            let forwarded =
                fixture.lan.device("tap-back", |device| device.sent.contains(&expected));
            assert_eq!(forwarded, survives);
            let is_reset = |frame: &Vec<u8>| frame.len() == 54 && frame[47] & 0x04 != 0;
            let reset = fixture.lan.device("tap-front", |device| device.sent.iter().any(is_reset));
            assert_eq!(reset, !survives);
            let first = fixture.lan.device("tap-front", |device| device.sent[0].clone());
            assert_eq!(first[..6], [0xff; 6], "the VIP is announced before anything");
            let files = fs::read_dir(fixture.directory.path()).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let names: Vec<String> = names.filter(|name| name.starts_with("state")).collect();
            assert_eq!(names, [""; 0], "nothing of it is left");
        }
    }

    #[test]
    fn a_flood_on_one_port_does_not_starve_the_other() {
        let mut fixture = Fixture::new();
        let frames = 10 * BURST_MAX;
        fixture.lan.device("tap-front", |device| device.flood = Some(junk()));
        fixture.lan.wake("tap-front");
        fixture.lan.arrive("tap-back", (0..frames).map(|_| junk()));
        let before = fixture.received();
        for turn in 1..=10 {
            fixture.event_loop.step(Some(Duration::ZERO)).unwrap();
            let [front, back] = fixture.received();
            let share = turn * BURST_MAX as u64;
            assert_eq!([front - before[0], back - before[1]], [share, share], "turn {turn}");
        }
        // And control is served all the while.
        assert!(matches!(fixture.ask(r#"{"command":"status"}"#), Reply::Status(_)));
        assert!(fixture.status().counters.dropped >= 2 * frames as u64);
    }

    #[test]
    fn a_drained_port_is_waited_for_and_not_asked_again() {
        let mut fixture = Fixture::new();
        fixture.lan.arrive("tap-front", (0..BURST_MAX + 1).map(|_| junk()));
        fixture.until("both bursts", |fixture| fixture.received()[0] == BURST_MAX as u64 + 1);
        assert!(!fixture.event_loop.router.has_work());
        assert_ne!(
            fixture.event_loop.timeout(fixture.event_loop.poll_timeout()),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_segment_whose_device_is_gone_leaves_the_others_alone() {
        let mut fixture = Fixture::new();
        fixture.lan.device("tap-back", |device| device.is_gone = true);
        fixture.lan.wake("tap-back");
        fixture.until("back is down", |fixture| !fixture.status().segments[1].up);
        fixture.lan.arrive("tap-front", [TCP_SYN.to_vec()]);
        fixture.until("counted", |fixture| fixture.status().segments[1].send_errors > 0);
        fixture.lan.device("tap-back", |device| device.is_gone = false);
        fixture.until("back is up", |fixture| fixture.status().segments[1].up);
        assert_eq!(fixture.lan.device("tap-front", |device| device.opened), 1);
        assert_eq!(fixture.lan.device("tap-back", |device| device.opened), 2);
    }

    #[test]
    fn an_edit_is_in_force_once_and_touches_only_the_ports_it_names() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.generation(), 1);
        fixture.edit("tap-other", 2);
        fixture.until("in force", |fixture| fixture.generation() == 2);
        assert_eq!(fixture.lan.device("tap-front", |device| device.opened), 1);
        assert_eq!(fixture.lan.device("tap-back", |device| device.open_now), 0);
        assert_eq!(fixture.lan.device("tap-other", |device| device.open_now), 1);
        assert_eq!(fixture.status().services[0].real_servers[0].weight, 2);
        assert!(matches!(
            fixture.ask(r#"{"command":"reload"}"#),
            Reply::Reload(ReloadOutcome::Unchanged { generation: 2 })
        ));
    }

    #[test]
    fn frames_are_handled_between_the_steps_of_a_large_configuration() {
        let mut fixture = Fixture::new();
        let mut large = text(&fixture.directory.path().join("vipr.sock"), "tap-back", 2);
        for service in 0..100 {
            large += &format!(
                "[[service]]\nvip = \"198.18.0.{service}\"\nprotocol = \"tcp\"\nports = 80\n\
                 scheduler = \"rr\"\n"
            );
            for server in 0..20 {
                large += &format!(
                    "[[service.real_server]]\naddress = \"10.1.{service}.{server}\"\n\
                     mac = \"52:54:00:00:00:11\"\nsegment = \"back\"\n"
                );
            }
        }
        fixture.write(&large);
        fixture.until("the first step", |fixture| fixture.event_loop.coming.is_some());
        assert_eq!(
            fixture.event_loop.timeout(fixture.event_loop.poll_timeout()),
            Some(Duration::ZERO)
        );
        fixture.lan.arrive("tap-front", [TCP_SYN.to_vec()]);
        fixture.event_loop.step(Some(Duration::ZERO)).unwrap();
        fixture.lan.device("tap-back", |device| assert!(device.sent.iter().any(|f| f.len() == 54)));
        assert!(fixture.event_loop.coming.is_some(), "and it is not yet in force");
        assert_eq!(fixture.reloads(), 0);
        fixture.until("the last step", |fixture| fixture.event_loop.coming.is_none());
        assert_eq!(fixture.reloads(), 1);
        assert_eq!(fixture.status().services.len(), 101);
    }

    #[test]
    fn a_reload_answers_with_what_came_of_it() {
        let mut fixture = Fixture::new();
        fixture.edit("tap-back", 5);
        match fixture.ask(r#"{"command":"reload"}"#) {
            Reply::Reload(ReloadOutcome::Applied { generation: 2, changes, more: 0 }) => {
                assert_eq!(changes.len(), 1);
                assert!(changes[0].contains("weight"), "{changes:?}");
            }
            // The watch may have been quicker.
            Reply::Reload(ReloadOutcome::Unchanged { generation: 2 }) => {}
            other => panic!("{other:?}"),
        }
        fixture.write("[segment");
        match fixture.ask(r#"{"command":"reload"}"#) {
            Reply::Reload(ReloadOutcome::Refused { generation: 2, diagnostics }) => {
                assert!(diagnostics.contains("vipr.toml"), "{diagnostics}");
            }
            other => panic!("{other:?}"),
        }
        let Reply::Status(status) = fixture.ask(r#"{"command":"status"}"#) else { panic!() };
        assert!(status.configuration.error.is_some_and(|error| error.contains("vipr.toml")));
        assert!(status.configuration.failures >= 1);
        fixture.edit("tap-back", 5);
        assert!(matches!(
            fixture.ask(r#"{"command":"reload"}"#),
            Reply::Reload(ReloadOutcome::Unchanged { generation: 2 })
        ));
    }

    #[test]
    fn the_control_socket_moves_with_the_configuration() {
        let mut fixture = Fixture::new();
        let moved = fixture.directory.path().join("moved.sock");
        fixture.write(&text(&moved, "tap-back", 1));
        fixture.until("moved", |_| moved.exists());
        assert!(!fixture.directory.path().join("vipr.sock").exists());
        drop(fixture.event_loop);
        assert!(!moved.exists());
    }
}
