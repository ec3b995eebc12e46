//! What a segment is, and how the director is attached to it.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::wire::MacAddr;
use crate::wire::vlan::Vlan;

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
