//! Weighted round robin, as IPVS interleaves it: 4, 3, 2 gives AABABCABC.
//!
//! The list is walked again and again, each time for those whose weight is at least the *level*.
//! The level falls by the greatest common divisor of the weights at the list's end, and starts
//! over at the top.

use super::Candidate;
use super::members::{Member, Roster};
use super::trees::Heights;

/// The position after the last choice, and the level.
#[derive(Clone, Debug, Default)]
pub struct WeightedRoundRobin {
    next: usize,
    level: u32,
    /// The level to start over at: the one at which only the greatest weight takes part.
    top: u32,
    /// How far the level falls at the list's end: the greatest common divisor of the weights.
    step: u32,
    roster: Roster,
    weights: Vec<u32>,
    /// The weights of those that may be chosen.
    heights: Heights,
}

impl WeightedRoundRobin {
    /// Starts at the head of the list, as IPVS does, if the list or a weight is another one. The
    /// level stays, unless there is no such level any more.
    pub(super) fn candidates_changed(&mut self, candidates: &[Candidate], members: &[Member]) {
        self.heights.rebuild(candidates.iter().map(height));
        let weights = || candidates.iter().map(|candidate| candidate.weight);
        let same_list = self.roster.change(members).is_none();
        if same_list && weights().eq(self.weights.iter().copied()) {
            return;
        }
        self.weights.clear();
        self.weights.extend(weights());
        self.next = 0;
        self.step = weights().fold(0, greatest_common_divisor).max(1);
        self.top = weights().max().unwrap_or(0).saturating_sub(self.step - 1);
        if self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            // A level that a fall from the top comes by: they all are 1 modulo the step.
            self.level = self.level / self.step * self.step + 1;
        }
    }

    pub(super) fn candidate_changed(&mut self, position: usize, candidate: &Candidate) {
        self.heights.update(position, height(candidate));
    }

    pub(super) fn pick(&mut self) -> Option<usize> {
        let greatest = self.heights.greatest();
        if greatest == 0 {
            return None;
        }
        // The rest of the list, then from its head at a level that the greatest weight reaches.
        for _ in 0..2 {
            if let Some(chosen) = self.heights.first_from(self.next, self.level.max(1)) {
                self.next = chosen + 1;
                return Some(chosen);
            }
            self.next = 0;
            self.level = if self.level > self.step { self.level - self.step } else { self.top };
            if self.level > greatest {
                // Levels that nobody reaches would each cost a walk and change nothing.
                self.level -= (self.level - greatest).div_ceil(self.step) * self.step;
            }
        }
        None
    }
}

const fn height(candidate: &Candidate) -> u32 {
    if candidate.is_eligible() { candidate.weight } else { 0 }
}

pub(super) const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
