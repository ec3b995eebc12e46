//! Memory shared with the kernel, in slots that change hands: each starts with a header that says
//! whose it is (`linux/if_packet.h`, `Documentation/networking/packet_mmap.rst`).

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::mapping::Mapping;
use super::socket::{RingRequest, Socket};

/// Memory is asked for in pieces of this size, and no slot is in two of them.
const BLOCK_LEN: usize = 64 * 1024;

/// A slot's length is an odd multiple of this: at equal distances of a power of two, slots would
/// all be after the same few places of the processor's cache.
const CACHE_LINE: usize = 64;

/// The kernel's header of a slot (`TPACKET2_HDRLEN` without the sender's address), padded.
pub(super) const HEADER_LEN: usize = 32;

/// `struct tpacket2_hdr`.
#[repr(C)]
pub(super) struct Header {
    status: AtomicU32,
    /// Bytes of the frame, and those of it that are here.
    pub len: u32,
    pub present: u32,
    /// Where it begins.
    pub mac: u16,
    network: u16,
    seconds: u32,
    nanoseconds: u32,
    pub vlan_tci: u16,
    pub vlan_tpid: u16,
    padding: [u8; 4],
}

/// The slots of one direction. Places are offsets: the first is at 0.
pub(super) struct Slots {
    memory: Mapping,
    slot_len: usize,
    len: usize,
}

impl Slots {
    /// Slots of at least `slot_len` bytes each, at least `slots` of them. `set` gives the kernel
    /// the request.
    ///
    /// # Errors
    /// `ENOMEM`, where the kernel has no room for them.
    pub fn new(
        socket: &Socket,
        slots: usize,
        slot_len: usize,
        set: impl FnOnce(&Socket, RingRequest) -> io::Result<()>,
    ) -> io::Result<Slots> {
        let slot_len = slot_len_for(slot_len);
        let per_block = BLOCK_LEN / slot_len;
        let blocks = slots.div_ceil(per_block);
        set(
            socket,
            RingRequest {
                block_size: BLOCK_LEN as u32,
                blocks: blocks as u32,
                slot_size: slot_len as u32,
                slots: (blocks * per_block) as u32,
            },
        )?;
        let len = blocks * BLOCK_LEN;
        Ok(Slots { memory: Mapping::shared(socket.as_fd(), len, 0)?, slot_len, len })
    }

    /// The place that comes after this one.
    #[inline]
    pub fn after(&self, place: usize) -> usize {
        after(place, self.slot_len, self.len)
    }

    /// The slot at this place.
    #[inline]
    pub fn at(&mut self, place: usize) -> Slot<'_> {
        Slot { start: self.memory.at(place, self.slot_len), len: self.slot_len, of: PhantomData }
    }

    /// Writes to a slot what another one has, but for the status.
    ///
    /// # Safety
    /// Both are ours, and not the same.
    pub unsafe fn copy(&mut self, from: usize, to: usize) {
        let [from, to] = [from, to].map(|place| self.memory.at(place, self.slot_len));
        // SAFETY: two slots, whole, that the kernel leaves alone while they are ours. The status
        // comes first in the header.
        unsafe {
            let rest = from.add(size_of::<AtomicU32>());
            let len = self.slot_len - size_of::<AtomicU32>();
            to.add(size_of::<AtomicU32>()).copy_from_nonoverlapping(rest, len);
        }
    }
}

/// A slot. Its status says whether it is ours or the kernel's, and only what is ours may be touched.
pub(super) struct Slot<'a> {
    start: NonNull<u8>,
    len: usize,
    of: PhantomData<&'a mut Slots>,
}

impl Slot<'_> {
    /// Whose it is, and what became of it: the first that is to be read.
    #[inline]
    pub fn status(&self) -> u32 {
        self.status_word().load(Ordering::Acquire)
    }

    /// Says whose it is: the last that is to be written before the kernel has it.
    #[inline]
    pub fn set_status(&mut self, status: u32) {
        self.status_word().store(status, Ordering::Release);
    }

    #[inline]
    fn status_word(&self) -> &AtomicU32 {
        // SAFETY: a slot begins with its status, at a multiple of a cache line; whoever it belongs
        // to, that is only read and written as a whole.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().cast()) }
    }

    /// # Safety
    /// The slot is ours.
    #[inline]
    pub unsafe fn header(&self) -> &Header {
        // SAFETY: every slot starts with this header, and the kernel leaves alone what is ours.
        unsafe { self.start.cast::<Header>().as_ref() }
    }

    /// All of it.
    ///
    /// # Safety
    /// The slot is ours.
    #[inline]
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: of this length inside the mapping, and the kernel leaves alone what is ours.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Writes the parts of a frame behind the header.
    ///
    /// # Panics
    /// When there is not so much room.
    ///
    /// # Safety
    /// The slot is ours.
    #[inline]
    pub unsafe fn write(&mut self, parts: [&[u8]; 2]) {
        let len = parts[0].len() + parts[1].len();
        assert!(len <= self.len - HEADER_LEN, "a frame longer than its slot");
        // SAFETY: just checked to be inside the slot; `parts` are elsewhere, as there is no slice
        // of it while `self` is borrowed for writing.
        unsafe {
            (&raw mut (*self.start.cast::<Header>().as_ptr()).len).write(len as u32);
            let room = self.start.add(HEADER_LEN);
            room.copy_from_nonoverlapping(NonNull::from(parts[0]).cast(), parts[0].len());
            let rest = room.add(parts[0].len());
            rest.copy_from_nonoverlapping(NonNull::from(parts[1]).cast(), parts[1].len());
        }
    }
}

/// The length of slots with room for so many bytes.
fn slot_len_for(len: usize) -> usize {
    (len.div_ceil(CACHE_LINE) | 1) * CACHE_LINE
}

#[inline]
fn after(place: usize, slot_len: usize, len: usize) -> usize {
    let mut next = place + slot_len;
    if next % BLOCK_LEN + slot_len > BLOCK_LEN {
        next = next.next_multiple_of(BLOCK_LEN);
    }
    if next >= len { 0 } else { next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_each_other_within_blocks_and_come_round() {
        for wanted in [100, 1600, 2048, 2112, 4096, 9128, 16 * 1024, BLOCK_LEN / 2] {
            let slot_len = slot_len_for(wanted);
            assert!(slot_len >= wanted && (slot_len / CACHE_LINE) % 2 == 1, "{wanted}");
            let per_block = BLOCK_LEN / slot_len;
            let len = 3 * BLOCK_LEN;
            let mut place = 0;
            for slot in 1..=3 * per_block {
                assert!(place % BLOCK_LEN + slot_len <= BLOCK_LEN, "{wanted}: slot {slot}");
                place = after(place, slot_len, len);
                let (block, index) = (slot / per_block, slot % per_block);
                let expected = (block * BLOCK_LEN + index * slot_len) % len;
                assert_eq!(place, expected, "{wanted}: slot {slot}");
            }
        }
    }
}
