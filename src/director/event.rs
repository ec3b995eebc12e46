//! What the director has to tell a person: state changes, each a line in the log.

use core::net::IpAddr;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::wire::MacAddr;

/// Something worth a log line. `Display` gives the line, subject first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A real server's MAC was found.
    NeighborUp { real_server: Arc<str>, address: IpAddr, segment: Arc<str>, mac: MacAddr },
    /// A real server's MAC is another one now.
    NeighborMoved {
        real_server: Arc<str>,
        address: IpAddr,
        segment: Arc<str>,
        from: MacAddr,
        to: MacAddr,
    },
    /// A real server stopped answering (or never did).
    NeighborDown { real_server: Arc<str>, address: IpAddr, segment: Arc<str>, probes: u32 },
    /// Another station claims a VIP.
    Conflict { vip: IpAddr, segment: Arc<str>, mac: MacAddr, real_server: Option<Arc<str>> },
    /// A claim was not made again for a while.
    ConflictOver {
        vip: IpAddr,
        segment: Arc<str>,
        mac: MacAddr,
        real_server: Option<Arc<str>>,
        claims: u64,
    },
    /// A real server sends back what it is given.
    Loop { real_server: Arc<str>, segment: Arc<str>, mac: MacAddr, vip: IpAddr },
    /// A real server of a service has as many connections as it may have.
    Overloaded { service: Arc<str>, real_server: Arc<str>, connections: u32 },
    /// And again fewer.
    Relieved { service: Arc<str>, real_server: Arc<str>, connections: u32 },
    /// A real server's checks failed so often that it gets no new connections.
    CheckFailed { service: Arc<str>, real_server: Arc<str>, checks: u32, reason: Arc<str> },
    /// They passed so often that it gets connections again.
    CheckPassed { service: Arc<str>, real_server: Arc<str>, checks: u32 },
    /// SYNs to a real server come again and again, and no connection to it makes progress.
    Suspect { service: Arc<str>, real_server: Arc<str>, syns: u32 },
    /// The real servers of a service that are up weigh less than its quorum asks for.
    QuorumLost { service: Arc<str>, live_weight: u64, quorum: u32, sorry_server: Option<Arc<str>> },
    /// And again enough.
    QuorumGained { service: Arc<str>, live_weight: u64, quorum: u32 },
    /// The connection table is full; said once until it has room again.
    ConnectionsFull { capacity: u32 },
}

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Warning,
    Info,
}

impl Event {
    pub const fn severity(&self) -> Severity {
        match self {
            Event::NeighborUp { .. }
            | Event::Relieved { .. }
            | Event::ConflictOver { .. }
            | Event::CheckPassed { .. }
            | Event::QuorumGained { .. } => Severity::Info,
            Event::NeighborMoved { .. }
            | Event::NeighborDown { .. }
            | Event::Conflict { .. }
            | Event::Loop { .. }
            | Event::Overloaded { .. }
            | Event::CheckFailed { .. }
            | Event::Suspect { .. }
            | Event::QuorumLost { .. }
            | Event::ConnectionsFull { .. } => Severity::Warning,
        }
    }
}

impl core::fmt::Display for Event {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Event::NeighborUp { real_server, address, segment, mac } => write!(
                formatter,
                "real server {real_server} ({address}): up on segment {segment}, at {mac}"
            ),
            Event::NeighborMoved { real_server, address, segment, from, to } => write!(
                formatter,
                "real server {real_server} ({address}): moved from {from} to {to} on segment \
                 {segment}"
            ),
            Event::NeighborDown { real_server, address, segment, probes } => write!(
                formatter,
                "real server {real_server} ({address}): down, silent to {probes} {} on segment \
                 {segment}; no new connections until it answers",
                if address.is_ipv4() { "ARP requests" } else { "neighbor solicitations" }
            ),
            Event::Conflict { vip: vip @ IpAddr::V6(_), segment, mac, real_server: Some(name) } => {
                write!(
                    formatter,
                    "real server {name}: claims VIP {vip} on segment {segment} from {mac}; have the \
                     VIP on lo there, not on that card"
                )
            }
            Event::Conflict { vip, segment, mac, real_server: Some(real_server) } => write!(
                formatter,
                "real server {real_server}: claims VIP {vip} on segment {segment} from {mac}; \
                 {}",
                match vip {
                    IpAddr::V4(_) => "set arp_ignore=1 and arp_announce=2 on it",
                    // Linux answers for what is on the card that is asked, and for no other.
                    IpAddr::V6(_) => "have the VIP on its lo, and on no card",
                }
            ),
            Event::Conflict { vip, segment, mac, real_server: None } => write!(
                formatter,
                "VIP {vip}: also claimed on segment {segment} by {mac}, which is no real server"
            ),
            Event::ConflictOver { vip, segment, mac, real_server: Some(real_server), claims } => {
                write!(
                    formatter,
                    "real server {real_server}: no longer claims VIP {vip} on segment {segment} \
                     from {mac}; {claims} claims in all"
                )
            }
            Event::ConflictOver { vip, segment, mac, real_server: None, claims } => write!(
                formatter,
                "VIP {vip}: no longer claimed on segment {segment} by {mac}; {claims} claims in all"
            ),
            Event::Loop { real_server, segment, mac, vip } => write!(
                formatter,
                "real server {real_server}: sends traffic for VIP {vip} back to the director \
                 (from {mac} on segment {segment}); it lacks the VIP on a local interface, or \
                 forwards packets"
            ),
            Event::Overloaded { service, real_server, connections } => write!(
                formatter,
                "service {service}: real server {real_server} has {connections} connections, its \
                 upper threshold; no new ones"
            ),
            Event::Relieved { service, real_server, connections } => write!(
                formatter,
                "service {service}: real server {real_server} is down to {connections} \
                 connections; new ones again"
            ),
            Event::CheckFailed { service, real_server, checks, reason } => write!(
                formatter,
                "service {service}: real server {real_server} down ({checks} failed check{}: \
                 {reason}); no new connections until it passes",
                plural(*checks)
            ),
            Event::CheckPassed { service, real_server, checks } => write!(
                formatter,
                "service {service}: real server {real_server} up ({checks} passed check{})",
                plural(*checks)
            ),
            Event::Suspect { service, real_server, syns } => write!(
                formatter,
                "service {service}: real server {real_server} seems silent: {syns} SYNs came again \
                 and no connection to it makes progress"
            ),
            Event::QuorumLost { service, live_weight, quorum, sorry_server } => {
                write!(
                    formatter,
                    "service {service}: down, its real servers that are up weigh {live_weight} \
                     and its quorum is {quorum}; "
                )?;
                match sorry_server {
                    Some(name) => write!(formatter, "new connections go to sorry server {name}"),
                    None if *live_weight > 0 => write!(formatter, "those that are left go on"),
                    None => write!(formatter, "no new connections"),
                }
            }
            Event::QuorumGained { service, live_weight, quorum } => write!(
                formatter,
                "service {service}: up, its real servers that are up weigh {live_weight} and its \
                 quorum is {quorum}"
            ),
            Event::ConnectionsFull { capacity } => write!(
                formatter,
                "connection table: full at {capacity} connections; raise connections_max, or see \
                 `vipr connections` for who holds them"
            ),
        }
    }
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Events waiting to be told; a queue of bounded length, whose newest give way: what came first
/// explains the rest.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    events: VecDeque<Event>,
}

/// Events that wait at a time; a reload of everything or a start reports one a real server.
const EVENTS_MAX: usize = 1024;

impl EventQueue {
    pub fn push(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    pub fn pop(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
