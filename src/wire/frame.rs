//! One Ethernet frame in a contiguous buffer, with the metadata that travels beside it.

use super::vlan::{self, TAG_LEN};
use super::{MacAddr, Offload};

/// Bytes of an untagged Ethernet header: destination, source, type.
pub const ETHERNET_HEADER_LEN: usize = 14;

/// Destination and source of an Ethernet header.
#[inline]
pub const fn macs(header: &[u8; ETHERNET_HEADER_LEN]) -> (MacAddr, MacAddr) {
    let (addresses, _) = header.as_chunks();
    (MacAddr(addresses[0]), MacAddr(addresses[1]))
}

/// A frame under way: its bytes, writable in place, and its [`Offload`].
#[derive(Debug)]
pub struct Frame<'a> {
    pub bytes: &'a mut [u8],
    pub offload: Offload,
}

impl<'a> Frame<'a> {
    /// A frame as a plain port gives it.
    pub fn plain(bytes: &'a mut [u8]) -> Frame<'a> {
        Frame { bytes, offload: Offload::default() }
    }

    /// A frame as it is on a wire; its tag, if it has one, is taken out of it.
    pub fn from_wire(bytes: &'a mut [u8]) -> Frame<'a> {
        match vlan::pop(bytes) {
            Some(tag) => Frame {
                bytes: bytes.get_mut(TAG_LEN..).unwrap_or_default(),
                offload: Offload { tag: Some(tag), ..Offload::default() },
            },
            None => Frame::plain(bytes),
        }
    }

    /// Gives the frame a new destination and source: the whole rewrite of direct routing.
    ///
    /// A frame shorter than its two addresses is left alone; nothing that parsed is.
    pub fn rewrite_macs(&mut self, destination: MacAddr, source: MacAddr) {
        if let Some((addresses, _)) = self.bytes.split_first_chunk_mut::<12>() {
            addresses[..6].copy_from_slice(&destination.0);
            addresses[6..].copy_from_slice(&source.0);
        }
    }
}

/// Frames that arrived together, in order, wherever they are kept.
pub trait Burst {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame at an index below [`Self::len`].
    fn frame(&mut self, index: usize) -> Frame<'_>;
}

/// Frames as a plain port gives them.
impl Burst for [Vec<u8>] {
    fn len(&self) -> usize {
        <[Vec<u8>]>::len(self)
    }

    fn frame(&mut self, index: usize) -> Frame<'_> {
        Frame::plain(&mut self[index])
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    #[test]
    fn forwarding_changes_twelve_bytes_and_no_other() {
        for sample in ALL {
            let mut bytes = sample.to_vec();
            Frame::plain(&mut bytes).rewrite_macs(CLIENT_MAC, DIRECTOR_MAC);
            assert_eq!(bytes[..6], CLIENT_MAC.0);
            assert_eq!(bytes[6..12], DIRECTOR_MAC.0);
            assert_eq!(bytes[12..], sample[12..]);
        }
    }

    #[test]
    fn a_frame_without_room_for_two_addresses_is_left_alone() {
        for len in 0..12 {
            let mut bytes = TCP_SYN[..len].to_vec();
            Frame::plain(&mut bytes).rewrite_macs(CLIENT_MAC, DIRECTOR_MAC);
            assert_eq!(bytes, TCP_SYN[..len]);
        }
    }
}
