//! The power of two choices: two candidates by chance, each as likely as its weight says, and of
//! them the one with fewer connections for its weight.
//!
//! IPVS draws from one number more than there are weights, which goes to the first server; here
//! each has exactly its share.

use super::Candidate;
use super::ranking::By;
use super::trees::Shares;

/// The shares to draw from, and where the random numbers are.
#[derive(Clone, Debug)]
pub struct Twos {
    random: Random,
    /// The weights of those that may be chosen.
    shares: Shares,
}

impl Twos {
    pub(super) fn new(seed: u64) -> Twos {
        Twos { random: Random(seed), shares: Shares::default() }
    }

    pub(super) fn candidates_changed(&mut self, candidates: &[Candidate]) {
        self.shares.rebuild(candidates.iter().map(share));
    }

    pub(super) fn candidate_changed(&mut self, position: usize, candidate: &Candidate) {
        self.shares.update(position, share(candidate));
    }

    pub(super) fn pick(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let total = self.shares.total();
        if total == 0 {
            return None;
        }
        let [one, other] = [(); 2].map(|()| self.shares.at(self.random.below(total)));
        let by = By::ConnectionsForWeight;
        let is_better = by.is_better(candidates.get(other)?, candidates.get(one)?);
        Some(if is_better { other } else { one })
    }
}

const fn share(candidate: &Candidate) -> u32 {
    if candidate.is_eligible() { candidate.weight } else { 0 }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }
}
