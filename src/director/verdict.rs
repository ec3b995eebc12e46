//! What became of a frame: a closed set, and a closed list of the reasons for a drop.

use super::{DestinationId, SegmentId, ServiceId};
use crate::wire::packet::Malformed;

/// What the director decided about one frame, and on whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub action: Action,
    /// The virtual service concerned, where one was found.
    pub service: Option<ServiceId>,
    /// The real server concerned, where one was chosen or recognised.
    pub real_server: Option<DestinationId>,
}

/// What is to be done with the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it, rewritten in place, through this segment's port.
    Forward { egress: SegmentId },
    /// Nothing: it leaves through this segment's port in fragments, which are in the transmit
    /// queue.
    Fragment { egress: SegmentId },
    /// Nothing: it was answered, the answer is in the transmit queue.
    Reply,
    /// Nothing: it told the director something.
    Consume,
    /// Nothing: a copy waits for a real server's MAC, or a fragment for the first one of its
    /// packet, and will come out of the transmit queue.
    Hold,
    /// Nothing: it is counted under this reason.
    Drop(DropReason),
}

impl Verdict {
    pub(super) const fn drop(reason: DropReason) -> Verdict {
        Verdict::new(Action::Drop(reason))
    }

    pub(super) const fn forward(egress: SegmentId) -> Verdict {
        Verdict::new(Action::Forward { egress })
    }

    pub(super) const fn fragment(egress: SegmentId) -> Verdict {
        Verdict::new(Action::Fragment { egress })
    }

    pub(super) const fn hold() -> Verdict {
        Verdict::new(Action::Hold)
    }

    pub(super) const fn reply() -> Verdict {
        Verdict::new(Action::Reply)
    }

    pub(super) const fn consume() -> Verdict {
        Verdict::new(Action::Consume)
    }

    /// The same, on behalf of a service.
    pub(super) const fn with_service(mut self, service: ServiceId) -> Verdict {
        self.service = Some(service);
        self
    }

    /// The same, about a real server of a service.
    pub(super) const fn with_real_server(
        mut self,
        real_server: DestinationId,
        service: ServiceId,
    ) -> Verdict {
        self.real_server = Some(real_server);
        self.with_service(service)
    }

    const fn new(action: Action) -> Verdict {
        Verdict { action, service: None, real_server: None }
    }
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame was dropped. Each is a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The counter's name, in `status`, metrics and `replay`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header.
    FrameTooShort = "frame_too_short",
    /// The source MAC is the director's own: its frame came back.
    OwnFrame = "own_frame",
    /// The source MAC is a group address or zero.
    BadSourceMac = "bad_source_mac",
    /// Addressed to another station.
    ForeignMac = "foreign_mac",
    /// A broadcast or multicast frame that is neither ARP nor IPv6's neighbor or listener
    /// discovery.
    GroupMac = "group_mac",
    /// An EtherType the director does not speak.
    EtherTypeUnsupported = "ether_type_unsupported",
    /// A VLAN tag on a device without tagged segments, or a second tag.
    VlanTag = "vlan_tag",
    /// A VLAN tag that none of the device's segments has.
    VlanUnknown = "vlan_unknown",
    /// No VLAN tag, on a device with tagged segments only.
    VlanMissing = "vlan_missing",
    /// An ARP packet cut short, or not for IPv4 over Ethernet, or with an impossible sender.
    ArpMalformed = "arp_malformed",
    /// ARP about addresses that are none of the director's business.
    ArpNotOurs = "arp_not_ours",
    /// A neighbor solicitation or advertisement that RFC 4861 wants ignored: from beyond a router,
    /// with a wrong checksum, an option without length, an impossible address, or in fragments.
    NdMalformed = "nd_malformed",
    /// A neighbor solicitation or advertisement about addresses that are none of the director's
    /// business.
    NdNotOurs = "nd_not_ours",
    /// A query for multicast listeners that RFC 3810 wants ignored.
    MldMalformed = "mld_malformed",
    /// An IPv4 header that does not fit itself or the frame.
    Ipv4Header = "ipv4_header",
    /// A wrong IPv4 header checksum.
    Ipv4Checksum = "ipv4_checksum",
    /// An IPv6 header that does not fit the frame.
    Ipv6Header = "ipv6_header",
    /// An IPv6 extension header cut short, out of place, or of a fragment that cannot be one.
    Ipv6Extension = "ipv6_extension",
    /// An IPv6 routing header with a way still to go, of a packet to no VIP, or whose sender may
    /// not be told.
    Ipv6Route = "ipv6_route",
    /// More IPv6 extension headers than are read.
    Ipv6ExtensionsTooMany = "ipv6_extensions_too_many",
    /// A transport header cut short or lying about its length.
    TransportHeader = "transport_header",
    /// A wrong transport checksum in a packet that was to be answered.
    TransportChecksum = "transport_checksum",
    /// A source address no single other host can have: 0.0.0.0/8, loopback, multicast, class E, a
    /// segment's network or broadcast address, or the director's own.
    BadSourceAddress = "bad_source_address",
    /// The destination is no VIP.
    NotVip = "not_vip",
    /// VIP traffic on a segment that only has real servers: a loop.
    VipOnBackend = "vip_on_backend",
    /// A real server sent back what it was given: a loop.
    Loop = "loop",
    /// VIP traffic to no service, or TCP to a service that neither opens nor belongs to a
    /// connection, where the policy is not to answer.
    Unmatched = "unmatched",
    /// The same, where answering is forbidden: a RST, an ICMP error, a source that is no host.
    UnmatchedUnanswerable = "unmatched_unanswerable",
    /// An answer withheld because too many went out already.
    RateLimited = "rate_limited",
    /// An IP protocol the director does not balance.
    ProtocolUnsupported = "protocol_unsupported",
    /// No real server can take the connection, and no answer was due.
    NoRealServer = "no_real_server",
    /// The connection table is full of connections worth more than this one.
    ConnectionsFull = "connections_full",
    /// A later fragment of a packet whose first fragment did not come, or went nowhere.
    FragmentUnknown = "fragment_unknown",
    /// A later fragment whose first is awaited, when no more of them are held.
    FragmentHoldFull = "fragment_hold_full",
    /// An ICMP error about no known connection, or one that quotes too little.
    IcmpUnrelated = "icmp_unrelated",
    /// An ICMP message to a VIP that is neither an echo request nor an error.
    IcmpUnsupported = "icmp_unsupported",
    /// An echo request to a VIP none of whose services is up.
    VipDown = "vip_down",
    /// Larger than the outgoing segment's MTU, and neither may it be fragmented nor the sender be
    /// told.
    TooBig = "too_big",
    /// The real server's MAC is not known and the hold queue is full.
    HoldFull = "hold_full",
    /// Held until it was no longer worth forwarding, or its real server turned out silent.
    HoldExpired = "hold_expired",
    /// The real server's MAC was never found.
    NeighborUnknown = "neighbor_unknown",
    /// The queue of frames to send was full.
    TransmitFull = "transmit_full",
    /// It came from, or had to go to, a segment that the configuration no longer has.
    SegmentGone = "segment_gone",
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> DropReason {
        match malformed {
            Malformed::Ethernet => DropReason::FrameTooShort,
            Malformed::Arp => DropReason::ArpMalformed,
            Malformed::Ipv4Header => DropReason::Ipv4Header,
            Malformed::Ipv4Checksum => DropReason::Ipv4Checksum,
            Malformed::Ipv6Header => DropReason::Ipv6Header,
            Malformed::Ipv6Extension => DropReason::Ipv6Extension,
            Malformed::Ipv6Route => DropReason::Ipv6Route,
            Malformed::Ipv6ExtensionsTooMany => DropReason::Ipv6ExtensionsTooMany,
            Malformed::Transport => DropReason::TransportHeader,
            Malformed::Neighbor => DropReason::NdMalformed,
            Malformed::Listener => DropReason::MldMalformed,
        }
    }
}
