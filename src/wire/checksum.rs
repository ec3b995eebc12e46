//! The Internet checksum (RFC 1071).

use core::net::Ipv4Addr;

use etherparse::IpNumber;
use etherparse::checksum::Sum16BitWords;

use super::packet::{Ipv4, Transport};

/// A checksum did not match the bytes it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrong checksum")]
pub struct BadChecksum;

/// Verifies the TCP or UDP checksum over pseudo-header and payload; a UDP checksum of 0 is none.
/// Other protocols have none to verify here. `frame` is the one `packet` was read from.
///
/// # Errors
/// [`BadChecksum`] when it does not match, or cannot because the packet is a fragment.
pub fn verify_transport(frame: &[u8], packet: &Ipv4) -> Result<(), BadChecksum> {
    let payload = whole_payload(frame, packet)?;
    let covered = match packet.transport {
        Transport::Tcp { .. } => payload,
        // The checksum covers the datagram by its own length (RFC 768); IP may carry more.
        Transport::Udp { .. } => match payload {
            [_, _, _, _, _, _, 0, 0, ..] => return Ok(()),
            [_, _, _, _, high, low, ..] => {
                payload.get(..usize::from(u16::from_be_bytes([*high, *low]))).ok_or(BadChecksum)?
            }
            _ => return Err(BadChecksum),
        },
        _ => return Ok(()),
    };
    let sum = pseudo_header(packet.source, packet.destination, packet.protocol, covered.len());
    if sum.add_slice(covered).ones_complement() == 0 { Ok(()) } else { Err(BadChecksum) }
}

/// Verifies the checksum of an ICMP message, which has no pseudo-header (RFC 792).
/// `frame` is the one `packet` was read from.
///
/// # Errors
/// [`BadChecksum`] when it does not match, or cannot because the packet is a fragment.
pub fn verify_icmp(frame: &[u8], packet: &Ipv4) -> Result<(), BadChecksum> {
    if is_complete(whole_payload(frame, packet)?) { Ok(()) } else { Err(BadChecksum) }
}

/// Whether `bytes`, their own checksum among them, add up.
#[inline]
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    of(bytes) == 0
}

/// The checksum of `bytes`, in which the checksum's own field is zero.
#[inline]
pub(super) fn of(bytes: &[u8]) -> u16 {
    Sum16BitWords::new().add_slice(bytes).ones_complement()
}

/// The checksum of a TCP segment whose own field is zero.
pub(super) fn of_tcp(source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> u16 {
    pseudo_header(source, destination, IpNumber::TCP.0, segment.len())
        .add_slice(segment)
        .ones_complement()
}

/// The pseudo-header's part of a sum (RFC 9293, 3.1; RFC 768). `len` comes from an IPv4 packet,
/// so it fits 16 bits.
fn pseudo_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    len: usize,
) -> Sum16BitWords {
    Sum16BitWords::new()
        .add_4bytes(source.octets())
        .add_4bytes(destination.octets())
        .add_2bytes([0, protocol])
        .add_2bytes((len as u16).to_be_bytes())
}

fn whole_payload<'a>(frame: &'a [u8], packet: &Ipv4) -> Result<&'a [u8], BadChecksum> {
    if packet.is_fragment() {
        return Err(BadChecksum);
    }
    frame.get(packet.payload_start()..packet.end()).ok_or(BadChecksum)
}
