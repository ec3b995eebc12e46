//! A packet socket and its settings: see packet(7) and `linux/if_packet.h`, whose numbers these are.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::filter::Instruction;
use crate::wire::MacAddr;

const ADD_MEMBERSHIP: c_int = 1;
const RX_RING: c_int = 5;
const STATISTICS: c_int = 6;
const COPY_THRESHOLD: c_int = 7;
const VERSION: c_int = 10;
const TX_RING: c_int = 13;
const VNET_HEADER: c_int = 15;
const IGNORE_OUTGOING: c_int = 23;
/// `TPACKET_V2`: unlike V3 it hands up a lone frame at once.
const VERSION_2: c_int = 1;
/// `PACKET_MR_ALLMULTI` and `PACKET_MR_UNICAST`.
const ALL_MULTICAST: u16 = 2;
const UNICAST: u16 = 3;

/// Bytes that may wait in the kernel: super-frames on their way to us, and frames on their way to
/// the card.
const BUFFER_LEN: c_int = 32 * 1024 * 1024;

/// `struct tpacket_req`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RingRequest {
    pub block_size: u32,
    pub blocks: u32,
    pub slot_size: u32,
    pub slots: u32,
}

/// `struct packet_mreq`.
#[repr(C)]
struct Membership {
    index: c_int,
    kind: u16,
    len: u16,
    address: [u8; 8],
}

/// `struct tpacket_stats`: since the last time it was asked for.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Statistics {
    packets: u32,
    drops: u32,
}

pub(super) struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    /// A socket that hears nothing yet.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`; `EAFNOSUPPORT` where the kernel has no packet sockets.
    pub fn open() -> io::Result<Socket> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes its arguments by value.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        Ok(Socket { descriptor: unsafe { OwnedFd::from_raw_fd(raw) } })
    }

    /// Frames in both directions with a virtio header, and in slots of the second version; none
    /// that go out of this host. What does not fit its slot comes whole by [`libc::recvmsg`].
    pub fn set_up(&self) -> io::Result<()> {
        self.set(libc::SOL_PACKET, VERSION, &VERSION_2)?;
        self.set(libc::SOL_PACKET, VNET_HEADER, &1)?;
        self.set(libc::SOL_PACKET, IGNORE_OUTGOING, &1)?;
        self.set(libc::SOL_PACKET, COPY_THRESHOLD, &1)?;
        for (forced, asked) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // Without the privilege, as much as the system allows.
            self.set(libc::SOL_SOCKET, forced, &BUFFER_LEN)
                .or_else(|_| self.set(libc::SOL_SOCKET, asked, &BUFFER_LEN))?;
        }
        Ok(())
    }

    pub fn set_filter(&self, program: &[Instruction]) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: program.len() as u16,
            // The kernel copies the program and writes nothing.
            filter: program.as_ptr().cast_mut(),
        };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Has frames come by slots.
    pub fn set_ring(&self, request: RingRequest) -> io::Result<()> {
        self.set(libc::SOL_PACKET, RX_RING, &request)
    }

    /// Has frames go by slots, and no other way.
    pub fn set_ring_out(&self, request: RingRequest) -> io::Result<()> {
        self.set(libc::SOL_PACKET, TX_RING, &request)
    }

    /// Sends what is in slots, in turn, until one has nothing to be sent; how many bytes that was,
    /// without virtio headers.
    pub fn send_slots(&self) -> io::Result<usize> {
        // SAFETY: there is no buffer.
        let sent = unsafe {
            libc::send(self.descriptor.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Hears all that arrives on the interface with this index.
    pub fn bind(&self, index: u32) -> io::Result<()> {
        self.bind_to(index, libc::ETH_P_ALL as u16)
    }

    /// Only sends, on the interface with this index.
    pub fn bind_deaf(&self, index: u32) -> io::Result<()> {
        self.bind_to(index, 0)
    }

    fn bind_to(&self, index: u32, protocol: u16) -> io::Result<()> {
        // SAFETY: all zeroes are a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the address and its length are those of a `sockaddr_ll` that lives through the call.
        let result = unsafe {
            let len = size_of_val(&address) as libc::socklen_t;
            libc::bind(self.descriptor.as_raw_fd(), (&raw const address).cast(), len)
        };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Has the interface take frames to `mac` too, until this is closed. One whose card has no
    /// room in its filter becomes promiscuous by itself.
    pub fn join_unicast(&self, index: u32, mac: MacAddr) -> io::Result<()> {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&mac.0);
        self.join(Membership { index: index.cast_signed(), kind: UNICAST, len: 6, address })
    }

    /// Has the interface take multicast to whatever group, until this is closed.
    pub fn join_groups(&self, index: u32) -> io::Result<()> {
        let (index, address) = (index.cast_signed(), [0; 8]);
        self.join(Membership { index, kind: ALL_MULTICAST, len: 0, address })
    }

    fn join(&self, membership: Membership) -> io::Result<()> {
        self.set(libc::SOL_PACKET, ADD_MEMBERSHIP, &membership)
    }

    /// Sends a frame, its virtio header apart, without blocking.
    pub fn send(&self, header: &[u8], bytes: &[u8]) -> io::Result<()> {
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
            let descriptor = self.descriptor.as_raw_fd();
            libc::sendmsg(descriptor, &raw const message, libc::MSG_DONTWAIT)
        };
        if sent == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads the first frame that waits in the queue, its virtio header apart; its length, and
    /// whether all of it had room.
    pub fn receive(&self, header: &mut [u8], bytes: &mut [u8]) -> io::Result<(usize, bool)> {
        let header_len = header.len();
        let mut vectors = [header, bytes]
            .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
        // SAFETY: all zeroes are a valid `msghdr`.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = vectors.len() as _;
        let mut read = || {
            // SAFETY: the message points to vectors, and they to bytes, that live through the call
            // and that nobody else uses meanwhile.
            let len = unsafe {
                let descriptor = self.descriptor.as_raw_fd();
                libc::recvmsg(descriptor, &raw mut message, libc::MSG_DONTWAIT)
            };
            usize::try_from(len).map_err(|_| io::Error::last_os_error())
        };
        // An error that was noted before comes first, and only once.
        let len = read().or_else(|_| read())?;
        let frame_len = len.checked_sub(header_len).ok_or(io::ErrorKind::InvalidData)?;
        Ok((frame_len, message.msg_flags & libc::MSG_TRUNC == 0))
    }

    /// Frames that found no room since this was last asked.
    pub fn take_drops(&self) -> io::Result<u32> {
        let statistics: Statistics = self.get(libc::SOL_PACKET, STATISTICS)?;
        Ok(statistics.drops)
    }

    /// The error that the kernel noted since this was last asked, if any.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let error: c_int = self.get(libc::SOL_SOCKET, libc::SO_ERROR)?;
        Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
    }

    fn set<T>(&self, level: c_int, name: c_int, value: &T) -> io::Result<()> {
        // SAFETY: the kernel reads `value` and no more, of the size that it is told.
        let result = unsafe {
            let len = size_of::<T>() as libc::socklen_t;
            let value: *const T = value;
            libc::setsockopt(self.descriptor.as_raw_fd(), level, name, value.cast(), len)
        };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn get<T: Copy + Default>(&self, level: c_int, name: c_int) -> io::Result<T> {
        let mut value = T::default();
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes; both uses have plain numbers there.
        let result = unsafe {
            let value: *mut T = &raw mut value;
            libc::getsockopt(self.descriptor.as_raw_fd(), level, name, value.cast(), &raw mut len)
        };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(value) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
