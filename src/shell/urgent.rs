//! ARP and neighbour discovery while there is more traffic than can be forwarded.
//!
//! A TAP's queue is first in, first out, and drops its tail: under overload every second question
//! for a VIP would be lost, and those that are not would wait behind a thousand frames. So while the
//! queue does not run empty, a packet socket on the device sees the questions before the queue
//! does, and they are answered before a burst is read and now and then while it is sent. What comes
//! both ways is handled once. The questions of a burst are no more than its frames: a storm of them
//! takes no more than half of what there is. When the rush is over, the socket is closed: it costs every frame a clone.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::director::Instant;
use crate::port::urgent::{URGENT_LEN, UrgentSocket};

/// So many bursts in a row that leave frames behind are a rush.
const RUSH_BURSTS: u32 = 4;

/// A rush is over when for so long every burst has emptied the queue.
const CALM: Duration = Duration::from_secs(2);

/// A socket that did not open is not tried again so soon.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What came one way is awaited the other way for so long: longer than a full queue takes, of which
/// 0.2 s were seen on a host with much else to do.
const MEMORY: Duration = Duration::from_secs(1);

/// Frames remembered; beyond, one may be answered twice, which harms nobody.
const MEMORY_MAX: usize = 512;

/// Frames read from the socket during a burst, at most.
pub(super) const URGENT_MAX: usize = 64;

/// Which way a frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Queue,
    Socket,
}

/// The second look at one device.
#[derive(Default)]
pub(super) struct Urgent {
    socket: Option<UrgentSocket>,
    full_bursts: u32,
    /// When a burst last left frames behind.
    last_full: Instant,
    retry_at: Instant,
    memory: Memory,
}

impl Urgent {
    /// Notes whether a burst left frames behind in the queue of a device.
    pub fn note_burst(&mut self, now: Instant, device: &str, left_some: bool) {
        if left_some {
            self.full_bursts += 1;
            self.last_full = now;
            let is_rush = self.full_bursts >= RUSH_BURSTS && self.socket.is_none();
            if is_rush && self.retry_at <= now {
                match UrgentSocket::open(device) {
                    Ok(socket) => self.socket = Some(socket),
                    Err(error) => {
                        log::debug!("{device}: no second look at its queue: {error}");
                        self.retry_at = now + RETRY_AFTER;
                    }
                }
            }
            return;
        }
        self.full_bursts = 0;
        if self.socket.is_some() && now.since(self.last_full) >= CALM {
            self.close();
            self.memory = Memory::default();
        }
    }

    fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.close();
        }
    }

    /// Whether it is looked twice.
    pub fn is_active(&self) -> bool {
        self.socket.is_some()
    }

    /// The next urgent frame that is not handled yet, read from the socket no more than `budget`
    /// times, which it counts down.
    pub fn receive<'b>(
        &mut self,
        now: Instant,
        budget: &mut usize,
        buffer: &'b mut [u8; URGENT_LEN],
    ) -> Option<&'b mut [u8]> {
        while *budget > 0 {
            *budget -= 1;
            match self.socket.as_ref()?.receive(buffer) {
                Ok(Some(len)) if self.memory.is_first(now, Way::Socket, &buffer[..len]) => {
                    return buffer.get_mut(..len);
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    log::debug!("the second look at a queue: {error}");
                    self.close();
                }
            }
        }
        None
    }

    /// Whether a frame of the queue was handled already.
    pub fn is_handled(&mut self, now: Instant, frame: &[u8]) -> bool {
        self.is_active() && is_urgent(frame) && !self.memory.is_first(now, Way::Queue, frame)
    }
}

/// Whether it is a frame that the socket shows as well.
fn is_urgent(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => {
            frame.get(20) == Some(&58) && matches!(frame.get(54), Some(135 | 136))
        }
        _ => false,
    }
}

/// Frames that came one way and may yet come the other.
#[derive(Default)]
struct Memory {
    hasher: RandomState,
    frames: VecDeque<(Instant, Way, u64)>,
}

impl Memory {
    /// Whether a frame is new; if not, it is the other one of a pair, and the pair is forgotten.
    fn is_first(&mut self, now: Instant, way: Way, frame: &[u8]) -> bool {
        while self.frames.front().is_some_and(|&(at, _, _)| now.since(at) >= MEMORY) {
            self.frames.pop_front();
        }
        let hash = self.hasher.hash_one(frame);
        let twin = self.frames.iter().position(|&(_, w, h)| h == hash && w != way);
        if let Some(twin) = twin {
            self.frames.remove(twin);
            return false;
        }
        if self.frames.len() == MEMORY_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back((now, way, hash));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn what_comes_both_ways_is_handled_once_and_what_comes_again_again() {
        let mut memory = Memory::default();
        let rows = [
            (0, Way::Socket, "a", true),
            (1, Way::Queue, "a", false),
            (2, Way::Queue, "a", true),
            (3, Way::Socket, "a", false),
            // A client that asks twice, and its questions come twice.
            (10, Way::Socket, "b", true),
            (10, Way::Socket, "b", true),
            (11, Way::Queue, "b", false),
            (11, Way::Queue, "b", false),
            // The queue dropped one; its next is not taken for it.
            (20, Way::Socket, "c", true),
            (1020, Way::Queue, "c", true),
        ];
        for (ms, way, frame, expected) in rows {
            let first = memory.is_first(at(ms), way, frame.as_bytes());
            assert_eq!(first, expected, "{ms} {way:?} {frame}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for number in 0..10_000u32 {
            assert!(memory.is_first(at(0), Way::Socket, &number.to_be_bytes()));
        }
        assert_eq!(memory.frames.len(), MEMORY_MAX);
    }

    #[test]
    fn without_a_rush_nothing_is_opened_and_nothing_held_back() {
        let mut urgent = Urgent::default();
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 6]);
        for _ in 0..RUSH_BURSTS - 1 {
            urgent.note_burst(at(0), "vipr-none", true);
        }
        urgent.note_burst(at(0), "vipr-none", false);
        assert!(!urgent.is_active());
        assert!(!urgent.is_handled(at(0), &frame));
        assert!(!urgent.is_handled(at(0), &frame));
        assert!(urgent.receive(at(0), &mut 9, &mut [0; URGENT_LEN]).is_none());
    }
}
