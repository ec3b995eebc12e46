//! One XDP socket: the frames of one queue of an interface, in memory of ours that the kernel
//! reads and writes.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::super::mapping::Mapping;
use super::super::{Batch, Lost};
use super::ring::Ring;
use crate::wire::Offload;

/// Frames that may wait to be read, and to be sent. Powers of two.
const RECEIVE_SLOTS: u32 = 4096;
const SEND_SLOTS: u32 = 1024;
/// Bytes that the kernel keeps free before a frame (`XDP_PACKET_HEADROOM`).
const HEADROOM: u32 = 256;
/// Calls without progress after which frames wait for the next burst.
const PATIENCE: u32 = 4;

/// What the memory of a socket is divided into: slots of a size that a frame fits into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    len: u32,
}

impl Slots {
    /// For packets up to `mtu` in an Ethernet frame with a tag. Longer ones than fit a page do not
    /// come by this way.
    pub fn for_mtu(mtu: u32) -> Slots {
        let len = if mtu.saturating_add(18 + HEADROOM) <= 2048 { 2048 } else { 4096 };
        Slots { len }
    }

    /// The longest frame.
    pub const fn longest(self) -> u16 {
        (self.len - HEADROOM) as u16
    }

    /// Bytes of memory that a socket needs, which stay in place.
    pub const fn memory(self) -> usize {
        (self.len * (RECEIVE_SLOTS + SEND_SLOTS)) as usize
    }
}

pub(super) struct Socket {
    descriptor: OwnedFd,
    memory: Mapping,
    slots: Slots,
    /// Slots for the kernel to fill, and filled ones.
    fill: Ring<u64>,
    receive: Ring<libc::xdp_desc>,
    /// Frames to be sent, and slots whose frames were.
    send: Ring<libc::xdp_desc>,
    completion: Ring<u64>,
    /// Slots that hold nothing to be sent.
    free: Vec<u64>,
    /// Frames put into the ring and not shown to the kernel.
    is_dirty: bool,
    /// Whether the kernel sends only when it is called: it does, unless the driver takes frames
    /// itself.
    is_copying: bool,
    lost: Option<Lost>,
}

/// Which step failed.
pub(super) type Refused = (&'static str, io::Error);

impl Socket {
    /// A socket with its memory and rings, on no queue yet.
    pub fn open(slots: Slots) -> Result<Socket, Refused> {
        let at = |step| move |error| (step, error);
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: takes its arguments by value.
        let raw = unsafe { libc::socket(libc::AF_XDP, kind, 0) };
        if raw == -1 {
            return Err(("open an XDP socket", io::Error::last_os_error()));
        }
        // SAFETY: just opened, and nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        let len = slots.memory();
        let memory = Mapping::private(len).map_err(at("get memory for its frames"))?;
        // SAFETY: all zeroes are a valid `xdp_umem_reg`.
        let mut region: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
        region.addr = memory.at(0, len).addr().get() as u64;
        region.len = len as u64;
        region.chunk_size = slots.len;
        let socket = descriptor.as_fd();
        set(socket, libc::XDP_UMEM_REG, &region).map_err(at("share memory for its frames"))?;
        for (ring, size) in [
            (libc::XDP_UMEM_FILL_RING, RECEIVE_SLOTS),
            (libc::XDP_UMEM_COMPLETION_RING, SEND_SLOTS),
            (libc::XDP_RX_RING, RECEIVE_SLOTS),
            (libc::XDP_TX_RING, SEND_SLOTS),
        ] {
            set(socket, ring, &size).map_err(at("make its rings"))?;
        }
        let offsets: libc::xdp_mmap_offsets =
            get(socket, libc::XDP_MMAP_OFFSETS).map_err(at("find its rings"))?;
        let mapped = at("share its rings");
        let fill = Ring::map(socket, libc::XDP_UMEM_PGOFF_FILL_RING, RECEIVE_SLOTS, &offsets.fr);
        let place = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
        let completion = Ring::map(socket, place, SEND_SLOTS, &offsets.cr);
        let receive = Ring::map(socket, libc::XDP_PGOFF_RX_RING as u64, RECEIVE_SLOTS, &offsets.rx);
        let send = Ring::map(socket, libc::XDP_PGOFF_TX_RING as u64, SEND_SLOTS, &offsets.tx);
        let slot = |index: u32| u64::from(index) * u64::from(slots.len);
        let mut socket = Socket {
            fill: fill.map_err(mapped)?,
            receive: receive.map_err(mapped)?,
            send: send.map_err(mapped)?,
            completion: completion.map_err(mapped)?,
            descriptor,
            memory,
            slots,
            free: (RECEIVE_SLOTS..RECEIVE_SLOTS + SEND_SLOTS).map(slot).collect(),
            is_dirty: false,
            is_copying: true,
            lost: None,
        };
        for index in 0..RECEIVE_SLOTS {
            socket.fill.put(slot(index));
        }
        socket.fill.commit_put();
        Ok(socket)
    }

    /// Takes the frames of a queue: straight from the card where `zero_copy` says so.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the driver has no zero-copy, `EINVAL` where there is no such queue.
    pub fn bind(&mut self, index: u32, queue: u32, zero_copy: bool) -> io::Result<()> {
        let how = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: how | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the address and its length are those of a `sockaddr_xdp` that lives through the call.
        let result = unsafe {
            let len = size_of_val(&address) as libc::socklen_t;
            libc::bind(self.descriptor.as_raw_fd(), (&raw const address).cast(), len)
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        self.is_copying = !zero_copy;
        Ok(())
    }

    /// Fills the batch with what has arrived; `look` says what a frame has beside its bytes.
    pub fn receive(&mut self, batch: &mut Batch, look: impl Fn(&[u8]) -> Offload) {
        let mut any = false;
        while !batch.is_full() {
            let Some(descriptor) = self.receive.take() else { break };
            any = true;
            // The kernel fills only slots that it was given, and no more than one.
            let (start, len) = (descriptor.addr as usize, descriptor.len as usize);
            let place = self.memory.at(start, len);
            // SAFETY: the slot is ours until it is given back below, and the borrow ends before.
            let bytes = unsafe { std::slice::from_raw_parts(place.as_ptr(), len) };
            let read = batch.push_with(|buffer| {
                buffer.get_mut(..len).ok_or(())?.copy_from_slice(bytes);
                Ok::<_, ()>((len, look(bytes)))
            });
            // A slot is shorter than any buffer of a batch.
            debug_assert!(read.is_ok());
            self.fill.put(descriptor.addr);
        }
        if any {
            self.receive.commit_taken();
            self.fill.commit_put();
            if self.fill.needs_wakeup() {
                self.wake();
            }
        }
    }

    /// Takes a frame to be sent by the next flush.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.free.is_empty() {
            self.push_out();
        }
        let no_room = || io::Error::from_raw_os_error(libc::ENOBUFS);
        if bytes.len() > self.slots.len as usize {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let slot = self.free.pop().ok_or_else(no_room)?;
        let place = self.memory.at(slot as usize, bytes.len());
        // SAFETY: the slot is ours: free, and not shown to the kernel before `flush`; and no
        // reference to it exists.
        unsafe { place.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        let descriptor = libc::xdp_desc { addr: slot, len: bytes.len() as u32, options: 0 };
        if !self.send.put(descriptor) {
            self.free.push(slot);
            return Err(no_room());
        }
        self.is_dirty = true;
        Ok(())
    }

    /// Has the kernel send what it was given; says what was lost since the last time.
    pub fn flush(&mut self) -> Result<(), Lost> {
        if self.is_dirty {
            self.push_out();
        }
        self.lost.take().map_or(Ok(()), Err)
    }

    fn push_out(&mut self) {
        self.is_dirty = false;
        self.send.commit_put();
        let (mut outstanding, mut patience) = (self.send.outstanding(), PATIENCE);
        while outstanding > 0 && (self.is_copying || self.send.needs_wakeup()) {
            // A call sends some, and says EAGAIN if there are more.
            if let Err(error) = self.call_to_send() {
                match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => {}
                    // The card lost one, and the others wait.
                    Some(libc::EBUSY | libc::ENOBUFS) => self.lose(1, error),
                    _ => {
                        self.lose(outstanding.into(), error);
                        break;
                    }
                }
            }
            let left = self.send.outstanding();
            patience = if left < outstanding { PATIENCE } else { patience - 1 };
            outstanding = left;
            if patience == 0 {
                self.is_dirty = true;
                break;
            }
        }
        self.reclaim();
    }

    /// Frames on their way to us that were lost.
    pub fn missed(&self) -> io::Result<u64> {
        let statistics: libc::xdp_statistics = get(self.as_fd(), libc::XDP_STATISTICS)?;
        Ok(statistics.rx_dropped + statistics.rx_ring_full)
    }

    fn lose(&mut self, frames: u64, error: io::Error) {
        let before = self.lost.as_ref().map_or(0, |lost| lost.frames);
        self.lost = Some(Lost { frames: before + frames, error });
    }

    /// Takes back the slots of frames that were sent.
    fn reclaim(&mut self) {
        while let Some(slot) = self.completion.take() {
            self.free.push(slot);
        }
        self.completion.commit_taken();
    }

    fn wake(&self) {
        // SAFETY: a receive of nothing, which only tells the driver to look at its ring.
        unsafe {
            let (none, flags) = (std::ptr::null_mut(), libc::MSG_DONTWAIT);
            libc::recv(self.descriptor.as_raw_fd(), none, 0, flags);
        }
    }

    fn call_to_send(&self) -> io::Result<()> {
        // SAFETY: a send of nothing, which only tells the kernel to look at the ring.
        let result = unsafe {
            libc::send(self.descriptor.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT)
        };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn set<T>(socket: BorrowedFd<'_>, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `value` and no more, of the size that it is told.
    let result = unsafe {
        let len = size_of::<T>() as libc::socklen_t;
        let value: *const T = value;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, value.cast(), len)
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads an option whose value is nothing but numbers.
fn get<T: Copy>(socket: BorrowedFd<'_>, name: c_int) -> io::Result<T> {
    // SAFETY: all zeroes are valid numbers.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes of `value`, which are plain numbers.
    let result = unsafe {
        let value: *mut T = &raw mut value;
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, value.cast(), &raw mut len)
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
