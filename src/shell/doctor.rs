//! An examination without a running router: the ports are opened for it, nothing is claimed or
//! forwarded, and all is closed again.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll};

use super::clock;
use super::ports::Opener;
use super::router::Router;
use super::tokens::Subject;
use crate::config::Snapshot;
use crate::director::examination::ExaminationReport;
use crate::director::{Command, Response};

/// A bridge takes a moment until it lets a new port's frames through, and real servers are to be
/// found first.
const SETTLING: Duration = Duration::from_secs(2);
/// Longer than any examination takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Examines real servers of a configuration: of one service, or of all.
///
/// # Errors
/// A line that says what is in the way.
pub fn examine<O: Opener>(
    snapshot: Arc<Snapshot>,
    opener: O,
    service: Option<String>,
    real_server: Option<String>,
) -> Result<ExaminationReport, String> {
    let failed = |error: io::Error| format!("event loop: {error}");
    let mut poll = Poll::new().map_err(failed)?;
    let seed = RandomState::new().hash_one(std::process::id());
    let mut router = Router::new(snapshot, opener, seed);
    router.observe();
    router
        .open_ports(poll.registry())
        .map_err(|(name, error)| format!("segment {name}: {error}"))?;
    let end = clock::now() + SETTLING;
    while clock::now() < end {
        turn(&mut poll, &mut router).map_err(failed)?;
    }
    let mut command = Command::Examine { service, real_server };
    let end = clock::now() + PATIENCE;
    loop {
        match router.handle_command(clock::now(), command) {
            Response::Examination(report) if !report.running => return Ok(report),
            Response::Examination(_) => {}
            Response::Refused(why) => return Err(why),
            other => return Err(format!("an answer to another question: {other:?}")),
        }
        if clock::now() >= end {
            return Err(format!("the examination has not ended after {} s", PATIENCE.as_secs()));
        }
        turn(&mut poll, &mut router).map_err(failed)?;
        command = Command::Examination;
    }
}

/// Waits until there is something to do, and does it.
fn turn<O: Opener>(poll: &mut Poll, router: &mut Router<O>) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut events = Events::with_capacity(64);
    let now = clock::now();
    router.handle_timeout(poll.registry(), now);
    let due = router.poll_timeout().map_or(PAUSE, |at| at.since(clock::now()).min(PAUSE));
    let timeout = if router.has_work() { Duration::ZERO } else { due };
    let timeout = router.before_wait(poll.registry(), Some(timeout));
    match poll.poll(&mut events, timeout) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
        _ => {}
    }
    for event in &events {
        if let Subject::Port(index) = Subject::from(event.token()) {
            router.wake_port(index);
        }
    }
    router.handle_bursts(poll.registry(), clock::now());
    Ok(())
}
