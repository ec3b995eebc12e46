//! Whatever gets frames from one interface to another.

use std::os::fd::BorrowedFd;

use vipr::port::{Batch, Port};
use vipr::wire::Offload;

use super::frames::{BACKEND_MAC, REAL_SERVER_MAC};
use super::taps::Taps;

/// A way to get frames across.
pub trait Contender {
    fn name(&self) -> String;

    /// Makes ready for a turn; not part of what is timed.
    fn prepare(&mut self) {}

    /// Leaves things as others expect them; not timed either.
    fn finish(&mut self) {}

    /// Deals with so many frames that are on their way to it, or there already.
    fn forward(&mut self, frames: u64);
}

/// Blocking read, rewrite of 12 bytes, blocking write: the least program that could do it, and
/// the floor that others are compared with.
pub struct CopyLoop {
    taps: Taps,
    buffer: Box<[u8; 2048]>,
}

impl CopyLoop {
    pub fn over(taps: &Taps) -> Box<CopyLoop> {
        Box::new(CopyLoop { taps: taps.clone(), buffer: Box::new([0; 2048]) })
    }
}

impl Contender for CopyLoop {
    fn name(&self) -> String {
        "copy loop".to_owned()
    }

    fn prepare(&mut self) {
        for tap in [&self.taps.a, &self.taps.b] {
            tap.set_blocking(true);
        }
    }

    fn finish(&mut self) {
        for tap in [&self.taps.a, &self.taps.b] {
            tap.set_blocking(false);
        }
    }

    fn forward(&mut self, frames: u64) {
        // SAFETY: the TAPs stay open as long as `self`.
        let (from, to) = unsafe {
            (BorrowedFd::borrow_raw(self.taps.a.raw), BorrowedFd::borrow_raw(self.taps.b.raw))
        };
        for _ in 0..frames {
            let len = rustix::io::read(from, &mut self.buffer[..]).expect("TAP A gives frames");
            self.buffer[..6].copy_from_slice(&REAL_SERVER_MAC.0);
            self.buffer[6..12].copy_from_slice(&BACKEND_MAC.0);
            rustix::io::write(to, &self.buffer[..len]).expect("TAP B takes frames");
        }
    }
}

/// vipr's ports and batches around that same rewrite: what is left to the router to spend.
pub struct PortsOnly {
    taps: Taps,
    batch: Batch,
}

impl PortsOnly {
    pub fn over(taps: &Taps) -> Box<PortsOnly> {
        Box::new(PortsOnly { taps: taps.clone(), batch: Batch::new(vipr::director::BURST_MAX) })
    }
}

impl Contender for PortsOnly {
    fn name(&self) -> String {
        "ports only".to_owned()
    }

    fn forward(&mut self, frames: u64) {
        let mut passed = 0;
        while passed < frames {
            self.batch.clear();
            self.taps.a.receive(&mut self.batch).expect("TAP A gives frames");
            for index in 0..self.batch.len() {
                let mut frame = self.batch.frame(index);
                frame.rewrite_macs(REAL_SERVER_MAC, BACKEND_MAC);
                self.taps.b.send(frame.bytes, Offload::default()).expect("TAP B takes frames");
            }
            self.taps.b.flush().expect("TAP B takes frames");
            passed += self.batch.len() as u64;
        }
    }
}
