//! What the passing of time alone does.

use std::time::Duration;

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
    let sent = core::iter::from_fn(|| world.director.poll_transmit().map(|_| ())).count();
    assert_eq!(sent, 1, "one announcement, not one for each minute");
}
