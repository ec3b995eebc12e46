//! A port on an interface of the host, by a packet socket: no TAP and no bridge on the way.
//!
//! The director keeps a MAC of its own there. The card is told to take frames to it (as well as
//! to the host's), and those are to the host's stack what frames to a stranger are: it lets them
//! be. The socket's filter hands us only what the director has to do with, see [`filter`]; the host's
//! own traffic goes by untouched. What the host itself sends to the VIP leaves by the interface and
//! does not come back: as with macvlan, a host and the director on the same interface do not
//! reach each other.
//!
//! Frames come by a [`ring`] shared with the kernel, without a system call each, and leave by
//! another ([`outgoing`]), a burst with each call. Both are of [`slots`]. Both ways each frame has a
//! virtio header: without it, frames whose checksum their sender left to its card (every local
//! sender does) would be forwarded broken. Super-frames do not fit the slots; the kernel queues those
//! that arrive beside the ring, whole, and they leave by a call of their own.
//!
//! # What it costs
//! 1.55 times what IPVS does above the bare path, counted as QEMU counts, and 1.37 times where every
//! instruction counts once (`make bench-ipvs`). By function, of 6,460 instructions a packet:
//!
//! | | |
//! |---|---:|
//! | a second buffer: allocated, cleared (of which 760 are bytes), charged and freed | 1,770 |
//! | the director, reading and writing slots included | 1,470 |
//! | down: from its slot to the card, and the slot's return | 940 |
//! | up: to whom it goes, the filter, the copy into its slot | 870 |
//! | the second soft interrupt, and the way through the second cable | 760 |
//! | locks, lists, and what the kernel copies | 400 |
//! | the look at its headers that every packet of a program gets | 250 |
//!
//! Only the second is ours. Tried: a message for each frame (`sendmmsg`) costs 1,170 more than a slot;
//! that somebody waits for frames costs their sender 250, which is why nobody does under load. Past
//! the queueing discipline it would be 80 less, but what a host says of its queues is to hold for us.
//!
//! Before Linux 6.10, and the stable kernels that took the mending from it in the middle of 2024, the
//! return of a slot asks every processor of the host for a number.

mod filter;
mod outgoing;
mod ring;
mod slots;
mod socket;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use outgoing::Outgoing;
use ring::{Arrived, Ring};
use socket::Socket;

use super::link::{Kind, Link, Links};
use super::open_error::validate_name;
use super::{Batch, Condition, Fault, Lost, OpenError, Port, Readiness, vnet_header};
use crate::wire::{MacAddr, Offload};

/// Kinds of devices that take the frames of their ports for themselves.
const TAKE_FRAMES: [&str; 4] = ["bond", "team", "openvswitch", "ovs-system"];

/// Where the two addresses of a frame end, and its VLAN tag is.
const ADDRESSES_LEN: usize = 12;
const TAG_LEN: usize = 4;

/// Which interface a port is to be on, and what the director is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketConfig<'a> {
    pub interface: &'a str,
    /// The director's MAC.
    pub mac: MacAddr,
    /// The largest IP packet that is expected to pass, in bytes.
    pub mtu: Option<u16>,
}

/// A packet socket on an interface.
pub struct PacketPort {
    socket: Socket,
    ring: Ring,
    outgoing: Outgoing,
    links: Links,
    index: u32,
    /// Frames that found no room here, in the kernel and after it.
    missed: Cell<u64>,
}

impl PacketPort {
    /// Opens a port on an interface that there is, and brings it up if it is down.
    ///
    /// Nothing else about the interface changes, and when the port is dropped it takes frames to
    /// the director's MAC no longer.
    ///
    /// # Errors
    /// One line of what, where, and what to do.
    pub fn open(config: &PacketConfig<'_>) -> Result<PacketPort, OpenError> {
        let (links, link) = usable_interface(config)?;
        let (name, index) = (config.interface, link.index);
        let refused = |action| move |error| refused(name, action, error);
        let socket = Socket::open().map_err(refused("open a packet socket"))?;
        socket.set_up().map_err(refused("set up a packet socket"))?;
        socket.set_filter(&filter::program(config.mac)).map_err(refused("filter its frames"))?;
        let ring = Ring::new(&socket, link.mtu).map_err(refused("share memory for its frames"))?;
        let outgoing =
            Outgoing::new(index, link.mtu).map_err(refused("share memory for what leaves"))?;
        links.bring_up(index).map_err(refused("bring it up"))?;
        socket.bind(index).map_err(refused("hear its frames"))?;
        socket.join_groups(index).map_err(refused("have it take multicast"))?;
        socket
            .join_unicast(index, config.mac)
            .map_err(refused("have it take the director's frames"))?;
        Ok(PacketPort { socket, ring, outgoing, links, index, missed: Cell::new(0) })
    }

    fn link(&self) -> io::Result<Link> {
        let link = self.links.at(self.index)?;
        link.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn miss(&self, frames: u64) {
        self.missed.set(self.missed.get() + frames);
    }

    /// Reads the next frame; whether there was one.
    #[inline]
    fn receive_one(&mut self, batch: &mut Batch) -> io::Result<bool> {
        let PacketPort { ring, socket, missed, .. } = self;
        let taken = ring.take(|arrived| {
            let read = match arrived {
                Arrived::Here { header, bytes, tag } => {
                    batch.push_with(|buffer| place(header, bytes, tag, buffer))
                }
                Arrived::InQueue { tag } => {
                    batch.push_with(|buffer| receive_queued(socket, tag, buffer))
                }
                Arrived::Lost => Err(None),
            };
            match read {
                Err(Some(error)) if Fault::of(&error) == Fault::Gone => Err(error),
                // What cannot be read is lost; the ring goes on.
                Err(_) => {
                    missed.set(missed.get() + 1);
                    Ok(())
                }
                Ok(()) => Ok(()),
            }
        })?;
        Ok(taken.is_some())
    }

    /// An error that says the interface is gone, if it is.
    fn check_interface(&self) -> io::Result<()> {
        if self.socket.take_error()?.is_some() {
            // Down or gone: both end with the same error, and only the first comes back.
            self.link()?;
        }
        Ok(())
    }
}

impl Port for PacketPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        while !batch.is_full() {
            if !self.receive_one(batch)? {
                // With the last frames there may have come an error, and no other event will.
                self.check_interface()?;
                return Ok(Readiness::Drained);
            }
        }
        Ok(Readiness::More)
    }

    #[inline]
    fn send(&mut self, bytes: &[u8], offload: Offload) -> io::Result<()> {
        self.outgoing.send(&self.socket, bytes, offload)
    }

    fn flush(&mut self) -> Result<(), Lost> {
        self.outgoing.flush()
    }

    fn descriptor(&self) -> RawFd {
        self.socket.as_fd().as_raw_fd()
    }

    fn mtu(&self) -> io::Result<u16> {
        Ok(u16::try_from(self.link()?.mtu).unwrap_or(u16::MAX))
    }

    fn takes_offload(&self) -> bool {
        true
    }

    fn condition(&self) -> io::Result<Condition> {
        self.miss(u64::from(self.socket.take_drops()?));
        let link = self.link()?;
        // Somebody may change it while we are here.
        self.outgoing.set_mtu(link.mtu);
        Ok(Condition { running: link.is_running, missed: self.missed.get() })
    }
}

/// The interface, if the director can be on it.
pub(super) fn usable_interface(config: &PacketConfig<'_>) -> Result<(Links, Link), OpenError> {
    let name = config.interface;
    validate_name("interface", name)?;
    let refused = |action| move |error| refused(name, action, error);
    let links = Links::open().map_err(refused("ask for network devices"))?;
    let found = links.find(name).map_err(refused("find it"))?;
    let name = || config.interface.to_owned();
    let link = found.ok_or_else(|| OpenError::NoInterface { name: name() })?;
    if !link.is_ethernet {
        return Err(OpenError::NotEthernet { name: name() });
    }
    if let Some(master) = link.master {
        let master = links.at(master).map_err(refused("find what it is a port of"))?;
        if let Some(master) = master.filter(takes_frames) {
            return Err(OpenError::InterfaceEnslaved { name: name(), master: master.name });
        }
    }
    if link.mac == config.mac.0 {
        return Err(OpenError::MacOfHost { name: name(), mac: config.mac });
    }
    if let Some(mtu) = config.mtu
        && u32::from(mtu) > link.mtu
    {
        return Err(OpenError::InterfaceMtu { name: name(), device: link.mtu, mtu });
    }
    Ok((links, link))
}

fn takes_frames(master: &Link) -> bool {
    match &master.kind {
        Kind::Bridge => true,
        Kind::Other(kind) => TAKE_FRAMES.contains(&kind.as_str()),
        Kind::Tap { .. } | Kind::Plain => false,
    }
}

/// What the kernel refused of an interface.
fn refused(name: &str, action: &'static str, error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            OpenError::RawForbidden { name: name.to_owned(), action }
        }
        Some(libc::EAFNOSUPPORT) => OpenError::NoPacketSockets { name: name.to_owned(), error },
        _ => OpenError::refused("interface", name, action, error),
    }
}

/// Puts a frame where the director wants it, its VLAN tag back in its place. An error of `None`
/// is a frame that nobody can use.
#[inline]
fn place(
    header: &[u8; vnet_header::LEN],
    bytes: &[u8],
    tag: Option<[u8; TAG_LEN]>,
    buffer: &mut [u8],
) -> Result<(usize, Offload), Option<io::Error>> {
    let mut offload = vnet_header::parse(header).ok_or(None)?;
    let Some(tag) = tag else {
        buffer.get_mut(..bytes.len()).ok_or(None)?.copy_from_slice(bytes);
        return Ok((bytes.len(), offload));
    };
    let len = bytes.len() + TAG_LEN;
    let (addresses, rest) = bytes.split_at_checked(ADDRESSES_LEN).ok_or(None)?;
    let buffer = buffer.get_mut(..len).ok_or(None)?;
    buffer[..ADDRESSES_LEN].copy_from_slice(addresses);
    buffer[ADDRESSES_LEN..ADDRESSES_LEN + TAG_LEN].copy_from_slice(&tag);
    buffer[ADDRESSES_LEN + TAG_LEN..].copy_from_slice(rest);
    offload.shift(TAG_LEN as i16);
    Ok((len, offload))
}

/// Reads the first frame of the queue, which has those that are too long for the ring.
#[cold]
fn receive_queued(
    socket: &Socket,
    tag: Option<[u8; TAG_LEN]>,
    buffer: &mut [u8],
) -> Result<(usize, Offload), Option<io::Error>> {
    let mut header = [0; vnet_header::LEN];
    let (len, is_whole) = socket.receive(&mut header, buffer).map_err(Some)?;
    let mut offload = vnet_header::parse(&header).filter(|_| is_whole).ok_or(None)?;
    let Some(tag) = tag else { return Ok((len, offload)) };
    if len < ADDRESSES_LEN || len + TAG_LEN > buffer.len() {
        return Err(None);
    }
    buffer.copy_within(ADDRESSES_LEN..len, ADDRESSES_LEN + TAG_LEN);
    buffer[ADDRESSES_LEN..ADDRESSES_LEN + TAG_LEN].copy_from_slice(&tag);
    offload.shift(TAG_LEN as i16);
    Ok((len + TAG_LEN, offload))
}
