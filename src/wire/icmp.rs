//! ICMP for IPv4 (RFC 792) and IPv6 (RFC 4443): echo, and the errors a director sends.

use core::net::IpAddr;

use etherparse::IpNumber;

use super::MacAddr;
use super::checksum::{self, BadChecksum};
use super::emit::{self, Answer};
use super::packet::{Ip, Transport};

/// Bytes of the part that all messages share: type, code, checksum, and four that vary.
pub const HEADER_LEN: usize = 8;

pub const ECHO_REPLY: u8 = 0;
pub const DESTINATION_UNREACHABLE: u8 = 3;
pub const SOURCE_QUENCH: u8 = 4;
pub const REDIRECT: u8 = 5;
pub const ECHO_REQUEST: u8 = 8;
pub const TIME_EXCEEDED: u8 = 11;
pub const PARAMETER_PROBLEM: u8 = 12;

/// The types of ICMPv6.
pub mod v6 {
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    pub const PACKET_TOO_BIG: u8 = 2;
    pub const TIME_EXCEEDED: u8 = 3;
    pub const PARAMETER_PROBLEM: u8 = 4;
    pub const ECHO_REQUEST: u8 = 128;
    pub const ECHO_REPLY: u8 = 129;
    pub const LISTENER_QUERY: u8 = 130;
    pub const LISTENER_REPORT: u8 = 131;
    pub const LISTENER_DONE: u8 = 132;
    pub const ROUTER_SOLICITATION: u8 = 133;
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    pub const REDIRECT: u8 = 137;
    pub const LISTENER_REPORT_V2: u8 = 143;
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Type 3, code 3; in IPv6 type 1, code 4.
    PortUnreachable,
    /// With the MTU that would have fitted: fragmentation needed (type 3, code 4, RFC 1191), in
    /// IPv6 packet too big (type 2).
    TooBig { mtu: u16 },
    /// A field whose value means nothing here, by its place in the packet: parameter problem,
    /// code 0 (type 12; in IPv6 type 4).
    Erroneous { at: u16 },
}

/// What an ICMP message is to a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    EchoRequest,
    /// An error about a packet, which quotes it.
    Error,
    /// Of IPv6: a neighbor solicitation or advertisement, or a query for listeners.
    Discovery,
    /// Anything else.
    Other,
}

impl Meaning {
    /// What a message of this type means, in either family.
    pub const fn of(is_ipv6: bool, kind: u8) -> Meaning {
        match (is_ipv6, kind) {
            (false, ECHO_REQUEST) | (true, v6::ECHO_REQUEST) => Meaning::EchoRequest,
            (true, v6::NEIGHBOR_SOLICITATION | v6::NEIGHBOR_ADVERTISEMENT | v6::LISTENER_QUERY) => {
                Meaning::Discovery
            }
            (false, REDIRECT) => Meaning::Other,
            _ if quotes_packet(is_ipv6, kind) => Meaning::Error,
            _ => Meaning::Other,
        }
    }
}

/// Whether an ICMP type is an error message, which must never be answered (RFC 1122, 3.2.2).
///
/// What is known to be a question or an answer is none: echo (0, 8), router discovery (9, 10),
/// timestamp, information and address mask (13 to 18), extended echo (42, 43). Everything else
/// counts as an error, types that nobody assigned included. In IPv6 the errors are the lower half
/// of the types, and redirects are not answered either (RFC 4443, 2.4).
pub const fn is_error(is_ipv6: bool, kind: u8) -> bool {
    if is_ipv6 {
        return kind < 128 || kind == v6::REDIRECT;
    }
    !matches!(kind, ECHO_REPLY | ECHO_REQUEST | 9 | 10 | 13..=18 | 42 | 43)
}

/// Whether messages of this type are known to quote the packet they are about after
/// [`HEADER_LEN`] bytes (RFC 792; RFC 4443, 3).
pub const fn quotes_packet(is_ipv6: bool, kind: u8) -> bool {
    if is_ipv6 {
        return matches!(kind, v6::DESTINATION_UNREACHABLE..=v6::PARAMETER_PROBLEM);
    }
    matches!(
        kind,
        DESTINATION_UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
    )
}

/// Writes the echo reply to the echo request in `frame`, whole, appending to the cleared `buffer`.
///
/// Addresses swap; identifier, sequence and data return as they came; TTL 64. `source_mac` is
/// the director's, and the reply goes to the MAC the request came from. It has the request's
/// DSCP (RFC 1349, 5.1), identification and DF flag, so that it is no harder to deliver than the
/// request was; IP options and extension headers are not returned.
///
/// # Errors
/// `Err` when the request's ICMP checksum is wrong, or it is a fragment: nothing is written.
pub fn emit_echo_reply(
    buffer: &mut Vec<u8>,
    frame: &[u8],
    packet: &Ip,
    source_mac: MacAddr,
) -> Result<(), BadChecksum> {
    checksum::verify_icmp(frame, packet)?;
    let request = frame.get(packet.payload_start()..packet.end()).ok_or(BadChecksum)?;
    let (_, rest) = request.split_at_checked(4).ok_or(BadChecksum)?;
    let (protocol, kind) = match packet.is_ipv6() {
        false => (IpNumber::ICMP, ECHO_REPLY),
        true => (IpNumber::IPV6_ICMP, v6::ECHO_REPLY),
    };
    let answer = Answer {
        source: packet.destination,
        protocol,
        traffic_class: dscp(frame, packet),
        identification: packet.identification as u16,
        dont_fragment: packet.dont_fragment,
    };
    let start = answer.emit(buffer, frame, packet, source_mac, request.len());
    buffer.extend_from_slice(&[kind, 0, 0, 0]);
    buffer.extend_from_slice(rest);
    finish(buffer, start, packet.destination, packet.source);
    Ok(())
}

/// Writes an ICMP error about the packet in `frame`, whole, appending to the cleared `buffer`.
///
/// It comes from `source` (the VIP), quotes as much of the packet as 576 bytes hold (RFC 1812,
/// 4.3.2.3), in IPv6 1280 (RFC 4443, 2.4), and goes to the MAC and address the packet came from.
/// Its precedence is 6, the TOS byte 0xc0 (RFC 1812, 4.3.2.5). DF is clear, as nobody would learn
/// of its loss; it takes the identification of the packet it is about, which the sender does not
/// repeat soon. The caller has made sure an error may be sent at all: see
/// [`may_answer_with_error`].
pub fn emit_error(
    buffer: &mut Vec<u8>,
    frame: &[u8],
    packet: &Ip,
    error: IcmpError,
    source_mac: MacAddr,
    source: IpAddr,
) {
    let is_ipv6 = packet.is_ipv6();
    let quote_max = if is_ipv6 { QUOTE_MAX_V6 } else { QUOTE_MAX };
    let end = packet.end().min(packet.start() + quote_max);
    let quote = frame.get(packet.start()..end).unwrap_or_default();
    let answer = Answer {
        source,
        protocol: if is_ipv6 { IpNumber::IPV6_ICMP } else { IpNumber::ICMP },
        traffic_class: INTERNETWORK_CONTROL,
        identification: packet.identification as u16,
        dont_fragment: false,
    };
    let start = answer.emit(buffer, frame, packet, source_mac, HEADER_LEN + quote.len());
    let (kind, code, rest) = match (is_ipv6, error) {
        (false, IcmpError::PortUnreachable) => (DESTINATION_UNREACHABLE, 3, 0),
        (false, IcmpError::TooBig { mtu }) => (DESTINATION_UNREACHABLE, 4, mtu.into()),
        // The pointer has the first byte.
        (false, IcmpError::Erroneous { at }) => (PARAMETER_PROBLEM, 0, u32::from(at) << 24),
        (true, IcmpError::PortUnreachable) => (v6::DESTINATION_UNREACHABLE, 4, 0),
        (true, IcmpError::TooBig { mtu }) => (v6::PACKET_TOO_BIG, 0, mtu.into()),
        (true, IcmpError::Erroneous { at }) => (v6::PARAMETER_PROBLEM, 0, at.into()),
    };
    buffer.extend_from_slice(&[kind, code, 0, 0]);
    buffer.extend_from_slice(&rest.to_be_bytes());
    buffer.extend_from_slice(quote);
    finish(buffer, start, source, packet.source);
}

/// Whether RFC 1122, 3.2.2 and RFC 1812, 4.3.2.7, for IPv6 RFC 4443, 2.4 (e), let an ICMP error be
/// sent about this packet: no error about an ICMP error, a group or broadcast frame or address, a
/// later fragment, or a source that is no single host.
pub fn may_answer_with_error(packet: &Ip, frame_destination: MacAddr) -> bool {
    let about_error = match packet.transport {
        Transport::Icmp { kind, .. } => is_error(packet.is_ipv6(), kind),
        Transport::LaterFragment => true,
        _ => false,
    };
    let to_group = match packet.destination {
        IpAddr::V4(destination) => destination.is_multicast() || destination.is_broadcast(),
        IpAddr::V6(destination) => destination.is_multicast(),
    };
    !about_error && is_single_host(packet.source) && !to_group && !frame_destination.is_multicast()
}

/// Whether an address, as far as it shows by itself, is that of a single other host: in IPv4 not
/// in 0.0.0.0/8, loopback, multicast or class E (RFC 1122, 3.2.1.3); in IPv6 not unspecified,
/// loopback, multicast (RFC 4291, 2.5, 2.7), or an IPv4 address in disguise (2.5.5).
#[inline]
pub const fn is_single_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            !matches!(first, 0 | 127 | 224..=255)
        }
        // ::, ::1, ::a.b.c.d and ::ffff:a.b.c.d; ff00::/8.
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            bits >> 48 != 0 && bits >> 120 != 0xff
        }
    }
}

/// Bytes quoted at most: RFC 1812's 576 for the whole error, less its IP and ICMP headers.
const QUOTE_MAX: usize = 576 - 20 - HEADER_LEN;

/// The same in IPv6, where every link carries 1280 bytes.
const QUOTE_MAX_V6: usize = 1280 - 40 - HEADER_LEN;

/// The TOS byte of precedence 6.
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// The DSCP of the packet in `frame`, in its place in the TOS byte or traffic class.
fn dscp(frame: &[u8], packet: &Ip) -> u8 {
    let Some(&[first, second]) = frame.get(packet.start()..).and_then(|ip| ip.first_chunk()) else {
        return 0;
    };
    let class = if packet.is_ipv6() { first << 4 | second >> 4 } else { second };
    class & !3
}

/// Fills in the checksum of an ICMP message that was appended with a zero in its place.
fn finish(buffer: &mut [u8], start: usize, source: IpAddr, destination: IpAddr) {
    let message = buffer.get(start..).unwrap_or_default();
    let checksum = checksum::of_icmp(source, destination, message);
    emit::set_checksum(buffer, start + 2, checksum);
}

#[cfg(test)]
mod tests {
    use etherparse::{
        Icmpv4Type, IpDscp, Ipv4Slice, NetSlice, SlicedPacket, TransportSlice, icmpv4,
    };

    use super::super::samples::{self, *};
    use super::*;
    use crate::wire::packet::{Body, Packet, parse, quoted_flow};

    /// Reads an emitted frame with etherparse: both checksums right, nothing behind the packet,
    /// from the director to the client.
    fn read(frame: &[u8]) -> (Ipv4Slice<'_>, Icmpv4Type, &[u8]) {
        assert_eq!(MacAddr(frame[..6].try_into().unwrap()), CLIENT_MAC);
        assert_eq!(MacAddr(frame[6..12].try_into().unwrap()), DIRECTOR_MAC);
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
            (sliced.net, sliced.transport)
        else {
            panic!("not ICMP: {frame:02x?}")
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), frame.len() - 14);
        assert_eq!((header.source, header.destination), (VIP.octets(), CLIENT.octets()));
        assert_eq!(header.time_to_live, 64);
        let kind = icmp.icmp_type();
        assert_eq!(icmp.checksum(), kind.calc_checksum(icmp.payload()));
        (ip, kind, icmp.payload())
    }

    #[test]
    fn an_echo_request_comes_back_as_a_reply() {
        let mut reply = Vec::new();
        let packet = ip_of(&ECHO);
        assert_eq!(emit_echo_reply(&mut reply, &ECHO, &packet, DIRECTOR_MAC), Ok(()));
        let (ip, kind, data) = read(&reply);
        let echo = etherparse::IcmpEchoHeader { id: 0x1234, seq: 1 };
        assert_eq!(kind, Icmpv4Type::EchoReply(echo));
        assert_eq!(data, b"abc");
        assert_eq!(ip.header().dcp(), IpDscp::AF11);
        assert_eq!(ip.header().identification(), 0x1c46);
        assert!(ip.header().dont_fragment());
    }

    #[test]
    fn an_echo_request_that_cannot_be_trusted_gets_nothing() {
        let mut wrong = ECHO;
        wrong[44] ^= 1;
        for frame in [wrong.to_vec(), patched(&ECHO, &[(20, &[0x20, 0])])] {
            let mut reply = Vec::new();
            let packet = ip_of(&frame);
            assert_eq!(
                emit_echo_reply(&mut reply, &frame, &packet, DIRECTOR_MAC),
                Err(BadChecksum)
            );
            assert!(reply.is_empty());
        }
    }

    #[test]
    fn an_error_quotes_the_packet_and_only_the_packet() {
        let unreachable = icmpv4::DestUnreachableHeader::Port;
        let too_big = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
        for (error, expected) in
            [(IcmpError::PortUnreachable, unreachable), (IcmpError::TooBig { mtu: 1400 }, too_big)]
        {
            for sample in samples::ALL {
                let Ok(Packet { body: Body::Ip(packet), .. }) = parse(sample) else { continue };
                let mut padded = sample.to_vec();
                padded.resize(64, 0xee);
                let mut frame = Vec::new();
                emit_error(&mut frame, &padded, &packet, error, DIRECTOR_MAC, VIP.into());
                let (ip, kind, quote) = read(&frame);
                assert_eq!(kind, Icmpv4Type::DestinationUnreachable(expected.clone()));
                assert_eq!(quote, &sample[14..]);
                assert_eq!(frame[15], 0xc0, "precedence: internetwork control");
                assert_eq!(u32::from(ip.header().identification()), packet.identification);
                assert!(!ip.header().dont_fragment());
                if !matches!(packet.transport, Transport::Icmp { .. }) {
                    let flow = quoted_flow(&frame, &ip_of(&frame)).expect("ports are quoted");
                    assert_eq!((flow.source, flow.destination), (CLIENT.into(), VIP.into()));
                }
            }
        }
    }

    #[test]
    fn an_error_about_a_long_packet_is_576_bytes_long() {
        for (payload_len, expected) in [(529, 576), (1480, 576), (527, 575), (528, 576), (99, 147)]
        {
            let mut long = ECHO[..34].to_vec();
            long.resize(34 + payload_len, 0x55);
            let total_len = (20 + payload_len) as u16;
            let long = patched(&long, &[(16, &total_len.to_be_bytes())]);
            let mut frame = Vec::new();
            emit_error(
                &mut frame,
                &long,
                &ip_of(&long),
                IcmpError::PortUnreachable,
                DIRECTOR_MAC,
                VIP.into(),
            );
            assert_eq!(frame.len() - 14, expected, "{payload_len}");
            let (_, _, quote) = read(&frame);
            assert_eq!(quote, &long[14..14 + quote.len()]);
        }
    }

    #[test]
    fn only_questions_and_their_answers_are_no_errors() {
        let queries = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43];
        for kind in 0..=255 {
            assert_eq!(is_error(false, kind), !queries.contains(&kind), "type {kind}");
            assert!(is_error(false, kind) || !quotes_packet(false, kind), "type {kind}");
        }
    }

    #[test]
    fn errors_answer_only_what_they_may() {
        type Row = (&'static str, &'static [u8], &'static [(usize, &'static [u8])], bool);
        let rows: &[Row] = &[
            ("TCP", &TCP_SYN, &[], true),
            ("UDP", &UDP, &[], true),
            ("SCTP", &SCTP_INIT, &[], true),
            ("an unknown protocol", &TCP_SYN, &[(23, &[47])], true),
            ("an echo request", &ECHO, &[], true),
            ("an ICMP error", &ECHO, &[(34, &[3])], false),
            ("a redirect", &ECHO, &[(34, &[5])], false),
            ("an unassigned ICMP type", &ECHO, &[(34, &[200])], false),
            ("a first fragment", &UDP, &[(20, &[0x20, 0])], true),
            ("a later fragment", &UDP, &[(20, &[0, 1])], false),
            ("from 0.0.0.0", &UDP, &[(26, &[0, 0, 0, 0])], false),
            ("from 0.1.2.3", &UDP, &[(26, &[0, 1, 2, 3])], false),
            ("from 1.1.1.1", &UDP, &[(26, &[1, 1, 1, 1])], true),
            ("from loopback", &UDP, &[(26, &[127, 0, 0, 1])], false),
            ("from 128.0.0.1", &UDP, &[(26, &[128, 0, 0, 1])], true),
            ("from the last unicast address", &UDP, &[(26, &[223, 255, 255, 255])], true),
            ("from multicast", &UDP, &[(26, &[224, 0, 0, 1])], false),
            ("from class E", &UDP, &[(26, &[240, 0, 0, 1])], false),
            ("from broadcast", &UDP, &[(26, &[255, 255, 255, 255])], false),
            ("to multicast", &UDP, &[(30, &[224, 0, 0, 1])], false),
            ("to broadcast", &UDP, &[(30, &[255, 255, 255, 255])], false),
        ];
        for &(what, frame, patches, expected) in rows {
            let packet = ip_of(&patched(frame, patches));
            assert_eq!(may_answer_with_error(&packet, DIRECTOR_MAC), expected, "{what}");
            assert!(!may_answer_with_error(&packet, MacAddr::BROADCAST), "{what}, by broadcast");
            let group = MacAddr([1, 0, 0x5e, 0, 0, 1]);
            assert!(!may_answer_with_error(&packet, group), "{what}, by multicast");
        }
    }
}
