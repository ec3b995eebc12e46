//! Schedulers that look for the least of something: lc, wlc, sed, nq.

use super::Candidate;

/// lc: the least overhead; weights only tell who takes part.
pub(super) fn fewest_connections(candidates: &[Candidate]) -> Option<usize> {
    least(candidates, overhead, |_| 1)
}

/// wlc: the least overhead for its weight.
pub(super) fn fewest_connections_for_weight(candidates: &[Candidate]) -> Option<usize> {
    least(candidates, overhead, weight)
}

/// sed: the least delay that the new connection would meet, itself counted.
pub(super) fn shortest_delay(candidates: &[Candidate]) -> Option<usize> {
    least(candidates, |candidate| u64::from(candidate.active) + 1, weight)
}

/// nq: whoever would serve it at once, else as sed.
pub(super) fn idle_or_shortest_delay(candidates: &[Candidate]) -> Option<usize> {
    candidates
        .iter()
        .position(|candidate| candidate.is_eligible() && candidate.active == 0)
        .or_else(|| shortest_delay(candidates))
}

/// An active connection counts for 256 inactive ones (`ip_vs_dest_conn_overhead`).
fn overhead(candidate: &Candidate) -> u64 {
    u64::from(candidate.active) * 256 + u64::from(candidate.inactive)
}

fn weight(candidate: &Candidate) -> u64 {
    u64::from(candidate.weight)
}

/// The eligible candidate with the least `load / share`, the earlier one where they tie.
/// Compared by cross multiplication, so nothing is rounded: 41 bits by 32.
fn least(
    candidates: &[Candidate],
    load: impl Fn(&Candidate) -> u64,
    share: impl Fn(&Candidate) -> u64,
) -> Option<usize> {
    let eligible = candidates.iter().enumerate().filter(|(_, candidate)| candidate.is_eligible());
    let product = |load: u64, share: u64| u128::from(load) * u128::from(share);
    eligible
        .map(|(position, candidate)| (position, load(candidate), share(candidate)))
        .reduce(
            |best, other| {
                if product(other.1, best.2) < product(best.1, other.2) { other } else { best }
            },
        )
        .map(|(position, ..)| position)
}
