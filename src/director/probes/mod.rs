//! Questions put to real servers the way a client's packets reach them: to the VIP by IP, to the
//! real server by MAC, from the director's own address, so that the answer comes back here.
//!
//! Knows how to ask and what an answer means; not whom to ask when, nor what follows from it
//! ([`super::checks`], [`super::examination`]). A probe ends with the first of: an answer, a
//! refusal, its time. Bounded: [`RUNNING_MAX`] at a time, each with the buffers of its kind.
//!
//! Answers are told apart by the local port (of an echo its identifier), which no two running
//! probes share: so all real servers may be asked about the same VIP and port at once.

pub(super) mod datagram;
pub(super) mod dns;
pub(super) mod fault;
pub(super) mod http;
#[cfg(feature = "https")]
pub(super) mod https;
#[cfg(not(feature = "https"))]
#[path = "https_absent.rs"]
pub(super) mod https;
pub(super) mod stream;
pub(super) mod target;
mod tls;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeSet, HashMap, VecDeque};

pub(super) use self::fault::{Fault, Stage};
pub(super) use self::stream::Dialogue;
pub(super) use self::target::Target;
use super::arena::{Arena, Id};
use super::checks::CheckId;
use super::instant::Instant;
use super::keyed::{HashKey, KeyedMap};
use super::transmit::TransmitQueue;
use crate::wire::packet::Transport;

pub(super) type ProbeId = Id<Probe>;

/// Probes at a time.
pub(super) const RUNNING_MAX: usize = 4096;
/// Local ports that probes ask from: Linux's ephemeral ones.
const FIRST_PORT: u16 = 32_768;
const LAST_PORT: u16 = 60_999;
/// Timers handled by one call, at most; the rest follows at once.
const TIMERS_PER_CALL_MAX: usize = 64;

/// What is asked.
#[derive(Debug)]
pub(super) enum Question {
    /// The address answers ARP or ND: the caller asks, and tells of the answer.
    Neighbor,
    /// An echo request in an IP packet of this length comes back.
    Echo { len: u16 },
    /// A TCP connection to this port is accepted, and what is said over it.
    Tcp { port: u16, dialogue: Dialogue },
    /// A datagram to this port is answered.
    Udp { port: u16, exchange: datagram::Exchange },
    /// A command's exit status: the caller runs it, and tells of the end.
    Command,
}

/// A question under way.
pub(super) struct Probe {
    owner: Owner,
    target: Target,
    port: u16,
    started: Instant,
    deadline: Instant,
    timer: Option<Instant>,
    talk: Talk,
}

enum Talk {
    /// Somebody else asks.
    Elsewhere,
    Echo,
    Udp(u16, datagram::Exchange),
    Tcp(Box<stream::Stream>),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Check(CheckId),
    /// An examination's question of this number.
    Examination(u32),
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub owner: Owner,
    pub probe: ProbeId,
    pub result: Result<(), Fault>,
    pub latency: Duration,
}

/// A packet that is addressed to the director itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub transport: Transport,
    /// The IP packet.
    pub packet: &'a [u8],
    /// What the IP packet carries: the transport header and all.
    pub payload: &'a [u8],
}

/// All questions under way.
pub(super) struct Prober {
    arena: Arena<Probe>,
    by_port: KeyedMap<u16, ProbeId>,
    timers: BTreeSet<(Instant, ProbeId)>,
    next_port: u16,
    /// Seeds initial sequence numbers.
    key: HashKey,
    count: u64,
    outcomes: VecDeque<Outcome>,
    preparation: https::Preparation,
    /// The time of day at [`Instant::ZERO`], since 1970.
    origin: Duration,
}

impl Prober {
    pub fn new(key: HashKey) -> Prober {
        Prober {
            arena: Arena::default(),
            by_port: HashMap::with_hasher(key),
            timers: BTreeSet::new(),
            next_port: FIRST_PORT,
            key,
            count: 0,
            outcomes: VecDeque::new(),
            preparation: https::Preparation::default(),
            origin: Duration::ZERO,
        }
    }

    /// Now it is so much after 1970. Until it is told, [`Instant::ZERO`] was then.
    pub fn set_time_of_day(&mut self, now: Instant, time: Duration) {
        self.origin = time.saturating_sub(now.since(Instant::ZERO));
    }

    /// Puts a question; `None` if too many are under way.
    pub fn ask(
        &mut self,
        now: Instant,
        owner: Owner,
        target: Target,
        question: Question,
        timeout: Duration,
        transmit: &mut TransmitQueue,
    ) -> Option<ProbeId> {
        let port = self.free_port()?;
        self.count += 1;
        let seed = core::hash::BuildHasher::hash_one(&self.key, (self.count, now.as_nanos()));
        let talk = match question {
            Question::Neighbor | Question::Command => Talk::Elsewhere,
            Question::Echo { len } => {
                datagram::send_echo(&target, port, len, transmit);
                Talk::Echo
            }
            Question::Udp { port: remote, exchange } => {
                datagram::send(&target, port, remote, &exchange, transmit);
                Talk::Udp(remote, exchange)
            }
            Question::Tcp { port: remote, dialogue } => {
                let ports = stream::Ports { local: port, remote };
                let preparation = &mut self.preparation;
                let stream =
                    stream::Stream::connect(now, &target, ports, seed, dialogue, preparation)?;
                Talk::Tcp(Box::new(stream))
            }
        };
        let deadline = now + timeout;
        let probe = Probe { owner, target, port, started: now, deadline, timer: None, talk };
        let id = self.arena.insert(probe);
        self.by_port.insert(port, id);
        self.arm(id, deadline);
        if let Some(Probe { talk: Talk::Tcp(_), .. }) = self.arena.get(id) {
            self.drive(now, id, None, transmit);
        }
        Some(id)
    }

    /// Withdraws a question: there will be no outcome.
    pub fn cancel(&mut self, now: Instant, id: ProbeId, transmit: &mut TransmitQueue) {
        if let Some(Probe { talk: Talk::Tcp(stream), target, .. }) = self.arena.get_mut(id) {
            stream.abort(now, target, transmit);
        }
        self.remove(id);
    }

    /// Tells what became of a question that somebody else put.
    pub fn tell(&mut self, now: Instant, id: ProbeId, result: Result<(), Fault>) {
        self.finish(now, id, result);
    }

    /// A packet to one of the director's own addresses; whether it belongs to a question.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        reply: &Reply<'_>,
        transmit: &mut TransmitQueue,
    ) -> bool {
        let Some((port, remote)) = ports_of(reply) else { return false };
        let Some(&id) = self.by_port.get(&port) else { return false };
        let Some(probe) = self.arena.get_mut(id) else { return false };
        if reply.destination != probe.target.source || !probe.accepts(reply, remote) {
            return false;
        }
        if reply.source != probe.target.destination {
            // A segment from elsewhere does not belong to the connection; but it says what is
            // wrong, and no answer is coming from where it should.
            self.finish(now, id, Err(Fault::OtherSource(reply.source)));
            return true;
        }
        match &mut probe.talk {
            Talk::Elsewhere => return false,
            Talk::Echo => self.finish(now, id, Ok(())),
            Talk::Udp(_, exchange) => {
                let result = exchange.judge(port, reply.payload.get(8..).unwrap_or_default());
                self.finish(now, id, result);
            }
            Talk::Tcp(_) => self.drive(now, id, Some(reply.packet), transmit),
        }
        true
    }

    /// An ICMP error about a packet from one of the director's own addresses: the packet that it
    /// quotes went from `port` at `source` to `destination`. Whether it belongs to a question.
    pub fn handle_error(
        &mut self,
        now: Instant,
        by: IpAddr,
        (source, destination): (IpAddr, IpAddr),
        port: u16,
        error: fault::IcmpError,
    ) -> bool {
        let Some(id) = self.find(source, destination, port) else { return false };
        self.finish(now, id, Err(Fault::Unreachable { by, error }));
        true
    }

    /// Whether a packet between these ends is a question's.
    pub fn is_about(&self, source: IpAddr, destination: IpAddr, port: u16) -> bool {
        self.find(source, destination, port).is_some()
    }

    /// A question's own packet has come back; whether it was one's.
    pub fn handle_returned(
        &mut self,
        now: Instant,
        (source, destination): (IpAddr, IpAddr),
        port: u16,
    ) -> bool {
        let Some(id) = self.find(source, destination, port) else { return false };
        self.finish(now, id, Err(Fault::CameBack));
        true
    }

    /// Does what is due, a bounded amount.
    pub fn handle_timeout(&mut self, now: Instant, transmit: &mut TransmitQueue) {
        for _ in 0..TIMERS_PER_CALL_MAX {
            let Some(&(at, id)) = self.timers.first() else { return };
            if at > now {
                return;
            }
            let Some(probe) = self.arena.get_mut(id) else {
                self.timers.pop_first();
                continue;
            };
            if probe.deadline <= now {
                let stage = match &mut probe.talk {
                    Talk::Tcp(stream) => {
                        stream.abort(now, &probe.target, transmit);
                        stream.stage()
                    }
                    Talk::Elsewhere | Talk::Echo | Talk::Udp(..) => Stage::Asked,
                };
                self.finish(now, id, Err(Fault::NoAnswer(stage)));
            } else {
                self.drive(now, id, None, transmit);
            }
        }
    }

    /// When [`Self::handle_timeout`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// The next question that has come to its end.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// How many questions are under way.
    pub fn len(&self) -> usize {
        self.arena.len()
    }

    fn find(&self, source: IpAddr, destination: IpAddr, port: u16) -> Option<ProbeId> {
        let &id = self.by_port.get(&port)?;
        let target = &self.arena.get(id)?.target;
        (target.source == source && target.destination == destination).then_some(id)
    }

    /// Lets a connection go on, with a packet of it or because it is time.
    fn drive(
        &mut self,
        now: Instant,
        id: ProbeId,
        packet: Option<&[u8]>,
        transmit: &mut TransmitQueue,
    ) {
        let Some(probe) = self.arena.get_mut(id) else { return };
        let Talk::Tcp(stream) = &mut probe.talk else { return };
        self.preparation.set_time(self.origin + now.since(Instant::ZERO));
        let result = stream.drive(now, packet, &probe.target, transmit);
        let next = stream.next_wake(now).map_or(probe.deadline, |at| at.min(probe.deadline));
        match result {
            Some(result) => self.finish(now, id, result),
            None => self.arm(id, next),
        }
    }

    fn finish(&mut self, now: Instant, id: ProbeId, result: Result<(), Fault>) {
        let Some(probe) = self.arena.get(id) else { return };
        let (owner, latency) = (probe.owner, now.since(probe.started));
        self.outcomes.push_back(Outcome { owner, probe: id, result, latency });
        self.remove(id);
    }

    fn remove(&mut self, id: ProbeId) {
        let Some(probe) = self.arena.remove(id) else { return };
        self.by_port.remove(&probe.port);
        if let Some(timer) = probe.timer {
            self.timers.remove(&(timer, id));
        }
    }

    fn arm(&mut self, id: ProbeId, at: Instant) {
        let Some(probe) = self.arena.get_mut(id) else { return };
        if let Some(before) = probe.timer.replace(at) {
            self.timers.remove(&(before, id));
        }
        self.timers.insert((at, id));
    }

    /// The port longest unused, so that what a real server remembers of its last use has gone.
    fn free_port(&mut self) -> Option<u16> {
        if self.arena.len() >= RUNNING_MAX {
            return None;
        }
        loop {
            let port = self.next_port;
            self.next_port = if port == LAST_PORT { FIRST_PORT } else { port + 1 };
            if !self.by_port.contains_key(&port) {
                return Some(port);
            }
        }
    }
}

impl Probe {
    /// Whether a packet is of the protocol that was asked by, and from the port that was asked.
    fn accepts(&self, reply: &Reply<'_>, remote: u16) -> bool {
        match (&self.talk, reply.transport) {
            (Talk::Echo, Transport::Icmp { .. }) => true,
            (Talk::Udp(port, _), Transport::Udp { .. }) => *port == remote,
            (Talk::Tcp(stream), Transport::Tcp { .. }) => stream.remote_port() == remote,
            _ => false,
        }
    }
}

/// The local port that a reply is for, and the port it comes from. Of an echo reply, its
/// identifier and nothing.
fn ports_of(reply: &Reply<'_>) -> Option<(u16, u16)> {
    match reply.transport {
        Transport::Tcp { source_port, destination_port, .. }
        | Transport::Udp { source_port, destination_port } => Some((destination_port, source_port)),
        Transport::Icmp { kind, .. } => {
            let expected = if reply.source.is_ipv4() {
                datagram::ECHO_REPLY_V4
            } else {
                datagram::ECHO_REPLY_V6
            };
            let identifier = reply.payload.get(4..6)?;
            (kind == expected).then(|| (u16::from_be_bytes([identifier[0], identifier[1]]), 0))
        }
        _ => None,
    }
}
