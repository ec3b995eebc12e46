//! A burst of frames in buffers that are used again.

use crate::wire::vlan::{self, TAG_LEN, Tag};
use crate::wire::{Burst, Frame, Offload};

/// Bytes that a frame may have: the largest super-frame with its header, and then some.
pub const FRAME_LEN_MAX: usize = 65_536 + 14 + 4 + 256 + 64;

/// Bytes before each frame for a header of the port's, and for a tag.
const HEADROOM: usize = 16;
/// Frames begin, with their headroom, on cache lines of their own. What is read of an untagged TCP
/// header over IPv4 is in one line then.
const ALIGNMENT: usize = 64;
/// What a frame takes of the memory, at most.
const LARGEST: usize = (HEADROOM + FRAME_LEN_MAX).next_multiple_of(ALIGNMENT);

/// Up to a fixed number of frames, one close behind the other: a burst of short ones is on two or
/// three pages, which the processor has at hand, and not on as many as there are frames.
pub struct Batch {
    memory: Vec<u8>,
    /// Where in it the first cache line begins.
    start: usize,
    /// Where in it the next frame's line begins.
    next: usize,
    /// Of the frames present.
    frames: Vec<Slot>,
    capacity: usize,
}

/// A frame that is present.
#[derive(Clone, Copy)]
struct Slot {
    /// Where it is in the memory.
    start: usize,
    len: usize,
    offload: Offload,
}

impl Batch {
    /// An empty batch for at most `capacity` frames; memory is touched only as frames arrive.
    pub fn new(capacity: usize) -> Batch {
        // Memory that is asked for at that alignment is all written to make it zero.
        let memory = vec![0; capacity * LARGEST + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Batch { memory, start, next: start, frames: Vec::with_capacity(capacity), capacity }
    }

    pub fn clear(&mut self) {
        self.frames.clear();
        self.next = self.start;
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many frames it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn is_full(&self) -> bool {
        self.frames.len() == self.capacity
    }

    /// Lets `read` put a frame into the next buffer; it returns the frame's length. A VLAN tag is
    /// taken out of it.
    ///
    /// # Errors
    /// What `read` returned; the batch is then unchanged.
    ///
    /// # Panics
    /// When the batch is full.
    pub fn push_with<E>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<(usize, Offload), E>,
    ) -> Result<(), E> {
        self.push_with_header(0, read)
    }

    /// The same where something of `header_len` bytes comes before the frame: `read` gets room for
    /// both, and returns the length of the frame alone.
    ///
    /// # Errors
    /// As for [`Self::push_with`].
    ///
    /// # Panics
    /// When the batch is full, and when the header is longer than 16 bytes.
    #[inline]
    pub fn push_with_header<E>(
        &mut self,
        header_len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<(usize, Offload), E>,
    ) -> Result<(), E> {
        assert!(!self.is_full(), "a full batch takes no frame");
        assert!(header_len <= HEADROOM, "a header of that length has no room");
        let start = self.next + HEADROOM;
        let (len, offload) = read(&mut self.memory[start - header_len..start + FRAME_LEN_MAX])?;
        let len = len.min(FRAME_LEN_MAX);
        self.next += (HEADROOM + len).next_multiple_of(ALIGNMENT);
        let mut slot = Slot { start, len, offload };
        if let Some(tag) = vlan::pop(&mut self.memory[start..start + len]) {
            slot.start += TAG_LEN;
            slot.len -= TAG_LEN;
            slot.offload.shift(-(TAG_LEN as i16));
            slot.offload.tag = Some(tag);
        }
        self.frames.push(slot);
        Ok(())
    }

    /// Makes a frame what it is to be on the wire: with this tag in it, or without any.
    ///
    /// # Panics
    /// When there are not that many frames.
    #[inline]
    pub fn tag(&mut self, index: usize, tag: Option<Tag>) {
        let slot = &mut self.frames[index];
        slot.offload.tag = None;
        if let Some(tag) = tag {
            slot.start -= TAG_LEN;
            slot.len += TAG_LEN;
            slot.offload.shift(TAG_LEN as i16);
            vlan::push(&mut self.memory[slot.start..slot.start + slot.len], tag);
        }
    }

    /// Leaves out frames, by their bytes.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&[u8]) -> bool) {
        let memory = &self.memory;
        self.frames.retain(|slot| is_kept(&memory[slot.start..slot.start + slot.len]));
    }

    /// The bytes of every frame, in the order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(|slot| &self.memory[slot.start..slot.start + slot.len])
    }

    /// The frame at `index`, in the order of arrival.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn frame(&mut self, index: usize) -> Frame<'_> {
        let Slot { start, len, offload } = self.frames[index];
        Frame { bytes: &mut self.memory[start..start + len], offload }
    }
}

impl Burst for Batch {
    fn len(&self) -> usize {
        Batch::len(self)
    }

    #[inline]
    fn frame(&mut self, index: usize) -> Frame<'_> {
        Batch::frame(self, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::TCP_SYN;
    use crate::wire::vlan::{TagKind, Vlan};

    fn read(batch: &mut Batch, frame: &[u8]) {
        let put = |buffer: &mut [u8]| {
            buffer[..frame.len()].copy_from_slice(frame);
            Ok::<_, ()>((frame.len(), Offload::default()))
        };
        batch.push_with(put).unwrap();
    }

    #[test]
    fn frames_lie_close_together_and_the_largest_have_room_after_one_another() {
        let fill = |batch: &mut Batch, lens: &[usize]| {
            batch.clear();
            for (mark, &len) in (1..).zip(lens) {
                let put = |buffer: &mut [u8]| {
                    buffer[..len].fill(mark);
                    Ok::<_, ()>((len, Offload::default()))
                };
                batch.push_with(put).unwrap();
            }
            for (mark, (frame, &len)) in (1..).zip(batch.iter().zip(lens)) {
                assert!(frame.len() == len && frame.iter().all(|&byte| byte == mark));
            }
            batch.frames.iter().map(|slot| slot.start - batch.start).collect::<Vec<_>>()
        };
        let mut batch = Batch::new(4);
        assert_eq!(fill(&mut batch, &[60, 48, 49, 1514]), [16, 144, 208, 336]);
        fill(&mut batch, &[FRAME_LEN_MAX; 4]);
        assert!(batch.is_full());
        fill(&mut batch, &[1, FRAME_LEN_MAX, 0, FRAME_LEN_MAX]);
    }

    #[test]
    fn frames_begin_on_cache_lines_wherever_the_memory_is() {
        // Memory of its own begins off a cache line, and of these some have that.
        let mut batches: Vec<Batch> = (1..=16).map(|capacity| Batch::new(8 * capacity)).collect();
        for batch in &mut batches {
            read(batch, &[0; 60]);
            read(batch, &[0; 60]);
            let mut places = batch.iter().map(|frame| frame.as_ptr().addr() - HEADROOM);
            assert!(places.all(|place| place.is_multiple_of(ALIGNMENT)));
        }
    }

    #[test]
    fn frames_left_out_are_gone_and_the_others_where_they_were() {
        let mut batch = Batch::new(4);
        for mark in 1..=3 {
            read(&mut batch, &[mark; 60]);
        }
        batch.retain(|frame| frame[0] != 2);
        assert!(batch.iter().eq([&[1; 60][..], &[3; 60]]));
        read(&mut batch, &[4; 60]);
        assert!(batch.iter().eq([&[1; 60][..], &[3; 60], &[4; 60]]));
    }

    #[test]
    fn tags_are_taken_out_put_in_and_changed_in_place() {
        let vlan = |id| Tag::new(Vlan { kind: TagKind::Customer, id }, None);
        let tagged = |id| {
            let mut frame = Vec::new();
            vlan::copy_tagged(&mut frame, &TCP_SYN, vlan(id));
            frame
        };
        let mut batch = Batch::new(4);
        for _ in 0..3 {
            batch.clear();
            for frame in [&TCP_SYN[..], &tagged(7), &TCP_SYN, &tagged(7)] {
                read(&mut batch, frame);
            }
            assert!(batch.is_full());
            assert!(batch.iter().all(|frame| frame == TCP_SYN));
            assert_eq!(batch.frame(0).offload.tag, None);
            assert_eq!(batch.frame(1).offload.tag, Some(vlan(7)));
            for (index, tag) in [None, None, Some(vlan(9)), Some(vlan(9))].into_iter().enumerate() {
                batch.tag(index, tag);
                assert_eq!(batch.frame(index).offload, Offload::default());
            }
            let expected = [TCP_SYN.to_vec(), TCP_SYN.to_vec(), tagged(9), tagged(9)];
            assert!(batch.iter().eq(expected.iter()));
        }
    }
}
