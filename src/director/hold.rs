//! Frames held while a real server's MAC is being looked for. Bounded in frames and bytes.

use std::collections::VecDeque;

use super::neighbors::NeighborId;
use crate::wire::{Frame, Offload};

/// Of all frames held, those for one real server, at most: one silent server must not take
/// the room of the others.
const FRAMES_PER_NEIGHBOR_MAX: usize = 32;

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub neighbor: NeighborId,
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

/// The queue; its frames keep their order.
#[derive(Debug)]
pub(super) struct HoldQueue {
    frames: VecDeque<Held>,
    bytes: usize,
    frames_max: usize,
    bytes_max: usize,
}

/// There is no room for the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HoldFull;

impl HoldQueue {
    pub fn new(frames_max: usize, bytes_max: usize) -> HoldQueue {
        HoldQueue { frames: VecDeque::new(), bytes: 0, frames_max, bytes_max }
    }

    /// Keeps a copy of a frame for `neighbor`.
    pub fn push(&mut self, neighbor: NeighborId, frame: &Frame<'_>) -> Result<(), HoldFull> {
        let of_neighbor = self.frames.iter().filter(|held| held.neighbor == neighbor).count();
        if self.frames.len() >= self.frames_max
            || of_neighbor >= FRAMES_PER_NEIGHBOR_MAX
            || self.bytes + frame.bytes.len() > self.bytes_max
        {
            return Err(HoldFull);
        }
        self.bytes += frame.bytes.len();
        self.frames.push_back(Held {
            neighbor,
            bytes: frame.bytes.to_vec(),
            offload: frame.offload,
        });
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes out everything held for `neighbor`, oldest first.
    pub fn take(&mut self, neighbor: NeighborId) -> Vec<Held> {
        let (taken, kept): (Vec<Held>, Vec<Held>) =
            self.frames.drain(..).partition(|held| held.neighbor == neighbor);
        self.frames = kept.into();
        self.bytes = self.frames.iter().map(|held| held.bytes.len()).sum();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::arena::Arena;
    use crate::director::neighbors::Neighbor;

    fn ids() -> [NeighborId; 2] {
        let mut arena: Arena<()> = Arena::default();
        // Ids of the same shape; the queue only compares them.
        [arena.insert(()), arena.insert(())].map(|id| id.cast::<Neighbor>())
    }

    #[test]
    fn frames_come_out_for_their_neighbor_in_order() {
        let [a, b] = ids();
        let mut queue = HoldQueue::new(8, 1000);
        for (neighbor, text) in [(a, *b"a1"), (b, *b"b1"), (a, *b"a2")] {
            queue.push(neighbor, &Frame::plain(&mut text.clone())).unwrap();
        }
        let taken: Vec<_> = queue.take(a).into_iter().map(|held| held.bytes).collect();
        assert_eq!(taken, [b"a1".to_vec(), b"a2".to_vec()]);
        assert!(queue.take(a).is_empty());
        assert_eq!(queue.take(b).len(), 1);
    }

    #[test]
    fn frames_bytes_and_a_single_neighbor_are_bounded() {
        let [a, b] = ids();
        let mut queue = HoldQueue::new(3, 1000);
        for _ in 0..3 {
            queue.push(a, &Frame::plain(&mut [0; 10])).unwrap();
        }
        assert_eq!(queue.push(b, &Frame::plain(&mut [0; 10])), Err(HoldFull));

        let mut queue = HoldQueue::new(100, 25);
        queue.push(a, &Frame::plain(&mut [0; 20])).unwrap();
        assert_eq!(queue.push(b, &Frame::plain(&mut [0; 6])), Err(HoldFull));
        queue.push(b, &Frame::plain(&mut [0; 5])).unwrap();
        queue.take(a);
        queue.push(b, &Frame::plain(&mut [0; 20])).unwrap();

        let mut queue = HoldQueue::new(100, 10_000);
        for _ in 0..FRAMES_PER_NEIGHBOR_MAX {
            queue.push(a, &Frame::plain(&mut [0; 1])).unwrap();
        }
        assert_eq!(queue.push(a, &Frame::plain(&mut [0; 1])), Err(HoldFull));
        queue.push(b, &Frame::plain(&mut [0; 1])).unwrap();
    }
}
