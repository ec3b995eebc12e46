//! A director with its ports: frames in bursts, timers, a new configuration.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mio::Registry;

use super::commands::Commands;
use super::event_log::{EventLog, Line};
use super::guards::Guards;
use super::ports::{OpenError, Opened, Opener, Ports};
use super::urgent::URGENT_MAX;
use super::{clock, state};
use crate::config::Snapshot;
use crate::config::snapshot::Segment;
use crate::director::report::StatusReport;
use crate::director::{
    Action, BURST_MAX, Command, Director, Instant, Limits, Response, SegmentId, Severity, Transmit,
    Verdict,
};
use crate::port::urgent::URGENT_LEN;
use crate::port::{Batch, memory};
use crate::wire::Frame;
use crate::wire::vlan::{self, TAG_LEN, Tag};

/// Frames that are sent between two looks at what is urgent.
const URGENT_EVERY: usize = 8;

/// How long to wait at most while a port cannot tell of its frames.
const NAP: Duration = Duration::from_millis(1);

pub(super) struct Router<O: Opener> {
    director: Director,
    ports: Ports<O>,
    batch: Batch,
    /// A frame that is given its tag.
    tagged: Vec<u8>,
    /// Where each frame of the batch goes, if it goes on.
    ways: [Option<Way>; BURST_MAX],
    event_log: EventLog,
    commands: Commands,
    guards: Guards,
}

impl<O: Opener> Router<O> {
    /// A router without ports.
    pub fn new(snapshot: Arc<Snapshot>, opener: O, seed: u64) -> Router<O> {
        let director = Director::new(clock::now(), snapshot, Limits::default(), seed);
        for (address, bytes) in director.memory() {
            if let Err(error) = memory::prefer_huge_pages(address, bytes) {
                log::debug!("connections: no huge pages for them: {error}");
            }
        }
        Router {
            director,
            ports: Ports::new(opener),
            batch: Batch::new(BURST_MAX),
            tagged: Vec::new(),
            ways: [None; BURST_MAX],
            event_log: EventLog::default(),
            commands: Commands::new(),
            guards: Guards::default(),
        }
    }

    /// Only asks from now on: see [`Director::observe`].
    pub fn observe(&mut self) {
        self.director.observe();
    }

    /// Opens the port of every segment.
    ///
    /// # Errors
    /// The first that does not open, and the name of its segment.
    pub fn open_ports(&mut self, registry: &Registry) -> Result<(), (Arc<str>, OpenError)> {
        let now = clock::now();
        for (segment, result) in self.reconcile_ports(registry, now) {
            match result {
                Ok(mtu) => self.director.set_device_mtu(segment, mtu),
                Err(error) => return Err((self.segment_name(segment), error)),
            }
        }
        self.guards.reconcile(now, self.director.snapshot());
        // Clients hear of the VIPs before anything else.
        self.director.handle_timeout(now);
        self.drain(now);
        Ok(())
    }

    /// Takes up the connections that the router before this one left, if it did. To be done before
    /// the first frame is read: one of a connection that is not known would be reset.
    pub fn take_up_state(&mut self) {
        let router = &self.director.snapshot().router;
        let Some(path) = router.state.clone() else { return };
        let (max_age, now) = (router.state_max_age, clock::now());
        match state::take_up(&path, max_age, &mut self.director, now, SystemTime::now()) {
            Ok(None) => {}
            Ok(Some(taken_up)) if taken_up.is_whole() => {
                log::info!("state {}: {taken_up}", path.display());
            }
            Ok(Some(taken_up)) => log::warn!("state {}: {taken_up}", path.display()),
            Err(refusal) if refusal.is_ordinary() => {
                log::info!("state {}: {refusal}", path.display());
            }
            Err(refusal) => log::warn!("state {}: {refusal}", path.display()),
        }
        self.log_events(now);
        self.check_state();
    }

    /// Leaves the connections for the router after this one, where the configuration says so.
    pub fn leave_state(&self) {
        let Some(path) = &self.director.snapshot().router.state else { return };
        match state::leave(path, &self.director, clock::now(), SystemTime::now()) {
            Ok(left) => log::info!("state {}: {left}", path.display()),
            Err(error) => log::error!(
                "state {}: cannot be written: {error}; {}; the connections end here",
                path.display(),
                state::remedy(&error)
            ),
        }
    }

    /// Says now what would otherwise only show at the stop.
    fn check_state(&self) {
        if let Some(path) = &self.director.snapshot().router.state
            && let Err(error) = state::check(path)
        {
            log::warn!(
                "state {}: cannot be written: {error}; {}, or a restart will cost the connections",
                path.display(),
                state::remedy(&error)
            );
        }
    }

    /// Notes that a port may have frames. The index is that of its segment.
    pub fn wake_port(&mut self, index: usize) {
        self.ports.wake(index);
    }

    /// To be called before events are waited for, `timeout` at most: how long to wait, so that no
    /// frame waits meanwhile. `None` is for ever.
    pub fn before_wait(
        &mut self,
        registry: &Registry,
        timeout: Option<Duration>,
    ) -> Option<Duration> {
        if timeout == Some(Duration::ZERO) {
            self.ports.look(registry);
            return timeout;
        }
        if !self.ports.listen(registry) {
            return Some(timeout.map_or(NAP, |timeout| timeout.min(NAP)));
        }
        if self.has_work() { Some(Duration::ZERO) } else { timeout }
    }

    /// Whether a port may have frames.
    pub fn has_work(&self) -> bool {
        self.ports.ready_len() > 0
    }

    /// One burst from each port that may have frames.
    pub fn handle_bursts(&mut self, registry: &Registry, now: Instant) {
        let mut now = now;
        for turn in 0..self.ports.ready_len() {
            if let Some(segment) = self.ports.next_ready() {
                if turn > 0 {
                    now = clock::now();
                }
                self.handle_burst(registry, now, segment);
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        if self.director.poll_timeout().is_some_and(|at| at <= now) {
            self.director.set_time_of_day(now, clock::time_of_day());
            self.director.handle_timeout(now);
            self.drain(now);
        }
        if self.ports.poll_timeout().is_some_and(|at| at <= now) {
            let opened = self.ports.handle_timeout(registry, now);
            self.handle_opened(now, opened);
            self.drain(now);
        }
        if self.guards.poll_timeout().is_some_and(|at| at <= now) {
            self.guards.handle_timeout(now, self.director.snapshot());
        }
        if self.event_log.poll_timeout().is_some_and(|at| at <= now) {
            self.event_log.handle_timeout(now).iter().for_each(print);
        }
    }

    /// When [`Self::handle_timeout`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [
            self.director.poll_timeout(),
            self.ports.poll_timeout(),
            self.event_log.poll_timeout(),
            self.guards.poll_timeout(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Begins to take a new configuration into force, and opens and closes the ports it calls for.
    pub fn begin_apply(&mut self, registry: &Registry, now: Instant, snapshot: Arc<Snapshot>) {
        // Which ports that calls for is seen from the configuration itself: a segment may have
        // another device under its old name.
        let state = self.director.snapshot().router.state.clone();
        let _ = self.director.begin_apply(now, snapshot);
        if self.director.snapshot().router.state != state {
            self.check_state();
        }
        let opened = self.reconcile_ports(registry, now);
        self.handle_opened(now, opened);
        self.guards.reconcile(now, self.director.snapshot());
        self.drain(now);
    }

    /// Makes the next step of that.
    pub fn continue_apply(&mut self, now: Instant) {
        self.director.continue_apply(now);
        self.drain(now);
    }

    /// Whether there is another step.
    pub fn is_applying(&self) -> bool {
        self.director.is_applying()
    }

    /// How many configurations have been in force.
    pub fn generation(&self) -> u64 {
        self.director.generation()
    }

    /// Answers what concerns the core and the ports.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Response {
        let mut response = self.director.handle_command(now, command);
        if let Response::Status(report) = &mut response {
            self.complete(now, report);
        }
        // A command may change something that is to be sent or said.
        self.drain(now);
        response
    }

    /// Starts the commands that checks ask for.
    pub fn run_commands(&mut self, registry: &Registry) {
        while let Some(run) = self.director.poll_command_run() {
            self.commands.start(registry, run);
        }
    }

    /// Takes in how commands ended.
    pub fn handle_command_ends(&mut self, registry: &Registry) {
        let now = clock::now();
        for (run, result) in self.commands.ended(registry) {
            self.director.handle_command_end(now, run, result);
        }
        self.drain(now);
    }

    /// Adds what only the ports and the clock know.
    fn complete(&self, now: Instant, report: &mut StatusReport) {
        let started = SystemTime::now() - now.since(self.director.started());
        let at = |seconds| {
            let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            Some(clock::timestamp(started + since))
        };
        for conflict in &mut report.conflicts {
            conflict.first_at = at(conflict.first);
            conflict.last_at = at(conflict.last);
        }
        for segment in &mut report.segments {
            let status = self.ports.status(&segment.name).unwrap_or_default();
            segment.up = status.up;
            segment.send_errors = status.send_errors;
            segment.arp_guard = self.guards.report(&segment.name);
            segment.missed_frames = status.missed;
        }
    }

    /// Reads a burst, judges it, sends what comes of it.
    fn handle_burst(&mut self, registry: &Registry, now: Instant, segment: SegmentId) {
        let looks_twice = self.ports.has_urgent(segment);
        let mut urgent = if looks_twice { URGENT_MAX } else { 0 };
        self.handle_urgent(now, segment, &mut urgent);
        self.ports.receive(registry, now, segment, &mut self.batch);
        if looks_twice {
            // Those that were answered out of turn come once more, in it.
            self.batch.retain(|frame| !self.ports.is_handled(now, segment, frame));
        }
        let ways = &mut self.ways;
        self.director.handle_batch(now, segment, &mut self.batch, |index, verdict, tag| {
            ways[index] = way_of(verdict, tag);
        });
        // First what the director had: among it may be frames it held, and they are older than
        // those of this burst.
        self.transmit(now);
        for index in 0..self.batch.len() {
            // Sending a burst takes longer than anything else, half a millisecond where each frame
            // goes through a bridge.
            if index % URGENT_EVERY == 0 {
                self.handle_urgent(now, segment, &mut urgent);
            }
            if let Some(Way { egress, tag }) = self.ways[index] {
                self.batch.tag(index, tag);
                let frame = self.batch.frame(index);
                self.ports.send(now, egress, frame.bytes, frame.offload);
            }
        }
        self.ports.flush(now);
        self.log_events(now);
    }

    /// Answers ARP before anything else, while there is more than can be forwarded.
    fn handle_urgent(&mut self, now: Instant, segment: SegmentId, budget: &mut usize) {
        if *budget == 0 {
            return;
        }
        let mut buffer = [0; URGENT_LEN];
        let mut any = false;
        while let Some(bytes) = self.ports.receive_urgent(now, segment, budget, &mut buffer) {
            // ARP and neighbour discovery are never forwarded.
            let _ = self.director.handle_frame(now, segment, &mut Frame::from_wire(bytes));
            any = true;
        }
        if any {
            self.drain(now);
        }
    }

    /// Sends and logs what the director has to send and to say.
    fn drain(&mut self, now: Instant) {
        self.transmit(now);
        self.ports.flush(now);
        self.log_events(now);
    }

    fn transmit(&mut self, now: Instant) {
        while let Some(Transmit { egress, bytes, offload }) = self.director.poll_transmit() {
            match offload.tag {
                None => self.ports.send(now, egress, bytes, offload),
                Some(tag) => {
                    self.tagged.clear();
                    vlan::copy_tagged(&mut self.tagged, bytes, tag);
                    let mut offload = offload;
                    offload.tag = None;
                    offload.shift(TAG_LEN as i16);
                    self.ports.send(now, egress, &self.tagged, offload);
                }
            }
        }
    }

    fn log_events(&mut self, now: Instant) {
        while let Some(event) = self.director.poll_event() {
            if let Some(line) = self.event_log.handle(now, event) {
                print(&line);
            }
        }
    }

    /// Makes the ports those of the configuration in force.
    fn reconcile_ports(&mut self, registry: &Registry, now: Instant) -> Vec<Opened> {
        let snapshot = Arc::clone(self.director.snapshot());
        let segment_of =
            |name: &str| snapshot.segments.iter().find(|segment| *segment.name == *name);
        let segments = self.director.segments();
        let wanted: Vec<(SegmentId, &Segment)> = segments
            .iter()
            .filter_map(|(id, name)| segment_of(name).map(|segment| (*id, segment)))
            .collect();
        self.ports.reconcile(registry, now, &wanted)
    }

    fn handle_opened(&mut self, now: Instant, opened: Vec<Opened>) {
        for (segment, result) in opened {
            let name = self.segment_name(segment);
            match result {
                Ok(mtu) => {
                    self.director.device_opened(now, segment, mtu);
                    log::info!("segment {name}: open, MTU {mtu}");
                }
                Err(error) => log::error!("segment {name}: {error}; trying again"),
            }
        }
        // What is to be announced goes out at once.
        if self.director.poll_timeout().is_some_and(|at| at <= now) {
            self.director.handle_timeout(now);
        }
    }

    fn segment_name(&self, segment: SegmentId) -> Arc<str> {
        self.director.segment_name(segment).cloned().unwrap_or_else(|| "?".into())
    }
}

/// Where a frame goes, and with which VLAN tag.
#[derive(Clone, Copy)]
struct Way {
    egress: SegmentId,
    tag: Option<Tag>,
}

/// Where a frame goes on to, and with which tag, if it does.
fn way_of(verdict: Verdict, tag: Option<Tag>) -> Option<Way> {
    match verdict.action {
        Action::Forward { egress } => Some(Way { egress, tag }),
        Action::Fragment { .. }
        | Action::Reply
        | Action::Consume
        | Action::Hold
        | Action::Drop(_) => None,
    }
}

fn print(line: &Line) {
    match line.severity {
        Severity::Warning => log::warn!("{}", line.text),
        Severity::Info => log::info!("{}", line.text),
    }
}
