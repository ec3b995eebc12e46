//! Schedulers that fill the first in rank before the next: fo, ovf. The weight is the rank.

use super::Candidate;

/// fo: the greatest weight.
pub(super) fn greatest_weight(candidates: &[Candidate]) -> Option<usize> {
    greatest(candidates, |_| true)
}

/// ovf: the greatest weight among those with no more active connections than their weight.
pub(super) fn greatest_weight_with_room(candidates: &[Candidate]) -> Option<usize> {
    greatest(candidates, |candidate| candidate.active <= candidate.weight)
}

fn greatest(candidates: &[Candidate], has_room: impl Fn(&Candidate) -> bool) -> Option<usize> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.is_eligible() && has_room(candidate))
        .reduce(|best, other| if other.1.weight > best.1.weight { other } else { best })
        .map(|(position, _)| position)
}
