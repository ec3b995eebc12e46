//! Round robin.

use super::Candidate;

/// The position after the last choice.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    next: usize,
}

impl RoundRobin {
    pub(super) fn pick(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let start = self.next.min(candidates.len());
        let chosen = (start..candidates.len())
            .chain(0..start)
            .find(|&position| candidates[position].is_eligible())?;
        self.next = chosen + 1;
        Some(chosen)
    }
}
