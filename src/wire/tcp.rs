//! TCP resets (RFC 9293, 3.10.7.1): the answer to a segment that belongs to no connection.

use etherparse::{IpDscp, IpNumber, TcpHeader, TcpHeaderSlice};

use super::MacAddr;
use super::checksum::{self, BadChecksum};
use super::emit::{self, Answer};
use super::packet::Ipv4;

/// Writes the RST that answers the TCP segment in `frame`, whole, appending to the cleared
/// `buffer`; it goes back to the MAC and address the segment came from.
///
/// Without ACK in the segment: sequence 0, acknowledging sequence + length (SYN and FIN count),
/// flags RST and ACK. With ACK: sequence is the segment's acknowledgement number, flag RST only.
/// The caller never passes a segment that is itself a RST. Window 0, TTL 64, DF set and
/// identification 0, which such a packet does not need (RFC 6864, 4.1).
///
/// # Errors
/// `Err` when the segment's checksum is wrong and `checksum_pending` is not set, or when it is a
/// fragment, whose checksum and length are not known: nothing is written, since its numbers
/// cannot be trusted.
pub fn emit_reset(
    buffer: &mut Vec<u8>,
    frame: &[u8],
    packet: &Ipv4,
    source_mac: MacAddr,
    checksum_pending: bool,
) -> Result<(), BadChecksum> {
    if packet.is_fragment() {
        return Err(BadChecksum);
    }
    if !checksum_pending {
        checksum::verify_transport(frame, packet)?;
    }
    let bytes = frame.get(packet.payload_start()..packet.end()).ok_or(BadChecksum)?;
    let segment = TcpHeaderSlice::from_slice(bytes).map_err(|_| BadChecksum)?;
    let answer = Answer {
        source: packet.destination,
        destination: packet.source,
        protocol: IpNumber::TCP,
        dscp: IpDscp::CS0,
        identification: 0,
        dont_fragment: true,
    };
    answer.emit(buffer, frame, source_mac, TcpHeader::MIN_LEN);
    let reset = reset_of(&segment, bytes.len() - segment.slice().len());
    buffer.extend_from_slice(&reset.to_bytes());
    let bytes = buffer.get(emit::PAYLOAD_START..).unwrap_or_default();
    let checksum = checksum::of_tcp(packet.destination, packet.source, bytes);
    emit::set_checksum(buffer, CHECKSUM_OFFSET, checksum);
    Ok(())
}

/// Where the checksum is in a TCP header (RFC 9293, 3.1).
const CHECKSUM_OFFSET: usize = 16;

/// The header of the reset, its checksum still zero.
fn reset_of(segment: &TcpHeaderSlice<'_>, data_len: usize) -> TcpHeader {
    let mut reset = TcpHeader::new(segment.destination_port(), segment.source_port(), 0, 0);
    reset.rst = true;
    if segment.ack() {
        reset.sequence_number = segment.acknowledgment_number();
    } else {
        // The data of an IPv4 packet has at most 65535 bytes.
        let len = data_len as u32 + u32::from(segment.syn()) + u32::from(segment.fin());
        reset.acknowledgment_number = segment.sequence_number().wrapping_add(len);
        reset.ack = true;
    }
    reset
}
