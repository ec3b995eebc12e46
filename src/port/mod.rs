//! How frames come and go. The only unsafe code of the program is below here.

pub mod any;
pub mod arp_guard;
mod attachment;
pub mod batch;
pub mod bridge_netfilter;
pub mod cards;
pub mod fault;
pub mod host_settings;
mod link;
mod mapping;
pub mod memory;
mod netlink;
pub mod open_error;
mod pace;
pub mod packet;
pub mod pcap;
pub mod qemu;
pub mod tap;
mod tap_offload;
pub mod unix_socket;
pub mod urgent;
mod vnet_header;
pub mod xdp;

use std::io;
use std::os::fd::RawFd;

pub use any::AnyPort;
pub use batch::Batch;
pub use fault::Fault;
pub use open_error::OpenError;
pub use packet::{PacketConfig, PacketPort};
pub use qemu::{QemuConfig, QemuPort};
pub use tap::{Card, TapConfig, TapPort};
pub use xdp::XdpPort;

use crate::wire::Offload;

/// What a burst of reads came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There may be more.
    More,
    /// Drained: nothing more until the next readiness event.
    Drained,
}

/// Frames that a port kept to be sent, and could not send.
#[derive(Debug)]
pub struct Lost {
    pub frames: u64,
    /// Why, of the last one.
    pub error: io::Error,
}

/// What the device below a port tells about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Whether it is up, and its cable has a far end.
    pub running: bool,
    /// Frames on their way to us that it lost for want of room, since it was made or opened; where
    /// it is a switch, those between others as well.
    pub missed: u64,
}

/// An attachment to a segment: it takes and gives whole Ethernet frames, many at a time.
pub trait Port {
    /// Puts frames that have arrived into the cleared `batch`, up to its capacity, without
    /// blocking. There may be fewer than have arrived; then the readiness says so.
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
    /// What was lost of it.
    fn flush(&mut self) -> Result<(), Lost> {
        Ok(())
    }

    /// The descriptor to wait on for arrivals, for edge-triggered readiness.
    fn descriptor(&self) -> RawFd;

    /// Others to wait on as well.
    fn further_descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// The largest IP packet the device carries, in bytes.
    ///
    /// # Errors
    /// When the device is gone.
    fn mtu(&self) -> io::Result<u16>;

    /// Whether [`Self::send`] takes frames with work left to do; the others are to be finished
    /// first.
    fn takes_offload(&self) -> bool {
        false
    }

    /// Says whether frames with work left to do are welcome. A port that cannot help giving such
    /// frames goes on with it.
    ///
    /// # Errors
    /// When the device refuses.
    fn set_offload(&mut self, wanted: bool) -> io::Result<()> {
        let _ = wanted;
        Ok(())
    }

    /// How the device is doing.
    ///
    /// # Errors
    /// When it is gone.
    fn condition(&self) -> io::Result<Condition> {
        Ok(Condition { running: true, missed: 0 })
    }
}
