//! Round robin.

use super::Candidate;
use super::members::{Member, Moves, Roster};
use super::trees::Heights;

/// The position after the last choice.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    next: u32,
    roster: Roster,
    /// 1 for who may be chosen.
    eligible: Heights,
}

impl RoundRobin {
    /// Goes on behind the last choice, wherever that is now; if it is gone, behind the nearest
    /// one ahead of it that is not.
    pub(super) fn candidates_changed(&mut self, candidates: &[Candidate], members: &[Member]) {
        if let Some(moves) = self.roster.change(members) {
            self.next = self.after(&moves);
        }
        self.eligible.rebuild(candidates.iter().map(|candidate| candidate.is_eligible().into()));
    }

    pub(super) fn candidate_changed(&mut self, position: usize, candidate: &Candidate) {
        self.eligible.update(position, candidate.is_eligible().into());
    }

    pub(super) fn pick(&mut self) -> Option<usize> {
        let next = self.eligible.first_from(self.next as usize, 1);
        let chosen = next.or_else(|| self.eligible.first_from(0, 1))?;
        self.next = chosen as u32 + 1;
        Some(chosen)
    }

    fn after(&self, moves: &Moves) -> u32 {
        let last = self.next.checked_sub(1).and_then(|last| moves.of_last_until(last));
        last.map_or(0, |last| last + 1)
    }
}
