//! A burst of frames in buffers that are used again.

use crate::wire::{Frame, Offload};

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
    /// Of the frames present.
    frames: Vec<(usize, Offload)>,
    capacity: usize,
}

impl Batch {
    /// An empty batch for at most `capacity` frames; memory is touched only as frames arrive.
    pub fn new(capacity: usize) -> Batch {
        Batch { memory: vec![0; capacity * STRIDE], frames: Vec::with_capacity(capacity), capacity }
    }

    pub fn clear(&mut self) {
        self.frames.clear();
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.frames.len() == self.capacity
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
        let start = self.frames.len() * STRIDE + HEADROOM;
        let (len, offload) = read(&mut self.memory[start - header_len..start + BUFFER_LEN])?;
        self.frames.push((len.min(BUFFER_LEN), offload));
        Ok(())
    }

    /// The bytes of every frame, in the order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = (HEADROOM..).step_by(STRIDE);
        self.frames.iter().zip(starts).map(|(&(len, _), start)| &self.memory[start..start + len])
    }

    /// The frame at `index`, in the order of arrival.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn frame(&mut self, index: usize) -> Frame<'_> {
        let (len, offload) = self.frames[index];
        let start = index * STRIDE + HEADROOM;
        Frame { bytes: &mut self.memory[start..start + len], offload }
    }
}
