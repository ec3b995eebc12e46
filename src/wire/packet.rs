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
#[inline(always)]
fn parse_ipv4(bytes: &[u8]) -> Result<Ipv4, Malformed> {
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
#[inline(always)]
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
        let expected = Ipv4 {
            source: CLIENT,
            destination: VIP,
            protocol: 6,
            identification: 0x1c46,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            header_len: 20,
            total_len: 40,
            transport: Transport::Tcp {
                source_port: 40000,
                destination_port: 80,
                flags: TcpFlags(TcpFlags::SYN),
            },
        };
        assert_eq!(packet.body, Body::Ipv4(expected));
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
            assert_eq!(ipv4(frame).transport, expected);
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
            (0x86dd, Body::Ipv6),
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
            assert_eq!(ipv4(&patched(frame, patches)).transport, expected, "{what}");
        }
        assert_eq!(ipv4(&patched(&TCP_SYN, &[(20, &[0x1f, 0xfa])])).fragment_offset, 65488);
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

    /// An ICMP port unreachable from a router at `CLIENT` to the VIP, quoting `quote`.
    fn error_quoting(kind: u8, quote: &[u8]) -> Vec<u8> {
        let mut frame = ECHO[..34].to_vec();
        frame.extend_from_slice(&[kind, 3, 0, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(quote);
        let total_len = (frame.len() - 14) as u16;
        patched(&frame, &[(16, &total_len.to_be_bytes())])
    }

    #[test]
    fn an_icmp_error_tells_the_flow_it_quotes() {
        type Row = (&'static [u8], usize, (u8, u16, u16));
        let rows: [Row; 3] = [
            (&TCP_SYN[14..], 28, (6, 40000, 80)),
            (&TCP_DATA_WITH_IP_OPTIONS[14..], 32, (6, 40000, 80)),
            (&UDP[14..], 28, (17, 5353, 53)),
        ];
        for (quote, enough, (protocol, source_port, destination_port)) in rows {
            let flow = QuotedFlow {
                source: CLIENT,
                destination: VIP,
                protocol,
                source_port,
                destination_port,
            };
            for len in 0..=quote.len() {
                let frame = error_quoting(icmp::DESTINATION_UNREACHABLE, &quote[..len]);
                let expected = (len >= enough).then_some(flow);
                assert_eq!(quoted_flow(&frame, &ipv4(&frame)), expected, "{len} bytes");
            }
        }
        let sctp = error_quoting(icmp::TIME_EXCEEDED, &SCTP_INIT[14..]);
        assert_eq!(quoted_flow(&sctp, &ipv4(&sctp)).map(|flow| flow.protocol), Some(132));
    }

    #[test]
    fn what_quotes_no_flow_tells_none() {
        let later = patched(&TCP_SYN, &[(20, &[0, 1])]);
        let rows: [(&str, u8, &[u8]); 6] = [
            ("an echo reply", icmp::ECHO_REPLY, &TCP_SYN[14..]),
            ("an echo request", icmp::ECHO_REQUEST, &TCP_SYN[14..]),
            ("a type nobody assigned", 7, &TCP_SYN[14..]),
            ("a quoted later fragment", icmp::DESTINATION_UNREACHABLE, &later[14..]),
            ("a quoted echo request", icmp::DESTINATION_UNREACHABLE, &ECHO[14..]),
            ("no IPv4 quoted", icmp::DESTINATION_UNREACHABLE, &TCP_SYN),
        ];
        for (what, kind, quote) in rows {
            let frame = error_quoting(kind, quote);
            assert_eq!(quoted_flow(&frame, &ipv4(&frame)), None, "{what}");
        }
        assert_eq!(quoted_flow(&TCP_SYN, &ipv4(&TCP_SYN)), None, "TCP");
        let frame = error_quoting(icmp::DESTINATION_UNREACHABLE, &TCP_SYN[14..]);
        assert_eq!(quoted_flow(&frame[..frame.len() - 1], &ipv4(&frame)), None, "another frame");
    }

    /// Whatever came out of the parse lies inside the frame, and a second reading of the same
    /// bytes by etherparse's own walk agrees with it.
    fn check_against_second_reading(frame: &[u8]) {
        let Ok(Packet { body: Body::Ipv4(packet), .. }) = parse(frame) else { return };
        assert!(packet.payload_start() <= packet.end() && packet.end() <= frame.len());
        assert!((20..=60).contains(&packet.header_len));
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
        let Ok(Packet { body: Body::Ipv4(packet), .. }) = parse(frame) else { return };
        let mut buffer = Vec::new();
        let error = icmp::IcmpError::FragmentationNeeded { mtu: 1400 };
        icmp::emit_error(&mut buffer, frame, &packet, error, DIRECTOR_MAC, VIP);
        let answer = ipv4(&buffer);
        assert!(answer.total_len <= 576 && answer.destination == packet.source);
        assert_eq!(checksum::verify_icmp(&buffer, &answer), Ok(()));
        buffer.clear();
        match icmp::emit_echo_reply(&mut buffer, frame, &packet, DIRECTOR_MAC) {
            Ok(()) => assert_eq!(checksum::verify_icmp(&buffer, &ipv4(&buffer)), Ok(())),
            Err(_) => assert!(buffer.is_empty()),
        }
        buffer.clear();
        match tcp::emit_reset(&mut buffer, frame, &packet, DIRECTOR_MAC, true) {
            Ok(()) => assert_eq!(checksum::verify_transport(&buffer, &ipv4(&buffer)), Ok(())),
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
            sample in 0..samples::ALL.len(),
            at in proptest::collection::vec((14usize..45, any::<u8>()), 0..6),
            quote in 0..samples::ALL.len(),
            cut in 0usize..80,
            kind in any::<u8>(),
        ) {
            let mut frame = samples::ALL[sample].to_vec();
            for (offset, byte) in at {
                if let Some(place) = frame.get_mut(offset) {
                    *place = byte;
                }
            }
            let quote = &samples::ALL[quote][14..];
            let quoting = error_quoting(kind, &quote[..cut.min(quote.len())]);
            for frame in [patched(&frame, &[]), quoting] {
                check_against_second_reading(&frame);
                check_answers(&frame);
            }
        }
    }
}
