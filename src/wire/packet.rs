//! The one parse of a frame: Ethernet, ARP or IPv4, and the transport header's fields that
//! decide where the frame goes.
//!
//! Built on etherparse's strict slices. What comes out is `Copy` and borrows nothing, so the
//! frame can be rewritten in place afterwards; every length and offset in it has been checked
//! against the bytes that are really there.

use core::net::Ipv4Addr;

use etherparse::{
    EtherType, Ethernet2Slice, IpNumber, Ipv4HeaderSlice, TcpHeaderSlice, UdpHeader, UdpHeaderSlice,
};

use super::arp::ArpPacket;
use super::{MacAddr, checksum, icmp};

/// Why a frame could not be read. Each is a drop reason of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than an Ethernet header.
    Ethernet,
    /// An ARP packet cut short, or not for IPv4 over Ethernet.
    Arp,
    /// IPv4 version, header length or total length do not fit each other or the frame, or a
    /// fragment would reach beyond the largest packet there is.
    Ipv4Header,
    /// The IPv4 header checksum is wrong.
    Ipv4Checksum,
    /// A TCP, UDP, SCTP or ICMP header cut short or lying about its length.
    Transport,
}

/// A frame, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub destination: MacAddr,
    pub source: MacAddr,
    pub body: Body,
}

/// What the Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Arp(ArpPacket),
    Ipv4(Ipv4),
    /// IPv6, not read further yet.
    Ipv6,
    /// An 802.1Q or 802.1ad tag.
    Vlan,
    /// Any other EtherType, or an 802.3 length.
    Other(u16),
}

/// The fields of an IPv4 packet that routing needs. The header starts at byte 14 of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub identification: u16,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In bytes.
    pub fragment_offset: u16,
    /// In bytes, 20 to 60.
    pub header_len: u8,
    /// Header and payload in bytes; the frame may be longer by its padding, never shorter.
    pub total_len: u16,
    pub transport: Transport,
}

impl Ipv4 {
    /// Where the IPv4 payload starts in the frame.
    pub const fn payload_start(&self) -> usize {
        super::frame::ETHERNET_HEADER_LEN + self.header_len as usize
    }

    /// Where the IPv4 packet ends in the frame (padding may follow).
    pub const fn end(&self) -> usize {
        super::frame::ETHERNET_HEADER_LEN + self.total_len as usize
    }

    /// Whether this is a fragment of a packet, the first one included.
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

/// The transport header's fields that routing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp {
        source_port: u16,
        destination_port: u16,
        flags: TcpFlags,
    },
    Udp {
        source_port: u16,
        destination_port: u16,
    },
    Sctp {
        source_port: u16,
        destination_port: u16,
        /// Type of the first chunk, or [`SCTP_NO_CHUNK`].
        first_chunk: u8,
    },
    Icmp {
        kind: u8,
        code: u8,
    },
    /// A fragment other than the first: there is no transport header to read.
    LaterFragment,
    /// Another IP protocol.
    Other,
}

/// The flag byte of a TCP header (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;

    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }
}

/// Stands for the chunk type of an SCTP packet that carries no chunk: a type reserved by IANA
/// (RFC 9260, 15.1), so no state machine acts on it.
pub const SCTP_NO_CHUNK: u8 = 255;

/// Reads a frame.
///
/// # Errors
/// [`Malformed`] when a header is cut short or lies about a length. A group destination, a
/// foreign MAC or an unknown protocol is not malformed: that is the director's to judge.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Packet, Malformed> {
    let ethernet =
        Ethernet2Slice::from_slice_without_fcs(frame).map_err(|_| Malformed::Ethernet)?;
    let payload = ethernet.payload_slice();
    let body = match ethernet.ether_type() {
        EtherType::IPV4 => Body::Ipv4(parse_ipv4(payload)?),
        EtherType::ARP => Body::Arp(ArpPacket::parse(payload)?),
        EtherType::IPV6 => Body::Ipv6,
        EtherType::VLAN_TAGGED_FRAME
        | EtherType::PROVIDER_BRIDGING
        | EtherType::VLAN_DOUBLE_TAGGED_FRAME => Body::Vlan,
        EtherType(other) => Body::Other(other),
    };
    let (destination, source) = (MacAddr(ethernet.destination()), MacAddr(ethernet.source()));
    Ok(Packet { destination, source, body })
}

/// The flow that an ICMP error is about, read from the packet it quotes.
///
/// The quoted packet went from `source` to `destination`; in direct routing the real server
/// answers with the VIP as its source, so for an error about a reply `source` is the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedFlow {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Reads the flow quoted by an ICMP error (RFC 792: the IP header and 8 bytes are enough).
///
/// `None` for ICMP that is no error (or of a type nobody assigned, whose layout is unknown), for
/// a quotation that is cut short or of a later fragment, and for protocols without ports. The
/// message's checksum is left to whoever the message is for.
pub fn quoted_flow(frame: &[u8], packet: &Ipv4) -> Option<QuotedFlow> {
    let Transport::Icmp { kind, .. } = packet.transport else { return None };
    if !icmp::quotes_packet(kind) {
        return None;
    }
    let quoted = frame.get(packet.payload_start()..packet.end())?.get(icmp::HEADER_LEN..)?;
    let header = Ipv4HeaderSlice::from_slice(quoted).ok()?;
    if header.fragments_offset().value() != 0 {
        return None;
    }
    let ports = quoted.get(header.slice().len()..)?.first_chunk::<QUOTED_PAYLOAD_MIN>()?;
    match header.protocol() {
        IpNumber::TCP | IpNumber::UDP | IpNumber::SCTP => Some(QuotedFlow {
            source: header.source_addr(),
            destination: header.destination_addr(),
            protocol: header.protocol().0,
            source_port: u16::from_be_bytes([ports[0], ports[1]]),
            destination_port: u16::from_be_bytes([ports[2], ports[3]]),
        }),
        _ => None,
    }
}

/// Bytes of the quoted packet's payload that every ICMP error carries (RFC 792).
const QUOTED_PAYLOAD_MIN: usize = 8;

/// Bytes of the SCTP common header (RFC 9260, 3.1).
const SCTP_HEADER_LEN: usize = 12;

/// Reads an IPv4 header (RFC 791, 3.1) and what follows it.
fn parse_ipv4(bytes: &[u8]) -> Result<Ipv4, Malformed> {
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| Malformed::Ipv4Header)?;
    let header_len = header.slice().len();
    let total_len = header.total_len();
    let payload = bytes.get(header_len..usize::from(total_len)).ok_or(Malformed::Ipv4Header)?;
    if !checksum::is_complete(header.slice()) {
        return Err(Malformed::Ipv4Checksum);
    }
    let fragment_offset = header.fragments_offset().byte_offset();
    let more_fragments = header.more_fragments();
    let transport = if fragment_offset == 0 {
        parse_transport(header.protocol(), payload, more_fragments)?
    } else if usize::from(fragment_offset) + usize::from(total_len) > usize::from(u16::MAX) {
        return Err(Malformed::Ipv4Header);
    } else {
        Transport::LaterFragment
    };
    Ok(Ipv4 {
        source: header.source_addr(),
        destination: header.destination_addr(),
        protocol: header.protocol().0,
        identification: header.identification(),
        dont_fragment: header.dont_fragment(),
        more_fragments,
        fragment_offset,
        // At most 60: four bits of four-byte words.
        header_len: header_len as u8,
        total_len,
        transport,
    })
}

/// Reads the transport header at the start of a whole packet's or a first fragment's payload.
fn parse_transport(
    protocol: IpNumber,
    payload: &[u8],
    is_first_fragment: bool,
) -> Result<Transport, Malformed> {
    match protocol {
        IpNumber::TCP => {
            let header = TcpHeaderSlice::from_slice(payload).map_err(|_| Malformed::Transport)?;
            Ok(Transport::Tcp {
                source_port: header.source_port(),
                destination_port: header.destination_port(),
                flags: TcpFlags(header.slice()[13]),
            })
        }
        IpNumber::UDP => {
            let header = UdpHeaderSlice::from_slice(payload).map_err(|_| Malformed::Transport)?;
            // The length is the whole datagram's, of which a fragment has only a part.
            let len = usize::from(header.length());
            if len < UdpHeader::LEN || (len > payload.len() && !is_first_fragment) {
                return Err(Malformed::Transport);
            }
            Ok(Transport::Udp {
                source_port: header.source_port(),
                destination_port: header.destination_port(),
            })
        }
        IpNumber::SCTP => {
            let header = payload.first_chunk::<SCTP_HEADER_LEN>().ok_or(Malformed::Transport)?;
            Ok(Transport::Sctp {
                source_port: u16::from_be_bytes([header[0], header[1]]),
                destination_port: u16::from_be_bytes([header[2], header[3]]),
                first_chunk: payload.get(SCTP_HEADER_LEN).copied().unwrap_or(SCTP_NO_CHUNK),
            })
        }
        IpNumber::ICMP => {
            let header = payload.first_chunk::<{ icmp::HEADER_LEN }>();
            let [kind, code, ..] = *header.ok_or(Malformed::Transport)?;
            Ok(Transport::Icmp { kind, code })
        }
        _ => Ok(Transport::Other),
    }
}
