//! What holds of any candidates: whoever is chosen may be, shares are fair, and the trees find
//! what a walk through the list finds.

use proptest::prelude::*;

use super::*;

fn any_candidate() -> impl Strategy<Value = Candidate> {
    (0u32..6, any::<bool>(), 0u32..5, 0u32..600).prop_map(
        |(weight, available, active, inactive)| Candidate { weight, available, active, inactive },
    )
}

proptest! {
    #[test]
    fn the_chosen_is_always_eligible_and_found_if_there_is_one(
        lists in prop::collection::vec(prop::collection::vec(any_candidate(), 0..7), 1..6),
        clients in prop::collection::vec(any::<u32>(), 3),
        fallback in any::<bool>(),
    ) {
        let options = SchedulerOptions { fallback, table_size: 251, ..Default::default() };
        for kind in SchedulerKind::ALL {
            let mut farm = Farm::with(kind, options, &[]);
            for candidates in &lists {
                farm.replace(candidates.iter().copied().enumerate());
                for client in &clients {
                    let key = PickKey { client: Ipv4Addr::from_bits(*client).into(), ..KEY };
                    let picked = farm.pick_for(&key);
                    let may_refuse = match kind {
                        SchedulerKind::Dh | SchedulerKind::Ovf => true,
                        // Who came with a weight of 0 has no slots.
                        SchedulerKind::Sh | SchedulerKind::Mh => !fallback,
                        _ => false,
                    };
                    match picked {
                        Some(position) => prop_assert!(candidates[position].is_eligible()),
                        None => prop_assert!(
                            may_refuse || !candidates.iter().any(Candidate::is_eligible),
                            "{:?}", kind
                        ),
                    }
                }
            }
        }
    }

    #[test]
    fn rankings_find_what_a_walk_finds(
        list in prop::collection::vec(any_candidate(), 1..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_candidate()), 0..40),
    ) {
        for kind in [
            SchedulerKind::Lc, SchedulerKind::Wlc, SchedulerKind::Sed, SchedulerKind::Nq,
            SchedulerKind::Fo, SchedulerKind::Ovf,
        ] {
            let mut farm = Farm::new(kind, &list);
            for (at, candidate) in &changes {
                farm.change(at.index(list.len()), |changed| *changed = *candidate);
                prop_assert_eq!(farm.pick(), walk(kind, &farm.candidates), "{:?}", kind);
            }
        }
    }

    #[test]
    fn wrr_gives_each_its_exact_share_in_every_round(
        given in prop::collection::vec(0u32..40, 1..9),
        scale in 1u32..1000,
        skipped in 0usize..100,
    ) {
        let given: Vec<u32> = given.into_iter().map(|weight| weight * scale).collect();
        let divisor = given.iter().fold(0, |a, b| greatest_common_divisor(a, *b));
        prop_assume!(divisor > 0);
        let mut farm = Farm::new(SchedulerKind::Wrr, &weights(&given));
        // A round may start anywhere: the sequence repeats.
        for _ in 0..skipped {
            farm.pick();
        }
        let round: u32 = given.iter().map(|weight| weight / divisor).sum();
        let mut shares = vec![0; given.len()];
        for _ in 0..round {
            shares[farm.pick().unwrap()] += 1;
        }
        let expected: Vec<u32> = given.iter().map(|weight| weight / divisor).collect();
        prop_assert_eq!(shares, expected);
    }

    #[test]
    fn wrr_walks_as_the_kernel_does(
        given in prop::collection::vec((0u32..9, any::<bool>()), 1..7),
        scale in 1u32..4,
    ) {
        let scaled: Vec<u32> = given.iter().map(|(weight, _)| weight * scale).collect();
        let mut farm = Farm::new(SchedulerKind::Wrr, &weights(&scaled));
        for (position, (_, available)) in given.iter().enumerate() {
            farm.away(position, !available);
        }
        let mut naive = NaiveWrr::new(&farm.candidates);
        for _ in 0..40 {
            let picked = farm.pick();
            prop_assert_eq!(picked, naive.pick(&farm.candidates));
        }
    }

    #[test]
    fn rr_gives_everyone_eligible_one_turn_in_a_round(
        candidates in prop::collection::vec(any_candidate(), 1..9),
        skipped in 0usize..20,
    ) {
        let mut farm = Farm::new(SchedulerKind::Rr, &candidates);
        for _ in 0..skipped {
            farm.pick();
        }
        let eligible: Vec<usize> =
            (0..candidates.len()).filter(|&at| candidates[at].is_eligible()).collect();
        let mut round: Vec<usize> = (0..eligible.len()).map(|_| farm.pick().unwrap()).collect();
        round.sort_unstable();
        prop_assert_eq!(round, eligible);
    }

    /// Nobody gets a connection more, for its weight, than would make it the least loaded again.
    #[test]
    fn by_load_each_gets_its_share(
        given in prop::collection::vec(1u32..20, 1..9),
        connections in 1usize..300,
    ) {
        use SchedulerKind::{Lc, Nq, Sed, Twos, Wlc};
        for kind in [Lc, Wlc, Sed, Nq, Twos] {
            let mut farm = Farm::new(kind, &weights(&given));
            for _ in 0..connections {
                let chosen = farm.pick().unwrap();
                farm.change(chosen, |candidate| candidate.active += 1);
            }
            for (one, other) in farm.candidates.iter().flat_map(|one| {
                farm.candidates.iter().map(move |other| (one, other))
            }) {
                let weight = |candidate: &Candidate| {
                    if kind == Lc { 1 } else { candidate.weight }
                };
                let before = one.active.saturating_sub(1) * weight(other);
                let room = match kind {
                    Twos => continue,
                    // An idle one is served first, however little it can do.
                    Nq if one.active == 1 => continue,
                    Sed | Nq => (other.active + 1) * weight(one) + weight(other),
                    _ => other.active * weight(one),
                };
                prop_assert!(before <= room, "{:?} {:?}", kind, farm.candidates);
            }
            let total: u32 = farm.candidates.iter().map(|candidate| candidate.active).sum();
            prop_assert_eq!(total as usize, connections);
        }
    }
}

#[test]
fn twos_draws_by_weight_and_then_goes_by_load() {
    let given = [5, 3, 2, 0];
    let mut farm = Farm::new(SchedulerKind::Twos, &weights(&given));
    let draw = |farm: &mut Farm| {
        let mut counts = [0u32; 4];
        (0..100_000).for_each(|_| counts[farm.pick().unwrap()] += 1);
        counts
    };
    let counts = draw(&mut farm);
    for (count, weight) in counts.iter().zip(given) {
        // Six standard deviations are below 950.
        assert!(count.abs_diff(weight * 10_000) < 950, "{counts:?}");
    }
    // Loaded, the first is taken only when it is drawn twice: 0.5 · 0.5.
    farm.change(0, |candidate| candidate.active = 100);
    let counts = draw(&mut farm);
    assert!(counts[0].abs_diff(25_000) < 950, "{counts:?}");
    let same = draw(&mut Farm::new(SchedulerKind::Twos, &weights(&given)));
    let again = draw(&mut Farm::new(SchedulerKind::Twos, &weights(&given)));
    assert_eq!(same, again, "the same seed, the same choices");
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    (1..=a.max(b)).rev().find(|d| a.is_multiple_of(*d) && b.is_multiple_of(*d)).unwrap_or(0)
}

/// The kernel's walks through the list: the first one that is better than all ahead of it.
fn walk(kind: SchedulerKind, candidates: &[Candidate]) -> Option<usize> {
    let overhead = |c: &Candidate| u64::from(c.active * 256 + c.inactive);
    let mut best: Option<(usize, &Candidate)> = None;
    for (position, candidate) in candidates.iter().enumerate() {
        if !candidate.available || candidate.weight == 0 {
            continue;
        }
        if kind == SchedulerKind::Ovf && candidate.active > candidate.weight {
            continue;
        }
        if kind == SchedulerKind::Nq && candidate.active == 0 {
            return Some(position);
        }
        let load = |c: &Candidate| match kind {
            SchedulerKind::Sed | SchedulerKind::Nq => u64::from(c.active) + 1,
            _ => overhead(c),
        };
        let is_better = best.is_none_or(|(_, best)| match kind {
            SchedulerKind::Lc => load(candidate) < load(best),
            SchedulerKind::Fo | SchedulerKind::Ovf => candidate.weight > best.weight,
            _ => {
                load(candidate) * u64::from(best.weight) < load(best) * u64::from(candidate.weight)
            }
        });
        if is_better {
            best = Some((position, candidate));
        }
    }
    best.map(|(position, _)| position)
}

/// The kernel's walk, one level at a time.
struct NaiveWrr {
    last: Option<usize>,
    level: i64,
    top: i64,
    step: i64,
}

impl NaiveWrr {
    fn new(candidates: &[Candidate]) -> NaiveWrr {
        let step = candidates.iter().fold(0, |a, c| greatest_common_divisor(a, c.weight));
        let greatest = candidates.iter().map(|c| i64::from(c.weight)).max().unwrap_or(0);
        let step = i64::from(step.max(1));
        let top = (greatest - (step - 1)).max(0);
        NaiveWrr { last: None, level: top, top, step }
    }

    fn pick(&mut self, candidates: &[Candidate]) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        let mut position = self.last.map_or(0, |last| last + 1);
        for _ in 0..10_000 {
            match candidates.get(position) {
                Some(c) if c.available && i64::from(c.weight) >= self.level => {
                    self.last = Some(position);
                    return Some(position);
                }
                Some(_) => position += 1,
                None => {
                    position = 0;
                    self.level -= self.step;
                    if self.level <= 0 {
                        self.level = self.top;
                    }
                }
            }
        }
        None
    }
}
