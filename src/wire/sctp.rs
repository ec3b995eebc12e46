//! SCTP (RFC 9260): which chunk governs a packet, its checksum, and the answer to a packet that
//! belongs to no association.

use etherparse::IpNumber;

use super::MacAddr;
use super::checksum::BadChecksum;
use super::emit::Answer;
use super::packet::{Ip, SCTP_NO_CHUNK};

/// Chunk types (RFC 9260, section 3.2).
pub const INIT: u8 = 1;
pub const INIT_ACK: u8 = 2;
pub const ABORT: u8 = 6;
pub const SHUTDOWN: u8 = 7;
pub const SHUTDOWN_ACK: u8 = 8;
pub const ERROR: u8 = 9;
pub const COOKIE_ECHO: u8 = 10;
pub const COOKIE_ACK: u8 = 11;
pub const SHUTDOWN_COMPLETE: u8 = 14;

/// Of ABORT and SHUTDOWN COMPLETE: the verification tag is the receiver's own, sent back.
const T_BIT: u8 = 1;

/// Bytes of the common header (section 3.1), and of a chunk's (section 3.2).
const HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;

/// Where in the common header the checksum is.
const CHECKSUM_AT: usize = 8;

/// More chunks than this are not gone through; a packet has a few.
const CHUNKS_MAX: usize = 64;

/// The chunk that says what a packet means: the first, but for an ABORT bundled with a COOKIE ECHO
/// or a COOKIE ACK (section 3.3.7: what it is bundled with comes before it).
pub fn governing_chunk(frame: &[u8], packet: &Ip) -> u8 {
    let Some(packet) = frame.get(packet.payload_start()..packet.end()) else {
        return SCTP_NO_CHUNK;
    };
    let mut chunks = chunks(packet);
    match chunks.next() {
        None => SCTP_NO_CHUNK,
        Some(first) if matches!(first.kind, COOKIE_ECHO | COOKIE_ACK) => match chunks.next() {
            Some(second) if second.kind == ABORT => ABORT,
            _ => first.kind,
        },
        Some(first) => first.kind,
    }
}

/// What an SCTP packet that belongs to no association is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    kind: u8,
    flags: u8,
    verification_tag: u32,
}

/// The answer to a packet "out of the blue" (section 8.4); `None` where it has to be discarded in
/// silence.
pub fn refusal_of(frame: &[u8], packet: &Ip) -> Option<Refusal> {
    let packet = frame.get(packet.payload_start()..packet.end())?;
    let verification_tag = number(packet, 4)?;
    let reflected = |kind| Some(Refusal { kind, flags: T_BIT, verification_tag });
    let first = chunks(packet).next()?;
    if chunks(packet).any(|chunk| chunk.kind == ABORT) {
        return None;
    }
    match first.kind {
        // Its own tag is zero, and the one it asks for is not (sections 3.3.2 and 8.5.1).
        INIT => {
            let initiate_tag = number(first.value, 0).filter(|tag| *tag != 0)?;
            let refusal = Refusal { kind: ABORT, flags: 0, verification_tag: initiate_tag };
            (verification_tag == 0).then_some(refusal)
        }
        SHUTDOWN_ACK => reflected(SHUTDOWN_COMPLETE),
        SHUTDOWN_COMPLETE | COOKIE_ACK => None,
        ERROR if first.value.starts_with(&STALE_COOKIE) => None,
        _ => reflected(ABORT),
    }
}

/// The cause of an ERROR chunk, "Stale Cookie" (section 3.3.10.3).
const STALE_COOKIE: [u8; 2] = [0, 3];

/// Writes the refusal of the packet in `frame`, whole, appending to the cleared `buffer`; it goes
/// back to the MAC and address the packet came from.
///
/// # Errors
/// `Err` when the packet's checksum is wrong and `checksum_pending` is not set, or it is a
/// fragment: its tags cannot be trusted, and nothing is written.
pub fn emit_refusal(
    buffer: &mut Vec<u8>,
    frame: &[u8],
    packet: &Ip,
    refusal: Refusal,
    source_mac: MacAddr,
    checksum_pending: bool,
) -> Result<(), BadChecksum> {
    let bytes = frame.get(packet.payload_start()..packet.end()).ok_or(BadChecksum)?;
    if packet.is_fragment() || !checksum_pending && !is_complete(bytes) {
        return Err(BadChecksum);
    }
    let ports = bytes.first_chunk::<4>().ok_or(BadChecksum)?;
    let answer = Answer {
        source: packet.destination,
        protocol: IpNumber::SCTP,
        traffic_class: 0,
        identification: 0,
        dont_fragment: true,
    };
    let len = HEADER_LEN + CHUNK_HEADER_LEN;
    let start = answer.emit(buffer, frame, packet, source_mac, len);
    buffer.extend_from_slice(&[ports[2], ports[3], ports[0], ports[1]]);
    buffer.extend_from_slice(&refusal.verification_tag.to_be_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&[refusal.kind, refusal.flags, 0, CHUNK_HEADER_LEN as u8]);
    let checksum = checksum_of(buffer.get(start..).unwrap_or_default());
    if let Some(field) = buffer.get_mut(start + CHECKSUM_AT..start + CHECKSUM_AT + 4) {
        field.copy_from_slice(&checksum);
    }
    Ok(())
}

/// Whether a packet's checksum is right.
pub(super) fn is_complete(packet: &[u8]) -> bool {
    packet.get(CHECKSUM_AT..CHECKSUM_AT + 4).is_some_and(|found| found == checksum_of(packet))
}

/// The checksum of a packet, whatever is in its field (section 6.8 and appendix A): CRC32c, in the
/// byte order of the field.
fn checksum_of(packet: &[u8]) -> [u8; 4] {
    let (before, after) = packet.split_at(packet.len().min(CHECKSUM_AT));
    let crc = crc32c(crc32c(crc32c(!0, before), &[0; 4]), after.get(4..).unwrap_or_default());
    (!crc).to_le_bytes()
}

/// Takes bytes into a running CRC32c (polynomial 0x1EDC6F41, reflected).
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| (crc >> 8) ^ CRC32C[usize::from(crc as u8 ^ byte)])
}

const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

struct Chunk<'a> {
    kind: u8,
    value: &'a [u8],
}

/// The chunks of a packet, as far as their lengths are possible; no more than [`CHUNKS_MAX`].
fn chunks(packet: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = packet.get(HEADER_LEN..).unwrap_or_default();
    let next = move || {
        let &[kind, _, high, low] = rest.first_chunk::<CHUNK_HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        // The last one may be cut short by a fragment; its padding is not in its length.
        let value = rest.get(CHUNK_HEADER_LEN..len.min(rest.len()));
        rest = rest.get(len.max(CHUNK_HEADER_LEN).next_multiple_of(4)..).unwrap_or_default();
        Some(Chunk { kind, value: value.unwrap_or_default() })
    };
    core::iter::from_fn(next).take(CHUNKS_MAX)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    /// An SCTP packet from the client to the VIP.
    fn packet(tag: u32, chunks: &[&[u8]]) -> Vec<u8> {
        let mut sctp = vec![0x9c, 0x40, 0x0f, 0x1c];
        sctp.extend(tag.to_be_bytes());
        sctp.extend([0; 4]);
        sctp.extend(chunks.concat());
        let checksum = checksum_of(&sctp);
        sctp[8..12].copy_from_slice(&checksum);
        let mut frame = SCTP_INIT[..34].to_vec();
        let total_len = (20 + sctp.len() as u16).to_be_bytes();
        frame.extend(sctp);
        patched(&frame, &[(16, &total_len)])
    }

    fn init(initiate_tag: u32) -> Vec<u8> {
        [&[INIT, 0, 0, 20][..], &initiate_tag.to_be_bytes(), &[0; 12]].concat()
    }

    /// Of RFC 3720, appendix B.4, and the usual one.
    #[test]
    fn the_checksum_is_crc32c() {
        let ascending: Vec<u8> = (0..32).collect();
        let rows: [(&[u8], u32); 5] = [
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&[], 0),
        ];
        for (bytes, expected) in rows {
            assert_eq!(!crc32c(!0, bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let frame = packet(7, &[&init(0x0102_0304)]);
        let bytes = &frame[34..];
        assert!(is_complete(bytes));
        for at in 0..bytes.len() {
            let mut wrong = bytes.to_vec();
            wrong[at] ^= 0x20;
            assert!(!is_complete(&wrong), "byte {at}");
        }
        for len in 0..CHECKSUM_AT + 4 {
            assert!(!is_complete(&bytes[..len]), "{len} bytes");
        }
    }

    #[test]
    fn the_first_chunk_governs_but_for_an_abort_behind_a_cookie() {
        let data = [0, 3, 0, 17, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'x', 0, 0, 0];
        let echo = [COOKIE_ECHO, 0, 0, 6, 1, 2, 0, 0];
        let abort = [ABORT, 0, 0, 4];
        let rows: &[(&[&[u8]], u8)] = &[
            (&[], SCTP_NO_CHUNK),
            (&[&[1, 0, 0]], SCTP_NO_CHUNK),
            (&[&init(1)], INIT),
            (&[&data], 0),
            (&[&data, &abort], 0),
            (&[&echo, &data], COOKIE_ECHO),
            (&[&echo, &abort], ABORT),
            (&[&[COOKIE_ACK, 0, 0, 4], &abort], ABORT),
            // A length that cannot be: the next chunk is where it may be at the earliest.
            (&[&[COOKIE_ACK, 0, 0, 0], &abort], ABORT),
            (&[&[COOKIE_ECHO, 0, 0xff, 0xff], &abort], COOKIE_ECHO),
        ];
        for (chunks, expected) in rows {
            let frame = packet(1, chunks);
            assert_eq!(governing_chunk(&frame, &ip_of(&frame)), *expected, "{chunks:?}");
        }
    }

    /// RFC 9260, section 8.4: by its rules 2 to 8.
    #[test]
    fn packets_out_of_the_blue_are_answered_as_they_should_be() {
        let refuse =
            |kind, flags, verification_tag| Some(Refusal { kind, flags, verification_tag });
        let abort = [ABORT, 0, 0, 4];
        type Row<'r> = (&'r str, u32, &'r [&'r [u8]], Option<Refusal>);
        let rows: &[Row<'_>] = &[
            ("INIT", 0, &[&init(9)], refuse(ABORT, 0, 9)),
            ("INIT with a tag", 5, &[&init(9)], None),
            ("INIT that asks for tag 0", 0, &[&init(0)], None),
            ("INIT cut short", 0, &[&[INIT, 0, 0, 4]], None),
            ("DATA", 5, &[&[0, 3, 0, 4]], refuse(ABORT, T_BIT, 5)),
            ("COOKIE ECHO", 5, &[&[COOKIE_ECHO, 0, 0, 4]], refuse(ABORT, T_BIT, 5)),
            ("ABORT", 5, &[&abort], None),
            ("ABORT behind another", 5, &[&[COOKIE_ECHO, 0, 0, 4], &abort], None),
            ("SHUTDOWN ACK", 5, &[&[SHUTDOWN_ACK, 0, 0, 4]], refuse(SHUTDOWN_COMPLETE, T_BIT, 5)),
            ("SHUTDOWN COMPLETE", 5, &[&[SHUTDOWN_COMPLETE, 0, 0, 4]], None),
            ("COOKIE ACK", 5, &[&[COOKIE_ACK, 0, 0, 4]], None),
            ("stale cookie", 5, &[&[ERROR, 0, 0, 12, 0, 3, 0, 8, 0, 0, 0, 1]], None),
            ("ERROR", 5, &[&[ERROR, 0, 0, 8, 0, 1, 0, 4]], refuse(ABORT, T_BIT, 5)),
            ("nothing", 5, &[], None),
        ];
        for (what, tag, chunks, expected) in rows {
            let frame = packet(*tag, chunks);
            assert_eq!(refusal_of(&frame, &ip_of(&frame)), *expected, "{what}");
        }
    }

    #[test]
    fn the_refusal_goes_back_with_the_right_tag_and_checksum() {
        let frame = packet(0, &[&init(0xdead_beef)]);
        let ip = ip_of(&frame);
        let refusal = refusal_of(&frame, &ip).unwrap();
        let mut buffer = Vec::new();
        assert_eq!(emit_refusal(&mut buffer, &frame, &ip, refusal, DIRECTOR_MAC, false), Ok(()));
        assert_eq!((&buffer[..6], &buffer[6..12]), (&CLIENT_MAC.0[..], &DIRECTOR_MAC.0[..]));
        let answer = ip_of(&buffer);
        assert_eq!((answer.source, answer.destination), (ip.destination, ip.source));
        let sctp = &buffer[answer.payload_start()..];
        assert_eq!(sctp[..8], [0x0f, 0x1c, 0x9c, 0x40, 0xde, 0xad, 0xbe, 0xef]);
        assert!(is_complete(sctp));
        assert_eq!(sctp[12..], [ABORT, 0, 0, 4]);
    }

    #[test]
    fn what_is_damaged_or_a_fragment_is_not_answered() {
        let frame = packet(0, &[&init(9)]);
        let refusal = refusal_of(&frame, &ip_of(&frame)).unwrap();
        let mut damaged = frame.clone();
        damaged[50] ^= 1;
        let fragment = patched(&frame, &[(20, &[0x20, 0])]);
        for frame in [damaged, fragment] {
            let mut buffer = Vec::new();
            let ip = ip_of(&frame);
            let answered = emit_refusal(&mut buffer, &frame, &ip, refusal, DIRECTOR_MAC, false);
            assert_eq!((answered, buffer.len()), (Err(BadChecksum), 0));
        }
    }
}
