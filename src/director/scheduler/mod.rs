//! Which real server gets a new connection: IPVS's schedulers, as one closed enum.
//!
//! A scheduler sees its candidates as numbers in a list and answers with a position in it. It
//! knows neither addresses of real servers nor connections, and allocates nothing in a pick.
//! The formulas are those of `net/netfilter/ipvs/ip_vs_{rr,wrr,lc,...}.c`; where candidates tie,
//! the one earlier in the list wins.

mod hashing;
mod least;
mod ordered;
mod rr;
mod wrr;

use core::net::IpAddr;

use self::hashing::Buckets;
use self::rr::RoundRobin;
use self::wrr::WeightedRoundRobin;
use crate::config::snapshot::SchedulerKind;

/// What a scheduler sees of a real server, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The configured (or overridden) weight.
    pub weight: u32,
    /// Whether it may be given new connections: up and not overloaded. A weight of 0 makes it
    /// ineligible too.
    pub available: bool,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
}

impl Candidate {
    /// Whether it may be chosen.
    pub const fn is_eligible(&self) -> bool {
        self.available && self.weight > 0
    }
}

/// What a scheduler sees of the packet that opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickKey {
    pub client: IpAddr,
    pub client_port: u16,
    pub vip: IpAddr,
}

/// A scheduler with its state.
#[derive(Clone, Debug)]
pub enum Scheduler {
    /// The next one after the last choice.
    Rr(RoundRobin),
    /// In turns, each as often as its weight says.
    Wrr(WeightedRoundRobin),
    /// The fewest connections.
    Lc,
    /// The fewest connections for its weight.
    Wlc,
    /// The shortest expected delay.
    Sed,
    /// One that is idle, else the shortest expected delay.
    Nq,
    /// By the client's address.
    Sh(Buckets),
    /// By the destination's address.
    Dh(Buckets),
    /// The greatest weight.
    Fo,
    /// The greatest weight with no more active connections than that.
    Ovf,
}

impl Scheduler {
    /// A fresh scheduler; `None` for a kind that is not built yet.
    pub fn new(kind: SchedulerKind) -> Option<Scheduler> {
        Some(match kind {
            SchedulerKind::Rr => Scheduler::Rr(RoundRobin::default()),
            SchedulerKind::Wrr => Scheduler::Wrr(WeightedRoundRobin::default()),
            SchedulerKind::Lc => Scheduler::Lc,
            SchedulerKind::Wlc => Scheduler::Wlc,
            SchedulerKind::Sed => Scheduler::Sed,
            SchedulerKind::Nq => Scheduler::Nq,
            SchedulerKind::Sh => Scheduler::Sh(Buckets::by_weight()),
            SchedulerKind::Dh => Scheduler::Dh(Buckets::even()),
            SchedulerKind::Fo => Scheduler::Fo,
            SchedulerKind::Ovf => Scheduler::Ovf,
            SchedulerKind::Mh
            | SchedulerKind::Twos
            | SchedulerKind::Lblc
            | SchedulerKind::Lblcr => return None,
        })
    }

    /// Whether [`Self::new`] knows this kind.
    pub const fn is_built(kind: SchedulerKind) -> bool {
        !matches!(
            kind,
            SchedulerKind::Mh | SchedulerKind::Twos | SchedulerKind::Lblc | SchedulerKind::Lblcr
        )
    }

    pub const fn kind(&self) -> SchedulerKind {
        match self {
            Scheduler::Rr(_) => SchedulerKind::Rr,
            Scheduler::Wrr(_) => SchedulerKind::Wrr,
            Scheduler::Lc => SchedulerKind::Lc,
            Scheduler::Wlc => SchedulerKind::Wlc,
            Scheduler::Sed => SchedulerKind::Sed,
            Scheduler::Nq => SchedulerKind::Nq,
            Scheduler::Sh(_) => SchedulerKind::Sh,
            Scheduler::Dh(_) => SchedulerKind::Dh,
            Scheduler::Fo => SchedulerKind::Fo,
            Scheduler::Ovf => SchedulerKind::Ovf,
        }
    }

    /// Tells of a change to the candidates (added, removed, weights), before the next pick; the
    /// first candidates are a change too. Cursors stay where they are as far as that still means
    /// something.
    pub fn candidates_changed(&mut self, candidates: &[Candidate]) {
        match self {
            Scheduler::Wrr(wrr) => wrr.candidates_changed(candidates),
            Scheduler::Sh(buckets) | Scheduler::Dh(buckets) => {
                buckets.candidates_changed(candidates);
            }
            // A cursor by position needs no telling.
            Scheduler::Rr(_) => {}
            // No state.
            Scheduler::Lc | Scheduler::Wlc | Scheduler::Sed | Scheduler::Nq => {}
            Scheduler::Fo | Scheduler::Ovf => {}
        }
    }

    /// The index of the chosen candidate; `None` if none can be chosen.
    pub fn pick(&mut self, candidates: &[Candidate], key: &PickKey) -> Option<usize> {
        match self {
            Scheduler::Rr(rr) => rr.pick(candidates),
            Scheduler::Wrr(wrr) => wrr.pick(candidates),
            Scheduler::Lc => least::fewest_connections(candidates),
            Scheduler::Wlc => least::fewest_connections_for_weight(candidates),
            Scheduler::Sed => least::shortest_delay(candidates),
            Scheduler::Nq => least::idle_or_shortest_delay(candidates),
            Scheduler::Sh(buckets) => buckets.pick(candidates, key.client),
            Scheduler::Dh(buckets) => buckets.pick(candidates, key.vip),
            Scheduler::Fo => ordered::greatest_weight(candidates),
            Scheduler::Ovf => ordered::greatest_weight_with_room(candidates),
        }
    }
}

#[cfg(test)]
mod tests;
