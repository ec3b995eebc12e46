//! A port of whichever kind.

use std::io;
use std::os::fd::RawFd;

use super::{Batch, Condition, Lost, PacketPort, Port, QemuPort, Readiness, TapPort, XdpPort};
use crate::wire::Offload;

/// A port, however it is attached.
pub enum AnyPort {
    Tap(TapPort),
    Packet(PacketPort),
    Xdp(XdpPort),
    Qemu(QemuPort),
}

/// Does the same with the port of whichever kind.
macro_rules! each {
    ($self:ident, $port:ident => $does:expr) => {
        match $self {
            AnyPort::Tap($port) => $does,
            AnyPort::Packet($port) => $does,
            AnyPort::Xdp($port) => $does,
            AnyPort::Qemu($port) => $does,
        }
    };
}

impl Port for AnyPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        each!(self, port => port.receive(batch))
    }

    #[inline]
    fn send(&mut self, bytes: &[u8], offload: Offload) -> io::Result<()> {
        each!(self, port => port.send(bytes, offload))
    }

    #[inline]
    fn flush(&mut self) -> Result<(), Lost> {
        each!(self, port => port.flush())
    }

    fn descriptor(&self) -> RawFd {
        each!(self, port => port.descriptor())
    }

    fn further_descriptors(&self) -> Vec<RawFd> {
        each!(self, port => port.further_descriptors())
    }

    fn mtu(&self) -> io::Result<u16> {
        each!(self, port => port.mtu())
    }

    fn takes_offload(&self) -> bool {
        each!(self, port => port.takes_offload())
    }

    fn set_offload(&mut self, wanted: bool) -> io::Result<()> {
        each!(self, port => port.set_offload(wanted))
    }

    fn condition(&self) -> io::Result<Condition> {
        each!(self, port => port.condition())
    }
}
