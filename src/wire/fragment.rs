//! Cutting an IPv4 packet into fragments (RFC 791, 3.2).

use etherparse::Ipv4Header;

use super::checksum;
use super::packet::Ip;

/// Bytes of an IPv4 header without options.
const HEADER_LEN: usize = Ipv4Header::MIN_LEN;

/// Set in an option that every fragment is to carry.
const COPIED: u8 = 0x80;

const MORE_FRAGMENTS: u16 = 0x2000;

/// How a packet is cut.
#[derive(Debug)]
pub struct Cut<'a> {
    frame: &'a [u8],
    ip: &'a Ip,
    /// The options that fragments after the first carry, padded.
    copied: ([u8; 40], usize),
    /// Payload bytes of the first fragment, and of each after it.
    sizes: (usize, usize),
}

impl<'a> Cut<'a> {
    /// The packet in `frame`, which is IPv4 and has no DF, cut for this MTU; `None` if no payload
    /// would fit.
    pub fn new(frame: &'a [u8], ip: &'a Ip, mtu: u16) -> Option<Cut<'a>> {
        let header = frame.get(ip.start()..ip.payload_start())?;
        let copied = copied_options(header.get(HEADER_LEN..)?);
        let mtu = usize::from(mtu);
        let size =
            |header_len: usize| Some(mtu.checked_sub(header_len)? & !7).filter(|&size| size > 0);
        let sizes = (size(header.len())?, size(HEADER_LEN + copied.1)?);
        Some(Cut { frame, ip, copied, sizes })
    }

    /// Where each fragment starts in the packet's payload, and how long it is.
    pub fn pieces(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let len = self.ip.payload_len() as usize;
        let (first, other) = self.sizes;
        let mut at = 0;
        core::iter::from_fn(move || {
            let start = at;
            at += (if start == 0 { first } else { other }).min(len - start);
            (start < at).then_some((start, at - start))
        })
    }

    /// Writes one of [`Self::pieces`] in its frame, appending to the cleared `buffer`.
    pub fn emit(&self, buffer: &mut Vec<u8>, (at, len): (usize, usize)) {
        let ip = self.ip;
        let (link, packet) = self.frame.split_at(ip.start().min(self.frame.len()));
        let Some((base, options)) = packet
            .get(..usize::from(ip.header_len))
            .and_then(|header| header.split_first_chunk::<HEADER_LEN>())
        else {
            return;
        };
        let options = if at == 0 { options } else { &self.copied.0[..self.copied.1] };
        let payload = self.frame.get(ip.payload_start()..ip.end()).unwrap_or_default();
        let Some(piece) = payload.get(at..at + len) else { return };
        let more = at + len < payload.len() || ip.more_fragments;
        let mut header = [0; 60];
        let header_len = HEADER_LEN + options.len();
        header[..HEADER_LEN].copy_from_slice(base);
        header[HEADER_LEN..header_len].copy_from_slice(options);
        header[0] = 0x40 | (header_len / 4) as u8;
        header[2..4].copy_from_slice(&((header_len + len) as u16).to_be_bytes());
        let offset = (usize::from(ip.fragment_offset) + at) / 8;
        let offset_and_flags = offset as u16 | if more { MORE_FRAGMENTS } else { 0 };
        header[6..8].copy_from_slice(&offset_and_flags.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum::of(&header[..header_len]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        buffer.extend_from_slice(link);
        buffer.extend_from_slice(&header[..header_len]);
        buffer.extend_from_slice(piece);
    }
}

/// The options that are copied into every fragment, padded to whole words with "end of options",
/// and their length. What follows an option that lies about its length is left out.
fn copied_options(mut options: &[u8]) -> ([u8; 40], usize) {
    let (mut copied, mut len) = ([0; 40], 0);
    loop {
        options = match options {
            [] | [0, ..] => break,
            [1, rest @ ..] => rest,
            [kind, size, ..] => {
                let Some((option, rest)) = options.split_at_checked(usize::from(*size)) else {
                    break;
                };
                if option.len() < 2 {
                    break;
                }
                if kind & COPIED != 0
                    && let Some(place) = copied.get_mut(len..len + option.len())
                {
                    place.copy_from_slice(option);
                    len += option.len();
                }
                rest
            }
            _ => break,
        };
    }
    (copied, len.next_multiple_of(4))
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, Ipv4Options, defrag::IpDefragPool};
    use proptest::prelude::*;

    use super::super::samples::*;
    use super::*;
    use crate::wire::packet::Transport;

    /// A UDP packet of this payload from the client to the VIP, with these options.
    fn packet(options: &[u8], payload_len: usize, fragment: Option<(u16, bool)>) -> Vec<u8> {
        let mut header =
            Ipv4Header::new(payload_len as u16, 64, 17.into(), [0; 4], [0; 4]).unwrap();
        header.source = CLIENT.octets();
        header.destination = VIP.octets();
        header.identification = 0x4321;
        header.dont_fragment = false;
        header.options = Ipv4Options::try_from(options).unwrap();
        header.set_payload_len(payload_len).unwrap();
        if let Some((offset, more)) = fragment {
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.more_fragments = more;
        }
        header.header_checksum = header.calc_header_checksum();
        let mut payload = vec![0u8; payload_len];
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
        if let Some(len) = payload.get_mut(4..6) {
            len.copy_from_slice(&(payload_len as u16).to_be_bytes());
        }
        [&UDP[..14], &header.to_bytes(), &payload].concat()
    }

    fn cut(frame: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let ip = ip_of(frame);
        let Some(cut) = Cut::new(frame, &ip, mtu) else { return Vec::new() };
        let emitted = cut.pieces().map(|piece| {
            let mut buffer = Vec::new();
            cut.emit(&mut buffer, piece);
            buffer
        });
        emitted.collect()
    }

    #[test]
    fn fragments_say_where_they_belong_and_fit_the_mtu() {
        let frame = packet(&[], 2992, None);
        let fragments = cut(&frame, 1500);
        let read: Vec<_> = fragments.iter().map(|fragment| ip_of(fragment)).collect();
        let shape: Vec<_> =
            read.iter().map(|ip| (ip.fragment_offset, ip.total_len, ip.more_fragments)).collect();
        assert_eq!(shape, [(0, 1500, true), (1480, 1500, true), (2960, 52, false)]);
        assert!(matches!(read[0].transport, Transport::Udp { .. }));
        assert!(read.iter().all(|ip| ip.identification == 0x4321 && !ip.dont_fragment));
        assert!(fragments.iter().all(|fragment| fragment[..14] == frame[..14]));
    }

    #[test]
    fn a_fragment_is_cut_into_fragments_of_the_same_packet() {
        let middle = cut(&packet(&[], 1480, Some((185, true))), 1000);
        let shape = |frames: &[Vec<u8>]| -> Vec<_> {
            let read = frames.iter().map(|fragment| ip_of(fragment));
            read.map(|ip| (ip.fragment_offset, ip.more_fragments)).collect()
        };
        assert_eq!(shape(&middle), [(1480, true), (2456, true)]);
        let last = cut(&packet(&[], 1480, Some((185, false))), 1000);
        assert_eq!(shape(&last), [(1480, true), (2456, false)]);
    }

    #[test]
    fn every_fragment_carries_the_options_that_are_to_be_copied() {
        // Record route (not copied), router alert (copied), end of options.
        let options = [7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0];
        let fragments = cut(&packet(&options, 200, None), 100);
        assert_eq!(fragments[0][34..46], options);
        for fragment in &fragments[1..] {
            assert_eq!(ip_of(fragment).header_len, 24);
            assert_eq!(fragment[34..38], [148, 4, 0, 0]);
        }
        for options in [&[1, 1, 1, 1][..], &[148, 9, 0, 0], &[148, 0, 0, 0], &[148, 1, 0, 0]] {
            let fragments = cut(&packet(options, 200, None), 100);
            assert!(fragments[1..].iter().all(|fragment| ip_of(fragment).header_len == 20));
        }
    }

    #[test]
    fn an_mtu_too_small_for_any_payload_gives_nothing() {
        let options = [148; 40];
        assert!(cut(&packet(&options, 200, None), 67).is_empty());
        assert!(!cut(&packet(&options, 200, None), 68).is_empty());
    }

    proptest! {
        /// Put together again by etherparse, they are the packet.
        #[test]
        fn the_fragments_are_the_packet(len in 1usize..6000, mtu in 68u16..1600) {
            let frame = packet(&[], len.max(8), None);
            let fragments = cut(&frame, mtu);
            let mut pool = IpDefragPool::<(), ()>::new();
            let mut whole = None;
            for fragment in &fragments {
                prop_assert!(fragment.len() - 14 <= usize::from(mtu));
                let sliced = etherparse::SlicedPacket::from_ethernet(fragment).unwrap();
                whole = pool.process_sliced_packet(&sliced, (), ()).unwrap();
            }
            if fragments.len() > 1 {
                prop_assert_eq!(&whole.unwrap().payload[..], &frame[34..]);
            } else {
                prop_assert_eq!(&fragments[0][34..], &frame[34..]);
            }
        }
    }
}
