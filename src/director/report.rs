//! What the director tells about itself: the JSON of `status` and `connections`, and what the
//! tables for people are made from. Field names are part of the interface.

use core::net::IpAddr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connections::ConnectionState;
use super::counters::Traffic;
use crate::config::snapshot::{AttachKind, Defend, Protocol, Role, SchedulerKind};
use crate::wire::MacAddr;

/// `vipr status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The router's name.
    pub name: String,
    pub version: String,
    /// How many configurations have been in force, this one included.
    pub generation: u64,
    pub uptime_seconds: u64,
    pub connections: ConnectionsSummary,
    pub services: Vec<ServiceReport>,
    pub segments: Vec<SegmentReport>,
    pub counters: CountersReport,
    pub conflicts: Vec<ConflictReport>,
    /// What was done about them.
    #[serde(default)]
    pub guardian: GuardianReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsSummary {
    pub current: u32,
    pub max: u32,
    /// Connections (half-open ones first, then closing ones) and templates that went early to make
    /// room.
    pub evicted: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    pub name: String,
    /// The first of what it listens on, `listen` has all of it.
    pub vip: IpAddr,
    pub protocol: Protocol,
    /// As the configuration writes it: `80`, `80,443`, `8000-8099`, `any`.
    pub ports: String,
    /// Everything it listens on, as in `192.0.2.10:80,443/tcp`.
    #[serde(default)]
    pub listen: Vec<String>,
    pub scheduler: SchedulerKind,
    /// What of its options is not as usual: `mh-port`, `mh-fallback`, `509 slots`.
    #[serde(default)]
    pub scheduler_options: Vec<String>,
    /// How often a table of the scheduler's own had no room (lblc, lblcr).
    #[serde(default)]
    pub scheduler_refused: u64,
    /// Seconds, if clients are persistent.
    pub persistence: Option<u64>,
    /// Whether it has its quorum, and any real server can take a connection.
    pub up: bool,
    /// Whether the sorry server gets its new connections.
    #[serde(default)]
    pub diverted: bool,
    /// The weights of the real servers that are up, and how many are needed.
    #[serde(default)]
    pub live_weight: u64,
    #[serde(default)]
    pub quorum: u32,
    /// False once the configuration has dropped the service but connections of it remain.
    pub configured: bool,
    #[serde(flatten)]
    pub traffic: Traffic,
    pub rates: Rates,
    pub real_servers: Vec<RealServerReport>,
    /// Who gets new connections while the service is down.
    #[serde(default)]
    pub sorry_server: Option<RealServerReport>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealServerReport {
    pub name: String,
    pub address: IpAddr,
    pub segment: String,
    pub mac: Option<MacAddr>,
    /// The weight in force.
    pub weight: u32,
    /// The weight in the configuration: another one if it was overridden by hand.
    #[serde(default)]
    pub configured_weight: u32,
    pub state: RealServerState,
    /// What its check says, if it is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckReport>,
    pub active: u32,
    pub inactive: u32,
    /// Persistence templates that point at it.
    #[serde(default)]
    pub templates: u32,
    /// As configured; 0 for none.
    #[serde(default)]
    pub upper_threshold: u32,
    #[serde(default)]
    pub lower_threshold: u32,
    #[serde(flatten)]
    pub traffic: Traffic,
    pub rates: Rates,
}

/// Whether a real server gets new connections, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RealServerState {
    /// It gets new connections.
    Up,
    /// Its MAC is being looked for; its first frames are held.
    Resolving,
    /// It answers neither ARP nor ND, or its check fails: no new connections.
    Down,
    /// Weight 0: connections stay, none are added.
    Quiesced,
    /// At its upper threshold.
    Overloaded,
    /// No longer configured; its connections finish.
    Draining,
    /// The sorry server, up: it gets new connections while its service is down.
    Sorry,
}

/// What the checks of a real server say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// `tcp`, `http`, ….
    pub kind: String,
    /// Whether it gets connections as far as its check is concerned.
    pub healthy: bool,
    /// Whether one is under way.
    pub running: bool,
    pub passed: u64,
    pub failed: u64,
    /// Checks that began more than a second too late.
    pub late: u64,
    /// Checks in a row that say the opposite of `healthy`.
    pub against: u32,
    pub interval_seconds: f64,
    pub last: Option<LastCheckReport>,
    /// How long those took that passed: the count of each class, up to `le` seconds; the last has
    /// no bound.
    pub latency: Vec<LatencyBucket>,
    pub latency_sum_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastCheckReport {
    pub passed: bool,
    /// Why it failed.
    pub reason: Option<String>,
    pub latency_seconds: f64,
    /// How long ago it ended.
    pub age_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyBucket {
    pub le: Option<f64>,
    pub count: u64,
}

/// Moving averages as IPVS keeps them (sampled every 2 s, weight 1/4), per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    pub connections_per_second: u64,
    pub packets_per_second: u64,
    pub bytes_per_second: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentReport {
    pub name: String,
    pub role: Role,
    #[serde(default)]
    pub attach: AttachKind,
    /// The device that its frames come from: the TAP, or the interface.
    pub tap: String,
    pub bridge: Option<String>,
    pub mac: MacAddr,
    pub mtu: u16,
    pub addresses: Vec<String>,
    /// What is done about other claimants of a VIP; none where there are no VIPs.
    #[serde(default)]
    pub defend: Option<Defend>,
    /// The guard of its bridge, if there is to be one.
    #[serde(default)]
    pub arp_guard: Option<ArpGuardReport>,
    /// Frames and bytes that arrived.
    pub received_frames: u64,
    pub received_bytes: u64,
    /// Frames and bytes handed to the port.
    pub sent_frames: u64,
    pub sent_bytes: u64,
    /// Frames on their way here that the device lost for want of room, as it counts them itself
    /// since it was made or opened.
    #[serde(default)]
    pub missed_frames: u64,
    /// Frames the port would not take; 0 where there is no port (`replay`).
    #[serde(default)]
    pub send_errors: u64,
    /// Whether the port works; true where there is none.
    pub up: bool,
}

/// The frame balance, and every drop reason by name (zeros included).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountersReport {
    pub received: u64,
    pub forwarded: u64,
    pub replied: u64,
    pub consumed: u64,
    pub held: u64,
    pub dropped: u64,
    pub drops: BTreeMap<String, u64>,
}

/// Someone else who claims a VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConflictReport {
    pub vip: IpAddr,
    pub segment: String,
    pub mac: MacAddr,
    pub real_server: Option<String>,
    /// Seconds since the router started, of the first and the last claim.
    pub first: f64,
    pub last: f64,
    /// The same as times of day, in UTC; none where there is no clock (`replay`).
    #[serde(default)]
    pub first_at: Option<String>,
    #[serde(default)]
    pub last_at: Option<String>,
    pub count: u64,
}

/// How the guard of a bridge is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArpGuardReport {
    pub active: bool,
    /// Why it is not.
    pub error: Option<String>,
    /// Claims to a VIP that it kept from the segment.
    pub blocked: u64,
}

/// What was done to find out about claims to VIPs, and against them, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardianReport {
    /// Times the director asked for a VIP of its own.
    pub asked: u64,
    /// Claims answered by an announcement.
    pub defended: u64,
    /// Frames that told a single station who has a VIP, and such that were held back because they
    /// were too many.
    pub repaired: u64,
    pub repairs_refused: u64,
    /// Stations remembered because they asked for a VIP, and such that found no room.
    pub stations: u64,
    pub stations_refused: u64,
    /// Connections taken up that had gone to a claimant, and segments that may have been of one
    /// when there were several claimants.
    pub adopted: u64,
    /// Connections opened to a claimant because it was open whom the client believes.
    #[serde(default)]
    pub contested: u64,
    pub unknowable: u64,
}

/// One line of `vipr connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionReport {
    pub protocol: Protocol,
    /// Whole seconds until it expires.
    pub expires_seconds: u64,
    pub state: ConnectionState,
    pub client: IpAddr,
    pub client_port: u16,
    pub vip: IpAddr,
    pub virtual_port: u16,
    pub service: String,
    pub real_server: String,
    pub real_server_address: IpAddr,
}

/// A page of `vipr connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionsPage {
    pub connections: Vec<ConnectionReport>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<u32>,
}
