//! Frames on their way out: a burst of them in one system call, by slots that the kernel sends
//! from.
//!
//! What is in a slot is copied whole before it goes on: whoever gets the frame has nothing of ours
//! in hands, and a slow receiver stops nobody else. The slot is free again when the frame has left
//! this host's queues.

use std::cell::Cell;
use std::io;

use super::super::{Lost, vnet_header};
use super::ring::TPID;
use super::slots::{HEADER_LEN, Slots};
use super::socket::Socket;
use crate::wire::Offload;
use crate::wire::frame::ETHERNET_HEADER_LEN;
use crate::wire::vlan::TAG_LEN;

/// Frames up to this length, with what goes before them, go by slots; longer ones are worth a call
/// of their own.
const WAITING_LEN_MAX: usize = 2048;

/// Frames that wait at most: a burst.
const WAITING_MAX: usize = 64;

/// More than a card's own queues hold. With a longer one before it that is full of our frames, each
/// further one is a call of its own.
const SLOTS: usize = 2048;

/// After so many refusals in a row there is no room for the rest either.
const REFUSALS_MAX: u32 = 4;

/// A slot's status (`TP_STATUS_*`), of which the upper bits may say more.
const FREE: u32 = 0;
const TO_BE_SENT: u32 = 1;
const UNDER_WAY: u32 = 2;
const WRONG_FORMAT: u32 = 4;

pub(super) struct Outgoing {
    /// One of its own: a socket with slots for sending sends nothing else.
    socket: Socket,
    slots: Slots,
    /// The first frame that waits, and where the next goes.
    first: usize,
    next: usize,
    waiting: usize,
    /// Bytes of the frames that wait.
    bytes: usize,
    /// The longest frame without a tag that goes by slots: no longer than the interface takes,
    /// which nobody checks there.
    frame_len_max: Cell<usize>,
    /// Frames refused one after the other.
    refusals: u32,
    /// Since the last flush.
    lost: Option<Lost>,
}

impl Outgoing {
    /// For the interface with this index and MTU.
    ///
    /// # Errors
    /// What the kernel says of such a socket, and `ENOMEM` where it has no room for the slots.
    pub fn new(index: u32, mtu: u32) -> io::Result<Outgoing> {
        let socket = Socket::open()?;
        socket.set_up()?;
        let slot_len = HEADER_LEN + WAITING_LEN_MAX;
        let slots = Slots::new(&socket, SLOTS, slot_len, Socket::set_ring_out)?;
        socket.bind_deaf(index)?;
        let outgoing = Outgoing {
            socket,
            slots,
            first: 0,
            next: 0,
            waiting: 0,
            bytes: 0,
            frame_len_max: Cell::new(0),
            refusals: 0,
            lost: None,
        };
        outgoing.set_mtu(mtu);
        Ok(outgoing)
    }

    /// Takes in the MTU of the interface.
    pub fn set_mtu(&self, mtu: u32) {
        let room = WAITING_LEN_MAX - vnet_header::LEN - TAG_LEN;
        self.frame_len_max.set((mtu as usize + ETHERNET_HEADER_LEN).min(room));
    }

    /// Whether a frame is one for a slot. With a customer's tag it may be longer by as much.
    #[inline]
    fn is_short(&self, bytes: &[u8]) -> bool {
        let is_tagged = || bytes.get(12..14) == Some(&TPID.to_be_bytes());
        let len_max = self.frame_len_max.get();
        bytes.len() <= len_max || bytes.len() <= len_max + TAG_LEN && is_tagged()
    }

    /// Takes a frame: to be sent with the burst, or at once by `plain` if it is long or the slots
    /// are all under way.
    #[inline]
    pub fn send(&mut self, plain: &Socket, bytes: &[u8], offload: Offload) -> io::Result<()> {
        let mut header = vnet_header::emit(&offload);
        let is_short = self.is_short(bytes);
        let mut slot = self.slots.at(self.next);
        let is_ours = slot.status() & (TO_BE_SENT | UNDER_WAY | WRONG_FORMAT) == FREE;
        if !is_short || !is_ours {
            self.send_waiting();
            return plain.send(&header, bytes);
        }
        vnet_header::take_whole(&mut header, bytes.len() as u16);
        // SAFETY: the slot is ours.
        unsafe { slot.write([&header, bytes]) };
        slot.set_status(TO_BE_SENT);
        self.next = self.slots.after(self.next);
        self.waiting += 1;
        self.bytes += bytes.len();
        if self.waiting == WAITING_MAX {
            self.send_waiting();
        }
        Ok(())
    }

    /// Sends what waits; says what was lost since the last time.
    #[inline]
    pub fn flush(&mut self) -> Result<(), Lost> {
        self.send_waiting();
        self.lost.take().map_or(Ok(()), Err)
    }

    fn send_waiting(&mut self) {
        self.refusals = 0;
        while self.waiting > 0 {
            let result = self.socket.send_slots();
            if result.as_ref().is_ok_and(|sent| *sent == self.bytes) {
                (self.first, self.waiting, self.bytes) = (self.next, 0, 0);
                return;
            }
            self.settle(result);
        }
    }

    /// Finds out what has become of the frames that waited, if not all were sent.
    #[cold]
    fn settle(&mut self, result: io::Result<usize>) {
        let mut any = false;
        while self.waiting > 0 && !self.is_first_left() {
            any = true;
            self.leave_first();
        }
        if self.waiting == 0 {
            return;
        }
        if any {
            self.refusals = 0;
        }
        let is_wrong = self.slots.at(self.first).status() & WRONG_FORMAT != 0;
        match result {
            // The next try tells what it is.
            Ok(_) if any => {}
            Err(error) if is_wrong => self.skip_first(error),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // A queue may have no room for this one alone: for its flow, or for its length.
                Some(libc::ENOBUFS | libc::ENOMEM) if self.refusals < REFUSALS_MAX => {
                    self.refusals += 1;
                    self.skip_first(error);
                }
                // What is wrong with the interface is wrong for all of them.
                _ => self.give_up(error),
            },
            Ok(_) => self.give_up(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Whether the kernel let the first frame that waits be.
    fn is_first_left(&mut self) -> bool {
        self.slots.at(self.first).status() & (TO_BE_SENT | WRONG_FORMAT) != 0
    }

    /// The length of the first frame that waits.
    fn first_len(&mut self) -> usize {
        // SAFETY: what waits, the kernel lets be until it is called.
        unsafe { self.slots.at(self.first).header().len as usize - vnet_header::LEN }
    }

    /// The first one waits no longer.
    fn leave_first(&mut self) {
        self.bytes -= self.first_len();
        self.first = self.slots.after(self.first);
        self.waiting -= 1;
    }

    /// Takes out the first frame that waits. The kernel goes on where it stopped: the others move
    /// up.
    fn skip_first(&mut self, error: io::Error) {
        self.bytes -= self.first_len();
        let mut place = self.first;
        for _ in 1..self.waiting {
            let from = self.slots.after(place);
            // SAFETY: what waits, the kernel lets be until it is called.
            unsafe { self.slots.copy(from, place) };
            self.slots.at(place).set_status(TO_BE_SENT);
            place = from;
        }
        self.slots.at(place).set_status(FREE);
        self.next = place;
        self.waiting -= 1;
        self.lose(1, error);
    }

    /// Takes out all frames that wait.
    fn give_up(&mut self, error: io::Error) {
        let mut place = self.first;
        for _ in 0..self.waiting {
            self.slots.at(place).set_status(FREE);
            place = self.slots.after(place);
        }
        self.lose(self.waiting, error);
        (self.next, self.waiting, self.bytes) = (self.first, 0, 0);
    }

    fn lose(&mut self, frames: usize, error: io::Error) {
        let before = self.lost.as_ref().map_or(0, |lost| lost.frames);
        self.lost = Some(Lost { frames: before + frames as u64, error });
    }
}
