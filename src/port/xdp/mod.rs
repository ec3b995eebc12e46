//! A port on an interface of the host, by XDP sockets: frames for the director leave the host's
//! path before its stack sees them, and those it sends enter the driver directly.
//!
//! Each queue of the interface has a socket ([`socket`]); a [`program`] on the interface sends it the
//! frames for the director's MAC. Where the driver can, they never touch the kernel's own buffers
//! (zero-copy); everywhere else the kernel copies them. Beside these is a packet socket, which hears
//! what host and director must both have (broadcasts, multicast), what is too long for a slot, and
//! what comes by a queue without a socket. It also sends what is not as on a wire: an XDP socket
//! knows nothing of offloads.
//!
//! That goes for checksums too: a local sender on a veth leaves them unfinished, and says so
//! nowhere in an XDP frame. On such interfaces a frame whose checksum is exactly what an unfinished
//! one would be is taken for that; completing it is right in either case.
//!
//! There is no crate in this: the kernel's interface is four rings and four requests of bpf(2); the
//! crates that wrap it bring loaders for compiled programs, or a C library, for a program of twenty
//! instructions.

mod bpf;
mod program;
mod ring;
mod socket;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use bpf::Mode;
use socket::{Slots, Socket};

use super::link::Kind;
use super::packet::{PacketConfig, PacketPort, usable_interface};
use super::{Batch, Condition, Lost, OpenError, Port, Readiness};
use crate::wire::{Offload, finish};

/// Queues with a socket of their own; the frames of others come by the packet socket.
const QUEUES_MAX: u32 = 16;

/// XDP sockets on an interface.
pub struct XdpPort {
    /// One for each queue, the first one to send.
    sockets: Vec<Socket>,
    beside: PacketPort,
    /// Whether senders on this host leave checksums unfinished there.
    is_virtual: bool,
    /// What is read first, so that nobody waits for ever.
    turn: usize,
    /// The program is there as long as this.
    _link: OwnedFd,
    _map: OwnedFd,
}

impl XdpPort {
    /// Opens a port on an interface that there is, and brings it up if it is down.
    ///
    /// When the port is dropped, or the process ends in whatever way, the program is gone.
    ///
    /// # Errors
    /// One line of what, where, and what to do.
    pub fn open(config: &PacketConfig<'_>) -> Result<XdpPort, OpenError> {
        let beside = PacketPort::open(config)?;
        let (_, link) = usable_interface(config)?;
        let (name, index) = (config.interface, link.index);
        // A native program on a veth takes its peer's offloads away, for a tenth of a gain.
        let is_virtual = matches!(&link.kind, Kind::Other(kind) if kind == "veth");
        let slots = Slots::for_mtu(link.mtu);
        let queues = link.rx_queues.clamp(1, QUEUES_MAX);
        let refused = |action| move |error| refused(name, slots, action, error);
        let map = bpf::create_socket_map(queues).map_err(refused("make a map of sockets"))?;
        let code = program::assemble(config.mac, slots.longest(), map.as_raw_fd());
        let program = bpf::load(&code).map_err(refused("load its XDP program"))?;
        let modes: &[Mode] =
            if is_virtual { &[Mode::Generic] } else { &[Mode::Native, Mode::Generic] };
        let (link, mode) = attach(&program, index, modes).map_err(refused("run an XDP program"))?;
        let mut sockets = Vec::new();
        let mut zero_copy = mode == Mode::Native;
        for queue in 0..queues {
            let socket = Socket::open(slots);
            let mut socket = socket.map_err(|(action, error)| refused(action)(error))?;
            match bind(&mut socket, index, queue, &mut zero_copy) {
                Ok(()) => {}
                // More queues than the card uses.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && queue > 0 => break,
                Err(error) => return Err(refused("take the frames of its queues")(error)),
            }
            bpf::set_socket(map.as_fd(), queue, socket.as_fd())
                .map_err(refused("take the frames of its queues"))?;
            sockets.push(socket);
        }
        log::info!(
            "interface {name}: XDP is {}, {}; sockets: {}",
            if mode == Mode::Native { "native" } else { "generic" },
            if zero_copy { "zero-copy" } else { "copying" },
            sockets.len()
        );
        Ok(XdpPort { sockets, beside, is_virtual, turn: 0, _link: link, _map: map })
    }
}

/// Runs the program in the first mode that the interface has.
fn attach(program: &OwnedFd, index: u32, modes: &[Mode]) -> io::Result<(OwnedFd, Mode)> {
    let mut refusal = io::ErrorKind::Unsupported.into();
    for &mode in modes {
        match bpf::link(program.as_fd(), index, mode) {
            Ok(link) => return Ok((link, mode)),
            // Somebody else's program is there: another mode would not help.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Err(error),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Takes a queue, without a copy if that is still thought to be possible.
fn bind(socket: &mut Socket, index: u32, queue: u32, zero_copy: &mut bool) -> io::Result<()> {
    if *zero_copy {
        match socket.bind(index, queue, true) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && queue > 0 => {
                return Err(error);
            }
            Err(_) => *zero_copy = false,
        }
    }
    socket.bind(index, queue, false)
}

fn refused(name: &str, slots: Slots, action: &'static str, error: io::Error) -> OpenError {
    let name = name.to_owned();
    match error.raw_os_error() {
        // How the kernel says that memory may not be locked.
        Some(libc::ENOBUFS) => OpenError::MemoryLock {
            name,
            needed: slots.memory() as u64 / 1024,
            limit: lock_limit(),
        },
        Some(libc::EPERM | libc::EACCES) => OpenError::XdpForbidden { name, action },
        Some(libc::EAFNOSUPPORT | libc::ENOSYS) => OpenError::NoXdp { name, action, error },
        Some(libc::EBUSY | libc::EEXIST) => OpenError::XdpBusy { name },
        _ => OpenError::refused("interface", &name, action, error),
    }
}

/// How much memory this process may lock, in KiB.
fn lock_limit() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    limit.current.map_or(u64::MAX, |bytes| bytes / 1024)
}

impl Port for XdpPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        let is_virtual = self.is_virtual;
        let look = |bytes: &[u8]| match is_virtual {
            true => finish::pending_checksum(bytes).unwrap_or_default(),
            false => Offload::default(),
        };
        let count = self.sockets.len();
        for at in 0..count {
            self.sockets[(self.turn + at) % count].receive(batch, look);
        }
        self.turn = (self.turn + 1) % count;
        if batch.is_full() {
            return Ok(Readiness::More);
        }
        self.beside.receive(batch)
    }

    #[inline]
    fn send(&mut self, bytes: &[u8], offload: Offload) -> io::Result<()> {
        match self.sockets.first_mut() {
            Some(socket) if offload.is_plain() => socket.send(bytes),
            _ => self.beside.send(bytes, offload),
        }
    }

    fn flush(&mut self) -> Result<(), Lost> {
        let beside = self.beside.flush();
        let sent = self.sockets.first_mut().map_or(Ok(()), Socket::flush);
        match (beside, sent) {
            (Err(a), Err(b)) => Err(Lost { frames: a.frames + b.frames, error: b.error }),
            (a, b) => a.and(b),
        }
    }

    fn descriptor(&self) -> RawFd {
        self.beside.descriptor()
    }

    fn further_descriptors(&self) -> Vec<RawFd> {
        self.sockets.iter().map(|socket| socket.as_fd().as_raw_fd()).collect()
    }

    fn mtu(&self) -> io::Result<u16> {
        self.beside.mtu()
    }

    fn takes_offload(&self) -> bool {
        true
    }

    fn condition(&self) -> io::Result<Condition> {
        let mut condition = self.beside.condition()?;
        for socket in &self.sockets {
            condition.missed += socket.missed()?;
        }
        Ok(condition)
    }
}
