//! A burst of frames in buffers that are used again.

use crate::wire::{Burst, Frame, Offload};

/// Bytes of a buffer: the largest super-frame with its header, and then some, so that buffers
/// do not start on the same cache sets (no power of two).
pub const BUFFER_LEN: usize = 65_536 + 14 + 4 + 256 + 64;

/// Bytes before each frame for a header of the port's.
const HEADROOM: usize = 16;
/// From one buffer to the next.
const STRIDE: usize = HEADROOM + BUFFER_LEN;

/// Up to a fixed number of frames.
pub struct Batch {
    memory: Vec<u8>,
    /// Of the frames present: where each starts, its length, and what comes beside it.
    frames: Vec<(usize, usize, Offload)>,
    /// Buffers that have been given out since the batch was last cleared.
    used: usize,
    capacity: usize,
}

impl Batch {
    /// An empty batch for at most `capacity` frames; memory is touched only as frames arrive.
    pub fn new(capacity: usize) -> Batch {
        Batch {
            memory: vec![0; capacity * STRIDE],
            frames: Vec::with_capacity(capacity),
            used: 0,
            capacity,
        }
    }

    pub fn clear(&mut self) {
        self.frames.clear();
        self.used = 0;
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.used == self.capacity
    }

    /// Lets `read` put a frame into the next buffer; it returns the frame's length.
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
        let start = self.used * STRIDE + HEADROOM;
        let (len, offload) = read(&mut self.memory[start - header_len..start + BUFFER_LEN])?;
        self.frames.push((start, len.min(BUFFER_LEN), offload));
        self.used += 1;
        Ok(())
    }

    /// Takes out the frames that are not to be kept. Their room is had again by [`Self::clear`].
    pub fn retain(&mut self, mut is_kept: impl FnMut(&[u8]) -> bool) {
        let memory = &self.memory;
        self.frames.retain(|&(start, len, _)| is_kept(&memory[start..start + len]));
    }

    /// The frame at `index`, in the order of arrival.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn frame(&mut self, index: usize) -> Frame<'_> {
        let (start, len, offload) = self.frames[index];
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

    fn push(batch: &mut Batch, bytes: &[u8]) {
        let read = batch.push_with(|buffer| {
            buffer[..bytes.len()].copy_from_slice(bytes);
            Ok::<_, ()>((bytes.len(), Offload::default()))
        });
        assert!(read.is_ok());
    }

    #[test]
    fn what_is_taken_out_leaves_the_rest_whole_and_in_order() {
        let mut batch = Batch::new(4);
        for bytes in [b"one", b"two", b"3rd"] {
            push(&mut batch, bytes);
        }
        batch.retain(|bytes| bytes != b"two");
        push(&mut batch, b"4th");
        assert!(batch.is_full(), "the room of a frame taken out is not given out again");
        let frames: Vec<Vec<u8>> =
            (0..batch.len()).map(|index| batch.frame(index).bytes.to_vec()).collect();
        assert_eq!(frames, [b"one", b"3rd", b"4th"]);
        batch.clear();
        assert!(batch.is_empty() && !batch.is_full());
    }
}
