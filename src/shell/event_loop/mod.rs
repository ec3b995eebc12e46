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
//! `tests/namespaces/waking.sh` counts the calls. A port whose frames keep coming is not waited for
//! until the loop is about to sleep ([`bell`](super::bell)).

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
        let timeout = self.router.before_wait(self.poll.registry(), timeout);
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
mod tests;
