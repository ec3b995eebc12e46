//! Frames as stations put them on a wire, made by etherparse.

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, IpFragOffset, IpNumber, Ipv4Header,
    PacketBuilder,
};
use vipr::wire::MacAddr;

use super::{CLIENT, CLIENT_MAC, FRONT_MAC, VIP};

/// A TCP segment from the client to the VIP.
#[derive(Clone, Debug)]
pub struct Tcp {
    pub source_mac: MacAddr,
    pub destination_mac: MacAddr,
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub source_port: u16,
    pub destination_port: u16,
    /// Of `SFRA`.
    pub flags: &'static str,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub payload: Vec<u8>,
}

/// A segment from the client to port 80 of the VIP, from this port and with these flags.
pub fn tcp(source_port: u16, flags: &'static str) -> Tcp {
    Tcp {
        source_mac: CLIENT_MAC,
        destination_mac: FRONT_MAC,
        source: CLIENT,
        destination: VIP,
        source_port,
        destination_port: 80,
        flags,
        sequence: 1000,
        acknowledgement: if flags.contains('A') { 2000 } else { 0 },
        payload: Vec::new(),
    }
}

impl Tcp {
    pub fn bytes(&self) -> Vec<u8> {
        let mut builder = PacketBuilder::ethernet2(self.source_mac.0, self.destination_mac.0)
            .ipv4(self.source, self.destination, 61)
            .tcp(self.source_port, self.destination_port, self.sequence, 64_000);
        for flag in self.flags.chars() {
            builder = match flag {
                'S' => builder.syn(),
                'F' => builder.fin(),
                'R' => builder.rst(),
                'A' => builder.ack(self.acknowledgement),
                other => panic!("no TCP flag {other}"),
            };
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &self.payload).unwrap();
        bytes
    }
}

/// A UDP datagram from the client to the VIP.
pub fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC.0, FRONT_MAC.0)
        .ipv4(CLIENT, VIP, 61)
        .udp(source_port, destination_port);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

/// An echo request from the client.
pub fn ping(destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC.0, FRONT_MAC.0)
        .ipv4(CLIENT, destination, 61)
        .icmpv4_echo_request(77, 3);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

/// An IPv4 packet from the client to the VIP with a payload that is the caller's.
pub fn ipv4(protocol: u8, fragment: Option<(u16, u16, bool)>, payload: &[u8]) -> Vec<u8> {
    let mut header =
        Ipv4Header::new(payload.len() as u16, 61, IpNumber(protocol), CLIENT, VIP).unwrap();
    header.dont_fragment = fragment.is_none();
    if let Some((identification, offset, more)) = fragment {
        header.identification = identification;
        header.fragment_offset = IpFragOffset::try_new(offset / 8).unwrap();
        header.more_fragments = more;
    }
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = [FRONT_MAC.0, CLIENT_MAC.0].concat();
    bytes.extend([0x08, 0x00]);
    bytes.extend(header.to_bytes());
    bytes.extend(payload);
    bytes
}

/// The payload of an IPv4 frame made by this module (no options).
pub fn ip_payload(frame: &[u8]) -> &[u8] {
    &frame[34..]
}

/// An ICMP error of a type and code, quoting a packet.
pub fn icmp_error(kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(quoted);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&message).ones_complement();
    message[2..4].copy_from_slice(&sum.to_ne_bytes());
    ipv4(1, None, &message)
}

/// An ARP packet in its frame.
pub fn arp(
    operation: ArpOperation,
    destination_mac: MacAddr,
    (sender_mac, sender): (MacAddr, [u8; 4]),
    (target_mac, target): (MacAddr, [u8; 4]),
) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &sender_mac.0,
        &sender,
        &target_mac.0,
        &target,
    )
    .unwrap();
    let mut bytes = [destination_mac.0, sender_mac.0].concat();
    bytes.extend([0x08, 0x06]);
    bytes.extend(packet.to_bytes());
    bytes
}

/// "Who has `target`?", by broadcast.
pub fn arp_request(sender_mac: MacAddr, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let asked = (MacAddr::ZERO, target);
    arp(ArpOperation::REQUEST, MacAddr::BROADCAST, (sender_mac, sender), asked)
}

/// "`sender` is at `sender_mac`", to the one who asked.
pub fn arp_reply(
    sender_mac: MacAddr,
    sender: [u8; 4],
    target_mac: MacAddr,
    target: [u8; 4],
) -> Vec<u8> {
    arp(ArpOperation::REPLY, target_mac, (sender_mac, sender), (target_mac, target))
}
