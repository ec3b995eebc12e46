//! Segmentation offload of a TAP: frames with a virtio header before them, larger than the MTU if
//! their sender left the cutting to others.
//!
//! tun-tap opens a TAP without that header, and a descriptor's kind is for life. So a second
//! descriptor takes the first one's place, on the same interface: made persistent meanwhile, it
//! keeps its index, its bridge and its settings.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use tun_tap::Iface;

use super::vnet_header;

/// What whoever reads wants left to him: checksums and cutting (`TUN_F_*` of `linux/if_tun.h`).
const CHECKSUM: u32 = 0x01;
const TSO4: u32 = 0x02;
const TSO6: u32 = 0x04;
const TSO_ECN: u32 = 0x08;
/// Datagrams, which the kernel takes together or not at all.
const USO: u32 = 0x20 | 0x40;

/// Changes the opened TAP's descriptor to one with virtio headers. It must not be waited for yet.
///
/// # Errors
/// When the kernel refuses. The TAP is then as it was, or gone if it was made by opening it.
pub(super) fn upgrade(iface: &Iface, was_persistent: bool) -> io::Result<()> {
    let descriptor = iface.as_raw_fd();
    set(descriptor, libc::TUNSETPERSIST, 1)?;
    let replaced = replace(descriptor, iface.name(), libc::IFF_VNET_HDR)
        // Back to what it was, for those who want no offload.
        .inspect_err(|_| drop(replace(descriptor, iface.name(), 0)));
    if !was_persistent {
        // Goes with its last descriptor again.
        set(descriptor, libc::TUNSETPERSIST, 0)?;
    }
    replaced?;
    // The length belongs to the device: whoever had it before us may have set another.
    let mut len = vnet_header::LEN as libc::c_int;
    // SAFETY: the descriptor is open, and the kernel reads a `c_int` that lives through the call.
    let result = unsafe { libc::ioctl(descriptor, libc::TUNSETVNETHDRSZ, &raw mut len) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Says what the device may leave to us: everything it can, or nothing.
///
/// Offloads belong to the device, not to the descriptor: a persistent TAP may still have those of
/// the program before us, and without headers would give super-frames without a word.
pub(super) fn set_wanted(iface: &Iface, wanted: bool) -> io::Result<()> {
    let descriptor = iface.as_raw_fd();
    if !wanted {
        return set(descriptor, libc::TUNSETOFFLOAD, 0);
    }
    let tcp = CHECKSUM | TSO4 | TSO6 | TSO_ECN;
    // Before Linux 6.2 there was none for datagrams.
    set(descriptor, libc::TUNSETOFFLOAD, tcp | USO)
        .or_else(|_| set(descriptor, libc::TUNSETOFFLOAD, tcp))
}

/// Puts a new descriptor of this TAP in the place of the old.
fn replace(descriptor: RawFd, name: &str, flags: libc::c_int) -> io::Result<()> {
    let device = c"/dev/net/tun".as_ptr();
    // SAFETY: a path that ends in a zero byte.
    let opened = unsafe { libc::open(device, libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) };
    if opened == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    let opened = unsafe { OwnedFd::from_raw_fd(opened) };
    // SAFETY: `descriptor` is open and stays so: what it stands for changes in one step.
    if unsafe { libc::dup3(opened.as_raw_fd(), descriptor, libc::O_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: an all-zero `ifreq` is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | flags;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes an `ifreq` that lives through
    // the call.
    let result = unsafe { libc::ioctl(descriptor, libc::TUNSETIFF, &raw mut request) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request that takes its argument by value.
fn set(descriptor: RawFd, request: libc::Ioctl, argument: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and nothing is passed but a number.
    let result = unsafe { libc::ioctl(descriptor, request, libc::c_ulong::from(argument)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
