//! The one parse of a frame: Ethernet, ARP or IPv4, and the transport header's fields that
//! decide where the frame goes.
//!
//! Built on etherparse's strict slices. What comes out is `Copy` and borrows nothing, so the
//! frame can be rewritten in place afterwards; every length and offset in it has been checked
//! against the bytes that are really there.

use core::net::Ipv4Addr;

use super::MacAddr;
use super::arp::ArpPacket;

/// Why a frame could not be read. Each is a drop reason of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than an Ethernet header.
    Ethernet,
    /// An ARP packet cut short, or not for IPv4 over Ethernet.
    Arp,
    /// IPv4 version, header length or total length do not fit each other or the frame.
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

/// Reads a frame.
///
/// # Errors
/// [`Malformed`] when a header is cut short or lies about a length. A group destination, a
/// foreign MAC or an unknown protocol is not malformed: that is the director's to judge.
pub fn parse(_frame: &[u8]) -> Result<Packet, Malformed> {
    todo!()
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
/// `None` for ICMP that is no error, and where the quotation is cut short or is a later fragment.
pub fn quoted_flow(_frame: &[u8], _packet: &Ipv4) -> Option<QuotedFlow> {
    todo!()
}
