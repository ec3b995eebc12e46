//! Netlink in miniature: a request with attributes goes to the kernel, its answers come back,
//! and at the end its success or its error number.
//!
//! This knows the framing (`linux/netlink.h`), not what the messages mean. It is synchronous:
//! the kernel answers within the system call that asks, so nothing waits. Half a dozen messages
//! are all that vipr needs of netlink; the crates that model the whole protocol weigh more than
//! this file and want an async runtime or several crates of their own.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto,
    socket_with,
};

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER_LEN: usize = 16;
/// `struct nlattr`: length, type.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Messages and attributes start at multiples of this.
const ALIGNMENT: usize = 4;
/// The largest piece the kernel makes of a dump (`NLMSG_GOODSIZE` grows up to this).
const RECEIVE_LEN: usize = 32 * 1024;
/// Far longer than any answer takes; only a kernel in distress gets here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of a request that makes something new (`NLM_F_CREATE | NLM_F_EXCL`).
pub(super) const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// Flags of a request that makes something unless it is there (`NLM_F_CREATE`), or adds to the end
/// of a list (`NLM_F_APPEND`).
pub(super) const CREATE_OR_KEEP: u16 = libc::NLM_F_CREATE as u16;
pub(super) const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
/// Flags of a request for everything of a kind (`NLM_F_DUMP`).
pub(super) const DUMP: u16 = libc::NLM_F_DUMP as u16;

/// A connection to one subsystem of the kernel, in the network namespace of the thread that
/// opened it.
pub(super) struct Socket {
    descriptor: OwnedFd,
    sequence: Cell<u32>,
}

impl Socket {
    /// Connects to a subsystem; `None` is `NETLINK_ROUTE`.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` where the kernel has no such subsystem.
    pub fn open(subsystem: Option<Protocol>) -> io::Result<Socket> {
        let descriptor =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, subsystem)?;
        set_socket_timeout(&descriptor, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Socket { descriptor, sequence: Cell::new(0) })
    }

    /// Has the kernel do something.
    ///
    /// # Errors
    /// What the kernel answered, as an OS error.
    pub fn execute(&self, request: Request) -> io::Result<()> {
        self.query(request, |_| {})
    }

    /// A socket that is told when devices of this namespace come, go or change.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen_to_links() -> io::Result<Socket> {
        /// `RTMGRP_LINK` of `linux/rtnetlink.h`.
        const LINKS: u32 = 1;
        let socket = Socket::open(None)?;
        bind(&socket.descriptor, &SocketAddrNetlink::new(0, LINKS))?;
        Ok(socket)
    }

    /// Whether something happened since the last time; what it was is dropped.
    pub fn has_news(&self) -> bool {
        let mut buffer = [0; 256];
        let mut any = false;
        // A queue that overflowed (ENOBUFS) is news as well.
        loop {
            match recv(&self.descriptor, &mut buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {
                    return any;
                }
                Err(error) if error.raw_os_error() != libc::ENOBUFS => return true,
                _ => any = true,
            }
        }
    }

    /// Has a subsystem of nfnetlink do all of it or nothing (`linux/netfilter/nfnetlink.h`).
    ///
    /// # Errors
    /// The first refusal, as an OS error.
    pub fn transact(&self, subsystem: u16, requests: Vec<Request>) -> io::Result<()> {
        /// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
        const BEGIN: u16 = 0x10;
        const END: u16 = 0x11;
        let [high, low] = subsystem.to_be_bytes();
        // Family, version, and the subsystem that is meant.
        let frame = |kind| Request::new(kind, 0, &[0, 0, high, low]).unacknowledged();
        let mut bytes = Vec::new();
        let mut last = self.sequence.get();
        let first = last.wrapping_add(1);
        let all = std::iter::once(frame(BEGIN)).chain(requests).chain([frame(END)]);
        let count = bytes_of_batch(&mut bytes, all, &mut last);
        self.sequence.set(last);
        sendto(&self.descriptor, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        // Each request between the two is acknowledged.
        let mut outstanding = count.saturating_sub(2);
        let mut buffer = vec![0; RECEIVE_LEN];
        while outstanding > 0 {
            let (_, len) = recv(&self.descriptor, &mut buffer[..], RecvFlags::TRUNC)?;
            let received = buffer.get(..len).ok_or(io::ErrorKind::InvalidData)?;
            for message in Messages(received) {
                let is_ours = message.sequence.wrapping_sub(first) < count;
                if is_ours && i32::from(message.kind) == libc::NLMSG_ERROR {
                    acknowledgement(message.body)?;
                    outstanding -= 1;
                }
            }
        }
        Ok(())
    }

    /// Asks the kernel something; `each` gets the body of every answer, after the netlink header.
    ///
    /// # Errors
    /// What the kernel answered, as an OS error.
    pub fn query(&self, request: Request, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let message = request.finish(sequence);
        sendto(&self.descriptor, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; RECEIVE_LEN];
        loop {
            let (_, len) = recv(&self.descriptor, &mut buffer[..], RecvFlags::TRUNC)?;
            let received = buffer.get(..len).ok_or(io::ErrorKind::InvalidData)?;
            for message in Messages(received) {
                // An answer to an earlier request that was given up on.
                if message.sequence != sequence {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return acknowledgement(message.body),
                    _ => each(message.body),
                }
            }
        }
    }
}

/// Writes requests one after the other, each with the next sequence number; how many.
fn bytes_of_batch(
    bytes: &mut Vec<u8>,
    requests: impl Iterator<Item = Request>,
    last: &mut u32,
) -> u32 {
    let mut count = 0;
    for request in requests {
        *last = last.wrapping_add(1);
        bytes.extend(request.finish(*last));
        count += 1;
    }
    count
}

/// `struct nlmsgerr` starts with the negated error number; 0 is success.
fn acknowledgement(body: &[u8]) -> io::Result<()> {
    match read_u32(body).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A message under construction.
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of this type; `fixed` is the subsystem's own header that follows netlink's.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Request { bytes }.padded()
    }

    /// The same, without an answer if all is well.
    fn unacknowledged(mut self) -> Request {
        let flags = libc::NLM_F_REQUEST as u16;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// Appends an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        // Names and numbers only: an attribute never comes near 64 KiB.
        let len = (ATTRIBUTE_HEADER_LEN + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.padded()
    }

    /// Appends a number.
    pub fn number(self, kind: u16, value: u32) -> Request {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a text, ended by a zero byte.
    pub fn text(self, kind: u16, value: &str) -> Request {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends an attribute that holds those that `fill` appends.
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Request) -> Request) -> Request {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTRIBUTE_HEADER_LEN]);
        let mut filled = fill(self);
        let len = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        filled
    }

    fn padded(mut self) -> Request {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// The attributes in a body, or in an attribute that nests others; ends at the first that does
/// not fit.
pub(super) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    /// The type, without its flag bits, and the value.
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let len = usize::from(read_u16(self.0)?);
        let kind = read_u16(self.0.get(2..)?)? & libc::NLA_TYPE_MASK as u16;
        let value = self.0.get(ATTRIBUTE_HEADER_LEN..len)?;
        self.0 = self.0.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A number in the byte order of the machine, if there is one.
pub(super) fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A number in the byte order of the machine, if there is one.
pub(super) fn read_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// A text up to its zero byte.
pub(super) fn read_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let len = usize::try_from(read_u32(self.0)?).ok()?;
        let message = Message {
            kind: read_u16(self.0.get(4..)?)?,
            sequence: read_u32(self.0.get(8..)?)?,
            body: self.0.get(HEADER_LEN..len)?,
        };
        self.0 = self.0.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_as_it_was_built() {
        let bytes = Request::new(7, 0, &[9; 4])
            .text(1, "br0")
            .nested(2, |request| request.number(3, 0xdead_beef).attribute(4, &[1, 2, 3, 4, 5]))
            .number(5, 6)
            .finish(42);
        let message = Messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.sequence), (7, 42));
        assert_eq!(message.body.len() + HEADER_LEN, bytes.len());
        let attributes: Vec<_> = Attributes(&message.body[4..]).collect();
        let kinds: Vec<u16> = attributes.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [1, 2, 5]);
        assert_eq!(read_text(attributes[0].1), "br0");
        assert_eq!(read_u32(attributes[2].1), Some(6));
        let nested: Vec<_> = Attributes(attributes[1].1).collect();
        assert_eq!(nested[0].1, 0xdead_beef_u32.to_ne_bytes());
        assert_eq!(nested[1], (4, &[1, 2, 3, 4, 5][..]));
    }

    #[test]
    fn what_is_cut_short_ends_the_iteration() {
        let rows: &[(&str, &[u8], usize)] = &[
            ("nothing", &[], 0),
            ("half a header", &[8, 0, 1], 0),
            ("a length below its own header", &[3, 0, 1, 0, 0, 0, 0, 0], 0),
            ("a length of zero", &[0, 0, 1, 0, 0, 0, 0, 0], 0),
            ("a length beyond the end", &[9, 0, 1, 0, 0, 0, 0, 0], 0),
            ("an empty attribute", &[4, 0, 1, 0], 1),
            ("one good, one cut short", &[5, 0, 1, 0, 7, 0, 0, 0, 8, 0, 1, 0, 7], 1),
            ("the last without its padding", &[4, 0, 1, 0, 5, 0, 1, 0, 7], 2),
        ];
        for (what, bytes, expected) in rows {
            if cfg!(target_endian = "little") {
                assert_eq!(Attributes(bytes).count(), *expected, "{what}");
            }
        }
        assert_eq!(Messages(&[0; 40]).count(), 0, "a message of no length");
        assert_eq!(Messages(&[255; 40]).count(), 0, "a message beyond the end");
    }

    #[test]
    fn the_kernels_refusal_is_an_os_error() {
        let socket = Socket::open(None).unwrap();
        // RTM_GETLINK for an index that cannot exist.
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        let refused = socket.execute(Request::new(libc::RTM_GETLINK, 0, &fixed));
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENODEV));
        // And the socket goes on working: a dump lists the loopback device at least.
        let mut links = 0;
        socket.query(Request::new(libc::RTM_GETLINK, DUMP, &[0; 16]), |_| links += 1).unwrap();
        assert!(links > 0);
    }
}
