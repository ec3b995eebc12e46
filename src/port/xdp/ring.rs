//! The four rings of an XDP socket, each written at one end by the kernel and at the other by us:
//! see `Documentation/networking/af_xdp.rst` of the kernel.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::mapping::Mapping;

/// A ring of entries of one kind, in memory shared with the kernel.
pub(super) struct Ring<T> {
    memory: Mapping,
    /// Where the parts are.
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    mask: u32,
    /// How far we are, at our end.
    ours: u32,
    /// How far we last saw the kernel, at its end.
    theirs: u32,
    kind: PhantomData<T>,
}

/// An entry: plain numbers, valid whatever bytes the kernel wrote.
pub(super) trait Entry: Copy {}

impl Entry for u64 {}
impl Entry for libc::xdp_desc {}

impl<T: Entry> Ring<T> {
    /// Maps a ring of `size` entries, a power of two, that the socket has been given.
    pub fn map(
        socket: BorrowedFd<'_>,
        place: u64,
        size: u32,
        offsets: &libc::xdp_ring_offset,
    ) -> io::Result<Ring<T>> {
        let entries = offsets.desc as usize;
        let memory = Mapping::shared(socket, entries + size as usize * size_of::<T>(), place)?;
        Ok(Ring {
            memory,
            producer: offsets.producer as usize,
            consumer: offsets.consumer as usize,
            flags: offsets.flags as usize,
            entries,
            mask: size - 1,
            ours: 0,
            theirs: 0,
            kind: PhantomData,
        })
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: inside the mapping, aligned by the kernel, and written by it and us as a whole.
        unsafe { self.memory.at(offset, 4).cast().as_ref() }
    }

    #[inline]
    fn entry(&self, index: u32) -> *mut T {
        let offset = self.entries + (index & self.mask) as usize * size_of::<T>();
        self.memory.at(offset, size_of::<T>()).cast().as_ptr()
    }

    /// Whether the kernel sleeps on this ring until it is called.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.word(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// As the consumer: the next entry, if the producer has put one there.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        if self.ours == self.theirs {
            self.theirs = self.word(self.producer).load(Ordering::Acquire);
            if self.ours == self.theirs {
                return None;
            }
        }
        // SAFETY: the kernel has written this entry, and writes it again only once it is given
        // back by `commit_taken`.
        let entry = unsafe { self.entry(self.ours).read() };
        self.ours = self.ours.wrapping_add(1);
        Some(entry)
    }

    /// Gives back what was taken.
    #[inline]
    pub fn commit_taken(&self) {
        self.word(self.consumer).store(self.ours, Ordering::Release);
    }

    /// As the producer: puts an entry, to be seen after `commit_put`; whether there was room.
    #[inline]
    pub fn put(&mut self, entry: T) -> bool {
        if self.ours.wrapping_sub(self.theirs) > self.mask {
            self.theirs = self.word(self.consumer).load(Ordering::Acquire);
            if self.ours.wrapping_sub(self.theirs) > self.mask {
                return false;
            }
        }
        // SAFETY: the kernel has read this entry, and reads it again only once it is shown by
        // `commit_put`.
        unsafe { self.entry(self.ours).write(entry) };
        self.ours = self.ours.wrapping_add(1);
        true
    }

    #[inline]
    pub fn commit_put(&self) {
        self.word(self.producer).store(self.ours, Ordering::Release);
    }

    /// As the producer: how many entries the kernel has not read yet.
    #[inline]
    pub fn outstanding(&self) -> u32 {
        self.ours.wrapping_sub(self.word(self.consumer).load(Ordering::Acquire))
    }
}
