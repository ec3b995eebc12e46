//! Frames as they arrive: slots that the kernel fills in turn, and gets back when they are read.

use std::io;

use super::super::vnet_header;
use super::slots::{Header, Slots};
use super::socket::Socket;

/// Frames that may wait: as many as at a TAP that vipr made.
const SLOTS: usize = 4096;
/// Bytes of a slot beside its frame: the kernel's header, the sender's address, the virtio header,
/// and what they are padded to.
const OVERHEAD: usize = 128;
/// Larger frames do not come by the ring: those of the MTU do, super-frames do not.
const SLOT_LEN_MAX: usize = 16 * 1024;

/// Bits of a slot's status (`TP_STATUS_*`).
const FOR_KERNEL: u32 = 0;
const FOR_USER: u32 = 1;
const CUT_SHORT: u32 = 2;
const VLAN_VALID: u32 = 0x10;
const VLAN_TPID_VALID: u32 = 0x40;

/// The TPID of a customer's VLAN (IEEE 802.1Q).
pub(super) const TPID: u16 = 0x8100;

/// A frame that the kernel handed up.
pub(super) enum Arrived<'a> {
    /// Whole and here. Its VLAN tag, which the kernel takes off, is beside it.
    Here { header: &'a [u8; vnet_header::LEN], bytes: &'a [u8], tag: Option<[u8; 4]> },
    /// Too long for a slot; whole in the socket's queue, first of those there.
    InQueue { tag: Option<[u8; 4]> },
    /// Too long for a slot, and the queue was full: lost.
    Lost,
}

pub(super) struct Ring {
    slots: Slots,
    next: usize,
}

impl Ring {
    /// A ring with slots for frames of packets up to `mtu`.
    ///
    /// # Errors
    /// `ENOMEM`, where the kernel has no room for it.
    pub fn new(socket: &Socket, mtu: u32) -> io::Result<Ring> {
        let slot_len = (mtu as usize).saturating_add(OVERHEAD).min(SLOT_LEN_MAX);
        Ok(Ring { slots: Slots::new(socket, SLOTS, slot_len, Socket::set_ring)?, next: 0 })
    }

    /// The next frame if there is one: `read` sees it, then its slot is the kernel's again unless
    /// `read` failed.
    #[inline]
    pub fn take<R, E>(
        &mut self,
        read: impl FnOnce(Arrived<'_>) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        let mut slot = self.slots.at(self.next);
        let status = slot.status();
        if status & FOR_USER == 0 {
            return Ok(None);
        }
        // SAFETY: the status says that the slot is ours until it is stored below; by then the
        // borrow has ended.
        let arrived = unsafe { look(slot.header(), status, slot.bytes()) };
        let result = read(arrived)?;
        slot.set_status(FOR_KERNEL);
        self.next = self.slots.after(self.next);
        Ok(Some(result))
    }
}

/// What is in a slot.
#[inline]
fn look<'a>(header: &Header, status: u32, slot: &'a [u8]) -> Arrived<'a> {
    let tag = (status & VLAN_VALID != 0).then(|| {
        let tpid = if status & VLAN_TPID_VALID != 0 { header.vlan_tpid } else { TPID };
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), header.vlan_tci.to_be_bytes());
        [a, b, c, d]
    });
    if status & CUT_SHORT != 0 {
        return Arrived::InQueue { tag };
    }
    let start = usize::from(header.mac);
    let (before, frame) = slot.split_at_checked(start).unwrap_or_default();
    match (before.last_chunk(), frame.get(..header.len as usize)) {
        (Some(vnet), Some(bytes)) if header.present == header.len => {
            Arrived::Here { header: vnet, bytes, tag }
        }
        _ => Arrived::Lost,
    }
}
