//! Rows of candidates and what each scheduler makes of them.

mod consistent;
mod locality;
mod properties;

use core::net::Ipv4Addr;
use core::time::Duration;
use std::sync::Arc;

use super::*;
use crate::config::snapshot::{Endpoint, OnRemoval, PortRange, Protocol, SchedulerOptions};
use crate::director::arena::Arena;
use crate::director::destination::DestinationId;

const KEY: PickKey = PickKey {
    now: Instant::ZERO,
    client: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    client_port: 40000,
    vip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
};

/// A scheduler and its candidates. They are called A, B, C, ... in the order they came.
struct Farm {
    scheduler: Scheduler,
    candidates: Vec<Candidate>,
    members: Vec<Member>,
    ids: Vec<DestinationId>,
}

impl Farm {
    fn new(kind: SchedulerKind, candidates: &[Candidate]) -> Farm {
        Farm::with(kind, SchedulerOptions::default(), candidates)
    }

    fn with(kind: SchedulerKind, options: SchedulerOptions, candidates: &[Candidate]) -> Farm {
        let scheduler = Scheduler::new(&service(kind, options), 1);
        let mut farm =
            Farm { scheduler, candidates: Vec::new(), members: Vec::new(), ids: Vec::new() };
        farm.replace(candidates.iter().copied().enumerate());
        farm
    }

    /// Another list, of who (0 for A) is what.
    fn replace(&mut self, list: impl IntoIterator<Item = (usize, Candidate)>) {
        let mut arena: Arena<()> = Arena::default();
        self.ids = (0..2000).map(|_| arena.insert(()).cast()).collect();
        let before = core::mem::take(&mut self.members);
        self.candidates.clear();
        for (who, candidate) in list {
            let id = self.ids[who];
            let known = before.iter().find(|member| member.id == id);
            let last_weight = match candidate.weight {
                0 => known.map_or(0, |member| member.last_weight),
                weight => weight,
            };
            let address = Ipv4Addr::from_bits(0x0A00_000B + who as u32).into();
            self.members.push(Member { id, address, last_weight });
            self.candidates.push(candidate);
        }
        self.scheduler.candidates_changed(&self.candidates, &self.members);
        self.build();
    }

    fn build(&mut self) {
        while self.scheduler.is_building() {
            self.scheduler.build(&mut 1000);
        }
    }

    /// Changes what is not a weight.
    fn change(&mut self, position: usize, change: impl FnOnce(&mut Candidate)) {
        change(&mut self.candidates[position]);
        self.scheduler.candidate_changed(position, &self.candidates);
    }

    fn away(&mut self, position: usize, is_away: bool) {
        self.change(position, |candidate| candidate.available = !is_away);
    }

    fn pick(&mut self) -> Option<usize> {
        self.pick_for(&KEY)
    }

    fn pick_for(&mut self, key: &PickKey) -> Option<usize> {
        self.scheduler.pick(&self.candidates, key)
    }

    /// The names of `count` choices; `-` for none.
    fn sequence(&mut self, count: usize) -> String {
        (0..count)
            .map(|_| match self.pick() {
                Some(position) => self.name(position),
                None => '-',
            })
            .collect()
    }

    fn name(&self, position: usize) -> char {
        let who = self.ids.iter().position(|id| *id == self.members[position].id);
        (b'A' + who.unwrap() as u8) as char
    }
}

fn service(kind: SchedulerKind, options: SchedulerOptions) -> Service {
    Service {
        name: "web".into(),
        listen: Arc::new([Endpoint {
            vip: KEY.vip,
            protocol: Protocol::Tcp,
            ports: Ports::Some(vec![PortRange { first: 80, last: 80 }]),
        }]),
        scheduler: kind,
        scheduler_options: options,
        persistence: None,
        one_packet: false,
        sloppy_tcp: false,
        sloppy_sctp: false,
        expire_quiescent: false,
        expire_nodest: false,
        quorum: 1,
        quorum_hysteresis: 0,
        sorry_server: None,
        on_removal: OnRemoval::Drain,
        syn_rescue: false,
        check: None,
        real_servers: Vec::new(),
    }
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

#[test]
fn what_is_made_says_its_kind() {
    for kind in SchedulerKind::ALL {
        assert_eq!(Farm::new(kind, &[]).scheduler.kind(), kind);
    }
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
        let made = Farm::new(kind, &weights(given)).sequence(expected.len());
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
        let mut farm = Farm::new(kind, &weights(given));
        assert_eq!(farm.sequence(before.len()), before, "{given:?}");
        farm.away(away, true);
        assert_eq!(farm.sequence(without.len()), without, "{given:?}");
        farm.away(away, false);
        assert_eq!(farm.sequence(after.len()), after, "{given:?}");
    }
}

#[test]
fn turns_survive_a_change_of_the_candidates() {
    use SchedulerKind::{Rr, Wrr};
    const A: usize = 0;
    const B: usize = 1;
    const C: usize = 2;
    const D: usize = 3;
    for (kind, first, before, second, after) in [
        (Rr, &[1, 1, 1][..], "AB", &[(A, 1), (B, 1), (C, 1), (D, 1)][..], "CDAB"),
        (Rr, &[1, 1, 1], "ABC", &[(A, 1)], "AA"),
        (Rr, &[1, 1, 1], "A", &[(A, 0), (B, 1), (C, 1)], "BCB"),
        // Whoever is next stays so, when one ahead of the last choice goes, or the last choice
        // itself, or all that were ahead, and wherever others come in or move to.
        (Rr, &[1, 1, 1], "AB", &[(B, 1), (C, 1)], "CBC"),
        (Rr, &[1, 1, 1], "AB", &[(A, 1), (C, 1)], "CAC"),
        (Rr, &[1, 1, 1], "A", &[(B, 1), (C, 1)], "BCB"),
        (Rr, &[1, 1, 1, 1], "AB", &[(C, 1), (D, 1)], "CDC"),
        (Rr, &[1, 1, 1], "AB", &[(D, 1), (A, 1), (B, 1), (C, 1)], "CDAB"),
        (Rr, &[1, 1, 1], "AB", &[(C, 1), (B, 1), (A, 1)], "ACBA"),
        // The level stays at 2, from the head of the list.
        (Wrr, &[4, 3, 2], "AAB", &[(A, 1), (B, 1)], "ABAB"),
        // Level 3 of 4 becomes level 3 of 3 (step 2).
        (Wrr, &[4, 3, 2], "AAB", &[(A, 4), (B, 2)], "AABAAB"),
        // Level 4 of 4 becomes level 5 of 5 (step 2), level 3 level 4 of 7 (step 3).
        (Wrr, &[4, 3], "A", &[(A, 6), (B, 2)], "AAABAAAB"),
        (Wrr, &[4, 3], "AA", &[(A, 9), (B, 3)], "AABAAABAA"),
        (Wrr, &[4, 3], "A", &[], "---"),
        (Wrr, &[0, 0], "--", &[(A, 1), (B, 2)], "BAB"),
        // A change that is none starts nothing over.
        (Wrr, &[2, 2, 2], "A", &[(A, 2), (B, 2), (C, 2)], "BCAB"),
        (Wrr, &[2, 2, 2], "AB", &[(B, 2), (C, 2)], "BCB"),
    ] {
        let mut farm = Farm::new(kind, &weights(first));
        assert_eq!(farm.sequence(before.len()), before, "{first:?}");
        let list = second.iter().map(|&(who, weight)| (who, weights(&[weight])[0]));
        farm.replace(list);
        assert_eq!(farm.sequence(after.len()), after, "{kind:?} {first:?} {second:?}");
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
        let chose = Farm::new(kind, &loads(given)).pick();
        assert_eq!(chose, Some(chosen), "{kind:?} {given:?}");
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
        assert_eq!(Farm::new(kind, &loads(given)).pick(), chosen, "{kind:?} {given:?}");
    }
}

#[test]
fn with_nobody_eligible_nobody_is_chosen() {
    for kind in SchedulerKind::ALL {
        for fallback in [false, true] {
            let options = SchedulerOptions { fallback, ..SchedulerOptions::default() };
            for candidates in [&[][..], &weights(&[0, 0])] {
                let mut farm = Farm::with(kind, options, candidates);
                assert_eq!(farm.sequence(3), "---", "{kind:?} {candidates:?}");
            }
            let mut farm = Farm::with(kind, options, &weights(&[1, 2]));
            let chosen = farm.pick();
            (0..2).for_each(|position| farm.away(position, true));
            assert_eq!(farm.sequence(2), "--", "{kind:?}");
            (0..2).for_each(|position| farm.away(position, false));
            assert!(chosen.is_some() && farm.pick().is_some(), "{kind:?}: and back");
        }
    }
}
