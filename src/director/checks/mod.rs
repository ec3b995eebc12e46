//! Health checks: which real server is asked when, and what follows from the answers.
//!
//! Each real server of a service with `[service.check]` has one. It is asked in its own rhythm,
//! begun somewhere in the warm-up time, so that a thousand of them do not ask together; after a
//! failed attempt again, some more times; after [`Check::fall`](crate::config::check::Check)
//! failed checks in a row it gets no new connections, and after so many good ones it does again.
//! The asking itself is [`super::probes`]' business.

mod health;
mod passive;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use self::health::{Change, History};
use super::arena::{Arena, Id};
use super::destination::{DestinationId, Health};
use super::instant::Instant;
use super::neighbors::Hop;
use super::probes::datagram::Exchange;
use super::probes::{Dialogue, Fault, Outcome, Owner, ProbeId, Question, RUNNING_MAX, Target};
use super::report::CheckReport;
use super::{Director, Event, SegmentId};
use crate::config::check::{Check, CheckKind, OnFailure};
use crate::wire::MacAddr;

pub(super) type CheckId = Id<RealServerCheck>;

/// Checks begun by one call of `handle_timeout`, at most; the rest follows at once.
const CHECKS_PER_TIMEOUT_MAX: usize = 64;
/// A check is late that begins this much later than it should.
const LATE_AFTER: Duration = Duration::from_secs(1);
/// Octets of a reason that are kept.
const REASON_LEN_MAX: usize = 200;
/// The length of the IP packet of an echo request: as `ping` sends it.
const ECHO_LEN: u16 = 84;

/// The check of one real server.
pub(super) struct RealServerCheck {
    destination: DestinationId,
    config: Arc<Check>,
    history: History,
    phase: Phase,
    /// When the check that runs or comes next began or is to begin, in its rhythm.
    due: Instant,
    timer: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The next check is to come.
    Waiting,
    /// The attempt after so many failed ones is under way.
    Asking { probe: ProbeId, attempt: u32 },
    /// The attempt after so many failed ones is to come.
    Pausing { attempt: u32 },
}

/// A command to be run for a check of kind `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRun {
    pub id: RunId,
    pub command: Vec<Arc<str>>,
    /// It is to be killed then.
    pub timeout: Duration,
    /// Beside these it needs no environment.
    pub environment: Vec<(&'static str, String)>,
}

/// Which [`CommandRun`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(CheckId, ProbeId);

impl RunId {
    #[cfg(test)]
    pub fn for_tests() -> RunId {
        RunId(Id::NOWHERE, Id::NOWHERE)
    }
}

/// All checks.
pub(super) struct Checks {
    arena: Arena<RealServerCheck>,
    timers: BTreeSet<(Instant, CheckId)>,
    /// How many were entered, to spread them.
    entered: u64,
    /// Commands to be run.
    commands: VecDeque<CommandRun>,
}

impl Checks {
    pub fn new() -> Checks {
        Checks {
            arena: Arena::default(),
            timers: BTreeSet::new(),
            entered: 0,
            commands: VecDeque::new(),
        }
    }

    /// When a check is to begin.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// The next command to run.
    pub fn poll_command(&mut self) -> Option<CommandRun> {
        self.commands.pop_front()
    }

    pub fn report(&self, now: Instant, id: CheckId) -> Option<CheckReport> {
        let check = self.arena.get(id)?;
        let running = !matches!(check.phase, Phase::Waiting);
        Some(check.history.report(now, &check.config, running))
    }

    fn arm(&mut self, id: CheckId, at: Option<Instant>) {
        let Some(check) = self.arena.get_mut(id) else { return };
        if let Some(before) = check.timer {
            self.timers.remove(&(before, id));
        }
        check.timer = at;
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    /// Where in the warm-up time the next check begins: the golden ratio's multiples keep clear of
    /// each other however many there are.
    fn spread(&mut self, warmup: Duration) -> Duration {
        let share = (self.entered.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
        self.entered += 1;
        let nanos = (u128::from(share) * warmup.as_nanos()) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Director {
    /// Brings the check of a real server up to its service's configuration. One that is as it was
    /// goes on as if nothing had happened; another one starts anew, with the health that it has.
    pub(super) fn configure_check(
        &mut self,
        now: Instant,
        destination: DestinationId,
        config: Option<&Arc<Check>>,
    ) {
        let Some(found) = self.services.destinations.get(destination) else { return };
        let (known, health) = (found.check, found.health);
        let same = known.and_then(|id| self.checks.arena.get(id));
        if let (Some(same), Some(config)) = (same, config)
            && (Arc::ptr_eq(&same.config, config) || same.config == *config)
        {
            return;
        }
        self.remove_check(now, destination);
        let Some(config) = config else {
            self.services.set_health(destination, Health::Up);
            return;
        };
        let due = now + self.checks.spread(config.warmup);
        let history = History::new(health == Health::Up);
        let id = self.checks.arena.insert(RealServerCheck {
            destination,
            config: Arc::clone(config),
            history,
            phase: Phase::Waiting,
            due,
            timer: None,
        });
        self.checks.arm(id, Some(due));
        self.services.set_check(destination, Some(id));
        if health != Health::Up {
            self.services.set_health(destination, unhealthy(config.on_failure));
        }
    }

    /// A real server is no longer checked; its health stays what it was.
    pub(super) fn remove_check(&mut self, now: Instant, destination: DestinationId) {
        let Some(found) = self.services.destinations.get(destination) else { return };
        let Some(id) = found.check else { return };
        self.services.set_check(destination, None);
        self.checks.arm(id, None);
        if let Some(RealServerCheck { phase: Phase::Asking { probe, .. }, .. }) =
            self.checks.arena.remove(id)
        {
            self.prober.cancel(now, probe, &mut self.transmit);
        }
    }

    /// Begins the check of a real server now, if it has one and none is under way.
    pub(super) fn hasten_check(&mut self, now: Instant, destination: DestinationId) -> bool {
        let Some(found) = self.services.destinations.get(destination) else { return false };
        let Some(id) = found.check else { return false };
        if let Some(check) = self.checks.arena.get_mut(id)
            && matches!(check.phase, Phase::Waiting)
        {
            check.due = now;
            self.checks.arm(id, Some(now));
        }
        true
    }

    /// Begins the check of a real server now if the last one failed.
    pub(super) fn recheck_fallen(&mut self, now: Instant, destination: DestinationId) {
        let found = self.services.destinations.get(destination);
        let check = found.and_then(|found| self.checks.arena.get(found.check?));
        if check.is_some_and(|check| check.history.has_just_failed()) {
            self.hasten_check(now, destination);
        }
    }

    /// Begins the checks that are due, and goes on with those under way.
    pub(super) fn run_checks(&mut self, now: Instant) {
        for _ in 0..CHECKS_PER_TIMEOUT_MAX {
            let Some(&(at, id)) = self.checks.timers.first() else { break };
            if at > now {
                break;
            }
            self.begin_attempt(now, id);
        }
        self.prober.handle_timeout(now, &mut self.transmit);
        self.conclude_probes(now);
    }

    /// Takes in what has become of questions.
    pub(super) fn conclude_probes(&mut self, now: Instant) {
        while let Some(outcome) = self.prober.poll_outcome() {
            match outcome.owner {
                Owner::Check(id) => self.conclude_attempt(now, id, outcome),
                Owner::Examination(number) => self.conclude_examination(number, outcome),
            }
        }
    }

    fn begin_attempt(&mut self, now: Instant, id: CheckId) {
        self.checks.arm(id, None);
        let Some(check) = self.checks.arena.get_mut(id) else { return };
        let attempt = match check.phase {
            Phase::Waiting => {
                if now.since(check.due) >= LATE_AFTER {
                    check.history.late += 1;
                    check.due = now;
                }
                0
            }
            Phase::Pausing { attempt } => attempt,
            Phase::Asking { .. } => return,
        };
        let (destination, config) = (check.destination, Arc::clone(&check.config));
        let question = match self.put_question(now, id, attempt, destination, &config) {
            Ok(Some(probe)) => Ok(probe),
            // Too many are under way: in its turn.
            Ok(None) => {
                self.checks.arm(id, Some(now + Duration::from_millis(100)));
                return;
            }
            Err(fault) => Err(fault),
        };
        match question {
            Ok(probe) => {
                if let Some(check) = self.checks.arena.get_mut(id) {
                    check.phase = Phase::Asking { probe, attempt };
                }
            }
            Err(fault) => {
                if let Some(check) = self.checks.arena.get_mut(id) {
                    // Nothing was asked, so there is nothing to try again at once.
                    check.phase = Phase::Waiting;
                    let result = Err(describe(&fault));
                    let change = check.history.note(now, &config, result, Duration::ZERO);
                    self.schedule_next(now, id);
                    self.follow_health(id, change, Some(&fault));
                }
            }
        }
    }

    /// Asks; `None` if too many are being asked.
    fn put_question(
        &mut self,
        now: Instant,
        id: CheckId,
        attempt: u32,
        destination: DestinationId,
        config: &Arc<Check>,
    ) -> Result<Option<ProbeId>, Fault> {
        if self.prober.len() >= RUNNING_MAX {
            return Ok(None);
        }
        let found = self.services.destinations.get(destination).ok_or(Fault::NoNeighbor)?;
        let (address, segment, neighbor) = (found.address, found.segment, found.neighbor);
        let vip = config.vip;
        let target = match &config.kind {
            CheckKind::Arp | CheckKind::Exec(_) => self.any_target(segment, address),
            _ => {
                let hop = self.neighbors.get(neighbor).map(|found| found.hop());
                let Some(Hop::Mac(mac)) = hop else { return Err(Fault::NoNeighbor) };
                self.target(segment, mac, vip)
            }
        };
        let target = target.ok_or(Fault::NoSource)?;
        let question = question(&config.kind, config.port);
        let (owner, timeout) = (Owner::Check(id), config.timeout);
        let asked = self.prober.ask(now, owner, target, question, timeout, &mut self.transmit);
        let Some(probe) = asked else { return Ok(None) };
        match &config.kind {
            CheckKind::Arp => {
                let known = self.neighbors.get(neighbor).and_then(|found| found.mac());
                self.ask(neighbor, known.filter(|_| attempt == 0));
            }
            CheckKind::Exec(command) => {
                let run = CommandRun {
                    id: RunId(id, probe),
                    command: command.clone(),
                    timeout: config.timeout,
                    environment: self.environment(destination, (config.vip, config.port)),
                };
                self.checks.commands.push_back(run);
            }
            _ => {}
        }
        Ok(Some(probe))
    }

    /// What a command is told about whom it is to check.
    fn environment(
        &self,
        id: DestinationId,
        (vip, port): (IpAddr, u16),
    ) -> Vec<(&'static str, String)> {
        let Some(found) = self.services.destinations.get(id) else { return Vec::new() };
        let Some(service) = self.services.services.get(found.service) else { return Vec::new() };
        let mac = self.neighbors.get(found.neighbor).and_then(|neighbor| neighbor.mac());
        vec![
            ("VIPR_SERVICE", service.config.name.to_string()),
            ("VIPR_VIP", vip.to_string()),
            ("VIPR_PORT", port.to_string()),
            ("VIPR_REAL_SERVER", found.name.to_string()),
            ("VIPR_ADDRESS", found.address.to_string()),
            ("VIPR_SEGMENT", self.segment_label(found.segment).to_string()),
            ("VIPR_MAC", mac.map_or_else(String::new, |mac| mac.to_string())),
        ]
    }

    /// The way to a station on a segment, for packets to `destination` from the director.
    pub(super) fn target(
        &self,
        egress: SegmentId,
        mac: MacAddr,
        destination: IpAddr,
    ) -> Option<Target> {
        let segment = self.segments.get(egress)?;
        Some(Target {
            egress,
            source_mac: segment.mac,
            destination_mac: mac,
            source: segment.source_towards(destination)?,
            destination,
            mtu: segment.mtu(),
        })
    }

    /// The same where no packet of the prober's goes, so that the director needs no address.
    fn any_target(&self, egress: SegmentId, destination: IpAddr) -> Option<Target> {
        let segment = self.segments.get(egress)?;
        Some(Target {
            egress,
            source_mac: segment.mac,
            destination_mac: MacAddr::BROADCAST,
            source: segment.source_for(destination).unwrap_or(destination),
            destination,
            mtu: segment.mtu(),
        })
    }

    fn conclude_attempt(&mut self, now: Instant, id: CheckId, outcome: Outcome) {
        let Outcome { probe: ended, result, latency, .. } = outcome;
        let Some(check) = self.checks.arena.get_mut(id) else { return };
        let attempt = match check.phase {
            Phase::Asking { probe, attempt } if probe == ended => attempt,
            _ => return,
        };
        if result.is_err() && attempt < check.config.retries {
            check.phase = Phase::Pausing { attempt: attempt + 1 };
            let at = now + check.config.delay_before_retry;
            self.checks.arm(id, Some(at));
            return;
        }
        check.phase = Phase::Waiting;
        let config = Arc::clone(&check.config);
        let noted = result.as_ref().map(|_| ()).map_err(describe);
        let change = check.history.note(now, &config, noted, latency);
        self.schedule_next(now, id);
        self.follow_health(id, change, result.as_ref().err());
    }

    /// The next check comes in the rhythm; those that there was no time for are left out.
    fn schedule_next(&mut self, now: Instant, id: CheckId) {
        let Some(check) = self.checks.arena.get_mut(id) else { return };
        let next = check.due + check.config.interval;
        check.due = if next > now { next } else { now + check.config.interval };
        let due = check.due;
        self.checks.arm(id, Some(due));
    }

    /// Lets a real server's availability follow its health, and tells of it.
    fn follow_health(&mut self, id: CheckId, change: Option<Change>, fault: Option<&Fault>) {
        let Some(change) = change else { return };
        let Some(check) = self.checks.arena.get(id) else { return };
        let destination = check.destination;
        let health = if check.history.is_healthy() {
            Health::Up
        } else {
            unhealthy(check.config.on_failure)
        };
        self.services.set_health(destination, health);
        let Some(found) = self.services.destinations.get(destination) else { return };
        let Some(service) = self.services.services.get(found.service) else { return };
        let (service, real_server) = (Arc::clone(&service.config.name), Arc::clone(&found.name));
        self.events.push(match change {
            Change::Fell(checks) => Event::CheckFailed {
                service,
                real_server,
                checks,
                reason: fault.map_or_else(String::new, describe).into(),
            },
            Change::Rose(checks) => Event::CheckPassed { service, real_server, checks },
        });
    }

    /// The next command to run for a check of kind `exec`, if there is one. What becomes of it is
    /// told by [`Self::handle_command_end`].
    pub fn poll_command_run(&mut self) -> Option<CommandRun> {
        self.checks.poll_command()
    }

    /// A command has ended: well, or for this reason not.
    pub fn handle_command_end(
        &mut self,
        now: Instant,
        RunId(id, run): RunId,
        result: Result<(), String>,
    ) {
        let Some(check) = self.checks.arena.get(id) else { return };
        if let Phase::Asking { probe, .. } = check.phase
            && probe == run
        {
            self.prober.tell(now, run, result.map_err(Fault::Other));
            self.conclude_probes(now);
        }
    }

    /// A real server's address was answered for: that is what a check of kind `arp` asks for.
    pub(super) fn heard_for_checks(
        &mut self,
        now: Instant,
        neighbor: super::neighbors::NeighborId,
        mac: MacAddr,
    ) {
        let Some(found) = self.neighbors.get(neighbor) else { return };
        let expected = found.configured_mac();
        let mut told = false;
        for &user in &found.users {
            let check = self.services.destinations.get(user).and_then(|found| found.check);
            let Some(check) = check.and_then(|id| self.checks.arena.get(id)) else { continue };
            if let (CheckKind::Arp, Phase::Asking { probe, .. }) = (&check.config.kind, check.phase)
            {
                let fine = expected.is_none_or(|expected| expected == mac);
                self.prober.tell(now, probe, if fine { Ok(()) } else { Err(Fault::OtherMac) });
                told = true;
            }
        }
        if told {
            self.conclude_probes(now);
        }
    }
}

fn unhealthy(on_failure: OnFailure) -> Health {
    match on_failure {
        OnFailure::Remove => Health::Removed,
        OnFailure::Inhibit => Health::Inhibited,
    }
}

/// What is asked for a check of a kind.
fn question(kind: &CheckKind, port: u16) -> Question {
    match kind {
        CheckKind::Arp => Question::Neighbor,
        CheckKind::Exec(_) => Question::Command,
        CheckKind::Icmp => Question::Echo { len: ECHO_LEN },
        CheckKind::Tcp => Question::Tcp { port, dialogue: Dialogue::Handshake },
        CheckKind::Tls(name) => Question::Tcp { port, dialogue: Dialogue::Tls(name.clone()) },
        CheckKind::Http(http) => Question::Tcp { port, dialogue: Dialogue::Http(http.clone()) },
        CheckKind::Https(https) => Question::Tcp { port, dialogue: Dialogue::Https(https.clone()) },
        CheckKind::Udp(udp) => Question::Udp { port, exchange: Exchange::Udp(udp.clone()) },
        CheckKind::Dns(dns) => Question::Udp { port, exchange: Exchange::Dns(dns.clone()) },
    }
}

/// A reason, cut where it is long.
fn describe(fault: &Fault) -> String {
    let mut text = fault.to_string();
    if text.len() > REASON_LEN_MAX {
        let end = (0..=REASON_LEN_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
