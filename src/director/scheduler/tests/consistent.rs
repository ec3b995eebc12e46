//! sh, dh and mh: the same client (or destination) finds the same real server.

use super::*;

fn client(client: &str) -> PickKey {
    PickKey { client: client.parse().unwrap(), ..KEY }
}

fn clients(count: u32) -> impl Iterator<Item = PickKey> {
    // Not one after the other, as real ones are not.
    let address = |number: u32| Ipv4Addr::from_bits(number.wrapping_mul(0x9E37_79B1));
    (1..=count).map(move |number| PickKey { client: address(number).into(), ..KEY })
}

fn options(port: bool, fallback: bool) -> SchedulerOptions {
    SchedulerOptions { port, fallback, ..SchedulerOptions::default() }
}

#[test]
fn sh_goes_by_the_client_and_dh_by_the_destination() {
    let vip = |vip: &str| PickKey { vip: vip.parse().unwrap(), ..KEY };
    let mut sh = Farm::new(SchedulerKind::Sh, &weights(&[1, 1, 1]));
    let mut dh = Farm::new(SchedulerKind::Dh, &weights(&[1, 1, 1]));
    // Bucket 0x61 = 97 is for candidate 1, 0xC3 = 195 for 0, 0x47 = 71 for 2.
    let rows = [("0.0.0.1", 1), ("0.0.0.2", 0), ("1.0.0.0", 2)];
    for (address, chosen) in rows {
        assert_eq!(sh.pick_for(&client(address)), Some(chosen), "{address}");
        assert_eq!(dh.pick_for(&vip(address)), Some(chosen), "{address}");
        assert_eq!(sh.pick_for(&vip(address)), sh.pick(), "sh does not see the VIP");
        assert_eq!(dh.pick_for(&client(address)), dh.pick(), "dh does not see the client");
    }
}

#[test]
fn the_port_counts_only_when_it_is_asked_for() {
    for kind in [SchedulerKind::Sh, SchedulerKind::Mh] {
        for port in [false, true] {
            let mut farm = Farm::with(kind, options(port, false), &weights(&[1; 8]));
            let mut chosen: Vec<_> = (1..200)
                .map(|client_port| farm.pick_for(&PickKey { client_port, ..KEY }))
                .collect();
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), if port { 8 } else { 1 }, "{kind:?} {port}");
        }
    }
}

#[test]
fn a_hashed_client_whose_server_is_away_gets_none_and_later_the_same() {
    for kind in [SchedulerKind::Sh, SchedulerKind::Dh, SchedulerKind::Mh] {
        let mut farm = Farm::new(kind, &weights(&[1, 1, 1]));
        let chosen = farm.pick().unwrap();
        farm.away(chosen, true);
        assert_eq!(farm.pick(), None, "{kind:?}");
        farm.away(chosen, false);
        farm.away((chosen + 1) % 3, true);
        assert_eq!(farm.pick(), Some(chosen), "{kind:?}");
    }
}

#[test]
fn with_fallback_a_client_goes_elsewhere_only_while_its_server_is_away() {
    for kind in [SchedulerKind::Sh, SchedulerKind::Mh] {
        let mut farm = Farm::with(kind, options(false, true), &weights(&[3, 2, 1, 1]));
        for key in clients(500) {
            let chosen = farm.pick_for(&key).unwrap();
            farm.away(chosen, true);
            let other = farm.pick_for(&key).unwrap();
            assert_ne!(other, chosen, "{kind:?}");
            assert_eq!(farm.pick_for(&key), Some(other), "{kind:?}: it stays there");
            farm.away(chosen, false);
            assert_eq!(farm.pick_for(&key), Some(chosen), "{kind:?}: and comes back");
        }
    }
}

/// However few slots who is left has: never refused, and not searched for without end.
#[test]
fn the_fallback_of_mh_finds_whoever_is_left() {
    let mut given = vec![63; 200];
    given.push(1);
    let mut farm = Farm::with(SchedulerKind::Mh, options(false, true), &weights(&given));
    (0..200).for_each(|position| farm.away(position, true));
    for key in clients(50) {
        assert_eq!(farm.pick_for(&key), Some(200));
    }
    farm.away(200, true);
    assert_eq!(farm.pick(), None);
}

#[test]
fn a_quiesced_server_keeps_its_slots_of_mh_and_its_clients_come_back() {
    let mut farm = Farm::new(SchedulerKind::Mh, &weights(&[2, 1, 3]));
    let before: Vec<_> = clients(1000).map(|key| farm.pick_for(&key).unwrap()).collect();
    farm.replace([2, 0, 3].into_iter().map(|weight| weights(&[weight])[0]).enumerate());
    for (key, before) in clients(1000).zip(&before) {
        assert_eq!(farm.pick_for(&key), (*before != 1).then_some(*before));
    }
    farm.replace([2, 1, 3].into_iter().map(|weight| weights(&[weight])[0]).enumerate());
    let after: Vec<_> = clients(1000).map(|key| farm.pick_for(&key).unwrap()).collect();
    assert_eq!(before, after);
}

/// Of n real servers one goes, or comes: its clients move, and hardly any others do.
#[test]
fn mh_moves_few_clients_more_than_it_must() {
    for servers in [3, 10, 50, 200] {
        let all: Vec<(usize, Candidate)> =
            weights(&vec![1; servers]).into_iter().enumerate().collect();
        for gone in [0, servers / 2, servers - 1] {
            let mut farm = Farm::new(SchedulerKind::Mh, &[]);
            farm.replace(all.iter().copied());
            let names = |farm: &mut Farm| -> Vec<DestinationId> {
                let chosen: Vec<usize> =
                    clients(20_000).map(|key| farm.pick_for(&key).unwrap()).collect();
                chosen.into_iter().map(|position| farm.members[position].id).collect()
            };
            let before = names(&mut farm);
            let left = all.iter().copied().filter(|(who, _)| *who != gone);
            farm.replace(left);
            let after = names(&mut farm);
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
            let share = moved as f64 / before.len() as f64;
            let must = 1.0 / servers as f64;
            assert!(share > must / 2.0, "{servers} servers without {gone}: {share:.3} moved");
            assert!(share < must + 0.04, "{servers} servers without {gone}: {share:.3} moved");
            farm.replace(all.iter().copied());
            assert_eq!(names(&mut farm), before, "and back");
        }
    }
}

#[test]
fn mh_gives_each_its_share_of_the_slots() {
    for given in [&[1, 1, 1][..], &[4, 3, 2], &[100, 1], &[6400, 3200, 100], &[1; 40]] {
        let mut farm = Farm::new(SchedulerKind::Mh, &weights(given));
        let mut counts = vec![0; given.len()];
        let many = 100_000;
        for key in clients(many) {
            counts[farm.pick_for(&key).unwrap()] += 1;
        }
        let total: u32 = given.iter().sum();
        for (count, weight) in counts.iter().zip(given) {
            let share = f64::from(*count) / f64::from(many);
            let fair = f64::from(*weight) / f64::from(total);
            assert!((share - fair).abs() < 0.01, "{given:?}: {counts:?}");
        }
    }
}

/// In use while it is built: the last table, wherever its candidates are by now.
#[test]
fn a_table_in_building_changes_nothing_until_it_is_finished() {
    let options = SchedulerOptions { table_size: 131_071, ..SchedulerOptions::default() };
    let mut farm = Farm::with(SchedulerKind::Mh, options, &weights(&[1; 5]));
    let before: Vec<usize> = clients(200).map(|key| farm.pick_for(&key).unwrap()).collect();
    let before: Vec<DestinationId> =
        before.into_iter().map(|position| farm.members[position].id).collect();
    // The first one goes: all have other positions.
    farm.candidates.remove(0);
    farm.members.remove(0);
    let gone = farm.ids[0];
    farm.scheduler.candidates_changed(&farm.candidates, &farm.members);
    let mut portions = 0;
    while farm.scheduler.is_building() {
        for (key, before) in clients(200).zip(&before) {
            let chosen = farm.pick_for(&key).map(|position| farm.members[position].id);
            assert_eq!(chosen, (*before != gone).then_some(*before), "portion {portions}");
        }
        let mut budget = 10_000;
        farm.scheduler.build(&mut budget);
        assert!(budget == 0 || !farm.scheduler.is_building(), "all of a budget is used");
        portions += 1;
    }
    assert!(portions > 10, "{portions} portions of 10,000 steps");
    let mut whole = Farm::with(SchedulerKind::Mh, options, &weights(&[1; 5]));
    whole.replace((1..5).map(|who| (who, weights(&[1])[0])));
    for key in clients(200) {
        assert_eq!(farm.pick_for(&key), whole.pick_for(&key), "as if built at once");
        assert!(farm.pick_for(&key).is_some());
    }
}
