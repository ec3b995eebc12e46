//! The table against a naive one, its limits, and its size.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// How late an expiry may come.
const TICK: Duration = Duration::from_nanos(1 << 28);

fn key(number: u32) -> FlowKey {
    FlowKey::v4(6, Ipv4Addr::from_bits(number), 40000, Ipv4Addr::new(192, 0, 2, 10), 80)
}

fn table(capacity: u32) -> ConnectionTable {
    ConnectionTable::new(Instant::ZERO, capacity, (1, 2))
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + SECOND * seconds as u32
}

fn add(table: &mut ConnectionTable, number: u32, state: ConnectionState) -> ConnectionId {
    let deadline = at(u64::from(number));
    table.insert(key(number), DestinationId::NOWHERE, state, deadline).unwrap()
}

#[test]
fn a_connection_takes_at_most_128_bytes_all_in() {
    let (entry, node) = (size_of::<Connection>(), size_of::<Node>());
    assert_eq!(
        entry, 64,
        "key 40, destination 8, deadline 8, generation 4, slot 2, state and class 1 each"
    );
    assert_eq!(node, 28, "two lists 16, template 8, and a template's count 4");

    // The index has 16 bytes an entry where the capacity is a power of two, as by default, and
    // less than 32 at worst.
    for (capacity, total) in [(1 << 20, 108), ((1 << 20) - 1, 108), ((1 << 20) + 1, 123)] {
        let (_, index) = Index::new(capacity, (0, 0)).memory();
        assert_eq!(entry + node + index / capacity as usize, total, "capacity {capacity}");
    }

    // What does not grow with the capacity.
    let fixed = size_of::<ConnectionTable>() + 4096 * size_of::<List<0>>();
    assert!(fixed < 40_000, "{fixed}");
}

#[test]
fn a_full_table_refuses_until_the_oldest_in_reach_is_evicted() {
    use ConnectionState::{Close, Established, FinWait, SynRecv, Udp};
    let mut table = table(5);
    let ids = [Established, SynRecv, FinWait, SynRecv, Close]
        .into_iter()
        .zip(1..)
        .map(|(state, number)| add(&mut table, number, state))
        .collect::<Vec<_>>();
    let refused = table.insert(key(9), DestinationId::NOWHERE, Udp, at(9));
    assert_eq!((refused, table.find(&key(9)), table.len()), (Err(TableFull), None, 5));
    // A second packet: only then is it believed.
    assert_eq!(table.oldest(Eviction::HalfOpen), Some(ids[0]));
    table.update(ids[0], Established, at(90));

    // Out of a class and back into it: now the youngest there.
    table.update(ids[1], Established, at(90));
    table.update(ids[1], SynRecv, at(90));
    // Within a class: as old as before.
    table.update(ids[2], Close, at(90));
    for (class, oldest) in [
        (Eviction::HalfOpen, [Some(ids[3]), Some(ids[1]), None]),
        (Eviction::Closing, [Some(ids[2]), Some(ids[4]), None]),
        (Eviction::Kept, [None; 3]),
    ] {
        for expected in oldest {
            assert_eq!(table.oldest(class), expected, "{class:?}");
            expected.map(|id| table.remove(id).unwrap());
        }
    }
    assert_eq!(table.len(), 1);
    assert!(table.insert(key(9), DestinationId::NOWHERE, Udp, at(9)).is_ok());
}

#[test]
fn a_table_without_room_refuses_everything() {
    let mut table = table(0);
    let refused = table.insert(key(1), DestinationId::NOWHERE, ConnectionState::Udp, at(1));
    assert_eq!(refused, Err(TableFull));
    assert_eq!(
        (table.find(&key(1)), table.next_wake(), table.page(0, 9, |_, _| ())),
        (None, None, None)
    );
}

#[test]
fn a_handle_never_reaches_a_later_connection_in_its_slot() {
    let mut table = table(1);
    let mut handles = Vec::new();
    for number in 1..5 {
        let id = add(&mut table, number, ConnectionState::SynRecv);
        for old in &handles {
            assert!(table.get(*old).is_none());
            assert!(table.remove(*old).is_none());
            table.update(*old, ConnectionState::Close, at(99));
        }
        let kept = table.get(id).unwrap();
        assert_eq!(
            (kept.state, kept.deadline()),
            (ConnectionState::SynRecv, at(u64::from(number)))
        );
        assert_eq!(*table.remove(id).unwrap().key(), key(number));
        handles.push(id);
    }
}

#[test]
fn expiry_stops_at_its_budget_and_asks_to_be_called_again() {
    let mut table = table(100);
    for number in 0..100 {
        add(&mut table, number, ConnectionState::Udp);
    }
    let now = at(1000);
    let mut gone = 0;
    for _ in 0..10 {
        let mut budget = 10;
        assert!(table.next_wake().is_some_and(|wake| wake <= now));
        while table.expire(now, &mut budget).is_some() {
            gone += 1;
        }
        assert_eq!(budget, 0);
    }
    assert_eq!((gone, table.len(), table.next_wake()), (100, 0, None));
    assert!(table.expire(now, &mut 10).is_none());
}

#[test]
fn a_shorter_deadline_counts_at_once_and_a_longer_one_when_its_time_comes() {
    let mut table = table(2);
    let established = ConnectionState::Established;
    let closed = table.insert(key(1), DestinationId::NOWHERE, established, at(900)).unwrap();
    let busy = table.insert(key(2), DestinationId::NOWHERE, established, at(900)).unwrap();
    table.update(closed, ConnectionState::Close, at(10));
    assert!(table.next_wake().is_some_and(|wake| at(10) <= wake && wake <= at(10) + TICK));
    for second in 1..5000 {
        table.update(busy, established, at(second + 900));
        let mut budget = 2;
        let gone = table.expire(at(second) + TICK, &mut budget);
        let expected = (second == 10).then_some(key(1));
        assert_eq!(gone.map(|gone| *gone.key()), expected, "second {second}");
    }
    assert!(table.expire(at(5898), &mut 2).is_none());
    assert!(table.expire(at(5899) + TICK, &mut 2).is_some());
}

#[test]
fn pages_show_every_connection_once() {
    let mut table = table(64);
    let ids: Vec<ConnectionId> =
        (0..50).map(|number| add(&mut table, number, ConnectionState::Udp)).collect();
    for id in ids.iter().skip(1).step_by(2).chain(&ids[20..34]) {
        table.remove(*id);
    }
    for limit in [0, 1, 7, 50, u32::MAX] {
        let (mut shown, mut pages) = (Vec::new(), 1);
        let mut cursor = 0;
        while let Some(next) = table.page(cursor, limit, |_, shows| shown.push(*shows.key())) {
            assert!(next > cursor && next - cursor <= limit.max(1));
            cursor = next;
            pages += 1;
        }
        assert_eq!(pages, 50_u32.div_ceil(limit.max(1)));
        let expected: Vec<FlowKey> =
            (0..50).filter(|n| n % 2 == 0 && !(20..34).contains(n)).map(key).collect();
        assert_eq!(shown, expected, "limit {limit}");
    }
    assert_eq!(table.page(u32::MAX, u32::MAX, |_, _| unreachable!()), None);
}

#[test]
fn templates_know_how_many_they_placed() {
    let mut table = table(8);
    let template = add(&mut table, 1, ConnectionState::Template);
    let [a, b] = [2, 3].map(|number| add(&mut table, number, ConnectionState::SynRecv));
    for id in [a, b, a] {
        table.set_control(id, template);
    }
    assert_eq!((table.controlled(template), table.control(a)), (2, Some(template)));
    table.remove(a);
    assert_eq!((table.controlled(template), table.control(a)), (1, None));
    let other = add(&mut table, 4, ConnectionState::SynRecv);
    assert_eq!(table.control(other), None, "a slot's next connection has no template");

    table.remove(template);
    assert_eq!((table.controlled(template), table.control(b)), (0, None));
    let stranger = add(&mut table, 5, ConnectionState::Template);
    table.remove(b);
    assert_eq!(table.controlled(stranger), 0, "nor does a template's count pass on");
}

#[test]
fn a_look_ahead_at_any_hash_changes_nothing() {
    for connections in [0, 1, 100] {
        let mut table = table(128);
        for number in 0..connections {
            add(&mut table, number, ConnectionState::Udp);
        }
        for number in 0..200 {
            let hash = table.hash(&key(number));
            table.approach_index(hash);
            let (hint, _) = table.approach_entry(hash);
            let found = table.find_hinted(hint, hash, &key(number)).map(|(id, _)| id);
            assert_eq!(found, table.find(&key(number)));
            assert_eq!(found.is_some(), number < connections);
        }
    }
}

#[test]
fn a_hint_is_believed_only_while_it_holds() {
    let mut table = table(8);
    let first = add(&mut table, 1, ConnectionState::Udp);
    let hash = table.hash(&key(1));
    let (hint, _) = table.approach_entry(hash);
    let found = |table: &ConnectionTable| table.find_hinted(hint, hash, &key(1)).map(|(id, _)| id);
    assert_eq!(found(&table), Some(first));
    table.remove(first);
    assert_eq!(found(&table), None, "the slot still has the key, and nothing in it");
    let other = add(&mut table, 2, ConnectionState::Udp);
    assert_eq!(other.slot, first.slot);
    assert_eq!(found(&table), None, "another has the slot");
    let again = add(&mut table, 1, ConnectionState::Udp);
    assert_eq!(found(&table), Some(again), "it is elsewhere now");
    assert_eq!(table.find_hinted(Hint::NONE, hash, &key(1)).map(|(id, _)| id), Some(again));
}

#[test]
fn a_slot_given_back_is_taken_again_before_a_new_one_and_a_page_skips_it() {
    let mut table = table(8);
    let ids: Vec<ConnectionId> =
        (1..=4).map(|number| add(&mut table, number, ConnectionState::Udp)).collect();
    table.remove(ids[1]);
    table.remove(ids[2]);
    let seen = |table: &ConnectionTable| {
        let mut seen = Vec::new();
        assert_eq!(table.page(0, 99, |_, connection| seen.push(*connection.key())), None);
        seen
    };
    assert_eq!(seen(&table), [key(1), key(4)]);
    let slots: Vec<u32> =
        (5..=7).map(|number| add(&mut table, number, ConnectionState::Udp).slot).collect();
    assert_eq!(slots, [2, 1, 4]);
    assert_eq!(seen(&table), [1, 6, 5, 4, 7].map(key));
    assert_eq!(table.len(), 5);
}

#[test]
fn the_table_stays_where_it_is_in_memory() {
    let mut table = table(1000);
    let memory = table.memory();
    for number in 0..1000 {
        add(&mut table, number, ConnectionState::Udp);
    }
    assert_eq!(table.memory(), memory);
    let bytes: usize = memory.iter().map(|(_, bytes)| bytes).sum();
    assert!((1000 * 108..1000 * 128).contains(&bytes), "{bytes}");
}

#[test]
fn a_template_outlives_its_time_while_one_it_placed_lives() {
    let mut table = table(3);
    let lone = add(&mut table, 1, ConnectionState::Template);
    let template = add(&mut table, 2, ConnectionState::Template);
    let placed = add(&mut table, 100, ConnectionState::SynRecv);
    table.set_control(placed, template);
    let mut budget = 100;
    assert_eq!(table.expire(at(50), &mut budget).map(|gone| *gone.key()), Some(key(1)));
    assert!(table.expire(at(50), &mut budget).is_none());
    assert!(table.get(lone).is_none());
    let reprieved = table.get(template).map(Connection::deadline);
    assert_eq!(reprieved, Some(at(50) + TEMPLATE_REPRIEVE));

    // Once the connection is gone, the template goes at the end of its reprieve.
    for (second, expected) in [(99, None), (101, Some(key(100))), (109, None), (111, Some(key(2)))]
    {
        let gone = table.expire(at(second), &mut budget).map(|gone| *gone.key());
        assert_eq!(gone, expected, "second {second}");
    }
    assert!(table.is_empty());
}

#[test]
fn a_million_connections_come_and_go() {
    const MANY: u32 = 1 << 20;
    let mut table = table(MANY);
    for number in 0..MANY {
        let deadline = at(1 + u64::from(number % 900));
        let added =
            table.insert(key(number), DestinationId::NOWHERE, ConnectionState::Udp, deadline);
        assert!(added.is_ok(), "{number}");
    }
    assert_eq!(table.len(), MANY);
    for number in (0..MANY).step_by(2) {
        let id = table.find(&key(number)).unwrap();
        assert_eq!(*table.remove(id).unwrap().key(), key(number));
    }
    for number in 0..MANY {
        assert_eq!(table.find(&key(number)).is_some(), number % 2 == 1, "{number}");
    }
    let mut budget = u32::MAX;
    while table.expire(at(901) + TICK, &mut budget).is_some() {}
    assert_eq!((table.len(), u32::MAX - budget), (0, MANY / 2));
}

#[derive(Clone, Debug)]
enum Step {
    Insert { number: u32, state: ConnectionState, lives: Duration },
    Update { number: u32, state: ConnectionState, lives: Duration },
    Remove { number: u32 },
    Evict { class: Eviction },
    Expire { later: Duration, budget: u32 },
}

fn any_state() -> impl Strategy<Value = ConnectionState> {
    use ConnectionState::{
        Close, CloseWait, Established, FinWait, None, SynRecv, Template, TimeWait, Udp,
    };
    prop::sample::select(vec![
        None,
        Established,
        SynRecv,
        FinWait,
        TimeWait,
        Close,
        CloseWait,
        Udp,
        Template,
    ])
}

/// Around ticks, timeouts, revolutions, and hours.
fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        (0u64..3 << 28).prop_map(Duration::from_nanos),
        (0u64..900_000).prop_map(Duration::from_millis),
        (1_000u64..1_200).prop_map(Duration::from_secs),
        (0u64..50_000).prop_map(Duration::from_secs),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let number = 0u32..12;
    let class = prop::sample::select(vec![
        Eviction::HalfOpen,
        Eviction::Closing,
        Eviction::Template,
        Eviction::Kept,
    ]);
    prop_oneof![
        4 => (number.clone(), any_state(), any_duration())
            .prop_map(|(number, state, lives)| Step::Insert { number, state, lives }),
        4 => (number.clone(), any_state(), any_duration())
            .prop_map(|(number, state, lives)| Step::Update { number, state, lives }),
        1 => number.prop_map(|number| Step::Remove { number }),
        1 => class.prop_map(|class| Step::Evict { class }),
        3 => (any_duration(), 0u32..10).prop_map(|(later, budget)| Step::Expire { later, budget }),
    ]
}

struct Modelled {
    id: ConnectionId,
    state: ConnectionState,
    deadline: Instant,
    /// The deadline cannot be met before it was set.
    set: Instant,
    class: Eviction,
    in_class_since: usize,
}

fn agrees(
    table: &ConnectionTable,
    model: &BTreeMap<u32, Modelled>,
    gone: &[ConnectionId],
    now: Instant,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len() as usize, model.len());
    for number in 0..12 {
        let modelled = model.get(&number);
        prop_assert_eq!(table.find(&key(number)), modelled.map(|of| of.id));
        if let Some(modelled) = modelled {
            let found = table.get(modelled.id).unwrap();
            prop_assert_eq!(found.key(), &key(number));
            prop_assert_eq!((found.state, found.deadline()), (modelled.state, modelled.deadline));
        }
    }
    for class in [Eviction::HalfOpen, Eviction::Closing, Eviction::Template] {
        let oldest = model
            .values()
            .filter(|of| of.class == class)
            .min_by_key(|of| of.in_class_since)
            .map(|of| of.id);
        prop_assert_eq!(table.oldest(class), oldest);
    }
    prop_assert!(gone.iter().all(|id| table.get(*id).is_none()));
    let first = model.values().map(|of| of.deadline.max(of.set)).min();
    match (table.next_wake(), first) {
        (Some(wake), Some(first)) => prop_assert!(wake <= now.max(first + TICK), "{wake:?}"),
        (wake, first) => prop_assert_eq!(wake.is_none(), first.is_none()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_a_naive_table(
        start in any_duration(),
        capacity in 1u32..9,
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut now = Instant::ZERO + start;
        let mut table = ConnectionTable::new(now, capacity, (7, 8));
        let mut model: BTreeMap<u32, Modelled> = BTreeMap::new();
        let mut gone = Vec::new();
        for (moment, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert { number, state, lives } => {
                    if model.contains_key(&number) {
                        continue;
                    }
                    let deadline = now + lives;
                    let added = table.insert(key(number), DestinationId::NOWHERE, state, deadline);
                    prop_assert_eq!(added.is_err(), model.len() == capacity as usize);
                    if let Ok(id) = added {
                        let (class, in_class_since) = (state.eviction_at_first(), moment);
                        let new = Modelled { id, state, deadline, set: now, class, in_class_since };
                        model.insert(number, new);
                    }
                }
                Step::Update { number, state, lives } => {
                    let Some(of) = model.get_mut(&number) else { continue };
                    table.update(of.id, state, now + lives);
                    if of.class != state.eviction() {
                        of.in_class_since = moment;
                    }
                    (of.state, of.class) = (state, state.eviction());
                    (of.deadline, of.set) = (now + lives, now);
                }
                Step::Remove { number } => {
                    let Some(of) = model.remove(&number) else { continue };
                    prop_assert!(table.remove(of.id).is_some_and(|was| *was.key() == key(number)));
                    gone.push(of.id);
                }
                Step::Evict { class } => {
                    let Some(id) = table.oldest(class) else { continue };
                    prop_assert!(table.remove(id).is_some());
                    model.retain(|_, of| of.id != id);
                    gone.push(id);
                }
                Step::Expire { later, budget: given } => {
                    now += later;
                    let mut budget = given;
                    while let Some(expired) = table.expire(now, &mut budget) {
                        let number =
                            (0..12).find(|number| key(*number) == *expired.key()).unwrap();
                        let of = model.remove(&number).unwrap();
                        prop_assert!(of.deadline <= now, "early: {:?} at {now:?}", of.deadline);
                        gone.push(of.id);
                    }
                    if budget > 0 {
                        let late = model.values().find(|of| of.deadline.max(of.set) + TICK <= now);
                        prop_assert!(late.is_none(), "late: {:?}", late.map(|of| of.deadline));
                        prop_assert!(table.next_wake().is_none_or(|wake| wake > now));
                    } else if given > 0 && !model.is_empty() {
                        prop_assert!(table.next_wake().is_some());
                    }
                }
            }
            agrees(&table, &model, &gone, now)?;
        }
    }
}
