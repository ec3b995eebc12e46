//! The one parse of a frame: Ethernet, ARP or IP, and the transport header's fields that decide
//! where the frame goes.
//!
//! Built on etherparse's strict slices. What comes out is `Copy` and borrows nothing, so the
//! frame can be rewritten in place afterwards; every length and offset in it has been checked
//! against the bytes that are really there.

use core::net::{IpAddr, Ipv4Addr};

use etherparse::{
    EtherType, Ethernet2Slice, IpNumber, Ipv4HeaderSlice, TcpHeaderSlice, UdpHeader, UdpHeaderSlice,
};

use super::arp::ArpPacket;
use super::frame::ETHERNET_HEADER_LEN;
pub use super::quote::{QuotedFlow, quoted_echo, quoted_flow};
use super::{MacAddr, checksum, icmp, ipv6};

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
    /// IPv6 version or payload length do not fit the frame.
    Ipv6Header,
    /// An IPv6 extension header cut short, out of place, or a fragment that cannot be one.
    Ipv6Extension,
    /// An IPv6 routing header with a way still to go: see [`ipv6::unfollowed_route`].
    Ipv6Route,
    /// More IPv6 extension headers than are read, [`ipv6::EXTENSIONS_MAX`].
    Ipv6ExtensionsTooMany,
    /// A TCP, UDP, SCTP or ICMP header cut short or lying about its length.
    Transport,
    /// A neighbor solicitation or advertisement that is not to be heeded.
    Neighbor,
    /// A query for multicast listeners that is not to be heeded.
    Listener,
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
    Ip(Ip),
    /// An 802.1Q or 802.1ad tag.
    Vlan,
    /// Any other EtherType, or an 802.3 length.
    Other(u16),
}

/// The fields of an IP packet that routing needs, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    pub source: IpAddr,
    /// Of the same family as the source.
    pub destination: IpAddr,
    /// What follows the IP header and its extension headers. In a later fragment of IPv6, what
    /// that fragment says there, which need not be true (RFC 8200, 4.5).
    pub protocol: u8,
    /// In bytes: 20 to 60 for IPv4; for IPv6 40 and all extension headers.
    pub header_len: u16,
    /// Header and payload in bytes; the frame may be longer by its padding, never shorter.
    pub total_len: u32,
    /// Of IPv6: of fragments only, else 0.
    pub identification: u32,
    /// Always so for IPv6.
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In bytes.
    pub fragment_offset: u16,
    /// IPv4's time to live, IPv6's hop limit.
    pub hop_limit: u8,
    pub transport: Transport,
}

impl Ip {
    /// Where the IP header starts in the frame.
    #[inline]
    pub const fn start(&self) -> usize {
        ETHERNET_HEADER_LEN
    }

    /// Where what follows the IP header, and its extension headers, starts in the frame.
    #[inline]
    pub const fn payload_start(&self) -> usize {
        self.start() + self.header_len as usize
    }

    /// Where the IP packet ends in the frame (padding may follow).
    #[inline]
    pub const fn end(&self) -> usize {
        self.start() + self.total_len as usize
    }

    /// Bytes between [`Self::payload_start`] and [`Self::end`].
    #[inline]
    pub const fn payload_len(&self) -> u32 {
        self.total_len - self.header_len as u32
    }

    /// Whether this is a fragment of a packet, the first one included. An "atomic fragment" of
    /// IPv6 is a whole packet (RFC 6946).
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    #[inline]
    pub const fn is_ipv6(&self) -> bool {
        self.destination.is_ipv6()
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
    /// ICMP in IPv4, ICMPv6 in IPv6; never one in the other.
    Icmp {
        kind: u8,
        code: u8,
    },
    /// A fragment other than the first: there is no transport header to read.
    LaterFragment,
    /// Another IP protocol, or none.
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

impl Packet {
    /// A frame of nothing: what [`read`] is given to write to.
    pub const EMPTY: Packet =
        Packet { destination: MacAddr::ZERO, source: MacAddr::ZERO, body: Body::Other(0) };
}

/// Reads a frame.
///
/// # Errors
/// [`Malformed`] when a header is cut short or lies about a length. A group destination, a
/// foreign MAC or an unknown protocol is not malformed: that is the director's to judge.
pub fn parse(frame: &[u8]) -> Result<Packet, Malformed> {
    let mut packet = Packet::EMPTY;
    read(frame, &mut packet)?;
    Ok(packet)
}

/// [`parse`] to where the packet is to be: what takes the fields straight to their place takes
/// half the instructions of what hands them on from result to result. After an error `packet` says
/// nothing of use.
///
/// # Errors
/// As [`parse`].
#[inline]
pub fn read(frame: &[u8], packet: &mut Packet) -> Result<(), Malformed> {
    let ethernet =
        Ethernet2Slice::from_slice_without_fcs(frame).map_err(|_| Malformed::Ethernet)?;
    packet.destination = MacAddr(ethernet.destination());
    packet.source = MacAddr(ethernet.source());
    let (payload, body) = (ethernet.payload_slice(), &mut packet.body);
    match ethernet.ether_type() {
        EtherType::IPV4 => return read_ipv4(payload, body),
        EtherType::IPV6 => return ipv6::read(payload, body),
        EtherType::ARP => *body = Body::Arp(ArpPacket::parse(payload)?),
        EtherType::VLAN_TAGGED_FRAME
        | EtherType::PROVIDER_BRIDGING
        | EtherType::VLAN_DOUBLE_TAGGED_FRAME => *body = Body::Vlan,
        EtherType(other) => *body = Body::Other(other),
    }
    Ok(())
}

/// Bytes of the SCTP common header (RFC 9260, 3.1).
const SCTP_HEADER_LEN: usize = 12;

/// Reads an IPv4 header (RFC 791, 3.1) and what follows it.
#[inline(always)]
fn read_ipv4(bytes: &[u8], body: &mut Body) -> Result<(), Malformed> {
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| Malformed::Ipv4Header)?;
    let header_len = header.slice().len();
    let total_len = header.total_len();
    let payload = bytes.get(header_len..usize::from(total_len)).ok_or(Malformed::Ipv4Header)?;
    if !checksum::is_ipv4_header_complete(header.slice()) {
        return Err(Malformed::Ipv4Checksum);
    }
    let fragment_offset = header.fragments_offset().byte_offset();
    let more_fragments = header.more_fragments();
    let transport = if fragment_offset == 0 {
        parse_transport(header.protocol(), IpNumber::ICMP, payload, more_fragments)?
    } else if usize::from(fragment_offset) + usize::from(total_len) > usize::from(u16::MAX) {
        return Err(Malformed::Ipv4Header);
    } else {
        Transport::LaterFragment
    };
    *body = Body::Ip(Ip {
        source: IpAddr::V4(Ipv4Addr::from(header.source())),
        destination: IpAddr::V4(Ipv4Addr::from(header.destination())),
        protocol: header.protocol().0,
        // At most 60: four bits of four-byte words.
        header_len: header_len as u16,
        total_len: u32::from(total_len),
        identification: u32::from(header.identification()),
        dont_fragment: header.dont_fragment(),
        more_fragments,
        fragment_offset,
        hop_limit: header.ttl(),
        transport,
    });
    Ok(())
}

/// Reads the transport header at the start of a whole packet's or a first fragment's payload;
/// `icmp` is the number of the family's own ICMP.
#[inline(always)]
pub(super) fn parse_transport(
    protocol: IpNumber,
    icmp: IpNumber,
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
        protocol if protocol == icmp => {
            let header = payload.first_chunk::<{ icmp::HEADER_LEN }>();
            let [kind, code, ..] = *header.ok_or(Malformed::Transport)?;
            Ok(Transport::Icmp { kind, code })
        }
        _ => Ok(Transport::Other),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::super::samples::{self, *};
    use super::*;
    use crate::wire::arp::ArpOperation;
    use crate::wire::tcp;

    #[test]
    fn a_tcp_syn_is_read_field_by_field() {
        let packet = parse(&TCP_SYN).unwrap();
        assert_eq!(packet.destination, DIRECTOR_MAC);
        assert_eq!(packet.source, CLIENT_MAC);
        let expected = Ip {
            source: CLIENT.into(),
            destination: VIP.into(),
            protocol: 6,
            header_len: 20,
            total_len: 40,
            identification: 0x1c46,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            hop_limit: 64,
            transport: Transport::Tcp {
                source_port: 40000,
                destination_port: 80,
                flags: TcpFlags(TcpFlags::SYN),
            },
        };
        assert_eq!(packet.body, Body::Ip(expected));
        assert_eq!((expected.payload_start(), expected.end()), (34, 54));
    }

    #[test]
    fn every_transport_gives_its_fields() {
        let rows: [(&[u8], Transport); 4] = [
            (
                &TCP_DATA_WITH_IP_OPTIONS,
                Transport::Tcp {
                    source_port: 40000,
                    destination_port: 80,
                    flags: TcpFlags(TcpFlags::PSH | TcpFlags::ACK),
                },
            ),
            (&UDP, Transport::Udp { source_port: 5353, destination_port: 53 }),
            (
                &SCTP_INIT,
                Transport::Sctp { source_port: 40000, destination_port: 3868, first_chunk: 1 },
            ),
            (&ECHO, Transport::Icmp { kind: 8, code: 0 }),
        ];
        for (frame, expected) in rows {
            assert_eq!(ip_of(frame).transport, expected);
        }
    }

    #[test]
    fn an_arp_request_is_read_and_padding_does_not_matter() {
        let expected = Body::Arp(ArpPacket {
            operation: ArpOperation::Request,
            sender_mac: CLIENT_MAC,
            sender: CLIENT,
            target_mac: MacAddr::ZERO,
            target: VIP,
        });
        let mut padded = ARP_REQUEST.to_vec();
        padded.resize(60, 0xee);
        for frame in [&ARP_REQUEST[..], &padded] {
            let packet = parse(frame).unwrap();
            assert_eq!(packet.destination, MacAddr::BROADCAST);
            assert_eq!(packet.body, expected);
        }
    }

    #[test]
    fn ether_types_are_told_apart() {
        for (ether_type, expected) in [
            (0x8100, Body::Vlan),
            (0x88a8, Body::Vlan),
            (0x9100, Body::Vlan),
            (0x88cc, Body::Other(0x88cc)),
            (0x05dc, Body::Other(0x05dc)),
            (0x0026, Body::Other(0x0026)),
        ] {
            let frame = patched(&TCP_SYN, &[(12, &u16::to_be_bytes(ether_type))]);
            assert_eq!(parse(&frame).unwrap().body, expected, "{ether_type:#06x}");
        }
    }

    /// Offsets: 14 version and header length, 16 total length, 20 flags and fragment offset,
    /// 23 protocol; the TCP data offset is at 46, the UDP length at 38.
    #[test]
    fn each_lying_field_is_named() {
        use Malformed::{Arp, Ipv4Checksum, Ipv4Header, Transport};
        type Row = (&'static str, &'static [u8], &'static [(usize, &'static [u8])], Malformed);
        let rows: &[Row] = &[
            ("ARP hardware type", &ARP_REQUEST, &[(14, &[0, 6])], Arp),
            ("ARP protocol type", &ARP_REQUEST, &[(16, &[0x86, 0xdd])], Arp),
            ("ARP hardware length 5", &ARP_REQUEST, &[(18, &[5])], Arp),
            ("ARP hardware length 8", &ARP_REQUEST, &[(18, &[8])], Arp),
            ("ARP protocol length 16", &ARP_REQUEST, &[(19, &[16])], Arp),
            ("ARP protocol length 0", &ARP_REQUEST, &[(19, &[0])], Arp),
            ("ARP operation 0", &ARP_REQUEST, &[(20, &[0, 0])], Arp),
            ("ARP operation 3 (RARP)", &ARP_REQUEST, &[(20, &[0, 3])], Arp),
            ("IP version 6", &TCP_SYN, &[(14, &[0x65])], Ipv4Header),
            ("IP header of 16 bytes", &TCP_SYN, &[(14, &[0x44])], Ipv4Header),
            ("IP header beyond the packet", &TCP_SYN, &[(14, &[0x4f])], Ipv4Header),
            ("total length 0", &TCP_SYN, &[(16, &[0, 0])], Ipv4Header),
            ("total length inside the header", &TCP_SYN, &[(16, &[0, 19])], Ipv4Header),
            ("total length beyond the frame", &TCP_SYN, &[(16, &[0, 41])], Ipv4Header),
            ("fragment beyond 65535", &TCP_SYN, &[(20, &[0x1f, 0xff])], Ipv4Header),
            ("TCP data offset 4", &TCP_SYN, &[(46, &[0x40])], Transport),
            ("TCP options beyond the packet", &TCP_SYN, &[(46, &[0x60])], Transport),
            ("TCP header cut by total length", &TCP_SYN, &[(16, &[0, 39])], Transport),
            ("TCP header in two fragments", &TCP_SYN, &[(16, &[0, 28]), (20, &[0x20])], Transport),
            (
                "first fragment without payload",
                &TCP_SYN,
                &[(16, &[0, 20]), (20, &[0x20])],
                Transport,
            ),
            ("UDP length 7", &UDP, &[(38, &[0, 7])], Transport),
            ("UDP length 0", &UDP, &[(38, &[0, 0])], Transport),
            ("UDP length beyond the packet", &UDP, &[(38, &[0, 14])], Transport),
            ("UDP header cut short", &UDP, &[(16, &[0, 27])], Transport),
            ("SCTP header cut short", &SCTP_INIT, &[(16, &[0, 31])], Transport),
            ("ICMP header cut short", &ECHO, &[(16, &[0, 27])], Transport),
        ];
        for &(what, frame, patches, expected) in rows {
            assert_eq!(parse(&patched(frame, patches)), Err(expected), "{what}");
        }
        for offset in 14..34 {
            for bit in 0..8 {
                let mut frame = TCP_SYN;
                frame[offset] ^= 1 << bit;
                let error = parse(&frame).expect_err("one flipped bit never adds up");
                assert!(matches!(error, Ipv4Checksum | Ipv4Header), "{offset} {bit}: {error:?}");
            }
        }
    }

    /// The twins of the rows above: as odd, but no lie.
    #[test]
    fn odd_but_honest_frames_are_read() {
        type Row = (&'static str, &'static [u8], &'static [(usize, &'static [u8])], Transport);
        let tcp = Transport::Tcp {
            source_port: 40000,
            destination_port: 80,
            flags: TcpFlags(TcpFlags::SYN),
        };
        let udp = Transport::Udp { source_port: 5353, destination_port: 53 };
        let sctp = |first_chunk| Transport::Sctp {
            source_port: 40000,
            destination_port: 3868,
            first_chunk,
        };
        let rows: &[Row] = &[
            ("first fragment with the whole header", &TCP_SYN, &[(20, &[0x20, 0])], tcp),
            ("last fragment", &TCP_SYN, &[(20, &[0, 1])], Transport::LaterFragment),
            ("fragment up to 65535", &TCP_SYN, &[(20, &[0x1f, 0xfa])], Transport::LaterFragment),
            ("UDP length of all fragments", &UDP, &[(20, &[0x20, 0]), (38, &[9, 0])], udp),
            ("UDP shorter than IP says", &UDP, &[(38, &[0, 8])], udp),
            ("SCTP without a chunk", &SCTP_INIT, &[(16, &[0, 32])], sctp(SCTP_NO_CHUNK)),
            ("SCTP with a chunk", &SCTP_INIT, &[(16, &[0, 33])], sctp(1)),
            ("GRE", &TCP_SYN, &[(23, &[47])], Transport::Other),
            (
                "no payload, no known protocol",
                &TCP_SYN,
                &[(16, &[0, 20]), (23, &[47])],
                Transport::Other,
            ),
        ];
        for &(what, frame, patches, expected) in rows {
            assert_eq!(ip_of(&patched(frame, patches)).transport, expected, "{what}");
        }
        assert_eq!(ip_of(&patched(&TCP_SYN, &[(20, &[0x1f, 0xfa])])).fragment_offset, 65488);
    }

    #[test]
    fn a_frame_cut_anywhere_is_malformed_and_padding_is_not_packet() {
        for frame in samples::ALL {
            for len in 0..frame.len() {
                let cut = parse(&frame[..len]);
                match len {
                    ..14 => assert_eq!(cut, Err(Malformed::Ethernet)),
                    _ if frame == ARP_REQUEST => assert_eq!(cut, Err(Malformed::Arp)),
                    _ => assert_eq!(cut, Err(Malformed::Ipv4Header), "{len} of {frame:02x?}"),
                }
            }
            let mut padded = frame.to_vec();
            padded.resize(frame.len() + 46, 0xee);
            assert_eq!(parse(&padded), parse(frame));
        }
    }

    /// Whatever came out of the parse lies inside the frame, and a second reading of the same
    /// bytes by etherparse's own walk agrees with it.
    fn check_against_second_reading(frame: &[u8]) {
        let Ok(Packet { body: Body::Ip(packet), .. }) = parse(frame) else { return };
        assert!(packet.payload_start() <= packet.end() && packet.end() <= frame.len());
        match packet.is_ipv6() {
            false => assert!((20..=60).contains(&packet.header_len)),
            true => assert!(packet.header_len >= 40 && packet.dont_fragment),
        }
        assert_eq!(packet.source.is_ipv6(), packet.destination.is_ipv6());
        let _ = quoted_flow(frame, &packet);
        let _ = checksum::verify_transport(frame, &packet);
        let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return };
        let ports = match (sliced.transport, packet.transport) {
            (Some(TransportSlice::Tcp(tcp)), transport) => {
                let expected = Transport::Tcp {
                    source_port: tcp.source_port(),
                    destination_port: tcp.destination_port(),
                    flags: TcpFlags(tcp.header_slice()[13]),
                };
                return assert_eq!(transport, expected);
            }
            (Some(TransportSlice::Udp(udp)), _) => (udp.source_port(), udp.destination_port()),
            _ => return,
        };
        let (source_port, destination_port) = ports;
        assert_eq!(packet.transport, Transport::Udp { source_port, destination_port });
    }

    /// Whatever was read can be answered, and the answer is a frame that can be read.
    fn check_answers(frame: &[u8]) {
        let Ok(Packet { body: Body::Ip(packet), .. }) = parse(frame) else { return };
        let mut buffer = Vec::new();
        let error = icmp::IcmpError::TooBig { mtu: 1400 };
        icmp::emit_error(&mut buffer, frame, &packet, error, DIRECTOR_MAC, packet.destination);
        let answer = ip_of(&buffer);
        let len_max = if packet.is_ipv6() { 1280 } else { 576 };
        assert!(answer.total_len <= len_max && answer.destination == packet.source);
        assert_eq!(checksum::verify_icmp(&buffer, &answer), Ok(()));
        buffer.clear();
        match icmp::emit_echo_reply(&mut buffer, frame, &packet, DIRECTOR_MAC) {
            Ok(()) => assert_eq!(checksum::verify_icmp(&buffer, &ip_of(&buffer)), Ok(())),
            Err(_) => assert!(buffer.is_empty()),
        }
        buffer.clear();
        match tcp::emit_reset(&mut buffer, frame, &packet, DIRECTOR_MAC, true) {
            Ok(()) => assert_eq!(checksum::verify_transport(&buffer, &ip_of(&buffer)), Ok(())),
            Err(_) => assert!(buffer.is_empty()),
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            check_against_second_reading(&bytes);
            check_answers(&bytes);
        }

        /// Random bytes over real frames, with the header checksum put right, get further.
        #[test]
        fn frames_with_random_bytes_never_panic(
            sample in any::<proptest::sample::Index>(),
            at in proptest::collection::vec((14usize..110, any::<u8>()), 0..6),
            quote in any::<proptest::sample::Index>(),
            cut in 0usize..130,
            kind in any::<u8>(),
        ) {
            let samples = [&samples::ALL[..], &samples::ALL_V6[..]].concat();
            let mut frame = samples[sample.index(samples.len())].to_vec();
            for (offset, byte) in at {
                if let Some(place) = frame.get_mut(offset) {
                    *place = byte;
                }
            }
            let quote = &samples[quote.index(samples.len())][14..];
            let quote = &quote[..cut.min(quote.len())];
            let quoting = [error_quoting(kind, quote), error_quoting_v6(kind % 8, quote)];
            for frame in [patched(&frame, &[])].iter().chain(&quoting) {
                check_against_second_reading(frame);
                check_answers(frame);
            }
        }
    }
}
