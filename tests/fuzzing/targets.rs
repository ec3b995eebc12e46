//! What is fuzzed, and what must hold whatever the input is. `cargo fuzz` drives these functions
//! by coverage (`fuzz/`), `tests/fuzz.rs` with seeded random inputs on every run of the tests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use vipr::config::{self, Snapshot};
use vipr::director::{
    Action, Command, Director, Instant, Limits, Response, SegmentId, TRANSMIT_QUEUE_MAX,
};
use vipr::wire::Frame;

use super::samples;

/// Few enough that the table fills and connections must give way.
const CONNECTIONS_MAX: usize = 8;
/// Timers that may fire at one moment before something must be wrong.
const TIMER_ROUNDS_MAX: usize = 10_000;
/// A frame that a mutation makes longer stays below this.
const FRAME_LEN_MAX: usize = 4096;

/// Takes any input.
pub type Target = fn(&[u8]);

/// The fuzz targets by name: `fuzz/fuzz_targets/` has a file for each.
pub const TARGETS: [(&str, Target); 3] =
    [("frame", frame), ("frames", frames), ("configuration", configuration)];

/// One frame on each segment of a fresh director: parse, verdict, answer.
pub fn frame(input: &[u8]) {
    let snapshot = &snapshots()[0];
    for segment in 0..snapshot.segments.len() {
        let mut lan = Lan::new(Arc::clone(snapshot));
        lan.offer(segment, input);
    }
}

/// A story: frames (made well and then damaged, or raw), time, reloads, orders. The input is a
/// list of steps; what it lacks at its end is zero.
pub fn frames(input: &[u8]) {
    let mut bytes = Bytes(input);
    let mut lan = Lan::new(Arc::clone(&snapshots()[0]));
    let samples = samples::all();
    while !bytes.0.is_empty() {
        match bytes.next() {
            0..=175 => {
                let segment = usize::from(bytes.next());
                let mut frame = samples[usize::from(bytes.next()) % samples.len()].clone();
                for _ in 0..bytes.next() % 4 {
                    damage(&mut frame, &mut bytes);
                }
                lan.offer(segment, &frame);
            }
            176..=191 => {
                let segment = usize::from(bytes.next());
                let len = usize::from(bytes.next()).min(bytes.0.len());
                let (raw, rest) = bytes.0.split_at(len);
                bytes.0 = rest;
                lan.offer(segment, raw);
            }
            192..=223 => lan.pass(Duration::from_millis(1 << (bytes.next() % 20))),
            224..=239 => {
                let which = usize::from(bytes.next());
                lan.reload(Arc::clone(&snapshots()[which % snapshots().len()]));
            }
            _ => lan.order(&mut bytes),
        }
    }
    // Whatever happened, everything comes to rest.
    lan.rest();
    lan.check_at_rest();
}

/// A configuration: refused with diagnostics that can be shown, or accepted and then good for
/// a start, and for a reload from and to another.
pub fn configuration(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match config::parse(&text, "fuzz.toml") {
        Err(diagnostics) => assert!(!diagnostics.to_string().is_empty()),
        Ok(snapshot) => {
            if snapshot.router.connections_max > 1 << 16 {
                return; // Only memory.
            }
            let snapshot = Arc::new(snapshot);
            let other = &snapshots()[0];
            assert_eq!(config::diff(&snapshot, &snapshot), Vec::<String>::new());
            let mut lan = Lan::new(Arc::clone(&snapshot));
            lan.reload(Arc::clone(other));
            lan.reload(snapshot);
            lan.pass(Duration::from_secs(30));
        }
    }
}

/// Changes a frame: a byte, a bit, its length.
fn damage(frame: &mut Vec<u8>, bytes: &mut Bytes<'_>) {
    let kind = bytes.next();
    let at = usize::from(u16::from_be_bytes([bytes.next(), bytes.next()]));
    let value = bytes.next();
    let len = frame.len().max(1);
    match (kind % 4, frame.get_mut(at % len)) {
        (0, Some(byte)) => *byte = value,
        (1, Some(byte)) => *byte ^= 1 << (value % 8),
        (2, _) => frame.truncate(at % len),
        (_, _) => frame.resize((frame.len() + usize::from(value)).min(FRAME_LEN_MAX), kind),
    }
}

/// The input as numbers.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }
}

/// A director and its time, and what must hold after everything that happens to it.
struct Lan {
    director: Director,
    snapshot: Arc<Snapshot>,
    now: Instant,
}

impl Lan {
    fn new(snapshot: Arc<Snapshot>) -> Lan {
        let now = Instant::from_nanos(1_000_000_000);
        let director = Director::new(now, Arc::clone(&snapshot), Limits::default(), 7);
        let mut lan = Lan { director, snapshot, now };
        lan.check();
        lan
    }

    fn offer(&mut self, segment: usize, frame: &[u8]) {
        let segments = self.director.segments();
        let Some((ingress, _)) = segments.get(segment % segments.len().max(1)) else { return };
        let mut bytes = frame.to_vec();
        let frame_in = &mut Frame::plain(&mut bytes);
        let verdict = self.director.handle_frame(self.now, *ingress, frame_in);
        if let Action::Forward { egress } | Action::Fragment { egress } = verdict.action {
            assert!(verdict.real_server.is_some(), "forwarded to somebody");
            assert_eq!(bytes[12..], frame[12..], "only the MAC addresses change");
            assert_eq!(bytes[6..12], self.mac_of(egress), "sent as the director");
            assert_ne!(bytes[..6], frame[..6], "sent on");
        } else {
            assert_eq!(bytes, frame, "a frame that is not forwarded stays as it is");
        }
        self.check();
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut rounds = 0;
        while let Some(due) = self.director.poll_timeout()
            && due <= until
        {
            // What is due at once may take several rounds, but not for ever.
            rounds = if due > self.now { 0 } else { rounds + 1 };
            assert!(rounds < TIMER_ROUNDS_MAX, "timers make no progress at {due:?}");
            self.now = self.now.max(due);
            self.director.handle_timeout(self.now);
            self.check();
        }
        self.now = until;
    }

    /// Lets an hour pass, in strides: each timeout at its own time would take nearly all of the
    /// fuzzer's.
    fn rest(&mut self) {
        for _ in 0..60 {
            self.now += Duration::from_secs(60);
            let mut rounds = 0;
            while self.director.poll_timeout().is_some_and(|due| due <= self.now) {
                rounds += 1;
                assert!(rounds < TIMER_ROUNDS_MAX, "timers make no progress at {:?}", self.now);
                self.director.handle_timeout(self.now);
                self.check();
            }
        }
    }

    fn reload(&mut self, next: Arc<Snapshot>) {
        self.director.apply(self.now, Arc::clone(&next));
        self.snapshot = next;
        self.check();
    }

    fn order(&mut self, bytes: &mut Bytes<'_>) {
        let service = format!("s{}", bytes.next() % 4);
        let real_server = format!("rs{}", bytes.next() % 4);
        let weight = Some(u32::from(bytes.next()) % 4).filter(|weight| *weight < 3);
        let command = Command::Weight { service, real_server, weight };
        self.director.handle_command(self.now, command);
        self.check();
    }

    /// What must hold at all times.
    fn check(&mut self) {
        let mut sent = 0;
        while let Some(transmit) = self.director.poll_transmit() {
            let (egress, source) = (transmit.egress, transmit.bytes[6..12].to_vec());
            assert_eq!(source, self.mac_of(egress), "sent as the director");
            sent += 1;
            assert!(sent <= TRANSMIT_QUEUE_MAX);
        }
        while self.director.poll_event().is_some() {}
        let counters = self.director.counters();
        assert!(counters.balance(), "{counters:?}");
        match self.director.handle_command(self.now, Command::Connections { cursor: 0 }) {
            Response::Connections(page) => assert!(page.connections.len() <= CONNECTIONS_MAX),
            other => panic!("{other:?}"),
        }
    }

    /// What must hold when no connection can be left: nothing is counted that is not there.
    fn check_at_rest(&mut self) {
        let status = match self.director.handle_command(self.now, Command::Status) {
            Response::Status(report) => *report,
            other => panic!("{other:?}"),
        };
        assert_eq!(status.connections.current, 0, "connections that never end");
        assert_eq!(status.counters.held, 0, "frames that are held for ever");
        for service in &status.services {
            assert!(service.configured, "{} is gone, and shown for ever", service.name);
            for found in service.real_servers.iter().chain(&service.sorry_server) {
                let counts = (found.active, found.inactive, found.templates);
                assert_eq!(counts, (0, 0, 0), "{}: {}", service.name, found.name);
            }
        }
    }

    fn mac_of(&self, segment: SegmentId) -> [u8; 6] {
        let name = self.director.segment_name(segment).expect("a segment has a name");
        let found = self.snapshot.segments.iter().find(|segment| segment.name == *name);
        found.expect("only segments that are configured are sent to").mac.0
    }
}

/// The configurations that the stories are about. The first is where they begin.
fn snapshots() -> &'static [Arc<Snapshot>] {
    static SNAPSHOTS: OnceLock<Vec<Arc<Snapshot>>> = OnceLock::new();
    SNAPSHOTS.get_or_init(|| {
        let parse = |text: &String| {
            let parsed = config::parse(text, "fuzz.toml");
            Arc::new(parsed.unwrap_or_else(|wrong| panic!("{wrong}")))
        };
        samples::configurations().iter().map(parse).collect()
    })
}
