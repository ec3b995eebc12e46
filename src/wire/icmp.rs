//! ICMP for IPv4 (RFC 792): echo, and the errors a director sends.

use core::net::Ipv4Addr;

use etherparse::{IpDscp, IpNumber, Ipv4HeaderSlice};

use super::MacAddr;
use super::checksum::{self, BadChecksum};
use super::emit::{self, Answer};
use super::frame::ETHERNET_HEADER_LEN;
use super::packet::{Ipv4, Transport};

/// Bytes of the part that all messages share: type, code, checksum, and four that vary.
pub const HEADER_LEN: usize = 8;

pub const ECHO_REPLY: u8 = 0;
pub const DESTINATION_UNREACHABLE: u8 = 3;
pub const SOURCE_QUENCH: u8 = 4;
pub const REDIRECT: u8 = 5;
pub const ECHO_REQUEST: u8 = 8;
pub const TIME_EXCEEDED: u8 = 11;
pub const PARAMETER_PROBLEM: u8 = 12;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Type 3, code 3.
    PortUnreachable,
    /// Type 3, code 4, with the MTU that would have fitted (RFC 1191).
    FragmentationNeeded { mtu: u16 },
}

/// Whether an ICMP type is an error message, which must never be answered (RFC 1122, 3.2.2).
///
/// What is known to be a question or an answer is none: echo (0, 8), router discovery (9, 10),
/// timestamp, information and address mask (13 to 18), extended echo (42, 43). Everything else
/// counts as an error, types that nobody assigned included.
pub const fn is_error(kind: u8) -> bool {
    !matches!(kind, ECHO_REPLY | ECHO_REQUEST | 9 | 10 | 13..=18 | 42 | 43)
}

/// Whether messages of this type are known to quote the packet they are about after
/// [`HEADER_LEN`] bytes (RFC 792).
pub(super) const fn quotes_packet(kind: u8) -> bool {
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
/// request was; IP options are not returned.
///
/// # Errors
/// `Err` when the request's ICMP checksum is wrong, or it is a fragment: nothing is written.
pub fn emit_echo_reply(
    buffer: &mut Vec<u8>,
    frame: &[u8],
    packet: &Ipv4,
    source_mac: MacAddr,
) -> Result<(), BadChecksum> {
    checksum::verify_icmp(frame, packet)?;
    let request = frame.get(packet.payload_start()..packet.end()).ok_or(BadChecksum)?;
    let (_, rest) = request.split_at_checked(4).ok_or(BadChecksum)?;
    let answer = Answer {
        source: packet.destination,
        destination: packet.source,
        protocol: IpNumber::ICMP,
        dscp: dscp(frame),
        identification: packet.identification,
        dont_fragment: packet.dont_fragment,
    };
    answer.emit(buffer, frame, source_mac, request.len());
    buffer.extend_from_slice(&[ECHO_REPLY, 0, 0, 0]);
    buffer.extend_from_slice(rest);
    finish(buffer);
    Ok(())
}

/// Writes an ICMP error about the packet in `frame`, whole, appending to the cleared `buffer`.
///
/// It comes from `source` (the VIP), quotes as much of the packet as 576 bytes hold (RFC 1812,
/// 4.3.2.3), and goes to the MAC and address the packet came from. Its precedence is 6, the TOS
/// byte 0xc0 (RFC 1812, 4.3.2.5). DF is clear, as nobody would learn of its loss; it takes the
/// identification of the packet it is about, which the sender does not repeat soon. The caller
/// has made sure an error may be sent at all: see [`may_answer_with_error`].
pub fn emit_error(
    buffer: &mut Vec<u8>,
    frame: &[u8],
    packet: &Ipv4,
    error: IcmpError,
    source_mac: MacAddr,
    source: Ipv4Addr,
) {
    let end = packet.end().min(ETHERNET_HEADER_LEN + QUOTE_MAX);
    let quote = frame.get(ETHERNET_HEADER_LEN..end).unwrap_or_default();
    let answer = Answer {
        source,
        destination: packet.source,
        protocol: IpNumber::ICMP,
        dscp: IpDscp::CS6,
        identification: packet.identification,
        dont_fragment: false,
    };
    answer.emit(buffer, frame, source_mac, HEADER_LEN + quote.len());
    let (code, mtu) = match error {
        IcmpError::PortUnreachable => (3, 0),
        IcmpError::FragmentationNeeded { mtu } => (4, mtu),
    };
    let [high, low] = mtu.to_be_bytes();
    buffer.extend_from_slice(&[DESTINATION_UNREACHABLE, code, 0, 0, 0, 0, high, low]);
    buffer.extend_from_slice(quote);
    finish(buffer);
}

/// Whether RFC 1122, 3.2.2 and RFC 1812, 4.3.2.7 let an ICMP error be sent about this packet:
/// no error about an ICMP error, a group or broadcast frame or address, a later fragment, or a
/// source that is no single host (0.0.0.0/8, loopback, multicast, class E).
pub fn may_answer_with_error(packet: &Ipv4, frame_destination: MacAddr) -> bool {
    let about_error = match packet.transport {
        Transport::Icmp { kind, .. } => is_error(kind),
        Transport::LaterFragment => true,
        _ => false,
    };
    let [first, ..] = packet.source.octets();
    let single_host = !matches!(first, 0 | 127 | 224..=255);
    let to_group = packet.destination.is_multicast() || packet.destination.is_broadcast();
    !about_error && single_host && !to_group && !frame_destination.is_multicast()
}

/// Bytes quoted at most: RFC 1812's 576 for the whole error, less its IP and ICMP headers.
const QUOTE_MAX: usize = 576 - 20 - HEADER_LEN;

/// The DSCP of the packet in `frame`.
fn dscp(frame: &[u8]) -> IpDscp {
    let packet = frame.get(ETHERNET_HEADER_LEN..).unwrap_or_default();
    Ipv4HeaderSlice::from_slice(packet).map_or(IpDscp::CS0, |header| header.dcp())
}

/// Fills in the checksum of an ICMP message that was appended with a zero in its place.
fn finish(buffer: &mut [u8]) {
    let message = buffer.get(emit::PAYLOAD_START..).unwrap_or_default();
    emit::set_checksum(buffer, 2, checksum::of(message));
}
