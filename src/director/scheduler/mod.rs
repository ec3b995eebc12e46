//! Which real server gets a new connection: IPVS's fourteen schedulers, as one closed enum.
//!
//! A scheduler sees its candidates as numbers in a list and answers with a position in it. Some
//! also see who they are ([`Member`]). None knows connections, and none allocates in a pick. The
//! formulas are those of `net/netfilter/ipvs/ip_vs_{rr,wrr,lc,...}.c`; where candidates tie, the
//! one earlier in the list wins.
//!
//! What a pick costs among *n* candidates, and what a change of one costs:
//!
//! | | pick | change of load | change of the list or a weight |
//! |---|---|---|---|
//! | rr, wrr | O(log n) | O(log n) | O(n log n) |
//! | lc, wlc, sed, nq, fo, ovf | O(1) | O(log n) | O(n) |
//! | sh, dh | O(1); `fallback` at most 256 buckets | nothing | O(n) |
//! | mh | O(1); `fallback` at most 4,093 slots, then O(n) | nothing | O(slots), in portions |
//! | twos | O(log n) | O(log n) | O(n) |
//! | lblc, lblcr | O(addresses + set), each at most 64 | O(log n) | O(n log n) |
//!
//! So one pick alone is ever O(n): that of mh with `fallback` when no slot it tries has anybody
//! eligible. `cargo bench --bench schedulers` measures 3, 100 and 1,000 real servers.

mod hashing;
mod locality;
mod maglev;
mod members;
mod ranking;
mod rr;
mod trees;
mod twos;
mod wrr;

use core::net::IpAddr;

use self::hashing::Buckets;
use self::locality::Locality;
use self::maglev::Maglev;
pub use self::members::Member;
use self::ranking::{By, Ranking};
use self::rr::RoundRobin;
use self::twos::Twos;
use self::wrr::WeightedRoundRobin;
use super::Instant;
use crate::config::snapshot::{Endpoint, Ports, SchedulerKind, Service};

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
    pub now: Instant,
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
    /// The first of a ranking: lc, wlc, sed, nq, fo, ovf.
    Ranked(Ranking),
    /// By the client's address.
    Sh(Buckets),
    /// By the destination's address.
    Dh(Buckets),
    /// By the client's address, in a way that changes little when real servers come and go.
    Mh(Maglev),
    /// The better of two drawn by lot.
    Twos(Twos),
    /// Where the destination's connections are: lblc, lblcr.
    Local(Locality),
}

impl Scheduler {
    /// A fresh scheduler for a service. `seed` is for the one that draws lots.
    pub fn new(service: &Service, seed: u64) -> Scheduler {
        let options = &service.scheduler_options;
        match service.scheduler {
            SchedulerKind::Rr => Scheduler::Rr(RoundRobin::default()),
            SchedulerKind::Wrr => Scheduler::Wrr(WeightedRoundRobin::default()),
            SchedulerKind::Lc => Scheduler::Ranked(Ranking::new(By::Connections)),
            SchedulerKind::Wlc => Scheduler::Ranked(Ranking::new(By::ConnectionsForWeight)),
            SchedulerKind::Sed => Scheduler::Ranked(Ranking::new(By::Delay)),
            SchedulerKind::Nq => Scheduler::Ranked(Ranking::new(By::IdleThenDelay)),
            SchedulerKind::Fo => Scheduler::Ranked(Ranking::new(By::Weight)),
            SchedulerKind::Ovf => Scheduler::Ranked(Ranking::new(By::WeightWithRoom)),
            SchedulerKind::Sh => Scheduler::Sh(Buckets::by_weight(options)),
            SchedulerKind::Dh => Scheduler::Dh(Buckets::even()),
            SchedulerKind::Mh => Scheduler::Mh(Maglev::new(options, real_server_port(service))),
            SchedulerKind::Twos => Scheduler::Twos(Twos::new(seed)),
            SchedulerKind::Lblc => Scheduler::Local(Locality::single(options.expiration)),
            SchedulerKind::Lblcr => Scheduler::Local(Locality::replicated(options.expiration)),
        }
    }

    /// Whether a service's scheduler goes on when its configuration changes, or starts afresh.
    pub fn suits(before: &Service, after: &Service) -> bool {
        let of = |service: &Service| (service.scheduler, service.scheduler_options);
        let port = |service: &Service| {
            (service.scheduler == SchedulerKind::Mh).then(|| real_server_port(service))
        };
        of(before) == of(after) && port(before) == port(after)
    }

    pub fn kind(&self) -> SchedulerKind {
        match self {
            Scheduler::Rr(_) => SchedulerKind::Rr,
            Scheduler::Wrr(_) => SchedulerKind::Wrr,
            Scheduler::Ranked(ranking) => match ranking.by() {
                By::Connections => SchedulerKind::Lc,
                By::ConnectionsForWeight => SchedulerKind::Wlc,
                By::Delay => SchedulerKind::Sed,
                By::IdleThenDelay => SchedulerKind::Nq,
                By::Weight => SchedulerKind::Fo,
                By::WeightWithRoom => SchedulerKind::Ovf,
            },
            Scheduler::Sh(_) => SchedulerKind::Sh,
            Scheduler::Dh(_) => SchedulerKind::Dh,
            Scheduler::Mh(_) => SchedulerKind::Mh,
            Scheduler::Twos(_) => SchedulerKind::Twos,
            Scheduler::Local(locality) if locality.is_replicated() => SchedulerKind::Lblcr,
            Scheduler::Local(_) => SchedulerKind::Lblc,
        }
    }

    /// Tells of a change to the list (added, removed, moved) or to weights; the first list is a
    /// change too. `members` are the candidates' others sides, in the same order. Cursors stay
    /// where they are as far as that still means something. To be followed by [`Self::build`].
    pub fn candidates_changed(&mut self, candidates: &[Candidate], members: &[Member]) {
        match self {
            Scheduler::Rr(rr) => rr.candidates_changed(candidates, members),
            Scheduler::Wrr(wrr) => wrr.candidates_changed(candidates, members),
            Scheduler::Ranked(ranking) => ranking.candidates_changed(candidates),
            Scheduler::Sh(buckets) | Scheduler::Dh(buckets) => {
                buckets.candidates_changed(candidates);
            }
            Scheduler::Mh(maglev) => maglev.candidates_changed(members),
            Scheduler::Twos(twos) => twos.candidates_changed(candidates),
            Scheduler::Local(locality) => locality.candidates_changed(candidates, members),
        }
    }

    /// Tells of a change to one candidate's availability, connections or weight. If it is the
    /// weight, [`Self::candidates_changed`] must be told too.
    #[inline]
    pub fn candidate_changed(&mut self, position: usize, candidates: &[Candidate]) {
        let Some(candidate) = candidates.get(position) else { return };
        match self {
            Scheduler::Rr(rr) => rr.candidate_changed(position, candidate),
            Scheduler::Wrr(wrr) => wrr.candidate_changed(position, candidate),
            Scheduler::Ranked(ranking) => ranking.candidate_changed(position, candidates),
            Scheduler::Twos(twos) => twos.candidate_changed(position, candidate),
            Scheduler::Local(locality) => locality.candidate_changed(position, candidates),
            // They look at a candidate when it would be chosen.
            Scheduler::Sh(_) | Scheduler::Dh(_) | Scheduler::Mh(_) => {}
        }
    }

    /// Whether there is something to [`Self::build`]. Until it is done, what was built before is
    /// in use.
    pub fn is_building(&self) -> bool {
        matches!(self, Scheduler::Mh(maglev) if maglev.is_building())
    }

    /// Builds on what a change asked for, at most for about `budget` times 10 ns, which it takes
    /// off the budget.
    pub fn build(&mut self, budget: &mut usize) {
        if let Scheduler::Mh(maglev) = self {
            maglev.build(budget);
        }
    }

    /// How often a table of this scheduler's own had no room.
    pub fn refused(&self) -> u64 {
        match self {
            Scheduler::Local(locality) => locality.refused(),
            _ => 0,
        }
    }

    /// The index of the chosen candidate; `None` if none can be chosen.
    #[inline]
    pub fn pick(&mut self, candidates: &[Candidate], key: &PickKey) -> Option<usize> {
        match self {
            Scheduler::Rr(rr) => rr.pick(),
            Scheduler::Wrr(wrr) => wrr.pick(),
            Scheduler::Ranked(ranking) => ranking.pick(),
            Scheduler::Sh(buckets) => buckets.pick(candidates, key.client, key.client_port),
            Scheduler::Dh(buckets) => buckets.pick(candidates, key.vip, 0),
            Scheduler::Mh(maglev) => maglev.pick(candidates, key),
            Scheduler::Twos(twos) => twos.pick(candidates),
            Scheduler::Local(locality) => locality.pick(candidates, key),
        }
    }
}

/// The port that IPVS would have for the real servers of a service, whose ports direct routing
/// does not change: the service's only one, else 0 (as with a firewall mark).
fn real_server_port(service: &Service) -> u16 {
    let [Endpoint { ports: Ports::Some(ranges), .. }] = &*service.listen else { return 0 };
    match &ranges[..] {
        [only] if only.is_exact() => only.first,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
