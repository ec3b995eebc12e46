//! TCP resets (RFC 9293, 3.10.7.1): the answer to a segment that belongs to no connection.

use super::MacAddr;
use super::checksum::BadChecksum;
use super::packet::Ipv4;

/// Writes the RST that answers the TCP segment in `frame`, whole, appending to the cleared
/// `buffer`; it goes back to the MAC and address the segment came from.
///
/// Without ACK in the segment: sequence 0, acknowledging sequence + length (SYN and FIN count),
/// flags RST and ACK. With ACK: sequence is the segment's acknowledgement number, flag RST only.
/// The caller never passes a segment that is itself a RST.
///
/// # Errors
/// `Err` when the segment's checksum is wrong and `checksum_pending` is not set: nothing is
/// written, since its numbers cannot be trusted.
pub fn emit_reset(
    _buffer: &mut Vec<u8>,
    _frame: &[u8],
    _packet: &Ipv4,
    _source_mac: MacAddr,
    _checksum_pending: bool,
) -> Result<(), BadChecksum> {
    todo!()
}
