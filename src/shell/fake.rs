//! Ports for tests, in memory: what arrives, what is sent, and what goes wrong is in a [`Lan`] that
//! the test keeps.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::ports::{OpenError, Opener};
use crate::config::snapshot::Segment;
use crate::port::{Batch, Condition, Port, Readiness};
use crate::wire::Offload;

/// The devices of all TAPs, by name. Clones are the same LAN.
#[derive(Clone, Default)]
pub(super) struct Lan(Rc<RefCell<HashMap<String, Device>>>);

/// What a test sees and sets of a TAP.
#[derive(Default)]
pub(super) struct Device {
    pub arriving: VecDeque<Vec<u8>>,
    /// This frame arrives again and again, whenever someone reads.
    pub flood: Option<Vec<u8>>,
    pub sent: Vec<Vec<u8>>,
    /// How often a port here was read.
    pub looks: u32,
    /// How often a port was opened here, and how many are open now.
    pub opened: u32,
    pub open_now: u32,
    /// Opening fails.
    pub refuses_to_open: bool,
    /// Receiving fails: the device was deleted.
    pub is_gone: bool,
    /// The interface is down: sending fails.
    pub is_down: bool,
    /// Whether a port here takes frames with work left to do; and whether they are welcome to it.
    pub takes_offload: bool,
    pub offload: bool,
    wake: Option<UnixStream>,
    /// What is waited for.
    pub descriptor: RawFd,
}

impl Lan {
    /// Looks at, or changes, the device of this name.
    pub fn device<R>(&self, tap: &str, look: impl FnOnce(&mut Device) -> R) -> R {
        look(self.0.borrow_mut().entry(tap.to_owned()).or_default())
    }

    /// Frames arrive, and readiness with them.
    pub fn arrive(&self, tap: &str, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.device(tap, |device| device.arriving.extend(frames));
        self.wake(tap);
    }

    /// The port of this device becomes readable.
    pub fn wake(&self, tap: &str) {
        self.device(tap, |device| {
            if let Some(wake) = &mut device.wake {
                wake.write_all(b"!").unwrap();
            }
        });
    }
}

impl Opener for Lan {
    type Port = FakePort;

    fn open(&mut self, segment: &Segment) -> Result<FakePort, OpenError> {
        self.device(segment.device(), |device| {
            if device.refuses_to_open {
                return Err(format!("TAP {}: in use", segment.device()).into());
            }
            let (wake, woken) = UnixStream::pair()?;
            woken.set_nonblocking(true)?;
            device.wake = Some(wake);
            device.descriptor = woken.as_raw_fd();
            device.opened += 1;
            device.open_now += 1;
            Ok(FakePort { lan: self.clone(), tap: segment.device().to_string(), woken })
        })
    }
}

pub(super) struct FakePort {
    lan: Lan,
    tap: String,
    woken: UnixStream,
}

impl Drop for FakePort {
    fn drop(&mut self) {
        self.lan.device(&self.tap, |device| device.open_now -= 1);
    }
}

impl Port for FakePort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        while self.woken.read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
        self.lan.device(&self.tap, |device| {
            device.looks += 1;
            while !batch.is_full() {
                let Some(frame) = device.arriving.pop_front().or_else(|| device.flood.clone())
                else {
                    break;
                };
                batch.push_with(|buffer| {
                    buffer[..frame.len()].copy_from_slice(&frame);
                    Ok::<_, io::Error>((frame.len(), Offload::default()))
                })?;
            }
            match (device.is_gone, batch.is_full()) {
                (true, _) => Err(io::Error::from_raw_os_error(libc::EBADFD)),
                (false, true) => Ok(Readiness::More),
                (false, false) => Ok(Readiness::Drained),
            }
        })
    }

    fn send(&mut self, bytes: &[u8], _offload: Offload) -> io::Result<()> {
        self.lan.device(&self.tap, |device| {
            if device.is_down {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            device.sent.push(bytes.to_vec());
            Ok(())
        })
    }

    fn takes_offload(&self) -> bool {
        self.lan.device(&self.tap, |device| device.takes_offload)
    }

    fn set_offload(&mut self, wanted: bool) -> io::Result<()> {
        self.lan.device(&self.tap, |device| device.offload = wanted);
        Ok(())
    }

    fn descriptor(&self) -> RawFd {
        self.woken.as_raw_fd()
    }

    fn mtu(&self) -> io::Result<u16> {
        Ok(1500)
    }

    fn condition(&self) -> io::Result<Condition> {
        let running = self.lan.device(&self.tap, |device| !device.is_down);
        Ok(Condition { running, missed: 0 })
    }
}
