//! How frames come and go. The only unsafe code of the program is below here.

mod attachment;
pub mod batch;
pub mod bridge_netfilter;
pub mod cards;
pub mod fault;
mod link;
mod netlink;
pub mod open_error;
pub mod pcap;
pub mod tap;

use std::io;
use std::os::fd::RawFd;

pub use batch::Batch;
pub use fault::Fault;
pub use open_error::OpenError;
pub use tap::{Card, TapConfig, TapPort};

use crate::wire::Offload;

/// What a burst of reads came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The batch is full; there may be more.
    More,
    /// Drained: nothing more until the next readiness event.
    Drained,
}

/// An attachment to a segment: it takes and gives whole Ethernet frames, many at a time.
pub trait Port {
    /// Fills the cleared `batch` with frames that have arrived, up to its capacity, without
    /// blocking.
    ///
    /// # Errors
    /// When the device is gone or broken. Frames already in the batch are valid all the same.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness>;

    /// Sends one frame without blocking. A port that can send many at once may keep it (copied)
    /// until [`Self::flush`].
    ///
    /// # Errors
    /// When the device did not take it: the frame is lost, as on a wire.
    fn send(&mut self, bytes: &[u8], offload: Offload) -> io::Result<()>;

    /// Sends what [`Self::send`] kept.
    ///
    /// # Errors
    /// As for `send`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The descriptor to wait on for arrivals, for edge-triggered readiness.
    fn descriptor(&self) -> RawFd;

    /// The largest IP packet the device carries, in bytes.
    ///
    /// # Errors
    /// When the device is gone.
    fn mtu(&self) -> io::Result<u16>;
}
