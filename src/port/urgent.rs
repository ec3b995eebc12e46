//! A second look at a device: ARP and neighbour discovery on their way into a TAP whose queue is
//! full, which drops its tail without regard to what it is.
//!
//! A packet socket sees a frame before the TAP's queue does. That costs every frame a clone, so it
//! is not held open without need; see [`crate::shell`]'s ports for when there is any. A filter in
//! the kernel lets through what is urgent and nothing else. packet(7), `linux/filter.h`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

/// Bytes of an urgent frame, at most: ARP and neighbour discovery are short.
pub const URGENT_LEN: usize = 512;

/// A packet socket on one device.
pub struct UrgentSocket {
    descriptor: OwnedFd,
}

impl UrgentSocket {
    /// Listens to what is on its way into the device of this name.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW, `ENODEV`.
    pub fn open(device: &str) -> io::Result<UrgentSocket> {
        let name = std::ffi::CString::new(device)?;
        // SAFETY: `name` is a text that ends with a zero byte.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0: it sees nothing until it has its filter.
        let descriptor = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        attach_filter(&descriptor)?;
        bind_to(&descriptor, index)?;
        Ok(UrgentSocket { descriptor })
    }

    /// The next urgent frame, if there is one.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(&self.descriptor, buffer, RecvFlags::DONTWAIT) {
            Ok((len, _)) => Ok(Some(len)),
            Err(error) => match io::Error::from(error) {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Closes it elsewhere: the kernel waits until nobody uses it, for milliseconds, and frames
    /// must not wait with it.
    pub fn close(self) {
        // Without a thread it is closed here.
        let _ = std::thread::Builder::new().name("vipr-close".into()).spawn(move || drop(self));
    }
}

/// What is on its way out through the device (for a TAP: to us), without a VLAN tag, and ARP, or a
/// neighbour solicitation or advertisement without extension headers.
fn program() -> [libc::sock_filter; 14] {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// `SKF_AD_OFF` with `SKF_AD_PKTTYPE` and `SKF_AD_VLAN_TAG_PRESENT`.
    const PACKET_TYPE: u32 = 0xffff_f000 + 4;
    const VLAN_TAG_PRESENT: u32 = 0xffff_f000 + 48;
    let load = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let equal = |k, jt, jf| libc::sock_filter { code: IF_EQUAL, jt, jf, k };
    [
        load(LOAD_WORD, PACKET_TYPE),
        equal(u32::from(libc::PACKET_OUTGOING), 0, 11),
        load(LOAD_WORD, VLAN_TAG_PRESENT),
        equal(0, 0, 9),
        load(LOAD_HALF, 12),
        equal(libc::ETH_P_ARP as u32, 6, 0),
        equal(libc::ETH_P_IPV6 as u32, 0, 6),
        load(LOAD_BYTE, 20),
        equal(libc::IPPROTO_ICMPV6 as u32, 0, 4),
        load(LOAD_BYTE, 54),
        equal(135, 1, 0),
        equal(136, 0, 1),
        load(RETURN, URGENT_LEN as u32),
        load(RETURN, 0),
    ]
}

fn attach_filter(descriptor: &OwnedFd) -> io::Result<()> {
    let mut program = program();
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until then, and its length is right.
    let result = unsafe {
        libc::setsockopt(
            descriptor.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bind_to(descriptor: &OwnedFd, index: libc::c_uint) -> io::Result<()> {
    // SAFETY: all zeros are a valid address of this kind.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the address lives across the call, and its length is right.
    let result = unsafe {
        libc::bind(
            descriptor.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter on a frame on its way out (4) or in (0), as the kernel would.
    fn passes(packet_type: u32, tagged: bool, frame: &[u8]) -> bool {
        let program = program();
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                0x20 if k == 0xffff_f004 => accumulator = packet_type,
                0x20 => accumulator = u32::from(tagged),
                0x28 => {
                    let at = k as usize;
                    let Some(&[a, b]) = frame.get(at..at + 2) else { return false };
                    accumulator = u32::from_be_bytes([0, 0, a, b]);
                }
                0x30 => {
                    let Some(&byte) = frame.get(k as usize) else { return false };
                    accumulator = u32::from(byte);
                }
                0x15 => at += usize::from(if accumulator == k { jt } else { jf }),
                0x06 => return k > 0,
                other => panic!("no instruction {other:#x}"),
            }
        }
    }

    use libc::sock_filter;

    #[test]
    fn the_filter_lets_arp_and_neighbour_discovery_through_and_nothing_else() {
        let frame = |ether_type: [u8; 2], next_header: u8, icmp: u8| {
            let mut frame = vec![0; 90];
            frame[12..14].copy_from_slice(&ether_type);
            frame[20] = next_header;
            frame[54] = icmp;
            frame
        };
        let rows = [
            (frame([8, 6], 0, 0), true),
            (frame([0x86, 0xdd], 58, 135), true),
            (frame([0x86, 0xdd], 58, 136), true),
            (frame([0x86, 0xdd], 58, 128), false),
            (frame([0x86, 0xdd], 6, 135), false),
            (frame([8, 0], 58, 135), false),
            (vec![0; 12], false),
        ];
        for (frame, expected) in rows {
            assert_eq!(passes(4, false, &frame), expected, "{frame:02x?}");
            assert!(!passes(0, false, &frame), "what we sent ourselves");
            assert!(!passes(4, true, &frame), "of another VLAN");
        }
    }
}
