//! The frame balance: received = forwarded + replied + consumed + held + dropped, always.

use serde::{Deserialize, Serialize};

use super::verdict::DropReason;

/// Counts of frames since start. `held` is a gauge: a held frame later counts as forwarded or
/// dropped instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    pub received: u64,
    pub forwarded: u64,
    pub replied: u64,
    pub consumed: u64,
    pub held: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            received: 0,
            forwarded: 0,
            replied: 0,
            consumed: 0,
            held: 0,
            drops: [0; DropReason::ALL.len()],
        }
    }
}

impl Counters {
    pub(super) fn count_drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Frames dropped for one reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Frames dropped for any reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Whether every frame received is accounted for.
    pub fn balance(&self) -> bool {
        self.received == self.forwarded + self.replied + self.consumed + self.held + self.dropped()
    }
}

/// Packets and bytes that came in for a service or a real server, and the connections opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets handed on.
    pub packets: u64,
    /// Their bytes, IP header and payload.
    pub bytes: u64,
}
