//! The same LAN in IPv6: stations are written in terms of IPv4, and what they say and hear is
//! translated, address by address and ARP by neighbor discovery.

use std::net::Ipv6Addr;

use etherparse::{NetSlice, SlicedPacket};
use vipr::wire::MacAddr;

use crate::harness::frames6::{Packet6, advertisement, solicitation};
use crate::stations::{Heard, read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// The address of IPv6 that stands for one of IPv4.
pub fn address([a, b, c, d]: [u8; 4]) -> Ipv6Addr {
    let halves = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, halves[0], halves[1])
}

/// The other way round.
pub fn short(address: [u8; 16]) -> [u8; 4] {
    address[12..].try_into().unwrap()
}

/// What a station put on the wire in IPv4, in IPv6.
pub fn translate(frame: &[u8]) -> Vec<u8> {
    let mac = |at: usize| MacAddr(frame[at..at + 6].try_into().unwrap());
    let macs = (mac(6), mac(0));
    match read(frame) {
        Heard::Arp { request: true, sender_mac, sender, target } => {
            solicitation(sender_mac, address(sender), address(target))
        }
        Heard::Arp { request: false, sender, target, .. } => {
            advertisement(macs, address(target), 0x60, address(sender))
        }
        Heard::Tcp(tcp) => {
            let (source, destination) = (address(tcp.source), address(tcp.destination));
            let packet = Packet6 { macs, source, destination, hop_limit: 61 };
            let at = (tcp.sequence, tcp.acknowledgement);
            packet.tcp_at(tcp.source_port, tcp.destination_port, tcp.flags, at, &tcp.payload)
        }
        Heard::Listening | Heard::Other => panic!("no station says {frame:02x?}"),
    }
}

/// The configuration in IPv6.
pub fn configuration(of_ipv4: &str) -> String {
    of_ipv4
        .replace("192.0.2.2/24", "2001:db8::192.0.2.2/120")
        .replace("10.0.0.1/24", "2001:db8::10.0.0.1/120")
        .replace("\"192.0.2.10\"", "\"2001:db8::192.0.2.10\"")
        .replace("address = \"10.0.0.1", "address = \"2001:db8::10.0.0.1")
}

/// What is heard in a frame of IPv6 that is not TCP. An advertisement that nobody asked for is to
/// a station what an announcement by ARP is.
pub fn read_discovery(bytes: &[u8], sliced: &SlicedPacket<'_>) -> Heard {
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { return Heard::Other };
    let link_layer = || MacAddr(bytes[80..86].try_into().unwrap());
    let target = || short(bytes[62..78].try_into().unwrap());
    match (bytes[20], bytes[54]) {
        (58, 135) => Heard::Arp {
            request: true,
            sender_mac: link_layer(),
            sender: short(ip.header().source()),
            target: target(),
        },
        (58, 136) => {
            let solicited = bytes[58] & 0x40 != 0;
            let destination = short(ip.header().destination());
            Heard::Arp {
                request: !solicited,
                sender_mac: link_layer(),
                sender: target(),
                target: if solicited { destination } else { target() },
            }
        }
        (0, 58) if bytes[62] == 143 => Heard::Listening,
        _ => Heard::Other,
    }
}
