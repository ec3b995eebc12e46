//! The core: a frame goes in, a verdict comes out.
//!
//! No sockets, no clock, no threads: time is a parameter, configuration is a
//! [`Snapshot`], what is to be sent waits in a queue. So it can be simulated, replayed and
//! fuzzed, and every test of it is deterministic.
//!
//! # The contract
//! Call [`Director::handle_frame`] for each frame, or [`Director::handle_batch`] for those that
//! arrived together, [`Director::handle_timeout`] once
//! [`Director::poll_timeout`] has passed, [`Director::apply`] for a new configuration. After
//! each, or after each burst of at most [`BURST_MAX`] frames, drain [`Director::poll_transmit`]
//! and [`Director::poll_event`]. Time never runs back.

pub mod arena;
pub mod command;
pub mod connections;
pub mod counters;
pub mod destination;
pub mod event;
pub mod examination;
pub mod flow;
pub mod instant;
pub mod report;
pub mod scheduler;
pub mod services;
pub mod state;
pub mod verdict;

mod admission;
mod announcer;
mod answers;
mod askers;
mod batch;
mod checks;
mod conflicts;
mod discovery;
mod fragmented;
mod fragments;
mod guardian;
mod hold;
mod ingress;
mod inquiry;
mod keyed;
mod listeners;
mod neighbors;
mod own_traffic;
mod probes;
mod rate_limit;
mod rates;
mod recognition;
mod reconcile;
mod reload;
mod resolution;
mod segments;
mod stations;
mod status;
mod super_frames;
mod timeouts;
mod traffic;
mod transmit;

use core::net::IpAddr;
use std::sync::Arc;

pub use self::arena::Id;
pub use self::checks::{CommandRun, RunId};
pub use self::command::{Command, Response};
pub use self::destination::DestinationId;
pub use self::event::{Event, Severity};
pub use self::instant::Instant;
pub use self::probes::https::examine as examine_certificates;
pub use self::reload::ReloadReport;
pub use self::services::ServiceId;
pub use self::transmit::{TRANSMIT_QUEUE_MAX, Transmit};
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

/// Bounds on what the wire can make the director keep or send, and on what it does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames held for real servers whose MAC is being looked for.
    pub hold_frames: usize,
    /// Their bytes.
    pub hold_bytes: usize,
    /// RSTs sent a second, ICMP errors sent a second, and stations told who has a VIP.
    pub replies_per_second: u32,
    /// How many of them at once after a pause.
    pub replies_burst: u32,
    /// Work of one step of a reload, in units of about 10 ns: frames wait so long.
    pub reload_step: usize,
}

impl Default for Limits {
    /// As many replies as Linux sends by default (`icmp_msgs_per_sec`), and a generous burst; steps
    /// of 0.3 ms.
    fn default() -> Limits {
        Limits {
            hold_frames: 256,
            hold_bytes: 1 << 20,
            replies_per_second: 1000,
            replies_burst: 200,
            reload_step: 30_000,
        }
    }
}

/// The core of vipr.
pub struct Director {
    snapshot: Arc<Snapshot>,
    generation: u64,
    started: Instant,
    segments: segments::Segments,
    services: services::Services,
    neighbors: neighbors::Neighbors,
    /// Every configured real server's own address.
    rips: keyed::KeyedMap<IpAddr, recognition::Rip>,
    stations: stations::Stations,
    connections: connections::ConnectionTable,
    /// Connections that went early to make room.
    evicted: u64,
    /// Whether a person was told that the table is full.
    full_told: bool,
    fragments: fragments::FragmentTable,
    hold: hold::HoldQueue,
    announcer: announcer::Announcer,
    /// What is announced, where, and with which MAC.
    announced: reload::Announced,
    /// A new configuration that is on its way into force, if there is one.
    transition: Option<reload::Transition>,
    reload_step: usize,
    conflicts: conflicts::Conflicts,
    checks: checks::Checks,
    /// Questions of checks and examinations that are under way.
    prober: probes::Prober,
    examination: Option<examination::Examination>,
    /// Takes no part: see [`Self::observe`].
    observes: bool,
    /// When the director asks for its own VIPs, and who else did.
    inquiry: inquiry::Inquiry,
    askers: askers::Askers,
    guardian: guardian::GuardianCounters,
    repair_limit: rate_limit::TokenBucket,
    /// Multicast groups of IPv6.
    listeners: listeners::Listeners,
    /// Whether they are to be gone through again.
    groups_stale: bool,
    reset_limit: rate_limit::TokenBucket,
    icmp_limit: rate_limit::TokenBucket,
    next_sample: Instant,
    /// Where the search for connections of cut real servers goes on, if there is one.
    sweep: Option<u32>,
    transmit: transmit::TransmitQueue,
    events: event::EventQueue,
    counters: counters::Counters,
    /// Where the frames of a burst are read to: once made, it stays.
    sights: Vec<batch::Sight>,
}

impl Director {
    /// Tells the time of day, which only the validity of certificates depends on: at `now` it is so
    /// much after 1970. Until it is told, [`Instant::ZERO`] was then.
    pub fn set_time_of_day(&mut self, now: Instant, time: core::time::Duration) {
        self.prober.set_time_of_day(now, time);
    }

    /// A director in force with `snapshot` from `now` on. `seed` keys its hashes.
    pub fn new(now: Instant, snapshot: Arc<Snapshot>, limits: Limits, seed: u64) -> Director {
        let key = keyed::HashKey::from_seed(seed);
        let limit =
            || rate_limit::TokenBucket::new(now, limits.replies_per_second, limits.replies_burst);
        let capacity = snapshot.router.connections_max;
        let mut director = Director {
            snapshot: snapshot.clone(),
            generation: 0,
            started: now,
            segments: segments::Segments::default(),
            services: services::Services::new(key),
            neighbors: neighbors::Neighbors::new(key),
            rips: key.map(),
            stations: stations::Stations::new(key),
            connections: connections::ConnectionTable::new(now, capacity, (key.0, key.1)),
            evicted: 0,
            full_told: false,
            fragments: fragments::FragmentTable::new(key),
            hold: hold::HoldQueue::new(limits.hold_frames, limits.hold_bytes),
            announcer: announcer::Announcer::default(),
            announced: reload::Announced::new(),
            transition: None,
            reload_step: limits.reload_step,
            conflicts: conflicts::Conflicts::default(),
            checks: checks::Checks::new(),
            prober: probes::Prober::new(key),
            examination: None,
            observes: false,
            inquiry: inquiry::Inquiry::default(),
            askers: askers::Askers::new(key),
            guardian: guardian::GuardianCounters::default(),
            repair_limit: limit(),
            listeners: listeners::Listeners::new(key),
            groups_stale: false,
            reset_limit: limit(),
            icmp_limit: limit(),
            next_sample: now + rates::SAMPLE_INTERVAL,
            sweep: None,
            transmit: transmit::TransmitQueue::default(),
            events: event::EventQueue::default(),
            counters: counters::Counters::default(),
            sights: Vec::new(),
        };
        director.apply(now, snapshot);
        director
    }

    /// Judges one frame that arrived on `ingress`, and rewrites it in place if it is to be
    /// forwarded.
    #[inline]
    pub fn handle_frame(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
    ) -> Verdict {
        self.decide(now, ingress, frame, None)
    }

    /// Judges and counts a frame, which has been read already if there is a sight of it.
    #[inline]
    fn decide(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
        sight: Option<&batch::Sight>,
    ) -> Verdict {
        let (ingress, verdict) = match self.segments.arrival(ingress, frame.offload.tag) {
            Ok(segment) => (segment, self.judge(now, segment, frame, sight)),
            Err(reason) => (ingress, Verdict::drop(reason)),
        };
        self.count(ingress, frame.bytes.len(), verdict.action);
        verdict
    }

    /// The segment that a frame is of, which came by the device of `ingress`: with VLANs it may be
    /// another one.
    pub fn segment_of(&self, ingress: SegmentId, frame: &Frame<'_>) -> SegmentId {
        self.segments.arrival(ingress, frame.offload.tag).unwrap_or(ingress)
    }

    /// Tells what the device of a segment can carry, in bytes of the IP packet, where the
    /// configuration leaves it to the device.
    pub fn set_device_mtu(&mut self, segment: SegmentId, mtu: u16) {
        self.segments.set_device_mtu(segment, mtu);
    }

    /// Only asks from now on, and takes no part: no VIP is claimed, and no connection accepted.
    pub fn observe(&mut self) {
        self.observes = true;
    }

    /// Tells that the port of a segment is open, and what its device can carry. Where it was open
    /// before, on this device or another, VIPs are announced again: switches on the way may know the
    /// director's MAC elsewhere.
    pub fn device_opened(&mut self, now: Instant, segment: SegmentId, mtu: u16) {
        let before = self.segments.get(segment).and_then(|found| found.device_mtu());
        self.segments.set_device_mtu(segment, mtu);
        let has_vips = self.segments.get(segment).is_some_and(|found| found.role.has_vips());
        if before.is_some() && has_vips {
            let announce = self.snapshot.announce;
            for vip in self.services.configured_vips() {
                self.announcer.vip_up(now, vip, segment, &announce);
            }
        }
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        while self.observes && self.transmit.peek().is_some_and(|bytes| self.claims_vip(bytes)) {
            self.transmit.pop();
        }
        let mut transmit = self.transmit.pop()?;
        if let Some(segment) = self.segments.get_mut(transmit.egress) {
            segment.sent.add(transmit.bytes.len());
            transmit.offload.tag = segment.tag(transmit.offload.tag);
        }
        Some(transmit)
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        while let Some((id, has)) = self.services.next_quorum_news() {
            self.tell_quorum(id, has);
        }
        self.events.pop()
    }

    /// Where the large tables are in memory, which they never leave: address and bytes of each, for
    /// whoever can have it backed by huge pages.
    pub fn memory(&self) -> [(usize, usize); 3] {
        self.connections.memory()
    }

    /// The segments in force, in the order they were first configured, with their names.
    pub fn segments(&self) -> Vec<(SegmentId, Arc<str>)> {
        self.segments.iter().map(|(id, segment)| (id, segment.name.clone())).collect()
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How many configurations have been in force, this one included.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The frame balance.
    pub fn counters(&self) -> &counters::Counters {
        &self.counters
    }

    /// The name of a service of a verdict.
    pub fn service_name(&self, service: ServiceId) -> Option<&Arc<str>> {
        self.services.services.get(service).map(|service| &service.config.name)
    }

    /// The name of a real server of a verdict.
    pub fn real_server_name(&self, real_server: DestinationId) -> Option<&Arc<str>> {
        self.services.destinations.get(real_server).map(|destination| &destination.name)
    }

    /// The name of a segment.
    pub fn segment_name(&self, segment: SegmentId) -> Option<&Arc<str>> {
        self.segments.name(segment)
    }

    /// A segment's name for an event.
    fn segment_label(&self, segment: SegmentId) -> Arc<str> {
        self.segments.name(segment).cloned().unwrap_or_else(|| "?".into())
    }
}
