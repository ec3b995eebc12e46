//! TCP resets (RFC 9293, 3.10.7.1): the answer to a segment that belongs to no connection.

use etherparse::{IpNumber, TcpHeader, TcpHeaderSlice};

use super::MacAddr;
use super::checksum::{self, BadChecksum};
use super::emit::{self, Answer};
use super::packet::Ip;

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
    packet: &Ip,
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
        protocol: IpNumber::TCP,
        traffic_class: 0,
        identification: 0,
        dont_fragment: true,
    };
    let start = answer.emit(buffer, frame, packet, source_mac, TcpHeader::MIN_LEN);
    let reset = reset_of(&segment, bytes.len() - segment.slice().len());
    buffer.extend_from_slice(&reset.to_bytes());
    let bytes = buffer.get(start..).unwrap_or_default();
    let checksum = checksum::of_tcp(packet.destination, packet.source, bytes);
    emit::set_checksum(buffer, start + CHECKSUM_OFFSET, checksum);
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
        // The data of a packet has at most 65535 bytes.
        let len = data_len as u32 + u32::from(segment.syn()) + u32::from(segment.fin());
        reset.acknowledgment_number = segment.sequence_number().wrapping_add(len);
        reset.ack = true;
    }
    reset
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    use super::super::samples::*;
    use super::*;
    use crate::wire::packet::TcpFlags;

    const SEQUENCE: u32 = 1000;
    const ACKNOWLEDGEMENT: u32 = 0xffff_fff0;

    /// A segment from the client to the VIP, with right checksums.
    fn segment(flags: u8, data: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(40000, 80, SEQUENCE, 64240);
        header.fin = flags & TcpFlags::FIN != 0;
        header.syn = flags & TcpFlags::SYN != 0;
        header.psh = flags & TcpFlags::PSH != 0;
        header.ack = flags & TcpFlags::ACK != 0;
        header.acknowledgment_number = ACKNOWLEDGEMENT;
        header.set_options_raw(&[1, 1, 1, 0]).unwrap();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(CLIENT_MAC.0, DIRECTOR_MAC.0)
            .ipv4(CLIENT.octets(), VIP.octets(), 64)
            .tcp_header(header)
            .write_to_vec(&mut frame, data)
            .unwrap();
        frame
    }

    /// The reset's sequence and acknowledgement numbers and flags, everything else checked.
    fn read(frame: &[u8]) -> (u32, u32, TcpFlags) {
        assert_eq!(MacAddr(frame[..6].try_into().unwrap()), CLIENT_MAC);
        assert_eq!(MacAddr(frame[6..12].try_into().unwrap()), DIRECTOR_MAC);
        assert_eq!(frame.len(), 14 + 40);
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
            (sliced.net, sliced.transport)
        else {
            panic!("not TCP: {frame:02x?}")
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!((header.source, header.destination), (VIP.octets(), CLIENT.octets()));
        assert_eq!((header.time_to_live, header.total_len), (64, 40));
        assert!(header.dont_fragment);
        assert_eq!(Ok(tcp.checksum()), tcp.calc_checksum_ipv4(header.source, header.destination));
        assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 40000));
        assert_eq!((tcp.window_size(), tcp.data_offset()), (0, 5));
        let flags = TcpFlags(tcp.header_slice()[13]);
        (tcp.sequence_number(), tcp.acknowledgment_number(), flags)
    }

    #[test]
    fn a_reset_has_the_numbers_that_rfc_9293_gives_it() {
        use TcpFlags as F;
        let reset_and_ack = F(F::RST | F::ACK);
        let reset = F(F::RST);
        type Row = (&'static str, u8, &'static [u8], (u32, u32, TcpFlags));
        let rows: [Row; 7] = [
            ("SYN", F::SYN, b"", (0, SEQUENCE + 1, reset_and_ack)),
            ("SYN with data", F::SYN, b"hello", (0, SEQUENCE + 6, reset_and_ack)),
            ("SYN, FIN and data", F::SYN | F::FIN, b"hello", (0, SEQUENCE + 7, reset_and_ack)),
            ("data without ACK", 0, b"hello", (0, SEQUENCE + 5, reset_and_ack)),
            ("nothing at all", 0, b"", (0, SEQUENCE, reset_and_ack)),
            ("ACK", F::ACK, b"", (ACKNOWLEDGEMENT, 0, reset)),
            ("FIN, ACK and data", F::FIN | F::ACK, b"hello", (ACKNOWLEDGEMENT, 0, reset)),
        ];
        for (what, flags, data, expected) in rows {
            let mut frame = segment(flags, data);
            frame.resize(frame.len() + 7, 0xee);
            let mut buffer = Vec::new();
            let packet = ip_of(&frame);
            let result = emit_reset(&mut buffer, &frame, &packet, DIRECTOR_MAC, false);
            assert_eq!(result, Ok(()), "{what}");
            assert_eq!(read(&buffer), expected, "{what}");
        }
    }

    #[test]
    fn the_acknowledgement_wraps() {
        let mut frame = TCP_SYN;
        frame[38..42].copy_from_slice(&u32::MAX.to_be_bytes());
        let mut buffer = Vec::new();
        emit_reset(&mut buffer, &frame, &ip_of(&frame), DIRECTOR_MAC, true).unwrap();
        assert_eq!(read(&buffer), (0, 0, TcpFlags(TcpFlags::RST | TcpFlags::ACK)));
    }

    #[test]
    fn a_wrong_checksum_gets_nothing_unless_it_is_still_to_be_completed() {
        let mut wrong = TCP_SYN;
        wrong[50] ^= 1;
        let packet = ip_of(&wrong);
        let mut buffer = Vec::new();
        assert_eq!(emit_reset(&mut buffer, &wrong, &packet, DIRECTOR_MAC, false), Err(BadChecksum));
        assert!(buffer.is_empty());
        assert_eq!(emit_reset(&mut buffer, &wrong, &packet, DIRECTOR_MAC, true), Ok(()));
        read(&buffer);
    }

    #[test]
    fn a_fragment_gets_nothing() {
        let fragment = patched(&TCP_SYN, &[(20, &[0x20, 0])]);
        let mut buffer = Vec::new();
        for checksum_pending in [false, true] {
            let packet = ip_of(&fragment);
            assert_eq!(
                emit_reset(&mut buffer, &fragment, &packet, DIRECTOR_MAC, checksum_pending),
                Err(BadChecksum)
            );
            assert!(buffer.is_empty());
        }
    }
}
