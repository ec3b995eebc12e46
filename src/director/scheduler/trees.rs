//! Binary trees over the list of candidates, with a summary of what is below in each node: what
//! makes a pick cheap among many. A change of one candidate costs O(log n), and so does a search.
//!
//! Nodes are in an array: 1 is the root, `2i` and `2i + 1` are below `i`, the candidates' own
//! are the last half. Built anew when the list changes; nothing else allocates.

const NOBODY: u32 = u32::MAX;

/// The position of the best candidate below each node: a tournament.
#[derive(Clone, Debug, Default)]
pub(super) struct Tournament {
    winners: Vec<u32>,
}

impl Tournament {
    /// Lets this many candidates compete anew. `is_in` says who takes part, `beats` whether the
    /// first of two is better than the second. Of equals the earlier one wins.
    pub fn rebuild(
        &mut self,
        count: usize,
        is_in: impl Fn(usize) -> bool,
        beats: impl Fn(usize, usize) -> bool,
    ) {
        let leaves = count.next_power_of_two();
        self.winners.clear();
        self.winners.resize(2 * leaves, NOBODY);
        for position in (0..count).filter(|&position| is_in(position)) {
            self.winners[leaves + position] = position as u32;
        }
        for node in (1..leaves).rev() {
            self.winners[node] = self.match_below(node, &beats);
        }
    }

    /// Lets a candidate that has changed compete anew.
    pub fn update(&mut self, position: usize, is_in: bool, beats: impl Fn(usize, usize) -> bool) {
        let own = position as u32;
        let mut node = self.winners.len() / 2 + position;
        if node >= self.winners.len() {
            return;
        }
        self.winners[node] = if is_in { own } else { NOBODY };
        while node > 1 {
            node /= 2;
            let winner = self.match_below(node, &beats);
            let before = core::mem::replace(&mut self.winners[node], winner);
            if before == winner && winner != own {
                // Further up, nobody meets another one than before.
                break;
            }
        }
    }

    /// The best of all.
    pub fn winner(&self) -> Option<usize> {
        self.winners.get(1).filter(|winner| **winner != NOBODY).map(|winner| *winner as usize)
    }

    fn match_below(&self, node: usize, beats: impl Fn(usize, usize) -> bool) -> u32 {
        let (earlier, later) = (self.winners[2 * node], self.winners[2 * node + 1]);
        if later == NOBODY || earlier != NOBODY && !beats(later as usize, earlier as usize) {
            earlier
        } else {
            later
        }
    }
}

/// The greatest height below each node.
#[derive(Clone, Debug, Default)]
pub(super) struct Heights {
    greatest: Vec<u32>,
}

impl Heights {
    pub fn rebuild(&mut self, heights: impl ExactSizeIterator<Item = u32>) {
        let leaves = heights.len().next_power_of_two();
        self.greatest.clear();
        self.greatest.resize(2 * leaves, 0);
        for (node, height) in self.greatest[leaves..].iter_mut().zip(heights) {
            *node = height;
        }
        for node in (1..leaves).rev() {
            self.greatest[node] = self.greatest[2 * node].max(self.greatest[2 * node + 1]);
        }
    }

    pub fn update(&mut self, position: usize, height: u32) {
        let mut node = self.greatest.len() / 2 + position;
        if node >= self.greatest.len() {
            return;
        }
        self.greatest[node] = height;
        while node > 1 {
            node /= 2;
            let greatest = self.greatest[2 * node].max(self.greatest[2 * node + 1]);
            if core::mem::replace(&mut self.greatest[node], greatest) == greatest {
                break;
            }
        }
    }

    pub fn greatest(&self) -> u32 {
        self.greatest.get(1).copied().unwrap_or(0)
    }

    /// The first from `start` on that is at least as high as `level`, which is not 0.
    pub fn first_from(&self, start: usize, level: u32) -> Option<usize> {
        let leaves = self.greatest.len() / 2;
        if start >= leaves {
            return None;
        }
        let mut node = leaves + start;
        while self.greatest[node] < level {
            // What is next on the right: beside the first node above that is a left one.
            node >>= node.trailing_ones();
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < leaves {
            node *= 2;
            if self.greatest[node] < level {
                node += 1;
            }
        }
        Some(node - leaves)
    }
}

/// The sum of the shares below each node.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    sums: Vec<u64>,
}

impl Shares {
    pub fn rebuild(&mut self, shares: impl ExactSizeIterator<Item = u32>) {
        let leaves = shares.len().next_power_of_two();
        self.sums.clear();
        self.sums.resize(2 * leaves, 0);
        for (node, share) in self.sums[leaves..].iter_mut().zip(shares) {
            *node = share.into();
        }
        for node in (1..leaves).rev() {
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1];
        }
    }

    pub fn update(&mut self, position: usize, share: u32) {
        let mut node = self.sums.len() / 2 + position;
        if node >= self.sums.len() || self.sums[node] == u64::from(share) {
            return;
        }
        self.sums[node] = share.into();
        while node > 1 {
            node /= 2;
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1];
        }
    }

    pub fn total(&self) -> u64 {
        self.sums.get(1).copied().unwrap_or(0)
    }

    /// Whose share `point` falls into, where the shares lie end to end; `point` is below the
    /// total.
    pub fn at(&self, mut point: u64) -> usize {
        let leaves = self.sums.len() / 2;
        let mut node = 1;
        while node < leaves {
            node *= 2;
            if point >= self.sums[node] {
                point -= self.sums[node];
                node += 1;
            }
        }
        node - leaves
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tree_that_is_kept_up_finds_what_a_walk_finds(
            mut values in prop::collection::vec(0u32..6, 0..40),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0u32..6), 0..60),
            start in 0usize..45,
            level in 1u32..7,
        ) {
            let (mut tournament, mut heights) = (Tournament::default(), Heights::default());
            let mut shares = Shares::default();
            tournament.rebuild(values.len(), |at| values[at] > 0, |a, b| values[a] < values[b]);
            heights.rebuild(values.iter().copied());
            shares.rebuild(values.iter().copied());
            let many = values.len();
            for (at, value) in changes.into_iter().filter(|_| many > 0) {
                let at = at.index(many);
                values[at] = value;
                tournament.update(at, value > 0, |a, b| values[a] < values[b]);
                heights.update(at, value);
                shares.update(at, value);
            }
            let least = (0..values.len()).filter(|&at| values[at] > 0).min_by_key(|&at| values[at]);
            prop_assert_eq!(tournament.winner(), least);
            prop_assert_eq!(heights.greatest(), values.iter().copied().max().unwrap_or(0));
            let first = (start..values.len()).find(|&at| values[at] >= level);
            prop_assert_eq!(heights.first_from(start, level), first);
            let ends: Vec<usize> =
                (0..values.len()).flat_map(|at| vec![at; values[at] as usize]).collect();
            prop_assert_eq!(shares.total(), ends.len() as u64);
            for (point, owner) in ends.into_iter().enumerate() {
                prop_assert_eq!(shares.at(point as u64), owner);
            }
        }
    }
}
