//! The few requests of bpf(2) that an XDP socket needs: a map of sockets, a program, and its link to
//! an interface. All of it goes when the descriptors are closed, however the process ends.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::program::Instruction;

/// Commands (`enum bpf_cmd` of `linux/bpf.h`).
const MAP_CREATE: c_long = 0;
const MAP_UPDATE: c_long = 2;
const PROGRAM_LOAD: c_long = 5;
const LINK_CREATE: c_long = 28;
/// `BPF_MAP_TYPE_XSKMAP`, `BPF_PROG_TYPE_XDP` and the attach type `BPF_XDP`.
const XSK_MAP: u32 = 17;
const XDP_PROGRAM: u32 = 6;
const ATTACH_XDP: u32 = 37;

/// Where the program runs (`XDP_FLAGS_*` of `linux/if_link.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the driver, before the kernel has a buffer of its own for the frame.
    Native,
    /// Behind the driver: works with every one.
    Generic,
}

impl Mode {
    const fn flag(self) -> u32 {
        match self {
            Mode::Generic => 1 << 1,
            Mode::Native => 1 << 2,
        }
    }
}

/// The start of `union bpf_attr`, as each command has it; what follows is zero to the kernel.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// A map from queues to the sockets that get their frames.
pub(super) fn create_socket_map(queues: u32) -> io::Result<OwnedFd> {
    let request = MapCreate { kind: XSK_MAP, key_size: 4, value_size: 4, max_entries: queues };
    descriptor(call(MAP_CREATE, &request)?)
}

/// Has the frames of a queue go to a socket.
pub(super) fn set_socket(
    map: BorrowedFd<'_>,
    queue: u32,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    let socket = socket.as_raw_fd();
    let request = MapUpdate {
        map: number(map),
        padding: 0,
        key: address(&queue),
        value: address(&socket),
        flags: 0,
    };
    call(MAP_UPDATE, &request).map(|_| ())
}

/// Has the kernel check and take a program.
pub(super) fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let mut name = [0; 16];
    name[..4].copy_from_slice(b"vipr");
    let request = ProgramLoad {
        kind: XDP_PROGRAM,
        instructions: code.len() as u32,
        code: code.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        attach_type: ATTACH_XDP,
    };
    descriptor(call(PROGRAM_LOAD, &request)?)
}

/// Has a program run on what arrives at an interface, until the link is closed.
pub(super) fn link(program: BorrowedFd<'_>, interface: u32, mode: Mode) -> io::Result<OwnedFd> {
    let request = LinkCreate {
        program: number(program),
        interface,
        attach_type: ATTACH_XDP,
        flags: mode.flag(),
    };
    descriptor(call(LINK_CREATE, &request)?)
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_fd().as_raw_fd().cast_unsigned()
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).addr() as u64
}

fn call<T>(command: c_long, request: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `request`, of the size that it is told; what it points to (keys,
    // code, names) belongs to the callers above and lives through the call. None of the commands
    // writes.
    let result = unsafe {
        let request: *const T = request;
        libc::syscall(libc::SYS_bpf, command, request, size_of::<T>())
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn descriptor(raw: i32) -> io::Result<OwnedFd> {
    // SAFETY: the kernel just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
