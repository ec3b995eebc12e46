//! A director between two segments with everything that is said to it and by it at hand.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use vipr::config;
use vipr::director::{
    Action, Command, Director, DropReason, Event, Instant, Limits, Response, SegmentId, Verdict,
    report::{ConnectionReport, StatusReport},
};
use vipr::wire::vlan::{self, Tag};
use vipr::wire::{Frame, MacAddr};

pub mod frames;
pub mod frames6;
pub mod servers;

/// The director's MACs, the stations' and the addresses that all configurations here use.
pub const FRONT_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0x01, 0x01]);
pub const BACK_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0x01, 0x02]);
pub const CLIENT_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xc1]);
pub const RS1_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x11]);
pub const RS2_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x12]);
pub const RS3_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x13]);
/// The card of rs1 on the VIP segment.
pub const RS1_FRONT_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 1, 0x11]);
pub const CLIENT: [u8; 4] = [198, 51, 100, 7];
pub const VIP: [u8; 4] = [192, 0, 2, 10];
pub const FRONT_DIP: [u8; 4] = [192, 0, 2, 2];
pub const BACK_DIP: [u8; 4] = [10, 0, 0, 1];
pub const RS1: [u8; 4] = [10, 0, 0, 11];
pub const RS2: [u8; 4] = [10, 0, 0, 12];
pub const RS3: [u8; 4] = [10, 0, 0, 13];

/// Both segments, without services.
pub const SEGMENTS: &str = r#"
[segment.front]
role = "vip"
tap = "vipr-front"
mac = "02:00:00:00:01:01"
address = ["192.0.2.2/24"]

[segment.back]
role = "backend"
tap = "vipr-back"
mac = "02:00:00:00:01:02"
address = ["10.0.0.1/24"]
"#;

/// One service on port 80, three real servers with static MACs, weights 4, 3, 2.
pub fn web() -> String {
    format!(
        r#"{SEGMENTS}
[[service]]
name = "web"
vip = "192.0.2.10"
protocol = "tcp"
ports = 80
scheduler = "wrr"
{}{}{}"#,
        real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]"),
        real_server("rs2", 12, 3, ""),
        real_server("rs3", 13, 2, ""),
    )
}

/// A real server with a static MAC that ends like its address.
pub fn real_server(name: &str, last: u8, weight: u32, more: &str) -> String {
    format!(
        r#"
[[service.real_server]]
name = "{name}"
address = "10.0.0.{last}"
mac = "52:54:00:00:00:{last}"
segment = "back"
weight = {weight}
{more}
"#
    )
}

/// A frame the director sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub segment: String,
    pub bytes: Vec<u8>,
}

/// A director, its clock, and all it has sent and told since last asked.
pub struct World {
    pub director: Director,
    pub now: Instant,
    pub sent: Vec<Sent>,
    pub events: Vec<Event>,
}

impl World {
    /// A director with this configuration, its first announcements sent.
    pub fn new(toml: &str) -> World {
        World::with_limits(toml, Limits::default())
    }

    pub fn with_limits(toml: &str, limits: Limits) -> World {
        let now = Instant::from_nanos(1_000_000_000);
        let director = Director::new(now, snapshot(toml), limits, 7);
        let mut world = World { director, now, sent: Vec::new(), events: Vec::new() };
        world.advance(Duration::ZERO);
        world
    }

    pub fn segment(&self, name: &str) -> SegmentId {
        let segments = self.director.segments();
        let found = segments.iter().find(|(_, found)| &**found == name);
        found.unwrap_or_else(|| panic!("no segment {name}")).0
    }

    /// Offers a frame; what came of it, and the bytes as they are then.
    pub fn offer(&mut self, segment: &str, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut bytes = frame.to_vec();
        let segment = self.segment(segment);
        let mut frame = Frame::from_wire(&mut bytes);
        let verdict = self.director.handle_frame(self.now, segment, &mut frame);
        let bytes = on_wire(frame.bytes, frame.offload.tag);
        if let Action::Forward { egress } = verdict.action {
            let name = self.director.segment_name(egress).unwrap().to_string();
            self.sent.push(Sent { segment: name, bytes: bytes.clone() });
        }
        self.drain();
        assert!(self.director.counters().balance(), "{:?}", self.director.counters());
        (verdict, bytes)
    }

    /// Offers a frame; what came of it in words: `forwarded rs1`, `dropped not_vip`, ….
    pub fn tell(&mut self, segment: &str, frame: &[u8]) -> String {
        let (verdict, _) = self.offer(segment, frame);
        let real_server =
            verdict.real_server.and_then(|id| self.director.real_server_name(id)).cloned();
        let about = real_server.map_or_else(String::new, |name| format!(" {name}"));
        match verdict.action {
            Action::Forward { .. } => format!("forwarded{about}"),
            Action::Fragment { .. } => format!("fragmented{about}"),
            Action::Reply => "replied".to_owned(),
            Action::Consume => "consumed".to_owned(),
            Action::Hold => format!("held{about}"),
            Action::Drop(reason) => format!("dropped {}{about}", reason.name()),
        }
    }

    /// Lets time pass, doing what is due when it is due.
    pub fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.director.poll_timeout()
            && due <= until
        {
            self.now = self.now.max(due);
            self.director.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
        assert!(self.director.counters().balance(), "{:?}", self.director.counters());
    }

    /// Lets time pass in small steps, in which the LAN answers what the director sends: each frame
    /// with frames, and the segments they come by.
    pub fn converse(
        &mut self,
        time: Duration,
        mut answer: impl FnMut(Instant, &Sent) -> Vec<(String, Vec<u8>)>,
    ) {
        let until = self.now + time;
        loop {
            let sent = self.take_sent();
            let answers: Vec<_> = sent.iter().flat_map(|frame| answer(self.now, frame)).collect();
            for (segment, frame) in &answers {
                self.offer(segment, frame);
            }
            if !answers.is_empty() {
                continue;
            }
            match self.director.poll_timeout() {
                Some(due) if due <= until => self.advance(due.since(self.now)),
                _ => break,
            }
        }
        self.advance(until.since(self.now));
    }

    /// Everything sent since last asked.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// The single frame sent since last asked, on this segment.
    pub fn take_one(&mut self, segment: &str) -> Vec<u8> {
        let mut sent = self.take_sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        let one = sent.remove(0);
        assert_eq!(one.segment, segment);
        one.bytes
    }

    /// The events since last asked, as the lines of a log.
    pub fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events).iter().map(ToString::to_string).collect()
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.director.counters().drops(reason)
    }

    /// Gives an order, and takes in what is sent for it.
    pub fn command(&mut self, command: Command) -> Response {
        let response = self.director.handle_command(self.now, command);
        self.drain();
        response
    }

    pub fn status(&mut self) -> StatusReport {
        match self.director.handle_command(self.now, Command::Status) {
            Response::Status(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    /// The whole connection table.
    pub fn connections(&mut self) -> Vec<ConnectionReport> {
        let mut all = Vec::new();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            match self.director.handle_command(self.now, Command::Connections { cursor: from }) {
                Response::Connections(page) => {
                    all.extend(page.connections);
                    cursor = page.next;
                }
                other => panic!("{other:?}"),
            }
        }
        all
    }

    /// Takes what the director has to send and to tell.
    pub fn drain(&mut self) {
        while let Some(transmit) = self.director.poll_transmit() {
            let (egress, tag) = (transmit.egress, transmit.offload.tag);
            let bytes = on_wire(transmit.bytes, tag);
            let segment = self.director.segment_name(egress).unwrap().to_string();
            self.sent.push(Sent { segment, bytes });
        }
        while let Some(event) = self.director.poll_event() {
            self.events.push(event);
        }
    }
}

/// A frame with its tag in it.
fn on_wire(bytes: &[u8], tag: Option<Tag>) -> Vec<u8> {
    let mut frame = Vec::new();
    match tag {
        Some(tag) => vlan::copy_tagged(&mut frame, bytes, tag),
        None => frame.extend(bytes),
    }
    frame
}

/// A configuration that must be right.
pub fn snapshot(toml: &str) -> Arc<config::Snapshot> {
    Arc::new(config::parse(toml, "test.toml").unwrap_or_else(|wrong| panic!("{wrong}")))
}
