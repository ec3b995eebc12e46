//! The Internet checksum (RFC 1071).

use core::net::IpAddr;

use etherparse::IpNumber;
use etherparse::checksum::Sum16BitWords;

use super::packet::{Ip, Transport};
use super::sctp;

/// A checksum did not match the bytes it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrong checksum")]
pub struct BadChecksum;

/// Verifies the checksum of TCP or UDP over pseudo-header and payload, or that of SCTP over the
/// payload alone (RFC 9260, 6.8); a UDP checksum of 0 is none
/// in IPv4 and wrong in IPv6 (RFC 8200, 8.1). Other protocols have none to verify here. `frame` is
/// the one `packet` was read from.
///
/// # Errors
/// [`BadChecksum`] when it does not match, or cannot because the packet is a fragment.
pub fn verify_transport(frame: &[u8], packet: &Ip) -> Result<(), BadChecksum> {
    let payload = whole_payload(frame, packet)?;
    let covered = match packet.transport {
        Transport::Tcp { .. } => payload,
        // The checksum covers the datagram by its own length (RFC 768); IP may carry more.
        Transport::Udp { .. } => match payload {
            [_, _, _, _, _, _, 0, 0, ..] if packet.is_ipv6() => return Err(BadChecksum),
            [_, _, _, _, _, _, 0, 0, ..] => return Ok(()),
            [_, _, _, _, high, low, ..] => {
                payload.get(..usize::from(u16::from_be_bytes([*high, *low]))).ok_or(BadChecksum)?
            }
            _ => return Err(BadChecksum),
        },
        Transport::Sctp { .. } if sctp::is_complete(payload) => return Ok(()),
        Transport::Sctp { .. } => return Err(BadChecksum),
        _ => return Ok(()),
    };
    let sum = pseudo_header(packet.source, packet.destination, packet.protocol, covered.len());
    if sum.add_slice(covered).ones_complement() == 0 { Ok(()) } else { Err(BadChecksum) }
}

/// Completes the TCP or UDP checksum of the packet in `frame`, which whoever put it there left to
/// others. A fragment has none of its own.
pub fn complete_transport(frame: &mut [u8], packet: &Ip) {
    let offset = match packet.transport {
        Transport::Tcp { .. } => 16,
        Transport::Udp { .. } => 6,
        _ => return,
    };
    let place = packet.payload_start() + offset;
    if whole_payload(frame, packet).is_err() {
        return;
    }
    let Some(field) = frame.get_mut(place..place + 2) else { return };
    field.fill(0);
    let payload = frame.get(packet.payload_start()..packet.end()).unwrap_or_default();
    let sum = pseudo_header(packet.source, packet.destination, packet.protocol, payload.len());
    let checksum = match sum.add_slice(payload).ones_complement().to_be() {
        // Of UDP, 0 would mean that there is none (RFC 768).
        0 if offset == 6 => 0xffff,
        checksum => checksum,
    };
    if let Some(field) = frame.get_mut(place..place + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Verifies the checksum of an ICMP message: without a pseudo-header in IPv4 (RFC 792), with one
/// in IPv6 (RFC 4443, 2.3). `frame` is the one `packet` was read from.
///
/// # Errors
/// [`BadChecksum`] when it does not match, or cannot because the packet is a fragment.
pub fn verify_icmp(frame: &[u8], packet: &Ip) -> Result<(), BadChecksum> {
    let message = whole_payload(frame, packet)?;
    if of_icmp(packet.source, packet.destination, message) == 0 { Ok(()) } else { Err(BadChecksum) }
}

/// Whether an IPv4 header, its own checksum included, adds up. On the path of every frame: a
/// header without options takes five loads and no loop.
#[inline]
pub(super) fn is_ipv4_header_complete(header: &[u8]) -> bool {
    let Ok(header) = <&[u8; 20]>::try_from(header) else { return is_complete(header) };
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    // One's complement minds neither the width of the words nor their byte order (RFC 1071, 2),
    // and its zero is every multiple of 0xffff. The version keeps the sum itself from being 0.
    sum.is_multiple_of(0xffff)
}

/// Whether `bytes`, their own checksum among them, add up.
#[inline]
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    of(bytes) == 0
}

/// The checksum of `bytes`, in which the checksum's own field is zero.
#[inline]
pub(super) fn of(bytes: &[u8]) -> u16 {
    // The sum is kept in the machine's byte order.
    Sum16BitWords::new().add_slice(bytes).ones_complement().to_be()
}

/// The checksum of a TCP segment whose own field is zero.
pub(super) fn of_tcp(source: IpAddr, destination: IpAddr, segment: &[u8]) -> u16 {
    pseudo_header(source, destination, IpNumber::TCP.0, segment.len())
        .add_slice(segment)
        .ones_complement()
        .to_be()
}

/// The checksum of an ICMP message whose own field is zero, in the family of the addresses.
pub(super) fn of_icmp(source: IpAddr, destination: IpAddr, message: &[u8]) -> u16 {
    if source.is_ipv4() {
        return of(message);
    }
    pseudo_header(source, destination, IpNumber::IPV6_ICMP.0, message.len())
        .add_slice(message)
        .ones_complement()
        .to_be()
}

/// The pseudo-header's part of a sum (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1). `len` comes from a
/// packet that is no jumbogram, so it fits 16 bits.
fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum16BitWords {
    let add = |mut sum: Sum16BitWords, address| match address {
        IpAddr::V4(address) => sum.add_4bytes(address.octets()),
        IpAddr::V6(address) => sum.add_16bytes(address.octets()),
    };
    add(add(Sum16BitWords::new(), source), destination)
        .add_2bytes([0, protocol])
        .add_2bytes((len as u16).to_be_bytes())
}

fn whole_payload<'a>(frame: &'a [u8], packet: &Ip) -> Result<&'a [u8], BadChecksum> {
    if packet.is_fragment() {
        return Err(BadChecksum);
    }
    frame.get(packet.payload_start()..packet.end()).ok_or(BadChecksum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, *};
    use super::*;
    use crate::wire::packet::{Body, parse};

    #[test]
    fn right_checksums_pass_and_any_flipped_bit_fails() {
        type Verify = fn(&[u8], &Ip) -> Result<(), BadChecksum>;
        let rows: [(&[u8], Verify); 4] = [
            (&TCP_SYN, verify_transport),
            (&TCP_DATA_WITH_IP_OPTIONS, verify_transport),
            (&UDP, verify_transport),
            (&ECHO, verify_icmp),
        ];
        for (frame, verify) in rows {
            let packet = ip_of(frame);
            assert_eq!(verify(frame, &packet), Ok(()));
            for offset in packet.payload_start()..packet.end() {
                let mut wrong = frame.to_vec();
                wrong[offset] ^= 0x10;
                assert_eq!(verify(&wrong, &packet), Err(BadChecksum), "byte {offset}");
            }
        }
    }

    #[test]
    fn a_checksum_that_was_left_to_others_is_completed() {
        for sample in [&TCP_SYN[..], &UDP, &TCP_SYN_V6, &UDP_V6, &TCP_DATA_BEHIND_EXTENSIONS] {
            let packet = ip_of(sample);
            let mut frame = sample.to_vec();
            let place = packet.payload_start() + if packet.protocol == 6 { 16 } else { 6 };
            frame[place] ^= 0x55;
            complete_transport(&mut frame, &packet);
            assert_eq!(frame, sample);
        }
        let mut echo = ECHO;
        complete_transport(&mut echo, &ip_of(&ECHO));
        assert_eq!(echo, ECHO);
    }

    #[test]
    fn the_pseudo_header_counts() {
        for frame in [&TCP_SYN[..], &UDP] {
            let packet = ip_of(frame);
            let other = Ip { destination: IpAddr::from([192, 0, 2, 11]), ..packet };
            assert_eq!(verify_transport(frame, &other), Err(BadChecksum));
        }
    }

    #[test]
    fn a_udp_checksum_of_zero_is_none() {
        let frame = patched(&UDP, &[(40, &[0, 0])]);
        assert_eq!(verify_transport(&frame, &ip_of(&frame)), Ok(()));
        let frame = patched(&TCP_SYN, &[(50, &[0, 0])]);
        assert_eq!(verify_transport(&frame, &ip_of(&frame)), Err(BadChecksum), "not so for TCP");
    }

    #[test]
    fn a_udp_datagram_ends_where_its_own_length_says() {
        let mut frame = UDP.to_vec();
        frame.push(0xaa);
        let frame = patched(&frame, &[(16, &[0, 34])]);
        assert_eq!(verify_transport(&frame, &ip_of(&frame)), Ok(()));
    }

    #[test]
    fn fragments_and_other_frames_cannot_be_verified() {
        let fragment = patched(&UDP, &[(20, &[0x20, 0])]);
        assert_eq!(verify_transport(&fragment, &ip_of(&fragment)), Err(BadChecksum));
        let fragment = patched(&ECHO, &[(20, &[0x20, 0])]);
        assert_eq!(verify_icmp(&fragment, &ip_of(&fragment)), Err(BadChecksum));
        let packet = ip_of(&TCP_SYN);
        assert_eq!(verify_transport(&TCP_SYN[..53], &packet), Err(BadChecksum));
    }

    #[test]
    fn the_fast_sum_of_a_header_is_the_sum() {
        let header = &TCP_SYN[14..34];
        assert!(is_ipv4_header_complete(header));
        assert!(is_ipv4_header_complete(&TCP_DATA_WITH_IP_OPTIONS[14..38]));
        for checksum in 0..=u16::MAX {
            let mut other: [u8; 20] = header.try_into().unwrap();
            other[10..12].copy_from_slice(&checksum.to_be_bytes());
            assert_eq!(is_ipv4_header_complete(&other), is_complete(&other), "{checksum:#06x}");
        }
    }

    /// RFC 1071, section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(of(&[]), 0xffff);
        assert_eq!(of(&[0x01]), !0x0100, "an odd byte counts as the high one");
    }

    proptest! {
        /// The definition, two bytes at a time.
        #[test]
        fn it_is_the_sum_of_words(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut sum = 0u32;
            for word in bytes.chunks(2) {
                let low = word.get(1).copied().unwrap_or(0);
                sum += u32::from(u16::from_be_bytes([word[0], low]));
            }
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(of(&bytes), !(sum as u16));
        }
    }

    #[test]
    fn protocols_without_a_checksum_of_this_kind_pass() {
        for frame in samples::ALL {
            if let Body::Ip(packet) = parse(frame).unwrap().body {
                assert_eq!(verify_transport(frame, &packet), Ok(()));
            }
        }
    }
}
