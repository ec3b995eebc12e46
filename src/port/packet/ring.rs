//! Frames as they arrive: slots that the kernel fills in turn, and gets back when they are read.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::mapping::Mapping;
use super::super::vnet_header;
use super::socket::{RingRequest, Socket};

/// Frames that may wait: as many as at a TAP that vipr made.
const SLOTS: u32 = 4096;
/// Bytes of a slot beside its frame: the kernel's header, the sender's address, the virtio header,
/// and what they are padded to.
const OVERHEAD: u32 = 128;
/// Larger frames do not come by the ring: those of the MTU do, super-frames do not.
const SLOT_LEN_MAX: u32 = 16 * 1024;
/// Memory is asked for in pieces of this size.
const BLOCK_LEN: u32 = 64 * 1024;

/// Bits of a slot's status (`TP_STATUS_*`).
const FOR_KERNEL: u32 = 0;
const FOR_USER: u32 = 1;
const CUT_SHORT: u32 = 2;
const VLAN_VALID: u32 = 0x10;
const VLAN_TPID_VALID: u32 = 0x40;

/// The TPID of a customer's VLAN (IEEE 802.1Q).
const TPID: u16 = 0x8100;

/// `struct tpacket2_hdr`, the start of every slot.
#[repr(C)]
struct SlotHeader {
    status: AtomicU32,
    /// Bytes of the frame, and those of it that are here.
    len: u32,
    present: u32,
    /// Where it begins.
    mac: u16,
    network: u16,
    seconds: u32,
    nanoseconds: u32,
    vlan_tci: u16,
    vlan_tpid: u16,
    padding: [u8; 4],
}

/// A frame that the kernel handed up.
pub(super) enum Slot<'a> {
    /// Whole and here. Its VLAN tag, which the kernel takes off, is beside it.
    Here { header: &'a [u8; vnet_header::LEN], bytes: &'a [u8], tag: Option<[u8; 4]> },
    /// Too long for a slot; whole in the socket's queue, first of those there.
    InQueue { tag: Option<[u8; 4]> },
    /// Too long for a slot, and the queue was full: lost.
    Lost,
}

pub(super) struct Ring {
    memory: Mapping,
    slot_len: usize,
    slots: usize,
    next: usize,
}

impl Ring {
    /// A ring with slots for frames of packets up to `mtu`.
    ///
    /// # Errors
    /// `ENOMEM`, where the kernel has no room for it.
    pub fn new(socket: &Socket, mtu: u32) -> io::Result<Ring> {
        let slot_len = mtu.saturating_add(OVERHEAD).next_power_of_two().clamp(2048, SLOT_LEN_MAX);
        let request = RingRequest {
            block_size: BLOCK_LEN,
            blocks: SLOTS / (BLOCK_LEN / slot_len),
            slot_size: slot_len,
            slots: SLOTS,
        };
        socket.set_ring(request)?;
        let (slots, slot_len) = (SLOTS as usize, slot_len as usize);
        let memory = Mapping::shared(socket.as_fd(), slots * slot_len, 0)?;
        Ok(Ring { memory, slot_len, slots, next: 0 })
    }

    /// The next frame if there is one: `read` sees it, then its slot is the kernel's again unless
    /// `read` failed.
    #[inline]
    pub fn take<R, E>(
        &mut self,
        read: impl FnOnce(Slot<'_>) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        let start = self.memory.at(self.next * self.slot_len, self.slot_len);
        // SAFETY: every slot starts with this header, at a multiple of 2048 bytes; what of it is
        // not atomic the kernel leaves alone once the status says that the slot is ours.
        let header = unsafe { start.cast::<SlotHeader>().as_ref() };
        let status = header.status.load(Ordering::Acquire);
        if status & FOR_USER == 0 {
            return Ok(None);
        }
        // SAFETY: the slot is ours, whole, until its status is stored below; the borrow ends
        // before that. Nobody else reads or writes it meanwhile.
        let slot = unsafe { std::slice::from_raw_parts(start.as_ptr(), self.slot_len) };
        let result = read(look(header, status, slot))?;
        header.status.store(FOR_KERNEL, Ordering::Release);
        self.next = if self.next + 1 == self.slots { 0 } else { self.next + 1 };
        Ok(Some(result))
    }
}

/// What is in a slot.
#[inline]
fn look<'a>(header: &SlotHeader, status: u32, slot: &'a [u8]) -> Slot<'a> {
    let tag = (status & VLAN_VALID != 0).then(|| {
        let tpid = if status & VLAN_TPID_VALID != 0 { header.vlan_tpid } else { TPID };
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), header.vlan_tci.to_be_bytes());
        [a, b, c, d]
    });
    if status & CUT_SHORT != 0 {
        return Slot::InQueue { tag };
    }
    let start = usize::from(header.mac);
    let (before, frame) = slot.split_at_checked(start).unwrap_or_default();
    match (before.last_chunk(), frame.get(..header.len as usize)) {
        (Some(vnet), Some(bytes)) if header.present == header.len => {
            Slot::Here { header: vnet, bytes, tag }
        }
        _ => Slot::Lost,
    }
}
