//! Rows of candidates and what each scheduler makes of them.

use core::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const KEY: PickKey = PickKey {
    client: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    client_port: 40000,
    vip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
};

fn built() -> impl Iterator<Item = SchedulerKind> {
    SchedulerKind::ALL.into_iter().filter(|kind| Scheduler::is_built(*kind))
}

fn weights(weights: &[u32]) -> Vec<Candidate> {
    weights
        .iter()
        .map(|&weight| Candidate { weight, available: true, active: 0, inactive: 0 })
        .collect()
}

/// Weight, active and inactive connections.
fn loads(loads: &[(u32, u32, u32)]) -> Vec<Candidate> {
    loads
        .iter()
        .map(|&(weight, active, inactive)| Candidate { weight, available: true, active, inactive })
        .collect()
}

/// The names (A, B, ...) of `count` choices; `-` for none.
fn sequence(scheduler: &mut Scheduler, candidates: &[Candidate], count: usize) -> String {
    (0..count)
        .map(|_| match scheduler.pick(candidates, &KEY) {
            Some(position) => (b'A' + position as u8) as char,
            None => '-',
        })
        .collect()
}

fn fresh(kind: SchedulerKind, candidates: &[Candidate]) -> Scheduler {
    let mut scheduler = Scheduler::new(kind).unwrap();
    scheduler.candidates_changed(candidates);
    scheduler
}

#[test]
fn what_is_built_is_made_and_says_its_kind() {
    for kind in SchedulerKind::ALL {
        let made = Scheduler::new(kind);
        assert_eq!(made.is_some(), Scheduler::is_built(kind), "{kind:?}");
        assert!(made.is_none_or(|scheduler| scheduler.kind() == kind), "{kind:?}");
    }
    assert_eq!(built().count(), 10);
}

#[test]
fn rr_and_wrr_go_in_turns() {
    use SchedulerKind::{Rr, Wrr};
    for (kind, given, expected) in [
        (Rr, &[1, 1, 1][..], "ABCABCA"),
        (Rr, &[9, 1], "ABABAB"),
        (Rr, &[1, 0, 1], "ACACAC"),
        (Rr, &[1], "AAA"),
        (Wrr, &[4, 3, 2], "AABABCABCAABABCABC"),
        (Wrr, &[2, 3, 4], "CBCABCABCCBC"),
        (Wrr, &[1, 1, 1], "ABCABC"),
        (Wrr, &[7, 7], "ABAB"),
        (Wrr, &[4, 2], "AABAAB"),
        (Wrr, &[6, 0, 3], "AACAAC"),
        (Wrr, &[0, 5], "BBB"),
        (Wrr, &[u32::MAX, u32::MAX], "ABAB"),
    ] {
        let candidates = weights(given);
        let made = sequence(&mut fresh(kind, &candidates), &candidates, expected.len());
        assert_eq!(made, expected, "{kind:?} {given:?}");
    }
}

#[test]
fn turns_pass_over_who_is_unavailable_and_go_on() {
    use SchedulerKind::{Rr, Wrr};
    for (kind, given, away, before, without, after) in [
        (Rr, &[1, 1, 1][..], 1, "AB", "CACA", "BCA"),
        (Wrr, &[4, 3, 2], 0, "AAB", "BCBC", "AABABC"),
        // However high the level is, who is left is found at once.
        (Wrr, &[u32::MAX, 1], 0, "AA", "BB", "AAAA"),
        (Wrr, &[u32::MAX - 1, 2], 0, "AA", "BB", "AAAA"),
    ] {
        let mut candidates = weights(given);
        let mut scheduler = fresh(kind, &candidates);
        assert_eq!(sequence(&mut scheduler, &candidates, before.len()), before, "{given:?}");
        candidates[away].available = false;
        assert_eq!(sequence(&mut scheduler, &candidates, without.len()), without, "{given:?}");
        candidates[away].available = true;
        assert_eq!(sequence(&mut scheduler, &candidates, after.len()), after, "{given:?}");
    }
}

#[test]
fn turns_survive_a_change_of_the_candidates() {
    use SchedulerKind::{Rr, Wrr};
    for (kind, first, before, second, after) in [
        (Rr, &[1, 1, 1][..], "AB", &[1, 1, 1, 1][..], "CDAB"),
        (Rr, &[1, 1, 1], "ABC", &[1], "AA"),
        (Rr, &[1, 1, 1], "A", &[0, 1, 1], "BCB"),
        // The level stays at 2, from the head of the list.
        (Wrr, &[4, 3, 2], "AABA", &[4, 3, 2], "ABCABCAAB"),
        // There is no level 3 any more.
        (Wrr, &[4, 3, 2], "AAB", &[1, 1], "ABAB"),
        // Level 3 of 4 becomes level 3 of 3 (step 2).
        (Wrr, &[4, 3, 2], "AAB", &[4, 2], "AABAAB"),
        // Level 4 of 4 becomes level 5 of 5 (step 2), level 3 level 4 of 7 (step 3).
        (Wrr, &[4, 3], "A", &[6, 2], "AAABAAAB"),
        (Wrr, &[4, 3], "AA", &[9, 3], "AABAAABAA"),
        (Wrr, &[4, 3], "A", &[], "---"),
        (Wrr, &[0, 0], "--", &[1, 2], "BAB"),
    ] {
        let candidates = weights(first);
        let mut scheduler = fresh(kind, &candidates);
        assert_eq!(sequence(&mut scheduler, &candidates, before.len()), before, "{first:?}");
        let candidates = weights(second);
        scheduler.candidates_changed(&candidates);
        assert_eq!(
            sequence(&mut scheduler, &candidates, after.len()),
            after,
            "{kind:?} {first:?} {second:?}"
        );
    }
}

#[test]
fn the_least_loaded_is_chosen_and_of_equals_the_first() {
    use SchedulerKind::{Lc, Nq, Sed, Wlc};
    // Kind, (weight, active, inactive) of each candidate, the chosen.
    for (kind, given, chosen) in [
        (Lc, &[(1, 2, 0), (1, 1, 0), (1, 3, 0)][..], 1),
        (Lc, &[(1, 1, 0), (9, 1, 0)], 0),
        (Lc, &[(0, 0, 0), (1, 1, 0)], 1),
        // One active connection weighs as much as 256 inactive ones.
        (Lc, &[(1, 1, 0), (1, 0, 255)], 1),
        (Lc, &[(1, 1, 0), (1, 0, 256)], 0),
        (Lc, &[(1, 1, 0), (1, 0, 257)], 0),
        (Wlc, &[(1, 1, 0), (3, 2, 0)], 1),
        (Wlc, &[(1, 1, 0), (2, 2, 0)], 0),
        (Wlc, &[(2, 2, 0), (1, 1, 0)], 0),
        (Wlc, &[(2, 2, 1), (1, 1, 0)], 1),
        (Wlc, &[(1, 0, 0), (9, 0, 0)], 0),
        (Wlc, &[(0, 0, 0), (1, 9, 9)], 1),
        (Wlc, &[(u32::MAX, u32::MAX, 1), (u32::MAX - 1, u32::MAX - 1, 0)], 1),
        // The new connection counts, inactive ones don't.
        (Sed, &[(1, 0, 0), (2, 0, 0)], 1),
        (Sed, &[(1, 0, 0), (2, 1, 0)], 0),
        (Sed, &[(1, 0, 9), (1, 0, 0)], 0),
        (Sed, &[(0, 0, 0), (1, 9, 0)], 1),
        // An idle one first, though another would be faster.
        (Nq, &[(9, 1, 0), (1, 0, 0)], 1),
        (Nq, &[(1, 0, 0), (9, 0, 0)], 0),
        (Nq, &[(1, 1, 0), (2, 1, 0)], 1),
        (Nq, &[(0, 0, 0), (1, 5, 0)], 1),
    ] {
        let candidates = loads(given);
        let mut scheduler = fresh(kind, &candidates);
        assert_eq!(scheduler.pick(&candidates, &KEY), Some(chosen), "{kind:?} {given:?}");
    }
}

#[test]
fn the_first_in_rank_is_chosen_and_of_equals_the_first() {
    use SchedulerKind::{Fo, Ovf};
    for (kind, given, chosen) in [
        (Fo, &[(1, 0, 0), (3, 99, 0), (2, 0, 0)][..], Some(1)),
        (Fo, &[(3, 0, 0), (3, 0, 0)], Some(0)),
        (Ovf, &[(1, 0, 0), (3, 3, 9), (2, 0, 0)], Some(1)),
        (Ovf, &[(1, 0, 0), (3, 4, 0), (2, 0, 0)], Some(2)),
        (Ovf, &[(3, 0, 0), (3, 0, 0)], Some(0)),
        (Ovf, &[(1, 2, 0), (3, 4, 0)], None),
    ] {
        let candidates = loads(given);
        let mut scheduler = fresh(kind, &candidates);
        assert_eq!(scheduler.pick(&candidates, &KEY), chosen, "{kind:?} {given:?}");
    }
}

#[test]
fn sh_goes_by_the_client_and_dh_by_the_destination() {
    let candidates = weights(&[1, 1, 1]);
    let client = |client: &str| PickKey { client: client.parse().unwrap(), ..KEY };
    let vip = |vip: &str| PickKey { vip: vip.parse().unwrap(), ..KEY };
    // Bucket 0x61 = 97 is for candidate 1, 0xC3 = 195 for 0, 0x47 = 71 for 2.
    let rows = [("0.0.0.1", 1), ("0.0.0.2", 0), ("1.0.0.0", 2)];
    for (address, chosen) in rows {
        let mut sh = fresh(SchedulerKind::Sh, &candidates);
        assert_eq!(sh.pick(&candidates, &client(address)), Some(chosen), "{address}");
        let mut dh = fresh(SchedulerKind::Dh, &candidates);
        assert_eq!(dh.pick(&candidates, &vip(address)), Some(chosen), "{address}");
        let of_sh = sh.pick(&candidates, &vip(address));
        assert_eq!(of_sh, sh.pick(&candidates, &KEY), "sh does not see the VIP");
        let of_dh = dh.pick(&candidates, &client(address));
        assert_eq!(of_dh, dh.pick(&candidates, &KEY), "dh does not see the client");
    }
    let port = PickKey { client_port: 1, ..KEY };
    let mut sh = fresh(SchedulerKind::Sh, &candidates);
    assert_eq!(sh.pick(&candidates, &port), sh.pick(&candidates, &KEY), "nor the port");
}

#[test]
fn a_hashed_client_whose_server_is_away_gets_none_and_later_the_same() {
    for kind in [SchedulerKind::Sh, SchedulerKind::Dh] {
        let mut candidates = weights(&[1, 1, 1]);
        let mut scheduler = fresh(kind, &candidates);
        let chosen = scheduler.pick(&candidates, &KEY).unwrap();
        candidates[chosen].available = false;
        assert_eq!(scheduler.pick(&candidates, &KEY), None, "{kind:?}");
        candidates[chosen].available = true;
        candidates[(chosen + 1) % 3].available = false;
        assert_eq!(scheduler.pick(&candidates, &KEY), Some(chosen), "{kind:?}");
    }
}

#[test]
fn with_nobody_eligible_nobody_is_chosen() {
    let mut unavailable = weights(&[1, 2]);
    unavailable.iter_mut().for_each(|candidate| candidate.available = false);
    for kind in built() {
        for candidates in [&[][..], &unavailable, &weights(&[0, 0])] {
            let mut scheduler = fresh(kind, candidates);
            assert_eq!(sequence(&mut scheduler, candidates, 3), "---", "{kind:?} {candidates:?}");
        }
        let available = weights(&[1, 2]);
        let mut scheduler = fresh(kind, &available);
        assert_eq!(sequence(&mut scheduler, &unavailable, 2), "--", "{kind:?}");
        assert!(scheduler.pick(&available, &KEY).is_some(), "{kind:?}: and back");
    }
}

#[test]
fn a_scheduler_that_was_told_nothing_finds_out() {
    for kind in built() {
        let candidates = weights(&[2, 1]);
        let told = sequence(&mut fresh(kind, &candidates), &candidates, 7);
        let untold = sequence(&mut Scheduler::new(kind).unwrap(), &candidates, 7);
        assert_eq!(told, untold, "{kind:?}");
    }
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    (0u32..6, any::<bool>(), 0u32..5, 0u32..600).prop_map(
        |(weight, available, active, inactive)| Candidate { weight, available, active, inactive },
    )
}

proptest! {
    #[test]
    fn the_chosen_is_always_eligible_and_found_if_there_is_one(
        lists in prop::collection::vec(prop::collection::vec(any_candidate(), 0..7), 1..8),
        changed in any::<bool>(),
        client in any::<u32>(),
    ) {
        let key = PickKey { client: Ipv4Addr::from_bits(client).into(), ..KEY };
        for kind in built() {
            let mut scheduler = Scheduler::new(kind).unwrap();
            for candidates in &lists {
                if changed {
                    scheduler.candidates_changed(candidates);
                }
                for _ in 0..3 {
                    let picked = scheduler.pick(candidates, &key);
                    let may_refuse = matches!(
                        kind,
                        SchedulerKind::Sh | SchedulerKind::Dh | SchedulerKind::Ovf
                    );
                    match picked {
                        Some(position) => prop_assert!(candidates[position].is_eligible()),
                        None => prop_assert!(
                            may_refuse || !candidates.iter().any(Candidate::is_eligible)
                        ),
                    }
                }
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
        let candidates = weights(&given);
        let mut scheduler = fresh(SchedulerKind::Wrr, &candidates);
        // A round may start anywhere: the sequence repeats.
        for _ in 0..skipped {
            scheduler.pick(&candidates, &KEY);
        }
        let round: u32 = given.iter().map(|weight| weight / divisor).sum();
        let mut shares = vec![0; given.len()];
        for _ in 0..round {
            shares[scheduler.pick(&candidates, &KEY).unwrap()] += 1;
        }
        let expected: Vec<u32> = given.iter().map(|weight| weight / divisor).collect();
        prop_assert_eq!(shares, expected);
    }

    #[test]
    fn wrr_walks_as_the_kernel_does(
        given in prop::collection::vec((0u32..9, any::<bool>()), 1..7),
        scale in 1u32..4,
    ) {
        let mut candidates: Vec<Candidate> = weights(
            &given.iter().map(|(weight, _)| weight * scale).collect::<Vec<_>>(),
        );
        let mut scheduler = fresh(SchedulerKind::Wrr, &candidates);
        for (candidate, (_, available)) in candidates.iter_mut().zip(&given) {
            candidate.available = *available;
        }
        let mut naive = NaiveWrr::new(&candidates);
        for _ in 0..40 {
            prop_assert_eq!(scheduler.pick(&candidates, &KEY), naive.pick(&candidates));
        }
    }

    #[test]
    fn rr_gives_everyone_eligible_one_turn_in_a_round(
        candidates in prop::collection::vec(any_candidate(), 1..9),
        skipped in 0usize..20,
    ) {
        let mut scheduler = fresh(SchedulerKind::Rr, &candidates);
        for _ in 0..skipped {
            scheduler.pick(&candidates, &KEY);
        }
        let eligible: Vec<usize> =
            (0..candidates.len()).filter(|&at| candidates[at].is_eligible()).collect();
        let mut round: Vec<usize> = (0..eligible.len())
            .map(|_| scheduler.pick(&candidates, &KEY).unwrap())
            .collect();
        round.sort_unstable();
        prop_assert_eq!(round, eligible);
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    (1..=a.max(b)).rev().find(|d| a.is_multiple_of(*d) && b.is_multiple_of(*d)).unwrap_or(0)
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
