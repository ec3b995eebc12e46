//! Schedulers that take the first of a ranking: lc, wlc, sed, nq, fo, ovf.

use core::cmp::Ordering;

use super::Candidate;
use super::trees::Tournament;

/// Candidates in competition; the best one is known at any time.
#[derive(Clone, Debug)]
pub struct Ranking {
    by: By,
    tournament: Tournament,
}

/// What makes a candidate better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// lc: the least overhead; weights only tell who takes part.
    Connections,
    /// wlc: the least overhead for its weight.
    ConnectionsForWeight,
    /// sed: the least delay that the new connection would meet, itself counted.
    Delay,
    /// nq: whoever would serve it at once, else as sed.
    IdleThenDelay,
    /// fo: the greatest weight.
    Weight,
    /// ovf: the greatest weight among those with no more active connections than that.
    WeightWithRoom,
}

impl Ranking {
    pub(super) fn new(by: By) -> Ranking {
        Ranking { by, tournament: Tournament::default() }
    }

    pub(super) fn by(&self) -> By {
        self.by
    }

    pub(super) fn candidates_changed(&mut self, candidates: &[Candidate]) {
        let by = self.by;
        let takes_part = |at: usize| by.takes_part(&candidates[at]);
        self.tournament.rebuild(candidates.len(), takes_part, by.beats(candidates));
    }

    pub(super) fn candidate_changed(&mut self, position: usize, candidates: &[Candidate]) {
        let takes_part = self.by.takes_part(&candidates[position]);
        self.tournament.update(position, takes_part, self.by.beats(candidates));
    }

    pub(super) fn pick(&self) -> Option<usize> {
        self.tournament.winner()
    }
}

impl By {
    fn takes_part(self, candidate: &Candidate) -> bool {
        let has_room = self != By::WeightWithRoom || candidate.active <= candidate.weight;
        candidate.is_eligible() && has_room
    }

    fn beats(self, candidates: &[Candidate]) -> impl Fn(usize, usize) -> bool {
        move |one, other| self.is_better(&candidates[one], &candidates[other])
    }

    /// Of two that take part.
    pub(super) fn is_better(self, one: &Candidate, other: &Candidate) -> bool {
        let idle = |candidate: &Candidate| candidate.active == 0;
        match self {
            By::Connections => overhead(one) < overhead(other),
            By::ConnectionsForWeight => {
                compare((overhead(one), one.weight), (overhead(other), other.weight)).is_lt()
            }
            By::IdleThenDelay if idle(one) || idle(other) => idle(one) && !idle(other),
            By::Delay | By::IdleThenDelay => {
                compare((delay(one), one.weight), (delay(other), other.weight)).is_lt()
            }
            By::Weight | By::WeightWithRoom => one.weight > other.weight,
        }
    }
}

/// An active connection counts for 256 inactive ones (`ip_vs_dest_conn_overhead`).
fn overhead(candidate: &Candidate) -> u64 {
    u64::from(candidate.active) * 256 + u64::from(candidate.inactive)
}

fn delay(candidate: &Candidate) -> u64 {
    u64::from(candidate.active) + 1
}

/// Compares `load / share`, by cross multiplication, so nothing is rounded: 41 bits by 32.
fn compare(one: (u64, u32), other: (u64, u32)) -> Ordering {
    let product = |load: u64, share: u32| u128::from(load) * u128::from(share);
    product(one.0, other.1).cmp(&product(other.0, one.1))
}
