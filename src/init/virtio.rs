//! Ports of a virtio console: channels between this machine and its host, known by name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// How long the host may take to read what was sent to it.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// An open port.
pub struct HostPort {
    file: File,
}

/// What a read of a port came to.
pub enum Arrived {
    Bytes(usize),
    /// Nothing more for now.
    Nothing,
    /// Nobody is connected on the host's side.
    Nobody,
}

impl HostPort {
    /// Opens the port of this name, if the machine has one.
    pub fn open(name: &str) -> Option<HostPort> {
        let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
        let found = ports.flatten().find(|port| {
            fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim() == name)
        })?;
        let path = std::path::Path::new("/dev").join(found.file_name());
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        match OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&path) {
            Ok(file) => Some(HostPort { file }),
            Err(error) => {
                log::error!("port {name}: {} cannot be opened: {error}", path.display());
                None
            }
        }
    }

    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Reads what there is. Readiness is edge-triggered: to be repeated until it is not bytes.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Arrived {
        loop {
            return match self.file.read(buffer) {
                Ok(0) => Arrived::Nobody,
                Ok(len) => Arrived::Bytes(len),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Arrived::Nothing,
                Err(_) => Arrived::Nobody,
            };
        }
    }

    /// Sends all of it, and waits a while for a host that is slow to read.
    pub fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let fd = self.file.as_fd();
                    let mut wanted = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                    if poll(&mut wanted, Some(&PATIENCE))? == 0 {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    if wanted[0].revents().contains(PollFlags::HUP) {
                        return Err(ErrorKind::BrokenPipe.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
