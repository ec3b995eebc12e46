//! Devices that are set down, or lose their cable, while nothing is to be sent: nothing tells of
//! that but asking.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::director::{Instant, SegmentId};

/// From one look to the next.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Which devices were not running at the last look.
#[derive(Debug)]
pub struct LinkWatch {
    next_look: Instant,
    down: BTreeSet<SegmentId>,
}

/// What a device has come to since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Down,
    Up,
}

impl LinkWatch {
    /// Looks first when something is asked of it.
    pub fn new() -> LinkWatch {
        LinkWatch { next_look: Instant::ZERO, down: BTreeSet::new() }
    }

    /// When to look next.
    pub fn poll_timeout(&self) -> Instant {
        self.next_look
    }

    /// Begins a look, if it is time for one.
    pub fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.next_look <= now;
        if is_due {
            self.next_look = now + LOOK_INTERVAL;
        }
        is_due
    }

    /// Takes in whether a segment's device is running.
    pub fn see(&mut self, segment: SegmentId, is_running: bool) -> Option<Turn> {
        if is_running {
            self.down.remove(&segment).then_some(Turn::Up)
        } else {
            self.down.insert(segment).then_some(Turn::Down)
        }
    }

    /// A segment has another device, or none.
    pub fn forget(&mut self, segment: SegmentId) {
        self.down.remove(&segment);
    }
}
