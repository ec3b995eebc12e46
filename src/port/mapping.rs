//! Memory shared with the kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Pages mapped for as long as this lives. Whoever uses the memory knows who writes what, when.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread; access to what is in it goes through whoever owns it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps what a descriptor offers at `offset`, writable and present.
    ///
    /// # Errors
    /// As of mmap(2).
    pub fn shared(descriptor: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Mapping> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Mapping::new(len, flags, descriptor.as_raw_fd(), offset)
    }

    /// Maps memory of our own, writable and present: in huge pages where there are some to be had.
    ///
    /// # Errors
    /// As of mmap(2).
    pub fn private(len: usize) -> io::Result<Mapping> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        Mapping::new(len, flags | libc::MAP_HUGETLB, -1, 0)
            .or_else(|_| Mapping::new(len, flags, -1, 0))
    }

    fn new(len: usize, flags: i32, descriptor: i32, offset: u64) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, at an address of the kernel's choice, replaces no other.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, descriptor, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, len })
    }

    /// The place at `offset`, for `len` bytes.
    ///
    /// # Panics
    /// When that is not all inside.
    #[inline]
    pub fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset, "a place outside the mapping");
        // SAFETY: just checked to be inside the mapping.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing that borrows from `self` is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
