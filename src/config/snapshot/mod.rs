//! The validated configuration, as the core reads it. Immutable; a reload makes a new one.
//!
//! Whoever holds a `Snapshot` may rely on what validation promises:
//! names are unique and not empty; every real server's segment exists and has a backend role;
//! MAC addresses are stations' (neither groups nor zero); no VIP is a RIP or a DIP; no two
//! services claim the same VIP, protocol and port with equal precision.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::check::{Check, CheckKind, HttpsCheck, Trust};
use crate::wire::MacAddr;
use crate::wire::vlan::Vlan;

/// Everything the TOML file says, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub router: Router,
    pub announce: Announce,
    pub timeouts: Timeouts,
    /// In the order of the file.
    pub segments: Vec<Segment>,
    /// In the order of the file.
    pub services: Vec<Arc<Service>>,
}

impl Snapshot {
    /// Makes this snapshot and an earlier one share the services and real servers they have in
    /// common, so that who compares them can tell at a glance.
    pub fn share(&mut self, earlier: &Snapshot) {
        let known: HashMap<&[Endpoint], &Arc<Service>> =
            earlier.services.iter().map(|service| (&*service.listen, service)).collect();
        for service in &mut self.services {
            let Some(&same) = known.get(&*service.listen) else { continue };
            if same == service {
                *service = Arc::clone(same);
            } else if let Some(service) = Arc::get_mut(service) {
                service.share(same);
            }
        }
    }

    /// Whether its text names files, so that the same text may mean something else later.
    pub fn names_files(&self) -> bool {
        let trusts = |check: &Check| {
            matches!(&check.kind, CheckKind::Https(HttpsCheck { trust: Some(_), .. }))
        };
        self.services.iter().any(|service| service.check.as_deref().is_some_and(trusts))
    }

    /// Takes in the files that it names, each once, as `read` gives their text. A snapshot that is to
    /// be run needs this.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn take_in_files(
        &mut self,
        mut read: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        let mut known: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        for service in &mut self.services {
            let Some(check) = &service.check else { continue };
            let CheckKind::Https(HttpsCheck { trust: Some(Trust { path, .. }), .. }) = &check.kind
            else {
                continue;
            };
            let path = Arc::clone(path);
            let text = match known.get(&path) {
                Some(text) => Arc::clone(text),
                None => read(&path)
                    .map_err(|error| format!("service {}: ca {path}: {error}", service.name))?
                    .into(),
            };
            let check = Arc::make_mut(service).check.as_mut().map(Arc::make_mut);
            if let Some(CheckKind::Https(HttpsCheck { trust: Some(trust), .. })) =
                check.map(|check| &mut check.kind)
            {
                trust.pem = Arc::clone(&text);
            }
            known.insert(path, text);
        }
        Ok(())
    }
}

/// `[router]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    pub name: Arc<str>,
    pub control_socket: PathBuf,
    /// Where Prometheus text is served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The capacity of the connection table.
    pub connections_max: u32,
    pub unmatched: Unmatched,
    /// Where a clean stop leaves the connections for the next start, if anywhere.
    pub state: Option<PathBuf>,
    /// A start takes up connections that were left at most this long ago.
    pub state_max_age: Duration,
}

/// What VIP traffic gets that belongs to no service and no connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// TCP RST, ICMP port unreachable.
    #[default]
    Reject,
    /// Nothing.
    Drop,
}

/// `[announce]`: how a VIP makes itself known (gratuitous ARP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Announcements at once when a VIP comes up.
    pub count: u8,
    /// Announcements in the second burst.
    pub repeat: u8,
    /// From the first burst to the second.
    pub repeat_after: Duration,
    /// One announcement a VIP segment this often, so that no bridge forgets the director's MAC.
    /// Zero: never.
    pub refresh: Duration,
}

impl Default for Announce {
    /// keepalived's 5 + 5 after 5 s. A bridge forgets a silent station after 300 s, so 60 s.
    fn default() -> Announce {
        Announce {
            count: 5,
            repeat: 5,
            repeat_after: Duration::from_secs(5),
            refresh: Duration::from_secs(60),
        }
    }
}

/// `[timeouts]`: how long an idle connection is kept, by state. Defaults are IPVS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp_none: Duration,
    pub tcp_established: Duration,
    pub tcp_syn_sent: Duration,
    pub tcp_syn_recv: Duration,
    pub tcp_fin_wait: Duration,
    pub tcp_time_wait: Duration,
    pub tcp_close: Duration,
    pub tcp_close_wait: Duration,
    pub tcp_last_ack: Duration,
    pub tcp_listen: Duration,
    pub tcp_synack: Duration,
    pub udp: Duration,
    pub sctp_none: Duration,
    pub sctp_init1: Duration,
    pub sctp_init: Duration,
    pub sctp_cookie_sent: Duration,
    pub sctp_cookie_replied: Duration,
    pub sctp_cookie_wait: Duration,
    pub sctp_cookie: Duration,
    pub sctp_cookie_echoed: Duration,
    pub sctp_established: Duration,
    pub sctp_shutdown_sent: Duration,
    pub sctp_shutdown_received: Duration,
    pub sctp_shutdown_ack_sent: Duration,
    pub sctp_rejected: Duration,
    pub sctp_closed: Duration,
}

impl Timeouts {
    /// Each timeout with its key in the configuration.
    pub fn by_name(&self) -> [(&'static str, Duration); 26] {
        [
            ("tcp_none", self.tcp_none),
            ("tcp_established", self.tcp_established),
            ("tcp_syn_sent", self.tcp_syn_sent),
            ("tcp_syn_recv", self.tcp_syn_recv),
            ("tcp_fin_wait", self.tcp_fin_wait),
            ("tcp_time_wait", self.tcp_time_wait),
            ("tcp_close", self.tcp_close),
            ("tcp_close_wait", self.tcp_close_wait),
            ("tcp_last_ack", self.tcp_last_ack),
            ("tcp_listen", self.tcp_listen),
            ("tcp_synack", self.tcp_synack),
            ("udp", self.udp),
            ("sctp_none", self.sctp_none),
            ("sctp_init1", self.sctp_init1),
            ("sctp_init", self.sctp_init),
            ("sctp_cookie_sent", self.sctp_cookie_sent),
            ("sctp_cookie_replied", self.sctp_cookie_replied),
            ("sctp_cookie_wait", self.sctp_cookie_wait),
            ("sctp_cookie", self.sctp_cookie),
            ("sctp_cookie_echoed", self.sctp_cookie_echoed),
            ("sctp_established", self.sctp_established),
            ("sctp_shutdown_sent", self.sctp_shutdown_sent),
            ("sctp_shutdown_received", self.sctp_shutdown_received),
            ("sctp_shutdown_ack_sent", self.sctp_shutdown_ack_sent),
            ("sctp_rejected", self.sctp_rejected),
            ("sctp_closed", self.sctp_closed),
        ]
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let seconds = Duration::from_secs;
        Timeouts {
            tcp_none: seconds(2),
            tcp_established: seconds(900),
            tcp_syn_sent: seconds(120),
            tcp_syn_recv: seconds(60),
            tcp_fin_wait: seconds(120),
            tcp_time_wait: seconds(120),
            tcp_close: seconds(10),
            tcp_close_wait: seconds(60),
            tcp_last_ack: seconds(30),
            tcp_listen: seconds(120),
            tcp_synack: seconds(120),
            udp: seconds(300),
            sctp_none: seconds(2),
            sctp_init1: seconds(4),
            sctp_init: seconds(61),
            sctp_cookie_sent: seconds(61),
            sctp_cookie_replied: seconds(61),
            sctp_cookie_wait: seconds(61),
            sctp_cookie: seconds(61),
            sctp_cookie_echoed: seconds(61),
            sctp_established: seconds(900),
            sctp_shutdown_sent: seconds(61),
            sctp_shutdown_received: seconds(61),
            sctp_shutdown_ack_sent: seconds(61),
            sctp_rejected: seconds(4),
            sctp_closed: seconds(61),
        }
    }
}

/// `[segment.NAME]`: one Ethernet segment the director has a port on.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub name: Arc<str>,
    pub role: Role,
    /// How frames come and go.
    pub attach: Attach,
    /// Whether frames may be larger than the MTU, and have their checksums completed by whoever
    /// puts them on a wire.
    pub offload: OffloadMode,
    /// The VLAN whose frames are this segment's; `None` for frames without a tag. Segments with
    /// different ones may share a TAP.
    pub vlan: Option<Vlan>,
    /// The director's own MAC here: configured, or derived from the router's and segment's names.
    pub mac: MacAddr,
    /// Configured MTU in bytes of the IP packet; `None` takes the device's.
    pub mtu: Option<u16>,
    /// The director's own addresses (DIPs) here, with their prefixes.
    pub addresses: Vec<IpNet>,
    /// What is done when someone else claims a VIP here.
    pub defend: Defend,
    /// Whether the bridge lets nobody but the director claim a VIP. Only with a bridge, and only
    /// where there are VIPs.
    pub arp_guard: bool,
}

/// `defend`: what is done when someone else claims a VIP on a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Defend {
    /// It is told.
    Off,
    /// The VIP is announced again, no more often than RFC 5227 has it.
    Announce,
    /// That, and each station that asks for the VIP is told by unicast who has it, until it is
    /// sure to know.
    #[default]
    Repair,
}

impl Defend {
    pub const ALL: [Defend; 3] = [Defend::Off, Defend::Announce, Defend::Repair];

    /// The word in the configuration and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Defend::Off => "off",
            Defend::Announce => "announce",
            Defend::Repair => "repair",
        }
    }
}

impl Segment {
    /// The device that the director's frames come from: the TAP, or the interface; of sockets the
    /// first.
    pub fn device(&self) -> &Arc<str> {
        match &self.attach {
            Attach::Tap { tap, .. } => tap,
            Attach::Packet { interface } | Attach::Xdp { interface } => interface,
            Attach::Qemu { sockets } => sockets.first(),
        }
    }

    /// The bridge that the TAP is a port of, if any.
    pub fn bridge(&self) -> Option<&Arc<str>> {
        match &self.attach {
            Attach::Tap { bridge, .. } => bridge.as_ref(),
            Attach::Packet { .. } | Attach::Xdp { .. } | Attach::Qemu { .. } => None,
        }
    }

    /// The card that joins the bridge, if any.
    pub fn uplink(&self) -> Option<&Uplink> {
        match &self.attach {
            Attach::Tap { uplink, .. } => uplink.as_ref(),
            Attach::Packet { .. } | Attach::Xdp { .. } | Attach::Qemu { .. } => None,
        }
    }
}

/// How a segment is attached to the host. Names of devices have at most 15 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// By a TAP of the director's own, and the bridge that it joins, if any.
    /// The uplink is a card that joins the bridge too, and so the segment to the outside.
    Tap { tap: Arc<str>, bridge: Option<Arc<str>>, uplink: Option<Uplink> },
    /// By a packet socket on an interface of the host.
    Packet { interface: Arc<str> },
    /// By an XDP socket on an interface of the host.
    Xdp { interface: Arc<str> },
    /// By Unix sockets whose other ends are network cards of virtual machines.
    Qemu { sockets: Sockets },
}

/// Where virtual machines are connected. There is at least one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    first: Arc<str>,
    listens: bool,
    others: Vec<Arc<str>>,
}

impl Sockets {
    /// A socket that machines connect to, or some that machines listen on, or both; `None` if
    /// there is neither.
    pub fn new(listen: Option<Arc<str>>, mut connect: Vec<Arc<str>>) -> Option<Sockets> {
        if let Some(first) = listen {
            return Some(Sockets { first, listens: true, others: connect });
        }
        if connect.is_empty() {
            return None;
        }
        Some(Sockets { first: connect.remove(0), listens: false, others: connect })
    }

    /// Any machine may connect here.
    pub fn listen(&self) -> Option<&Arc<str>> {
        self.listens.then_some(&self.first)
    }

    /// One machine listens at each of these.
    pub fn connect(&self) -> impl Iterator<Item = &Arc<str>> {
        (!self.listens).then_some(&self.first).into_iter().chain(&self.others)
    }

    fn first(&self) -> &Arc<str> {
        &self.first
    }
}

impl Attach {
    pub const fn kind(&self) -> AttachKind {
        match self {
            Attach::Tap { .. } => AttachKind::Tap,
            Attach::Packet { .. } => AttachKind::Packet,
            Attach::Xdp { .. } => AttachKind::Xdp,
            Attach::Qemu { .. } => AttachKind::Qemu,
        }
    }
}

/// The ways to attach a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachKind {
    #[default]
    Tap,
    Packet,
    Xdp,
    Qemu,
}

impl AttachKind {
    pub const ALL: [AttachKind; 4] =
        [AttachKind::Tap, AttachKind::Packet, AttachKind::Xdp, AttachKind::Qemu];

    pub const fn name(self) -> &'static str {
        match self {
            AttachKind::Tap => "tap",
            AttachKind::Packet => "packet",
            AttachKind::Xdp => "xdp",
            AttachKind::Qemu => "qemu",
        }
    }
}

/// Whether a segment's port does without whole frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffloadMode {
    /// Wherever every port can.
    #[default]
    Auto,
    /// Never: frames as they would be on a wire.
    Off,
}

/// How a card is known: by its name on this machine, or by the MAC address it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Uplink {
    Name(Arc<str>),
    Mac(MacAddr),
}

impl core::fmt::Display for Uplink {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Uplink::Name(name) => f.write_str(name),
            Uplink::Mac(mac) => mac.fmt(f),
        }
    }
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Clients (or their router) are here, and VIPs are announced.
    Vip,
    /// Real servers are here.
    Backend,
    /// One-armed: both.
    Both,
}

impl Role {
    /// Whether VIPs are answered for and served here.
    pub const fn has_vips(self) -> bool {
        matches!(self, Role::Vip | Role::Both)
    }

    /// Whether real servers may be here.
    pub const fn has_real_servers(self) -> bool {
        matches!(self, Role::Backend | Role::Both)
    }
}

/// `[[service]]`: a virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: Arc<str>,
    /// What it serves; what tells it from every other service. Sorted, never empty, each VIP with
    /// each protocol at most once.
    pub listen: Arc<[Endpoint]>,
    pub scheduler: SchedulerKind,
    pub scheduler_options: SchedulerOptions,
    pub persistence: Option<Persistence>,
    /// UDP only: each datagram is scheduled by itself.
    pub one_packet: bool,
    /// A TCP segment that is no SYN may open a connection, too.
    pub sloppy_tcp: bool,
    /// An SCTP packet that is no INIT may open a connection, too.
    pub sloppy_sctp: bool,
    /// A persistent client leaves a real server whose weight is 0.
    pub expire_quiescent: bool,
    /// A connection whose real server is down ends with its next packet, which is then treated as
    /// if it belonged to none.
    pub expire_nodest: bool,
    /// The service is up while the weights of its real servers that are up add to this.
    pub quorum: u32,
    /// So much below the quorum it goes down, and so much above it up again.
    pub quorum_hysteresis: u32,
    /// Gets new connections while the service is down.
    pub sorry_server: Option<Arc<RealServer>>,
    pub on_removal: OnRemoval,
    /// TCP only: a SYN that comes again without an answer goes to another real server.
    pub syn_rescue: bool,
    /// How its real servers are checked, if at all.
    pub check: Option<Arc<Check>>,
    pub real_servers: Vec<Arc<RealServer>>,
}

impl Service {
    fn share(&mut self, earlier: &Service) {
        let known: HashMap<(IpAddr, &str), &Arc<RealServer>> =
            earlier.real_servers.iter().map(|server| (server.key(), server)).collect();
        for real_server in &mut self.real_servers {
            let Some(&same) = known.get(&real_server.key()) else { continue };
            if same == real_server {
                *real_server = Arc::clone(same);
            } else if let Some(real_server) = Arc::get_mut(real_server)
                && real_server.name == same.name
            {
                real_server.name = Arc::clone(&same.name);
            }
        }
    }

    /// `VIP:port/protocol`, of a group all of them: what a service is called that has no name.
    pub fn endpoint(&self) -> String {
        endpoints(&self.listen)
    }

    /// The first of what it listens on.
    pub fn first(&self) -> &Endpoint {
        &self.listen[0]
    }

    /// Whether it listens on a transport.
    pub fn has_protocol(&self, protocol: Protocol) -> bool {
        self.listen.iter().any(|endpoint| endpoint.protocol == protocol)
    }

    /// The prefix lengths that persistence goes by, for the families of its VIPs: `24`, `24 /64`.
    pub fn netmasks(&self) -> Option<String> {
        let Persistence { netmask_v4, netmask_v6, .. } = self.persistence?;
        let has = |v4: bool| self.listen.iter().any(|endpoint| endpoint.vip.is_ipv4() == v4);
        Some(match (has(true), has(false)) {
            (true, true) => format!("{netmask_v4} /{netmask_v6}"),
            (true, false) => netmask_v4.to_string(),
            (false, _) => netmask_v6.to_string(),
        })
    }
}

/// A VIP with the L4 ports of one transport that a service serves there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    pub vip: IpAddr,
    pub protocol: Protocol,
    pub ports: Ports,
}

impl fmt::Display for Endpoint {
    /// `192.0.2.10:80/tcp`, `[2001:db8::10]:80,443/tcp`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { vip, protocol, ports } = self;
        match vip {
            IpAddr::V4(vip) => write!(formatter, "{vip}:{ports}/{protocol}"),
            IpAddr::V6(vip) => write!(formatter, "[{vip}]:{ports}/{protocol}"),
        }
    }
}

/// `192.0.2.10:80,443/tcp + 192.0.2.10:443/udp`.
pub fn endpoints(listen: &[Endpoint]) -> String {
    listen.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" + ")
}

/// The transport of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The protocol number of the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The transport with this protocol number, if it is one that is balanced.
    pub const fn from_number(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// The L4 ports of a service. An exact port beats a range, a range beats any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ports {
    /// Every port.
    Any,
    /// Sorted, without duplicates or overlaps, never empty.
    Some(Vec<PortRange>),
}

impl Ports {
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Ports::Any => true,
            Ports::Some(ranges) => ranges.iter().any(|range| range.contains(port)),
        }
    }
}

/// Ports `first..=last`; a single port when both are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    pub const fn is_exact(self) -> bool {
        self.first == self.last
    }
}

impl fmt::Display for Ports {
    /// `80`, `80,443`, `8000-8099`, or `any`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Ports::Any => "any".to_owned(),
            Ports::Some(ranges) => ranges
                .iter()
                .map(|range| {
                    if range.is_exact() {
                        range.first.to_string()
                    } else {
                        format!("{}-{}", range.first, range.last)
                    }
                })
                .collect::<Vec<_>>()
                .join(","),
        };
        formatter.pad(&text)
    }
}

/// The fourteen scheduling algorithms of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerKind {
    Rr,
    Wrr,
    Lc,
    Wlc,
    Sed,
    Nq,
    Sh,
    Dh,
    Mh,
    Fo,
    Ovf,
    Twos,
    Lblc,
    Lblcr,
}

impl SchedulerKind {
    pub const ALL: [SchedulerKind; 14] = [
        SchedulerKind::Rr,
        SchedulerKind::Wrr,
        SchedulerKind::Lc,
        SchedulerKind::Wlc,
        SchedulerKind::Sed,
        SchedulerKind::Nq,
        SchedulerKind::Sh,
        SchedulerKind::Dh,
        SchedulerKind::Mh,
        SchedulerKind::Fo,
        SchedulerKind::Ovf,
        SchedulerKind::Twos,
        SchedulerKind::Lblc,
        SchedulerKind::Lblcr,
    ];

    /// The name in the configuration and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            SchedulerKind::Rr => "rr",
            SchedulerKind::Wrr => "wrr",
            SchedulerKind::Lc => "lc",
            SchedulerKind::Wlc => "wlc",
            SchedulerKind::Sed => "sed",
            SchedulerKind::Nq => "nq",
            SchedulerKind::Sh => "sh",
            SchedulerKind::Dh => "dh",
            SchedulerKind::Mh => "mh",
            SchedulerKind::Fo => "fo",
            SchedulerKind::Ovf => "ovf",
            SchedulerKind::Twos => "twos",
            SchedulerKind::Lblc => "lblc",
            SchedulerKind::Lblcr => "lblcr",
        }
    }
}

/// `scheduler_options = { … }`: each is for some schedulers only; the others have the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// sh, mh: the client's port counts too (`sh-port`, `mh-port`).
    pub port: bool,
    /// sh, mh: another real server when the client's own cannot be chosen (`sh-fallback`,
    /// `mh-fallback`).
    pub fallback: bool,
    /// mh: slots of the table, one of [`MH_TABLE_SIZES`].
    pub table_size: u32,
    /// lblc, lblcr: how long a destination is remembered that gets no connections, and lblcr:
    /// after how long without a change a set loses its most loaded member.
    pub expiration: Duration,
}

/// The table sizes of IPVS's Kconfig: the largest primes below powers of two.
pub const MH_TABLE_SIZES: [u32; 10] =
    [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

impl Default for SchedulerOptions {
    /// IPVS's.
    fn default() -> SchedulerOptions {
        SchedulerOptions {
            port: false,
            fallback: false,
            table_size: 4093,
            expiration: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl SchedulerOptions {
    /// The options that a scheduler has.
    pub const fn of(scheduler: SchedulerKind) -> &'static [&'static str] {
        match scheduler {
            SchedulerKind::Sh => &["port", "fallback"],
            SchedulerKind::Mh => &["port", "fallback", "table_size"],
            SchedulerKind::Lblc | SchedulerKind::Lblcr => &["expiration"],
            _ => &[],
        }
    }

    /// What differs from the default, in words: `mh-port`, `mh-fallback` as ipvsadm has it, `509
    /// slots`, `expiration 1h`.
    pub fn words(&self, scheduler: SchedulerKind) -> Vec<String> {
        let (name, usual) = (scheduler.name(), SchedulerOptions::default());
        let flags = [(self.fallback, "fallback"), (self.port, "port")];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        let mut words: Vec<String> = flags.map(|(_, flag)| format!("{name}-{flag}")).collect();
        if self.table_size != usual.table_size {
            words.push(format!("{} slots", self.table_size));
        }
        if self.expiration != usual.expiration {
            words.push(format!("expiration {}", super::format_duration(self.expiration)));
        }
        words
    }
}

/// `persistence = { timeout, netmask }`: a client (network) stays with its real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    pub timeout: Duration,
    /// Prefix length of the IPv4 network of clients that counts as one client.
    pub netmask_v4: u8,
    /// Prefix length of the IPv6 network of clients that counts as one client.
    pub netmask_v6: u8,
}

impl Persistence {
    /// The network of clients that counts as one with this client.
    pub fn network_of(&self, client: IpAddr) -> IpAddr {
        let length = if client.is_ipv4() { self.netmask_v4 } else { self.netmask_v6 };
        IpNet::new(client, length).map_or(client, |net| net.network())
    }
}

/// `on_removal`: what becomes of connections to a real server (or service) that a new
/// configuration no longer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRemoval {
    /// They finish.
    #[default]
    Drain,
    /// They end at once; what the client sends next is treated as if it belonged to none.
    Reset,
}

/// `[[service.real_server]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    pub name: Arc<str>,
    /// The real server's own address (RIP).
    pub address: IpAddr,
    /// Its MAC where configured; else found by ARP.
    pub mac: Option<MacAddr>,
    /// Its other cards, by which it may be recognised on a VIP segment.
    pub vip_macs: Vec<MacAddr>,
    /// Name of the segment it is reached on; always one of [`Snapshot::segments`].
    pub segment: Arc<str>,
    /// 0 quiesces: connections stay, none are added.
    pub weight: u32,
    /// No new connections from this many on; 0: no limit.
    pub upper_threshold: u32,
    /// New connections again below this many; 0: three quarters of the upper threshold.
    pub lower_threshold: u32,
}

impl RealServer {
    /// What tells it from the other real servers of its service.
    pub fn key(&self) -> (IpAddr, &str) {
        (self.address, &self.segment)
    }
}
