//! Frames as stations put them on a wire, made by etherparse and nothing of our own.
//!
//! [`FrameBuilder`] makes any; the functions after it say shortly what most tests want: a client's
//! packet to the VIP, and ARP.

use std::net::Ipv4Addr;

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IpFragOffset, IpHeaders,
    IpNumber, Ipv4Extensions, Ipv4Header, PacketBuilder, PacketBuilderStep, TcpHeader,
};
use vipr::wire::MacAddr;

use super::{CLIENT, CLIENT_MAC, FRONT_MAC, VIP};

/// What lies below the transport of a frame: start from [`FrameBuilder::new`], change what the
/// test is about, and finish with a transport.
#[derive(Clone, Copy, Debug)]
pub struct FrameBuilder {
    source_mac: MacAddr,
    destination_mac: MacAddr,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
    dont_fragment: bool,
    more_fragments: bool,
    /// In units of eight bytes.
    fragment_offset: u16,
}

impl FrameBuilder {
    /// From one station to another: TTL 61, identification 1, DF.
    pub fn new(
        from: (MacAddr, impl Into<Ipv4Addr>),
        to: (MacAddr, impl Into<Ipv4Addr>),
    ) -> FrameBuilder {
        FrameBuilder {
            source_mac: from.0,
            destination_mac: to.0,
            source: from.1.into(),
            destination: to.1.into(),
            identification: 1,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
        }
    }

    /// A packet that may be fragmented.
    pub fn identified(self, identification: u16) -> FrameBuilder {
        FrameBuilder { identification, dont_fragment: false, ..self }
    }

    /// A fragment; `offset` in units of eight bytes.
    pub fn fragment(self, identification: u16, offset: u16, more: bool) -> FrameBuilder {
        FrameBuilder {
            more_fragments: more,
            fragment_offset: offset,
            ..self.identified(identification)
        }
    }

    /// A TCP segment with the flags `SFRPA` names: sequence 1000, acknowledging 2000 with `A`.
    pub fn tcp(self, source_port: u16, destination_port: u16, flags: &str, data: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(source_port, destination_port, 1000, 64_240);
        header.acknowledgment_number = if flags.contains('A') { 2000 } else { 0 };
        self.segment(header, flags, data)
    }

    fn segment(self, mut header: TcpHeader, flags: &str, data: &[u8]) -> Vec<u8> {
        for flag in flags.chars() {
            match flag {
                'S' => header.syn = true,
                'F' => header.fin = true,
                'R' => header.rst = true,
                'P' => header.psh = true,
                'A' => header.ack = true,
                other => panic!("no TCP flag {other}"),
            }
        }
        let mut frame = Vec::new();
        self.packet(IpNumber::TCP)
            .tcp_header(header)
            .write_to_vec(&mut frame, data)
            .expect("a test's frame fits");
        frame
    }

    pub fn udp(self, source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.packet(IpNumber::UDP)
            .udp(source_port, destination_port)
            .write_to_vec(&mut frame, data)
            .expect("a test's frame fits");
        frame
    }

    pub fn echo_request(self, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.packet(IpNumber::ICMP)
            .icmpv4_echo_request(identifier, sequence)
            .write_to_vec(&mut frame, data)
            .expect("a test's frame fits");
        frame
    }

    /// An ICMP error; `rest` is the part of its header that varies.
    pub fn icmp_error(self, kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.packet(IpNumber::ICMP)
            .icmpv4_raw(kind, code, rest)
            .write_to_vec(&mut frame, quoted)
            .expect("a test's frame fits");
        frame
    }

    /// Any protocol, or a later fragment.
    pub fn raw(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = self.header(IpNumber(protocol));
        header.set_payload_len(payload.len()).expect("a test's payload fits");
        header.header_checksum = header.calc_header_checksum();
        let mut frame = ethernet(self.destination_mac, self.source_mac, EtherType::IPV4);
        frame.extend(header.to_bytes());
        frame.extend(payload);
        frame
    }

    /// A frame of another EtherType, with some payload.
    pub fn other(self, ether_type: u16) -> Vec<u8> {
        let mut frame = ethernet(self.destination_mac, self.source_mac, EtherType(ether_type));
        frame.extend([0; 46]);
        frame
    }

    fn packet(self, protocol: IpNumber) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ethernet2(self.source_mac.0, self.destination_mac.0)
            .ip(IpHeaders::Ipv4(self.header(protocol), Ipv4Extensions::default()))
    }

    fn header(self, protocol: IpNumber) -> Ipv4Header {
        Ipv4Header {
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            more_fragments: self.more_fragments,
            fragment_offset: IpFragOffset::try_new(self.fragment_offset)
                .expect("an offset has 13 bits"),
            time_to_live: 61,
            protocol,
            source: self.source.octets(),
            destination: self.destination.octets(),
            ..Ipv4Header::default()
        }
    }
}

fn ethernet(destination: MacAddr, source: MacAddr, ether_type: EtherType) -> Vec<u8> {
    let header = Ethernet2Header { destination: destination.0, source: source.0, ether_type };
    header.to_bytes().to_vec()
}

/// From the client to the VIP.
pub fn from_client() -> FrameBuilder {
    FrameBuilder::new((CLIENT_MAC, CLIENT), (FRONT_MAC, VIP))
}

/// A TCP segment from the client to the VIP, to be changed field by field.
#[derive(Clone, Debug)]
pub struct Tcp {
    pub source_mac: MacAddr,
    pub destination_mac: MacAddr,
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub source_port: u16,
    pub destination_port: u16,
    /// Of `SFRPA`.
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
        let mut header =
            TcpHeader::new(self.source_port, self.destination_port, self.sequence, 64_240);
        header.acknowledgment_number = self.acknowledgement;
        let (from, to) = ((self.source_mac, self.source), (self.destination_mac, self.destination));
        FrameBuilder::new(from, to).segment(header, self.flags, &self.payload)
    }
}

/// A UDP datagram from the client to the VIP.
pub fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    from_client().udp(source_port, destination_port, payload)
}

/// An echo request from the client.
pub fn ping(destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let from = (CLIENT_MAC, CLIENT);
    FrameBuilder::new(from, (FRONT_MAC, destination)).echo_request(77, 3, payload)
}

/// An IPv4 packet from the client to the VIP with a payload that is the caller's; of a fragment
/// its identification, its offset in bytes, and whether more follow.
pub fn ipv4(protocol: u8, fragment: Option<(u16, u16, bool)>, payload: &[u8]) -> Vec<u8> {
    let packet = match fragment {
        Some((identification, offset, more)) => {
            from_client().fragment(identification, offset / 8, more)
        }
        None => from_client(),
    };
    packet.raw(protocol, payload)
}

/// The payload of an IPv4 frame made by this module (no options).
pub fn ip_payload(frame: &[u8]) -> &[u8] {
    &frame[34..]
}

/// An ICMP error of a type and code from the client to the VIP, quoting a packet.
pub fn icmp_error(kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    from_client().icmp_error(kind, code, rest, quoted)
}

/// An ARP packet in its frame.
pub fn arp(
    operation: ArpOperation,
    destination_mac: MacAddr,
    (sender_mac, sender): (MacAddr, impl Into<Ipv4Addr>),
    (target_mac, target): (MacAddr, impl Into<Ipv4Addr>),
) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &sender_mac.0,
        &sender.into().octets(),
        &target_mac.0,
        &target.into().octets(),
    )
    .unwrap();
    let mut bytes = ethernet(destination_mac, sender_mac, EtherType::ARP);
    bytes.extend(packet.to_bytes());
    bytes
}

/// "Who has `target`?", by broadcast.
pub fn arp_request(
    sender_mac: MacAddr,
    sender: impl Into<Ipv4Addr>,
    target: impl Into<Ipv4Addr>,
) -> Vec<u8> {
    let asked = (MacAddr::ZERO, target);
    arp(ArpOperation::REQUEST, MacAddr::BROADCAST, (sender_mac, sender), asked)
}

/// "`sender` is at `sender_mac`", to the one who asked.
pub fn arp_reply(
    sender_mac: MacAddr,
    sender: impl Into<Ipv4Addr>,
    target_mac: MacAddr,
    target: impl Into<Ipv4Addr>,
) -> Vec<u8> {
    arp(ArpOperation::REPLY, target_mac, (sender_mac, sender), (target_mac, target))
}

/// The frame with two other MAC addresses: all that forwarding may do to it.
pub fn with_macs(frame: &[u8], destination: MacAddr, source: MacAddr) -> Vec<u8> {
    [&destination.0[..], &source.0, &frame[12..]].concat()
}

/// The frame with one bit of a byte flipped.
pub fn with_bit_flipped(frame: &[u8], offset: usize) -> Vec<u8> {
    let mut flipped = frame.to_vec();
    flipped[offset] ^= 1;
    flipped
}
