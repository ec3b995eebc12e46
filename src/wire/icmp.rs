//! ICMP for IPv4 (RFC 792): echo, and the errors a director sends.

use core::net::Ipv4Addr;

use super::MacAddr;
use super::packet::Ipv4;

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
/// Types that nobody assigned count as errors.
pub const fn is_error(_kind: u8) -> bool {
    todo!()
}

/// Writes the echo reply to the echo request in `frame`, whole, appending to the cleared `buffer`.
///
/// Addresses swap; identifier, sequence and data return as they came; TTL 64. `source_mac` is
/// the director's, and the reply goes to the MAC the request came from.
///
/// # Errors
/// `Err` when the request's ICMP checksum is wrong, or it is a fragment: nothing is written.
pub fn emit_echo_reply(
    _buffer: &mut Vec<u8>,
    _frame: &[u8],
    _packet: &Ipv4,
    _source_mac: MacAddr,
) -> Result<(), super::checksum::BadChecksum> {
    todo!()
}

/// Writes an ICMP error about the packet in `frame`, whole, appending to the cleared `buffer`.
///
/// It comes from `source` (the VIP), quotes as much of the packet as 576 bytes hold (RFC 1812,
/// 4.3.2.3), and goes to the MAC and address the packet came from. The caller has made sure an
/// error may be sent at all: see [`may_answer_with_error`].
pub fn emit_error(
    _buffer: &mut Vec<u8>,
    _frame: &[u8],
    _packet: &Ipv4,
    _error: IcmpError,
    _source_mac: MacAddr,
    _source: Ipv4Addr,
) {
    todo!()
}

/// Whether RFC 1122, 3.2.2 and RFC 1812, 4.3.2.7 let an ICMP error be sent about this packet:
/// no error about an ICMP error, a group or broadcast frame, a later fragment, or a source that
/// is no single host (0.0.0.0, loopback, multicast, class E).
pub fn may_answer_with_error(_packet: &Ipv4, _frame_destination: MacAddr) -> bool {
    todo!()
}
