//! The router as a child: started, watched, started again.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use log::LevelFilter;
use rustix::process::{Pid, Signal, WaitStatus, kill_process};

use super::source::COPY;

/// The first pause before it is started again; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A router that ran this long had no trouble with its start.
const STEADY: Duration = Duration::from_secs(60);

/// The router's process, or when there will be one.
pub struct Router {
    program: PathBuf,
    log: LevelFilter,
    state: State,
    pause: Duration,
}

enum State {
    /// There is no configuration yet.
    Waiting,
    Running {
        pid: Pid,
        since: Instant,
    },
    Pausing {
        until: Instant,
    },
}

impl Router {
    pub fn new(program: PathBuf, log: LevelFilter) -> Router {
        Router { program, log, state: State::Waiting, pause: PAUSE }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Its process.
    pub fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Waiting | State::Pausing { .. } => None,
        }
    }

    /// When [`Self::start`] is due.
    pub fn start_at(&self) -> Option<Instant> {
        match self.state {
            State::Pausing { until } => Some(until),
            State::Waiting | State::Running { .. } => None,
        }
    }

    /// Starts it, if it does not run.
    pub fn start(&mut self) {
        if self.is_running() {
            return;
        }
        match self.spawn() {
            Ok(pid) => self.state = State::Running { pid, since: Instant::now() },
            Err(error) => {
                let program = self.program.display();
                log::error!("router: {program} cannot be started: {error}");
                self.retry();
            }
        }
    }

    /// Tells it to end. Whether there is one to wait for.
    pub fn stop(&self) -> bool {
        match self.state {
            State::Running { pid, .. } => kill_process(pid, Signal::TERM).is_ok(),
            State::Waiting | State::Pausing { .. } => false,
        }
    }

    /// A child ended; if it was the router, it will be started again.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        let State::Running { pid: own, since } = self.state else { return };
        if pid != own {
            return;
        }
        if since.elapsed() >= STEADY {
            self.pause = PAUSE;
        }
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => format!("status {status}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        };
        log::error!("router: ended with {how}; starting it again in {} s", self.pause.as_secs());
        self.retry();
    }

    fn retry(&mut self) {
        self.state = State::Pausing { until: Instant::now() + self.pause };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn spawn(&self) -> io::Result<Pid> {
        let child = Command::new(&self.program)
            .args(["run", "-c", COPY, "--log", &self.log.as_str().to_lowercase()])
            .stdin(Stdio::null())
            .spawn()?;
        // It is reaped with all others, by its number.
        i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
