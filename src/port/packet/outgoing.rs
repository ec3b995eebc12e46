//! Frames on their way out: a burst of them in one system call.
//!
//! The other way, a ring that the kernel sends from, spares a copy but lends its slots to whoever
//! gets the frame: a receiver on this host that is slow to read would stop everybody else's.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::super::{Lost, vnet_header};
use super::socket::Socket;
use crate::wire::Offload;

/// Frames up to this length wait for the burst to be complete; longer ones are worth a call of
/// their own, without a copy.
const WAITING_LEN_MAX: usize = 2048;

/// Frames that wait at most: a burst.
const WAITING_MAX: usize = 64;

/// They lie one behind the other, at multiples of a cache line's length: at equal distances of a
/// power of two they would all be after the same few places of the cache.
const ALIGNMENT: usize = 64;

pub(super) struct Outgoing {
    /// A virtio header and a frame, and the next.
    memory: Vec<u8>,
    /// Where the next one begins.
    end: usize,
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    waiting: usize,
    /// Since the last flush.
    lost: Option<Lost>,
}

// SAFETY: the pointers in `vectors` and `messages` go to heap memory that `self` owns and never
// moves or resizes.
unsafe impl Send for Outgoing {}

impl Outgoing {
    pub fn new() -> Outgoing {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut vectors = vec![empty; WAITING_MAX];
        let messages = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all zeroes are a valid `mmsghdr`: no name, no control data.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let memory = vec![0; WAITING_MAX * WAITING_LEN_MAX];
        Outgoing { memory, end: 0, vectors, messages, waiting: 0, lost: None }
    }

    /// Takes a frame: to be sent with the burst, or at once if it is long.
    #[inline]
    pub fn send(&mut self, socket: &Socket, bytes: &[u8], offload: Offload) -> io::Result<()> {
        let header = vnet_header::emit(&offload);
        let len = header.len() + bytes.len();
        if len > WAITING_LEN_MAX {
            self.send_waiting(socket);
            return send_one(socket, &header, bytes);
        }
        if self.waiting == WAITING_MAX {
            self.send_waiting(socket);
        }
        let place = &mut self.memory[self.end..self.end + len];
        place[..header.len()].copy_from_slice(&header);
        place[header.len()..].copy_from_slice(bytes);
        self.vectors[self.waiting] =
            libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: len };
        self.waiting += 1;
        self.end = (self.end + len).next_multiple_of(ALIGNMENT);
        Ok(())
    }

    /// Sends what waits; says what was lost since the last time.
    #[inline]
    pub fn flush(&mut self, socket: &Socket) -> Result<(), Lost> {
        if self.waiting > 0 {
            self.send_waiting(socket);
        }
        self.lost.take().map_or(Ok(()), Err)
    }

    fn lose(&mut self, frames: usize, error: io::Error) {
        let before = self.lost.as_ref().map_or(0, |lost| lost.frames);
        self.lost = Some(Lost { frames: before + frames as u64, error });
    }

    fn send_waiting(&mut self, socket: &Socket) {
        let mut first = 0;
        while first < self.waiting {
            let waiting = &mut self.messages[first..self.waiting];
            // SAFETY: every message points to its vector, and that to as many bytes as it says;
            // all are owned by `self` and live through the call.
            let sent = unsafe {
                let descriptor = socket.as_fd().as_raw_fd();
                let len = waiting.len() as u32;
                libc::sendmmsg(descriptor, waiting.as_mut_ptr(), len, libc::MSG_DONTWAIT)
            };
            if let Ok(sent @ 1..) = usize::try_from(sent) {
                first += sent;
                continue;
            }
            // It is the first one's error.
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EINVAL | libc::EMSGSIZE) => {
                    self.lose(1, error);
                    first += 1;
                }
                // What is wrong with the interface is wrong for all of them.
                _ => {
                    self.lose(self.waiting - first, error);
                    break;
                }
            }
        }
        self.waiting = 0;
        self.end = 0;
    }
}

fn send_one(socket: &Socket, header: &[u8], bytes: &[u8]) -> io::Result<()> {
    let vectors = [header, bytes].map(|part| libc::iovec {
        // The kernel only reads.
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    // SAFETY: all zeroes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_ptr().cast_mut();
    message.msg_iovlen = vectors.len() as _;
    // SAFETY: the message points to vectors, and they to bytes, that live through the call.
    let sent = unsafe {
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_DONTWAIT)
    };
    if sent == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
