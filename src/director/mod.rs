//! The core: a frame goes in, a verdict comes out.
//!
//! No sockets, no clock, no threads: time is a parameter, configuration is a
//! [`Snapshot`], what is to be sent waits in a queue. So it can be simulated, replayed and
//! fuzzed, and every test of it is deterministic.
//!
//! # The contract
//! Call [`Director::handle_frame`] for each frame, [`Director::handle_timeout`] once
//! [`Director::poll_timeout`] has passed, [`Director::apply`] for a new configuration. After
//! each, or after each burst of at most [`BURST_MAX`] frames, drain [`Director::poll_transmit`]
//! and [`Director::poll_event`]. Time never runs back.

pub mod arena;
pub mod command;
pub mod connections;
pub mod counters;
pub mod event;
pub mod flow;
pub mod instant;
pub mod report;
pub mod scheduler;
mod transmit;
pub mod verdict;

use std::sync::Arc;

pub use self::arena::Id;
pub use self::command::{Command, Response};
pub use self::event::{Event, Severity};
pub use self::instant::Instant;
pub use self::transmit::Transmit;
pub use self::verdict::{Action, DropReason, Verdict};
use crate::config::Snapshot;
use crate::wire::Frame;

/// Frames between two drains of [`Director::poll_transmit`], at most.
pub const BURST_MAX: usize = 64;

/// A segment, for as long as the process runs: a segment of the same name keeps its id across
/// reloads, and no id is given to another name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(u16);

impl SegmentId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A real server of one service.
#[derive(Debug)]
pub struct Destination {}
pub type DestinationId = Id<Destination>;

/// A virtual service at run time.
#[derive(Debug)]
pub struct Service {}
pub type ServiceId = Id<Service>;

/// Bounds on what the wire can make the director keep or send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames held for real servers whose MAC is being looked for.
    pub hold_frames: usize,
    /// Their bytes.
    pub hold_bytes: usize,
    /// RSTs and ICMP messages sent a second, each.
    pub replies_per_second: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { hold_frames: 256, hold_bytes: 1 << 20, replies_per_second: 1000 }
    }
}

/// The core of vipr.
pub struct Director {}

/// What a new configuration changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReloadReport {
    /// One line a difference, subject first.
    pub changes: Vec<String>,
    /// Segments whose port is to be opened.
    pub segments_added: Vec<SegmentId>,
    /// Segments whose port is to be closed.
    pub segments_removed: Vec<SegmentId>,
}

impl Director {
    /// A director in force with `snapshot` from `now` on. `seed` keys its hashes.
    pub fn new(_now: Instant, _snapshot: Arc<Snapshot>, _limits: Limits, _seed: u64) -> Director {
        todo!()
    }

    /// Judges one frame that arrived on `ingress`, and rewrites it in place if it is to be
    /// forwarded.
    pub fn handle_frame(
        &mut self,
        _now: Instant,
        _ingress: SegmentId,
        _frame: &mut Frame<'_>,
    ) -> Verdict {
        todo!()
    }

    /// Does what is due: expiry, ARP, announcements. A bounded amount; [`Self::poll_timeout`]
    /// says when to come again.
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }

    /// Takes a new configuration into force.
    pub fn apply(&mut self, _now: Instant, _next: Arc<Snapshot>) -> ReloadReport {
        todo!()
    }

    /// Answers a question.
    pub fn handle_command(&mut self, _now: Instant, _command: Command) -> Response {
        todo!()
    }

    /// Tells what the device of a segment can carry, in bytes of the IP packet, where the
    /// configuration leaves it to the device.
    pub fn set_device_mtu(&mut self, _segment: SegmentId, _mtu: u16) {
        todo!()
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        todo!()
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// When [`Self::handle_timeout`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// The segments in force, in the order of the configuration, with their names.
    pub fn segments(&self) -> Vec<(SegmentId, Arc<str>)> {
        todo!()
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        todo!()
    }

    /// How many configurations have been in force, this one included.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// The frame balance.
    pub fn counters(&self) -> &counters::Counters {
        todo!()
    }

    /// The name of a service of a verdict.
    pub fn service_name(&self, _service: ServiceId) -> Option<&Arc<str>> {
        todo!()
    }

    /// The name of a real server of a verdict.
    pub fn real_server_name(&self, _real_server: DestinationId) -> Option<&Arc<str>> {
        todo!()
    }

    /// The name of a segment.
    pub fn segment_name(&self, _segment: SegmentId) -> Option<&Arc<str>> {
        todo!()
    }
}
