//! Deadlines: a hashed timer wheel of one level, its lists threaded through the nodes.
//!
//! A packet that only prolongs a connection does not touch the wheel. Its entry stays in the
//! slot it is in, is found there too early, and is then linked anew where it belongs. So an
//! established flow costs the wheel one visit every fifteen minutes, however many packets it
//! has. Only a deadline that comes *earlier* is linked anew at once.
//!
//! The wheel knows numbers of nodes and ticks. Whether what it hands out has really expired is
//! its caller's to check, who holds the deadlines.

use super::links::{List, Node, TIMER};
use crate::director::instant::Instant;

/// The length of a tick is 2^28 ns (0.27 s), so that a shift makes a tick of an instant.
const TICK_SHIFT: u32 = 28;
const TICK_NANOS: u64 = 1 << TICK_SHIFT;

/// One revolution is 4096 ticks (1100 s): more than the longest default timeout of 900 s.
const SLOTS: usize = 4096;
const WORDS: usize = SLOTS / 64;

/// A slot of the wheel.
pub(super) type WheelSlot = u16;

/// Nodes by the tick they are to be looked at.
pub(super) struct Wheel {
    lists: Box<[List<TIMER>]>,
    /// A bit for each slot whose list is not empty.
    occupied: [u64; WORDS],
    /// A bit for each word of `occupied` that is not zero.
    summary: u64,
    /// The first tick that is not done with. Slots stand for the `SLOTS` ticks from here on.
    next_tick: u64,
}

impl Wheel {
    pub(super) fn new(now: Instant) -> Wheel {
        const { assert!(WORDS == 64, "the summary is one word") };
        Wheel {
            lists: vec![List::EMPTY; SLOTS].into_boxed_slice(),
            occupied: [0; WORDS],
            summary: 0,
            next_tick: now.as_nanos() >> TICK_SHIFT,
        }
    }

    /// Links a node where it is looked at as soon as `deadline` has passed, or at the end of
    /// the revolution if that is sooner. The slot is needed to unlink it.
    pub(super) fn link(&mut self, nodes: &mut [Node], node: u32, deadline: Instant) -> WheelSlot {
        let furthest = self.next_tick + (SLOTS as u64 - 1);
        let tick = tick_after(deadline).clamp(self.next_tick, furthest);
        let slot = tick as usize % SLOTS;
        self.lists[slot].push(nodes, node);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.summary |= 1 << (slot / 64);
        slot as WheelSlot
    }

    pub(super) fn unlink(&mut self, nodes: &mut [Node], node: u32, slot: WheelSlot) {
        let slot = usize::from(slot);
        self.lists[slot].unlink(nodes, node);
        if self.lists[slot].is_empty() {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            if self.occupied[slot / 64] == 0 {
                self.summary &= !(1 << (slot / 64));
            }
        }
    }

    /// Whether a node in this slot would be looked at too late for `deadline`.
    #[inline]
    pub(super) fn is_late_for(&self, slot: WheelSlot, deadline: Instant) -> bool {
        let visit = self.next_tick + (u64::from(slot).wrapping_sub(self.next_tick) % SLOTS as u64);
        tick_after(deadline) < visit
    }

    /// A node to look at now, if there is one. It is the caller's to unlink it, and, should its
    /// deadline be later than `now`, to link it again; it will then not come back for this `now`
    /// more than once.
    #[inline]
    pub(super) fn due(&mut self, now: Instant) -> Option<u32> {
        let now_tick = now.as_nanos() >> TICK_SHIFT;
        // After a revolution or more, every slot is due, once.
        self.next_tick = self.next_tick.max((now_tick + 1).saturating_sub(SLOTS as u64));
        match self.next_occupied() {
            Some(tick) if tick <= now_tick => {
                self.next_tick = tick;
                self.lists[tick as usize % SLOTS].first()
            }
            _ => {
                self.next_tick = self.next_tick.max(now_tick + 1);
                None
            }
        }
    }

    /// The start of the first tick with a node to look at.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.next_occupied().map(|tick| Instant::from_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    /// The first tick from `next_tick` on whose slot is not empty.
    #[inline]
    fn next_occupied(&self) -> Option<u64> {
        if self.summary == 0 {
            return None;
        }
        let start = self.next_tick as usize % SLOTS;
        let (word, bit) = (start / 64, start % 64);
        let here = self.occupied[word] & (u64::MAX << bit);
        let slot = if here != 0 {
            word * 64 + here.trailing_zeros() as usize
        } else {
            // Words after this one, then from the first again, this one last.
            let rotated = self.summary.rotate_right(word as u32 + 1);
            let word = (word + 1 + rotated.trailing_zeros() as usize) % WORDS;
            word * 64 + self.occupied[word].trailing_zeros() as usize
        };
        Some(self.next_tick + (slot.wrapping_sub(start) % SLOTS) as u64)
    }
}

/// The first tick at whose start `deadline` has passed.
#[inline]
fn tick_after(deadline: Instant) -> u64 {
    deadline.as_nanos().div_ceil(TICK_NANOS)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const TICK: Duration = Duration::from_nanos(TICK_NANOS);
    const NANO: Duration = Duration::from_nanos(1);

    fn at(ticks: u64) -> Instant {
        Instant::from_nanos(ticks * TICK_NANOS)
    }

    #[test]
    fn a_node_is_due_at_the_first_tick_after_its_deadline() {
        // Deadline, the tick it is due at; the wheel starts in tick 10.
        let revolution = SLOTS as u64;
        for (deadline, tick) in [
            (at(12), 12),
            (at(12) + NANO, 13),
            (at(13) - NANO, 13),
            (at(10) + NANO, 11),
            (at(10), 10),
            (at(3), 10),
            (at(9 + revolution), 9 + revolution),
            // Further than a revolution: looked at once before.
            (at(10 + revolution), 9 + revolution),
            (Instant::FAR_FUTURE, 9 + revolution),
        ] {
            let mut wheel = Wheel::new(at(10) + NANO);
            let mut nodes = vec![Node::UNUSED];
            let slot = wheel.link(&mut nodes, 0, deadline);
            assert_eq!(wheel.next_wake(), Some(at(tick)), "{deadline:?}");
            assert!(!wheel.is_late_for(slot, at(tick)), "{deadline:?}");
            assert!(wheel.is_late_for(slot, at(tick) - TICK), "{deadline:?}");
            assert_eq!(wheel.due(at(tick) - NANO), None, "{deadline:?}");
            assert_eq!(wheel.due(at(tick)), Some(0), "{deadline:?}");
            wheel.unlink(&mut nodes, 0, slot);
            assert_eq!(wheel.due(at(tick)), None);
            assert_eq!(wheel.next_wake(), None);
        }
    }

    #[test]
    fn ticks_come_in_order_across_the_end_of_the_wheel() {
        for start in [0, 1, 63, 64, 4000, 4095, 4096, 10_000_000] {
            let mut wheel = Wheel::new(at(start));
            let mut nodes = vec![Node::UNUSED; 7];
            let ticks = [0, 1, 62, 64, 700, 2100, 4095].map(|tick| start + tick);
            let slots: Vec<WheelSlot> = ticks
                .iter()
                .zip(0..)
                .map(|(tick, node)| wheel.link(&mut nodes, node, at(*tick)))
                .collect();
            for (node, tick) in ticks.iter().enumerate() {
                assert_eq!(wheel.next_wake(), Some(at(*tick)), "from {start}");
                assert_eq!(wheel.due(at(*tick)), Some(node as u32), "from {start}");
                wheel.unlink(&mut nodes, node as u32, slots[node]);
            }
            assert_eq!(wheel.next_wake(), None);
        }
    }

    #[test]
    fn after_a_jump_over_many_revolutions_each_node_is_looked_at_twice_at_most() {
        let mut wheel = Wheel::new(at(0));
        let mut nodes = vec![Node::UNUSED; 64];
        let now = at(40 * SLOTS as u64 + 17);
        let deadline = now + Duration::from_secs(10);
        // Linked all over the wheel, and prolonged since.
        let mut slots: Vec<WheelSlot> =
            (0..64).map(|node| wheel.link(&mut nodes, node, at(u64::from(node) * 64))).collect();
        let mut looks = [0; 64];
        while let Some(node) = wheel.due(now) {
            looks[node as usize] += 1;
            wheel.unlink(&mut nodes, node, slots[node as usize]);
            slots[node as usize] = wheel.link(&mut nodes, node, deadline);
        }
        assert!(looks.iter().all(|count| (1..=2).contains(count)), "{looks:?}");
        assert!(wheel.next_wake().is_some_and(|wake| wake > now));
        let mut left = 64;
        while let Some(node) = wheel.due(deadline + TICK) {
            wheel.unlink(&mut nodes, node, slots[node as usize]);
            left -= 1;
        }
        assert_eq!(left, 0);
    }

    #[test]
    fn the_end_of_time_overflows_nothing() {
        let mut wheel = Wheel::new(Instant::FAR_FUTURE);
        let mut nodes = vec![Node::UNUSED];
        let slot = wheel.link(&mut nodes, 0, Instant::FAR_FUTURE);
        assert_eq!(wheel.due(Instant::FAR_FUTURE), None, "it never comes");
        assert_eq!(wheel.next_wake(), Some(Instant::FAR_FUTURE));
        wheel.unlink(&mut nodes, 0, slot);
        assert_eq!(wheel.next_wake(), None);
    }
}
