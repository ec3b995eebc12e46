//! What the passing of time alone does.

use std::time::Duration;

use vipr::director::{Director, Instant, Limits};

use crate::harness::frames::tcp;
use crate::harness::*;

#[test]
fn a_gap_in_time_is_made_up_for_in_a_few_steps() {
    let mut world = World::new(&web());
    for port in 1..100 {
        world.tell("front", &tcp(port, "S").bytes());
    }
    world.advance(Duration::from_secs(10));
    world.take_sent();
    // A suspended machine: nobody called for a day.
    world.now += Duration::from_secs(86_400);
    let mut steps = 0;
    while world.director.poll_timeout().is_some_and(|due| due <= world.now) {
        world.director.handle_timeout(world.now);
        steps += 1;
        assert!(steps < 5, "no step for each second that was missed");
    }
    assert_eq!(world.status().connections.current, 0);
    let sent = std::iter::from_fn(|| world.director.poll_transmit().map(|_| ())).count();
    assert_eq!(sent, 2, "one announcement and one question, not one of each for each minute");
}

#[test]
fn what_is_due_at_once_is_sent_in_bounded_portions() {
    let mut toml = SEGMENTS.to_owned();
    for last in 10..110 {
        toml += &format!("[[service]]\nvip = \"192.0.2.{last}\"\nprotocol = \"tcp\"\nports = 80\n");
    }
    let now = Instant::ZERO;
    let mut director = Director::new(now, snapshot(&toml), Limits::default(), 7);
    let mut portions = Vec::new();
    while director.poll_timeout().is_some_and(|due| due <= now) {
        director.handle_timeout(now);
        portions.push(std::iter::from_fn(|| director.poll_transmit().map(|_| ())).count());
    }
    assert_eq!(portions.iter().sum::<usize>(), 500, "five for each VIP");
    assert!(portions.iter().all(|&frames| frames <= 64), "{portions:?}");
}
