//! The events of a port: waited for only while the router may sleep.
//!
//! Whoever waits for frames costs the sender of each some 250 instructions in the kernel, asleep or
//! not. So while frames keep coming, and the port is read again and again anyway, nobody waits;
//! before the router goes to sleep, it does.

use std::io;
use std::os::fd::RawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::tokens;
use crate::director::SegmentId;
use crate::port::Port;

/// A port that has had no frame so often when it was looked at is waited for again.
const LOOKS_MAX: u32 = 16;

/// The descriptors of a port, and whether mio waits for them.
pub(super) struct Bell {
    descriptors: Vec<RawFd>,
    is_connected: bool,
    /// How often the port was looked at since it last had frames, or was waited for.
    looks: u32,
    /// Whether it has been said that it cannot be waited for.
    is_failure_told: bool,
}

impl Bell {
    /// Not connected yet.
    pub fn of(port: &impl Port) -> Bell {
        let mut descriptors = port.further_descriptors();
        descriptors.push(port.descriptor());
        Bell { descriptors, is_connected: false, looks: 0, is_failure_told: false }
    }

    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Tells of frames from now on, as events of this segment. What has arrived before makes no
    /// event on every kind of device.
    ///
    /// # Errors
    /// When one cannot be waited for; then none is.
    pub fn connect(&mut self, registry: &Registry, id: SegmentId) -> io::Result<()> {
        for (index, descriptor) in self.descriptors.iter().enumerate() {
            let (token, interest) = (tokens::port(id), Interest::READABLE);
            if let Err(error) = registry.register(&mut SourceFd(descriptor), token, interest) {
                for descriptor in &self.descriptors[..index] {
                    let _ = registry.deregister(&mut SourceFd(descriptor));
                }
                return Err(error);
            }
        }
        (self.is_connected, self.looks) = (true, 0);
        Ok(())
    }

    /// The same for a port that was open before; says once if that does not work.
    pub fn reconnect(&mut self, registry: &Registry, id: SegmentId, name: &str) {
        if let Err(error) = self.connect(registry, id)
            && !std::mem::replace(&mut self.is_failure_told, true)
        {
            log::warn!(
                "segment {name}: its device cannot be waited for ({error}), and is looked at every \
                 millisecond"
            );
        }
    }

    /// Notes that the port is looked at; whether it has been often enough, in vain.
    pub fn note_look(&mut self) -> bool {
        self.looks += 1;
        self.looks > LOOKS_MAX
    }

    /// Notes that the port had frames.
    #[inline]
    pub fn note_frames(&mut self) {
        self.looks = 0;
    }

    /// Tells of nothing any more.
    pub fn disconnect(&mut self, registry: &Registry) {
        if std::mem::take(&mut self.is_connected) {
            // Closing would not do: a descriptor may be shared by whoever made the device.
            for descriptor in &self.descriptors {
                let _ = registry.deregister(&mut SourceFd(descriptor));
            }
        }
    }

    /// Tells as another segment, if it tells at all.
    ///
    /// # Errors
    /// When that does not work; then it tells nothing.
    pub fn hand_on(&mut self, registry: &Registry, heir: SegmentId) -> io::Result<()> {
        if self.is_connected {
            self.disconnect(registry);
            self.connect(registry, heir)?;
        }
        Ok(())
    }
}
