//! What an error of a read or write on a device means for whoever holds the port.

use std::io;

/// The class of an I/O error on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happened; the same call may succeed later (`EAGAIN`, `EINTR`).
    Retry,
    /// This frame is lost, the device lives: it is down (`EIO`), short of memory (`ENOMEM`,
    /// `ENOBUFS`), or does not like the frame (`EINVAL`: shorter than an Ethernet header).
    Drop,
    /// The device was deleted or moved away from under us (`EBADFD`; `EFAULT` if that happened
    /// during the call): no frame will ever pass this port again.
    Gone,
}

impl Fault {
    /// Classifies an error of [`Port::receive`](super::Port::receive) or
    /// [`Port::send`](super::Port::send).
    ///
    /// The kernel's side of this is `drivers/net/tun.c`. It gives `EFAULT` for a bad buffer as
    /// well, which no slice is.
    pub fn of(error: &io::Error) -> Fault {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Fault::Retry,
            Some(libc::EBADFD | libc::EBADF | libc::EFAULT | libc::ENODEV | libc::ENXIO) => {
                Fault::Gone
            }
            _ => Fault::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_class() {
        let rows = [
            (libc::EAGAIN, Fault::Retry),
            (libc::EINTR, Fault::Retry),
            (libc::EIO, Fault::Drop),
            (libc::ENOMEM, Fault::Drop),
            (libc::ENOBUFS, Fault::Drop),
            (libc::EINVAL, Fault::Drop),
            (libc::EBADFD, Fault::Gone),
            (libc::EFAULT, Fault::Gone),
            (libc::ENODEV, Fault::Gone),
        ];
        for (errno, expected) in rows {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(Fault::of(&error), expected, "{error}");
        }
    }
}
