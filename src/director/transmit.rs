//! Frames the director sends of its own accord, or later than it got them: replies, ARP,
//! and held frames released. A bounded queue of buffers that are used again.

use super::SegmentId;
use crate::wire::Offload;

/// A frame to be sent through a segment's port.
#[derive(Debug)]
pub struct Transmit<'a> {
    pub egress: SegmentId,
    pub bytes: &'a [u8],
    pub offload: Offload,
}

/// Frames waiting for [`Director::poll_transmit`](super::Director::poll_transmit).
///
/// Its limit is the sum of what one drain can leave behind: a burst of 64 frames with a reply
/// each, the hold queue released, and a round of announcements and ARP requests.
#[derive(Default)]
pub(super) struct TransmitQueue {
    slots: Vec<Slot>,
    /// The next slot to give out.
    head: usize,
    /// Slots in use, from `head` on.
    len: usize,
}

#[derive(Default)]
struct Slot {
    egress: SegmentId,
    bytes: Vec<u8>,
    offload: Offload,
}

/// The queue is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

/// Frames; see [`TransmitQueue`].
pub const TRANSMIT_QUEUE_MAX: usize = 1024;

impl TransmitQueue {
    /// Appends a frame that `write` puts into an empty buffer; if it fails, nothing is appended.
    pub fn push_with<E>(
        &mut self,
        egress: SegmentId,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Result<(), E>, QueueFull> {
        let slot = self.free_slot()?;
        slot.egress = egress;
        slot.offload = Offload::default();
        slot.bytes.clear();
        let written = write(&mut slot.bytes);
        if written.is_ok() {
            self.len += 1;
        }
        Ok(written)
    }

    /// Appends an empty frame, for the caller to fill in; `None` at the limit.
    pub fn push_empty(&mut self, egress: SegmentId) -> Option<&mut Vec<u8>> {
        self.free_slot().ok()?;
        let at = (self.head + self.len) % self.slots.len();
        self.len += 1;
        let slot = self.slots.get_mut(at)?;
        slot.egress = egress;
        slot.offload = Offload::default();
        slot.bytes.clear();
        Some(&mut slot.bytes)
    }

    /// Appends a frame that exists already, without copying it.
    pub fn push(
        &mut self,
        egress: SegmentId,
        bytes: Vec<u8>,
        offload: Offload,
    ) -> Result<(), QueueFull> {
        let slot = self.free_slot()?;
        *slot = Slot { egress, bytes, offload };
        self.len += 1;
        Ok(())
    }

    /// The oldest frame; it is out of the queue, its buffer stays until the next call.
    pub fn pop(&mut self) -> Option<Transmit<'_>> {
        if self.len == 0 {
            return None;
        }
        let at = self.head;
        self.head = (self.head + 1) % self.slots.len();
        self.len -= 1;
        let Slot { egress, bytes, offload } = &self.slots[at];
        Some(Transmit { egress: *egress, bytes, offload: *offload })
    }

    /// The bytes of the oldest frame.
    pub fn peek(&self) -> Option<&[u8]> {
        (self.len > 0).then(|| self.slots[self.head].bytes.as_slice())
    }

    /// Frames that it still takes.
    pub fn room(&self) -> usize {
        TRANSMIT_QUEUE_MAX - self.len
    }

    fn free_slot(&mut self) -> Result<&mut Slot, QueueFull> {
        if self.len == TRANSMIT_QUEUE_MAX {
            return Err(QueueFull);
        }
        if self.len == self.slots.len() {
            // Every slot is in use: grow where the ring ends, which is before `head`.
            self.slots.rotate_left(self.head);
            self.head = 0;
            self.slots.push(Slot::default());
        }
        let at = (self.head + self.len) % self.slots.len();
        Ok(&mut self.slots[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut TransmitQueue, text: &[u8]) -> Result<(), QueueFull> {
        queue
            .push_with(SegmentId::default(), |buffer| {
                buffer.extend_from_slice(text);
                Ok::<(), ()>(())
            })
            .map(|written| written.expect("the writer does not fail"))
    }

    #[test]
    fn frames_come_out_in_the_order_they_went_in_across_growth_and_wrap() {
        let mut queue = TransmitQueue::default();
        let (mut next_in, mut next_out) = (0u32, 0u32);
        for round in 0..50u32 {
            for _ in 0..(round % 7) + 3 {
                push(&mut queue, &next_in.to_be_bytes()).unwrap();
                next_in += 1;
            }
            for _ in 0..(round % 5) + 2 {
                if let Some(transmit) = queue.pop() {
                    assert_eq!(transmit.bytes, next_out.to_be_bytes());
                    next_out += 1;
                }
            }
        }
        while let Some(transmit) = queue.pop() {
            assert_eq!(transmit.bytes, next_out.to_be_bytes());
            next_out += 1;
        }
        assert_eq!(next_in, next_out);
    }

    #[test]
    fn a_full_queue_refuses_and_a_failed_writer_leaves_nothing() {
        let mut queue = TransmitQueue::default();
        assert_eq!(queue.push_with(SegmentId::default(), |_| Err("no")), Ok(Err("no")));
        assert!(queue.pop().is_none());
        for _ in 0..TRANSMIT_QUEUE_MAX {
            push(&mut queue, b"x").unwrap();
        }
        assert_eq!(push(&mut queue, b"x"), Err(QueueFull));
        queue.pop();
        push(&mut queue, b"x").unwrap();
    }
}
