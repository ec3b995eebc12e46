//! IPv6 frames as stations put them on a wire, made by etherparse and nothing of our own.

use std::net::Ipv6Addr;

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv6Header, PacketBuilder, PacketBuilderStep, TcpHeader,
    UdpHeader,
};
use vipr::wire::MacAddr;

use super::{CLIENT_MAC, FRONT_MAC};

pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x10);
pub const FRONT_DIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2);
pub const BACK_DIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1);
pub const RS1_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 0x11);
pub const RS2_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 0x12);
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// Two segments that speak both families, and a service of IPv6 with two real servers whose MACs
/// are configured.
pub fn web6() -> String {
    format!(
        r#"{}
[[service]]
name = "web6"
vip = "2001:db8:0:1::10"
protocol = "tcp"
ports = 80
scheduler = "rr"

[[service.real_server]]
name = "six1"
address = "2001:db8:0:2::11"
mac = "52:54:00:00:00:11"
segment = "back"

[[service.real_server]]
name = "four2"
address = "10.0.0.12"
mac = "52:54:00:00:00:12"
segment = "back"
"#,
        segments6()
    )
}

pub fn segments6() -> String {
    super::SEGMENTS
        .replace("[\"192.0.2.2/24\"]", "[\"192.0.2.2/24\", \"2001:db8:0:1::2/64\"]")
        .replace("[\"10.0.0.1/24\"]", "[\"10.0.0.1/24\", \"2001:db8:0:2::1/64\"]")
}

/// The MAC of a group.
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// From one station to another.
#[derive(Clone, Copy, Debug)]
pub struct Packet6 {
    pub macs: (MacAddr, MacAddr),
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
}

/// From the client to the VIP.
pub fn from_client6() -> Packet6 {
    Packet6 { macs: (CLIENT_MAC, FRONT_MAC), source: CLIENT6, destination: VIP6, hop_limit: 61 }
}

impl Packet6 {
    fn builder(self) -> PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ethernet2(self.macs.0.0, self.macs.1.0).ipv6(
            self.source.octets(),
            self.destination.octets(),
            self.hop_limit,
        )
    }

    pub fn tcp(self, source_port: u16, destination_port: u16, flags: &str, data: &[u8]) -> Vec<u8> {
        self.tcp_at(source_port, destination_port, flags, (1000, 2000), data)
    }

    /// The same with its sequence number, and what it acknowledges with `A`.
    pub fn tcp_at(
        self,
        source_port: u16,
        destination_port: u16,
        flags: &str,
        (sequence, acknowledgement): (u32, u32),
        data: &[u8],
    ) -> Vec<u8> {
        let mut header = TcpHeader::new(source_port, destination_port, sequence, 64_240);
        (header.syn, header.fin) = (flags.contains('S'), flags.contains('F'));
        (header.rst, header.ack) = (flags.contains('R'), flags.contains('A'));
        header.acknowledgment_number = if header.ack { acknowledgement } else { 0 };
        let mut frame = Vec::new();
        self.builder().tcp_header(header).write_to_vec(&mut frame, data).unwrap();
        frame
    }

    pub fn udp(self, source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().udp(source_port, destination_port).write_to_vec(&mut frame, data).unwrap();
        frame
    }

    /// An ICMPv6 message: type, code, the four bytes after the checksum, and the rest.
    pub fn icmp(self, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().icmpv6_raw(kind, code, rest).write_to_vec(&mut frame, data).unwrap();
        frame
    }

    /// A packet with this behind its header.
    pub fn raw(self, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let ethernet = Ethernet2Header {
            source: self.macs.0.0,
            destination: self.macs.1.0,
            ether_type: EtherType::IPV6,
        };
        let header = Ipv6Header {
            payload_length: payload.len() as u16,
            next_header: IpNumber(next_header),
            hop_limit: self.hop_limit,
            source: self.source.octets(),
            destination: self.destination.octets(),
            ..Ipv6Header::default()
        };
        [&ethernet.to_bytes()[..], &header.to_bytes(), payload].concat()
    }

    /// A fragment: of what protocol, which packet, at which byte, and whether more follow.
    pub fn fragment(self, next: u8, id: u32, at: u16, more: bool, part: &[u8]) -> Vec<u8> {
        let [high, low] = (at | u16::from(more)).to_be_bytes();
        let header = [&[next, 0, high, low][..], &id.to_be_bytes()].concat();
        self.raw(44, &[&header, part].concat())
    }

    /// The payload of a UDP datagram, its header included, for fragments to be made of it.
    pub fn datagram(self, source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
        let (from, to) = (self.source.octets(), self.destination.octets());
        let mut header =
            UdpHeader::without_ipv4_checksum(source_port, destination_port, data.len()).unwrap();
        header.checksum = header.calc_checksum_ipv6_raw(from, to, data).unwrap();
        [&header.to_bytes()[..], data].concat()
    }
}

/// "Who has `target`?", to its group; from nobody, it is a probe whether the address is taken.
pub fn solicitation(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let group = solicited_node(target);
    neighbor_packet((mac, group_mac(group)), source, group, 135, 0, target, 1)
}

/// The same of the director alone.
pub fn solicitation_to(
    (mac, of): (MacAddr, MacAddr),
    source: Ipv6Addr,
    target: Ipv6Addr,
) -> Vec<u8> {
    neighbor_packet((mac, of), source, target, 135, 0, target, 1)
}

/// "I have `target`", to one or all; `flags` are R 0x80, S 0x40, O 0x20.
pub fn advertisement(
    macs: (MacAddr, MacAddr),
    destination: Ipv6Addr,
    flags: u8,
    target: Ipv6Addr,
) -> Vec<u8> {
    neighbor_packet(macs, target, destination, 136, flags, target, 2)
}

fn neighbor_packet(
    macs: (MacAddr, MacAddr),
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: u8,
) -> Vec<u8> {
    let mut rest = target.octets().to_vec();
    if !source.is_unspecified() {
        rest.extend([option, 1]);
        rest.extend(macs.0.0);
    }
    let packet = Packet6 { macs, source, destination, hop_limit: 255 };
    packet.icmp(kind, 0, [flags, 0, 0, 0], &rest)
}
