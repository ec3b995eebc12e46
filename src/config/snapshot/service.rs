//! What a virtual service is: where it is reached, how its connections are spread, and over whom.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::check::Check;
use crate::wire::MacAddr;

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
    pub(super) fn share(&mut self, earlier: &Service) {
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
            words.push(format!("expiration {}", crate::config::format_duration(self.expiration)));
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
