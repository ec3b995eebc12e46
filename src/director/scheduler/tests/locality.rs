//! lblc and lblcr: where a destination's connections are kept together, and when not.

use super::*;
use crate::director::scheduler::locality::{ADDRESSES_MAX, SET_MAX};

fn at(seconds: u64) -> PickKey {
    PickKey { now: Instant::ZERO + Duration::from_secs(seconds), ..KEY }
}

fn connect(farm: &mut Farm, key: &PickKey) -> char {
    let chosen = farm.pick_for(key).unwrap();
    farm.change(chosen, |candidate| candidate.active += 1);
    farm.name(chosen)
}

fn connects(farm: &mut Farm, count: usize) -> String {
    (0..count).map(|_| connect(farm, &KEY)).collect()
}

#[test]
fn lblc_stays_until_its_server_is_over_its_weight_and_another_below_half() {
    let mut farm = Farm::new(SchedulerKind::Lblc, &weights(&[2, 4, 2]));
    // A has 3 of 2, B 0 of 4: moved to B. B has 5 of 4, C 0 of 2: moved to C. Then A 3 of 2,
    // B 5 of 4, C 3 of 2: nobody below half, so it stays.
    assert_eq!(connects(&mut farm, 14), "AAABBBBBCCCCCC");
    // B's end: 1 of 4 is below half.
    farm.change(1, |candidate| candidate.active = 1);
    assert_eq!(connects(&mut farm, 2), "BB");
}

#[test]
fn lblcr_lets_another_join_and_takes_the_least_loaded_of_the_set() {
    let mut farm = Farm::new(SchedulerKind::Lblcr, &weights(&[2, 4, 2]));
    // As above, but A (3 of 2), B (5 of 4) and C (3 of 2) are all in the set in the end, and
    // the one with the least for its weight is taken: B, then by turns.
    assert_eq!(connects(&mut farm, 12), "AAABBBBBCCCB");
}

#[test]
fn a_set_loses_its_most_loaded_member_when_it_has_not_changed_for_long() {
    let options =
        SchedulerOptions { expiration: Duration::from_secs(60), ..SchedulerOptions::default() };
    let mut farm = Farm::with(SchedulerKind::Lblcr, options, &weights(&[1, 1]));
    assert_eq!(connects(&mut farm, 4), "AABB");
    for seconds in 1..=60 {
        farm.pick_for(&at(seconds));
    }
    farm.change(0, |candidate| candidate.active = 0);
    assert_eq!(farm.pick_for(&at(60)), Some(0), "A is in the set");
    farm.change(0, |candidate| candidate.active = 9);
    assert_eq!(farm.pick_for(&at(61)), Some(1));
    farm.change(0, |candidate| candidate.active = 0);
    farm.change(1, |candidate| candidate.active = 1);
    assert_eq!(farm.pick_for(&at(62)), Some(1), "A has left it");
}

#[test]
fn a_destination_that_is_not_asked_for_is_forgotten() {
    for kind in [SchedulerKind::Lblc, SchedulerKind::Lblcr] {
        let mut farm = Farm::new(kind, &weights(&[1, 1]));
        assert_eq!(connect(&mut farm, &KEY), 'A');
        let day = 24 * 60 * 60;
        assert_eq!(farm.pick_for(&at(day - 1)), Some(0), "{kind:?}");
        assert_eq!(farm.pick_for(&at(2 * day - 2)), Some(0), "{kind:?}: used a day ago, less 1 s");
        assert_eq!(farm.pick_for(&at(3 * day - 2)), Some(1), "{kind:?}: the least loaded");
    }
}

#[test]
fn who_is_away_or_gone_is_not_remembered() {
    for kind in [SchedulerKind::Lblc, SchedulerKind::Lblcr] {
        let mut farm = Farm::new(kind, &weights(&[9, 5, 5]));
        assert_eq!(connects(&mut farm, 2), "AA");
        farm.away(0, true);
        assert_eq!(connects(&mut farm, 2), "BB", "{kind:?}");
        let left = [(2, farm.candidates[2]), (1, farm.candidates[1])];
        farm.replace(left);
        assert_eq!(connects(&mut farm, 2), "BB", "{kind:?}: in another place of the list");
        farm.replace([left[0]]);
        assert_eq!(connects(&mut farm, 2), "CC", "{kind:?}");
    }
}

#[test]
fn a_full_table_refuses_counts_and_makes_room_for_what_is_idle() {
    let vip = |number: usize, seconds| PickKey {
        vip: Ipv4Addr::from_bits(0xC000_0200 + number as u32).into(),
        ..at(seconds)
    };
    for kind in [SchedulerKind::Lblc, SchedulerKind::Lblcr] {
        let mut farm = Farm::new(kind, &weights(&[1, 1]));
        for number in 0..ADDRESSES_MAX {
            farm.pick_for(&vip(number, number as u64));
        }
        assert_eq!(farm.scheduler.refused(), 0);
        assert!(farm.pick_for(&vip(ADDRESSES_MAX, 359)).is_some(), "chosen all the same");
        assert_eq!(farm.scheduler.refused(), 1, "{kind:?}");
        farm.pick_for(&vip(ADDRESSES_MAX, 360));
        assert_eq!(farm.scheduler.refused(), 1, "{kind:?}: the first one was idle for 6 min");
    }
}

#[test]
fn a_full_set_takes_nobody_in_and_the_least_loaded_of_all_is_chosen() {
    let many = SET_MAX + 6;
    let mut farm = Farm::new(SchedulerKind::Lblcr, &weights(&vec![1; many]));
    for _ in 0..2 * many {
        let chosen = farm.pick().unwrap();
        farm.change(chosen, |candidate| candidate.active += 1);
    }
    let counts: Vec<u32> = farm.candidates.iter().map(|candidate| candidate.active).collect();
    assert!(counts.iter().all(|count| (1..=3).contains(count)), "{counts:?}");
    assert!(farm.scheduler.refused() >= 6, "{}", farm.scheduler.refused());
}
