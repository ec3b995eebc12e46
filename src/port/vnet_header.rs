//! The virtio network header that goes before a frame on ports with offloads: `struct
//! virtio_net_hdr` of `linux/virtio_net.h`, in its legacy form and the machine's byte order, as
//! TAPs and packet sockets have it unless told otherwise.

use crate::wire::Offload;
use crate::wire::offload::Segmentation;

/// Bytes of the header.
pub(super) const LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` and `VIRTIO_NET_HDR_F_DATA_VALID`.
const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_*`.
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;

/// The headers of a frame are no longer than this; what is called so may be all of a buffer's first
/// piece, and would have the kernel look for memory of that size in one piece.
const HEADERS_LEN_MAX: u16 = 256;

/// Reads a header; nothing for a kind of super-frame that we know nothing of.
#[inline]
pub(super) fn parse(header: &[u8; LEN]) -> Option<Offload> {
    let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    if header[..2] == [0, 0] {
        return Some(Offload::default());
    }
    let segmentation = match header[1] & !ECN {
        0 => Segmentation::None,
        TCP4 => Segmentation::Tcp4,
        TCP6 => Segmentation::Tcp6,
        UDP => Segmentation::Udp,
        _ => return None,
    };
    let checksum_pending = header[0] & NEEDS_CHECKSUM != 0;
    let is_super = segmentation != Segmentation::None;
    // A super-frame without a size of its segments stands for nothing.
    if is_super && half(4) == 0 {
        return None;
    }
    Some(Offload {
        checksum_pending,
        checksum_verified: header[0] & DATA_VALID != 0,
        segmentation,
        has_cwr: header[1] & ECN != 0,
        segment_size: if is_super { half(4) } else { 0 },
        headers_len: half(2).min(HEADERS_LEN_MAX),
        checksum_start: if checksum_pending { half(6) } else { 0 },
        checksum_offset: if checksum_pending { half(8) } else { 0 },
        tag: None,
    })
}

/// Writes the header of a frame.
#[inline]
pub(super) fn emit(offload: &Offload) -> [u8; LEN] {
    let mut header = [0; LEN];
    if offload.is_plain() {
        return header;
    }
    header[0] = if offload.checksum_pending { NEEDS_CHECKSUM } else { 0 };
    header[1] = match offload.segmentation {
        Segmentation::None => 0,
        Segmentation::Tcp4 => TCP4,
        Segmentation::Tcp6 => TCP6,
        Segmentation::Udp => UDP,
    };
    if offload.has_cwr && matches!(offload.segmentation, Segmentation::Tcp4 | Segmentation::Tcp6) {
        header[1] |= ECN;
    }
    let numbers = [
        offload.headers_len,
        offload.segment_size,
        offload.checksum_start,
        offload.checksum_offset,
    ];
    for (bytes, number) in header[2..].chunks_exact_mut(2).zip(numbers) {
        bytes.copy_from_slice(&number.to_ne_bytes());
    }
    header
}

/// Has the kernel take all of a frame of this length into a buffer's first piece. Frames no longer
/// than a page only.
#[inline]
pub(super) fn take_whole(header: &mut [u8; LEN], frame_len: u16) {
    header[2..4].copy_from_slice(&frame_len.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emitted_is_parsed_again() {
        let pending = Offload {
            checksum_pending: true,
            checksum_start: 34,
            checksum_offset: 16,
            ..Offload::default()
        };
        let of = |segmentation, has_cwr| Offload {
            segmentation,
            has_cwr,
            segment_size: 1448,
            headers_len: 66,
            ..pending
        };
        let rows = [
            Offload::default(),
            pending,
            of(Segmentation::Tcp4, false),
            of(Segmentation::Tcp4, true),
            of(Segmentation::Tcp6, true),
            of(Segmentation::Udp, false),
        ];
        for offload in rows {
            assert_eq!(parse(&emit(&offload)), Some(offload));
        }
    }

    #[test]
    fn a_header_that_makes_no_sense_is_none() {
        // UDP fragmentation offload, which we never ask for; no such kind; no size.
        for header in [[1, 3, 0, 0, 9, 9], [1, 99, 0, 0, 9, 9], [1, 1, 0, 0, 0, 0]] {
            let mut whole = [0; LEN];
            whole[..6].copy_from_slice(&header);
            assert_eq!(parse(&whole), None);
        }
    }

    #[test]
    fn what_does_not_apply_is_not_believed() {
        let mut header = [0xff; LEN];
        header[..2].copy_from_slice(&[DATA_VALID, 0]);
        let offload = parse(&header).unwrap();
        assert!(offload.is_plain() && offload.checksum_verified);
        assert_eq!(emit(&offload), [0; LEN]);
    }
}
