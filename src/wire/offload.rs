//! What travels beside a frame whose sender left work to others: a checksum to complete, segments
//! to cut.

use super::vlan::Tag;

/// What a port knows about a frame beside its bytes, in the sense of the virtio network header.
///
/// A plain port gives and takes [`Offload::default()`]: checksums complete, one frame as it
/// would be on a wire. A rewrite of MAC addresses leaves all of it true; whoever changes what
/// comes before the transport header says so by [`Offload::shift`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum is still to be completed by whoever puts the frame on a wire: that
    /// over the bytes from [`Self::checksum_start`] on, its field being so far over the pseudo-header.
    pub checksum_pending: bool,
    /// The receiving card has found the checksum right.
    pub checksum_verified: bool,
    /// What the frame is to be cut into, if it is a super-frame.
    pub segmentation: Segmentation,
    /// TCP: the first segment alone keeps the congestion window reduced flag.
    pub has_cwr: bool,
    /// For a super-frame, the transport payload bytes of each segment it stands for; 0 for an
    /// ordinary frame.
    pub segment_size: u16,
    /// Bytes of all headers together; a hint.
    pub headers_len: u16,
    /// Where in the frame the checksum begins to count.
    pub checksum_start: u16,
    /// Where the checksum is, from there.
    pub checksum_offset: u16,
    /// The outer VLAN tag, while it is not among the frame's bytes.
    pub tag: Option<Tag>,
}

/// What sort of segments a super-frame stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    #[default]
    None,
    Tcp4,
    Tcp6,
    /// Datagrams, each with a UDP header of its own.
    Udp,
}

impl Offload {
    /// Whether the frame is as it would be on a wire.
    #[inline]
    pub const fn is_plain(&self) -> bool {
        !self.checksum_pending && self.segment_size == 0
    }

    /// Moves what points into the frame, after `by` bytes were put in before the transport header
    /// (a VLAN tag), or taken out where it is negative.
    pub fn shift(&mut self, by: i16) {
        if self.checksum_pending {
            self.checksum_start = self.checksum_start.saturating_add_signed(by);
        }
        if self.headers_len != 0 {
            self.headers_len = self.headers_len.saturating_add_signed(by);
        }
    }

    /// How many frames a wire would carry, given the bytes of transport payload.
    #[inline]
    pub fn segments(&self, payload_len: usize) -> u32 {
        match usize::from(self.segment_size) {
            0 => 1,
            size => payload_len.div_ceil(size).max(1) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_moves_what_points_into_the_frame() {
        let mut offload = Offload {
            checksum_pending: true,
            checksum_start: 34,
            headers_len: 54,
            ..Offload::default()
        };
        offload.shift(4);
        assert_eq!((offload.checksum_start, offload.headers_len), (38, 58));
        offload.shift(-4);
        assert_eq!((offload.checksum_start, offload.headers_len), (34, 54));
        let mut plain = Offload::default();
        plain.shift(4);
        assert_eq!(plain, Offload::default());
    }

    #[test]
    fn a_super_frame_counts_as_the_segments_it_stands_for() {
        let rows =
            [(0, 9000, 1), (1448, 0, 1), (1448, 1448, 1), (1448, 1449, 2), (1, 65_000, 65_000)];
        for (segment_size, payload_len, expected) in rows {
            let offload = Offload { segment_size, ..Offload::default() };
            assert_eq!(offload.segments(payload_len), expected);
        }
    }
}
