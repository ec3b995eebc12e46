//! The ports of a configuration: from what a segment says to the device, interface or sockets it
//! names.

use super::ports::{OpenError, Opener};
use crate::config::snapshot::{Attach, OffloadMode, Segment, Uplink};
use crate::port::{
    AnyPort, Card, PacketConfig, PacketPort, QemuConfig, QemuPort, TapConfig, TapPort, XdpPort,
};

/// Opens what a segment says: a TAP, an interface of the host, or sockets of virtual machines.
#[derive(Clone, Copy, Debug)]
pub struct Devices;

impl Opener for Devices {
    type Port = AnyPort;

    fn open(&mut self, segment: &Segment) -> Result<AnyPort, OpenError> {
        let mtu = segment.mtu;
        match &segment.attach {
            Attach::Tap { tap, bridge, uplink } => {
                let uplink = uplink.as_ref().map(|uplink| match uplink {
                    Uplink::Name(name) => Card::Name(name),
                    Uplink::Mac(mac) => Card::Mac(*mac),
                });
                let config = TapConfig { tap, bridge: bridge.as_deref(), uplink, mtu };
                Ok(AnyPort::Tap(match segment.offload {
                    OffloadMode::Auto => TapPort::open_with_offload(&config)?,
                    OffloadMode::Off => TapPort::open(&config)?,
                }))
            }
            Attach::Packet { interface } => {
                let config = PacketConfig { interface, mac: segment.mac, mtu };
                Ok(AnyPort::Packet(PacketPort::open(&config)?))
            }
            Attach::Xdp { interface } => {
                let config = PacketConfig { interface, mac: segment.mac, mtu };
                Ok(AnyPort::Xdp(XdpPort::open(&config)?))
            }
            Attach::Qemu { sockets } => {
                let listen = sockets.listen().map(|path| &**path);
                let connect = sockets.connect().map(|path| &**path).collect();
                let config = QemuConfig { mac: segment.mac, mtu, listen, connect };
                Ok(AnyPort::Qemu(QemuPort::open(&config)?))
            }
        }
    }
}
