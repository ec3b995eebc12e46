//! A port on a TAP device: every frame the host puts into the device comes here, every frame
//! sent from here enters the host by the device (and its bridge).
//!
//! One read or write of the descriptor is one frame. On a plain port there is nothing before it, and
//! the device is asked for no offloads, so checksums are complete and no frame exceeds the MTU. With
//! offload each frame has a virtio header before it, and may be larger: see [`super::tap_offload`].
//! The facts about errors are in [`Fault`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use log::warn;
use tun_tap::{Iface, Mode};

use super::attachment::Attachment;
use super::link::Link;
use super::open_error::validate_name;
use super::pace::Pace;
use super::{Batch, Condition, Fault, OpenError, Port, Readiness, tap_offload, vnet_header};
use crate::wire::{MacAddr, Offload};

/// Which device a port is to be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapConfig<'a> {
    /// Name of the TAP, made if absent.
    pub tap: &'a str,
    /// Name of the bridge it joins, made if absent. Without one the TAP stays where it is.
    pub bridge: Option<&'a str>,
    /// The card that joins the bridge too.
    pub uplink: Option<Card<'a>>,
    /// MTU to set, in bytes of the IP packet. Without one the device keeps what it has.
    pub mtu: Option<u16>,
}

/// A network card of this machine, by what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card<'a> {
    Name(&'a str),
    Mac(MacAddr),
}

impl std::fmt::Display for Card<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Card::Name(name) => f.write_str(name),
            Card::Mac(mac) => mac.fmt(f),
        }
    }
}

/// Frames up to this length are copied behind their header to be written in one piece: that is
/// cheaper than to have the kernel gather the two.
const GATHERED_FROM: usize = 2048;

/// A TAP held open. Closing it removes what opening it made: see [`TapPort::open`].
pub struct TapPort {
    // The order matters: dropping `iface` removes a TAP that was made, and only then can the
    // attachment see whether its bridge is empty.
    iface: Iface,
    attachment: Attachment,
    index: u32,
    /// Where frames are put behind their headers, on a port with offload.
    scratch: Option<Box<[u8; vnet_header::LEN + GATHERED_FROM]>>,
    /// Frames that had a header which means nothing.
    misread: u64,
    pace: Pace,
}

impl TapPort {
    /// Opens the TAP without blocking, makes it and its bridge where absent, joins them, and
    /// brings both up.
    ///
    /// When the port is dropped, what was made is removed: the TAP at once, the bridge once it
    /// has no other port left. What was found stays; a found TAP or card leaves the bridge again
    /// if it was joined here, and gets its MTU back. Ports take effect, and undo it, in the network
    /// namespace of the thread that opened them.
    ///
    /// # Errors
    /// One line of what, where, and what to do. Everything is then as it was before.
    pub fn open(config: &TapConfig<'_>) -> Result<TapPort, OpenError> {
        TapPort::open_as(config, false)
    }

    /// The same with offload, where the kernel has it. Until [`Port::set_offload`] asks for it,
    /// frames come as on a plain port.
    ///
    /// # Errors
    /// As for [`TapPort::open`].
    pub fn open_with_offload(config: &TapConfig<'_>) -> Result<TapPort, OpenError> {
        TapPort::open_as(config, true)
    }

    fn open_as(config: &TapConfig<'_>, offload: bool) -> Result<TapPort, OpenError> {
        let tap = config.tap;
        validate_name("TAP", tap)?;
        if let Some(bridge) = config.bridge {
            validate_name("bridge", bridge)?;
        }
        // Declared first, dropped last: on an error below the TAP is closed before its
        // attachment is undone.
        let mut attachment = Attachment::new(tap)?;
        let found = attachment.find_tap(tap)?;
        if let Some(found) = &found {
            attachment.check_membership(found, config.bridge)?;
        }
        let (iface, offload) = open_device(tap, offload, found.is_some())?;
        let bridge = match config.bridge {
            Some(bridge) => Some(attachment.have_bridge(bridge)?),
            None => None,
        };
        if let (Some(uplink), Some(bridge)) = (config.uplink, &bridge) {
            attachment.join_uplink(uplink, bridge)?;
        }
        let index = attachment.join(tap, found.as_ref(), config.mtu, bridge.as_ref())?;
        let scratch = offload.then(|| Box::new([0; vnet_header::LEN + GATHERED_FROM]));
        Ok(TapPort { iface, attachment, index, scratch, misread: 0, pace: Pace::default() })
    }

    /// The name of the device.
    pub fn name(&self) -> &str {
        self.iface.name()
    }

    /// Frames lost since the device was made because its queue was full: we read too slowly.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn queue_drops(&self) -> io::Result<u64> {
        Ok(self.link()?.tx_dropped)
    }

    /// The descriptor, for reads and writes made here rather than by `Iface::recv` and `send`.
    ///
    /// Those go through the C library, whose wrappers cost a frame a fifth of its time once the
    /// process has a second thread (measured in the harness of `benches/forwarding.rs`: 0.82 of
    /// the copy loop's frames a second with them, 1.08 without).
    #[inline]
    fn device(&self) -> BorrowedFd<'_> {
        // SAFETY: `iface` keeps its descriptor open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.iface.as_raw_fd()) }
    }

    /// Reads one frame; an error that is none of the device's means that it was thrown away.
    #[inline]
    fn read_one(&self, batch: &mut Batch) -> Result<(), io::Error> {
        if self.scratch.is_none() {
            return batch.push_with(|buffer| {
                Ok((rustix::io::read(self.device(), buffer)?, Offload::default()))
            });
        }
        batch.push_with_header(vnet_header::LEN, |buffer| {
            let len = rustix::io::read(self.device(), &mut *buffer)?;
            let offload = buffer.first_chunk().and_then(vnet_header::parse);
            match (len.checked_sub(vnet_header::LEN), offload) {
                (Some(len), Some(offload)) => Ok((len, offload)),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        })
    }

    fn link(&self) -> io::Result<Link> {
        let link = self.attachment.links().at(self.index)?;
        link.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }
}

impl Port for TapPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        let limit = self.pace.limit(batch.capacity());
        while batch.len() < limit {
            match self.read_one(batch) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => self.misread += 1,
                Err(error) => match Fault::of(&error) {
                    Fault::Retry if error.kind() == io::ErrorKind::Interrupted => {}
                    // A device that is down gives EAGAIN, and no event until it is up again.
                    Fault::Retry | Fault::Drop => {
                        self.pace.note_drained(batch.len());
                        return Ok(Readiness::Drained);
                    }
                    Fault::Gone => return Err(error),
                },
            }
        }
        self.pace.note_more(batch.len());
        Ok(Readiness::More)
    }

    #[inline]
    fn send(&mut self, bytes: &[u8], offload: Offload) -> io::Result<()> {
        // SAFETY: `iface` keeps its descriptor open for as long as `self`.
        let device = unsafe { BorrowedFd::borrow_raw(self.iface.as_raw_fd()) };
        // A TAP takes a frame whole or not at all.
        let Some(scratch) = &mut self.scratch else {
            rustix::io::write(device, bytes)?;
            return Ok(());
        };
        let header = vnet_header::emit(&offload);
        if bytes.len() > GATHERED_FROM {
            rustix::io::writev(device, &[io::IoSlice::new(&header), io::IoSlice::new(bytes)])?;
            return Ok(());
        }
        let len = header.len() + bytes.len();
        scratch[..header.len()].copy_from_slice(&header);
        scratch[header.len()..len].copy_from_slice(bytes);
        rustix::io::write(device, &scratch[..len])?;
        Ok(())
    }

    fn takes_offload(&self) -> bool {
        self.scratch.is_some()
    }

    fn set_offload(&mut self, wanted: bool) -> io::Result<()> {
        tap_offload::set_wanted(&self.iface, wanted && self.takes_offload())
    }

    fn descriptor(&self) -> RawFd {
        self.iface.as_raw_fd()
    }

    fn mtu(&self) -> io::Result<u16> {
        // A TAP's MTU is at most 65,535 less the Ethernet header.
        Ok(u16::try_from(self.link()?.mtu).unwrap_or(u16::MAX))
    }

    fn condition(&self) -> io::Result<Condition> {
        let link = self.link()?;
        Ok(Condition { running: link.is_running, missed: link.tx_dropped + self.misread })
    }
}

/// Opens (and if absent makes) the TAP: non-blocking, nothing left to us as yet. Whether it has
/// headers for offload, as `offload` wants.
fn open_device(tap: &str, offload: bool, found: bool) -> Result<(Iface, bool), OpenError> {
    let open = || Iface::without_packet_info(tap, Mode::Tap).map_err(|error| classify(tap, error));
    let refused = |action| move |error| OpenError::refused("TAP", tap, action, error);
    let mut iface = open()?;
    let mut has_headers = false;
    if offload {
        match tap_offload::upgrade(&iface, found) {
            Ok(()) => has_headers = true,
            Err(error) => {
                warn!("TAP {tap}: no segmentation offload ({error}): frames come as on a wire");
                drop(iface);
                iface = open()?;
            }
        }
    }
    tap_offload::set_wanted(&iface, false).map_err(refused("clear its offloads"))?;
    iface.set_non_blocking().map_err(refused("make it non-blocking"))?;
    Ok((iface, has_headers))
}

/// What the failure of `open("/dev/net/tun")` or `TUNSETIFF` means: their errors do not overlap.
fn classify(tap: &str, error: io::Error) -> OpenError {
    let tap = tap.to_owned();
    match error.raw_os_error() {
        // ENOTTY: something else is there in its place.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTTY) => {
            OpenError::NoTunDriver { tap, error }
        }
        Some(libc::EACCES) => OpenError::TunForbidden { tap, error },
        Some(libc::EBUSY) => OpenError::TapBusy { tap },
        // Another kind of device got the name since we looked.
        Some(libc::EINVAL) => {
            OpenError::NotATap { name: tap, found: "another kind of device".to_owned() }
        }
        _ => OpenError::refused("TAP", &tap, "open it", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_to_open_names_its_cause() {
        let of = |errno| classify("x0", io::Error::from_raw_os_error(errno));
        assert!(matches!(of(libc::ENOENT), OpenError::NoTunDriver { .. }));
        assert!(matches!(of(libc::ENODEV), OpenError::NoTunDriver { .. }));
        assert!(matches!(of(libc::ENOTTY), OpenError::NoTunDriver { .. }));
        assert!(matches!(of(libc::EACCES), OpenError::TunForbidden { .. }));
        assert!(matches!(of(libc::EPERM), OpenError::NotPermitted { .. }));
        assert!(matches!(of(libc::EBUSY), OpenError::TapBusy { .. }));
        assert!(matches!(of(libc::EINVAL), OpenError::NotATap { .. }));
        assert!(matches!(of(libc::EMFILE), OpenError::Refused { .. }));
    }

    #[test]
    fn a_bad_name_is_refused_before_any_device_is_touched() {
        let rows = [("", None), ("sixteen--letters", None), ("x0", Some("br%d"))];
        for (tap, bridge) in rows {
            let result = TapPort::open(&TapConfig { tap, bridge, uplink: None, mtu: None });
            assert!(matches!(result, Err(OpenError::BadName { .. })), "{tap:?} {bridge:?}");
        }
    }
}
