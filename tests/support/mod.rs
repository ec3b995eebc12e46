//! Frames for tests of the whole program, built with etherparse.
//!
//! Every test crate takes what it needs, so what one does not use is no mistake.
#![allow(dead_code)]

pub mod capture;
pub mod edits;

use std::net::Ipv4Addr;

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header,
    PacketBuilder, PacketBuilderStep, TcpHeader,
};
use vipr::wire::MacAddr;
use vipr::wire::arp::ArpPacket;
use vipr::wire::packet::TcpFlags;

pub const SYN: u8 = TcpFlags::SYN;
pub const ACK: u8 = TcpFlags::ACK;
pub const FIN: u8 = TcpFlags::FIN;
pub const RST: u8 = TcpFlags::RST;
pub const PSH: u8 = TcpFlags::PSH;

/// A MAC address in a test's shorthand.
pub const fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

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
    pub fn new(from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr)) -> FrameBuilder {
        FrameBuilder {
            source_mac: from.0,
            destination_mac: to.0,
            source: from.1,
            destination: to.1,
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

    pub fn tcp(&self, source_port: u16, destination_port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(source_port, destination_port, 1000, 64240);
        header.fin = flags & FIN != 0;
        header.syn = flags & SYN != 0;
        header.rst = flags & RST != 0;
        header.psh = flags & PSH != 0;
        header.ack = flags & ACK != 0;
        if header.ack {
            header.acknowledgment_number = 2000;
        }
        let mut frame = Vec::new();
        self.packet(IpNumber::TCP)
            .tcp_header(header)
            .write_to_vec(&mut frame, data)
            .expect("a test's frame fits");
        frame
    }

    pub fn udp(&self, source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.packet(IpNumber::UDP)
            .udp(source_port, destination_port)
            .write_to_vec(&mut frame, data)
            .expect("a test's frame fits");
        frame
    }

    pub fn echo_request(&self, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.packet(IpNumber::ICMP)
            .icmpv4_echo_request(identifier, sequence)
            .write_to_vec(&mut frame, data)
            .expect("a test's frame fits");
        frame
    }

    /// An ICMP error that quotes the IP packet in `frame`, or as much of it as `len` says.
    pub fn icmp_error(&self, kind: u8, code: u8, frame: &[u8], len: usize) -> Vec<u8> {
        let quote = &frame[14..];
        let mut error = Vec::new();
        self.packet(IpNumber::ICMP)
            .icmpv4_raw(kind, code, [0; 4])
            .write_to_vec(&mut error, &quote[..len.min(quote.len())])
            .expect("a test's frame fits");
        error
    }

    /// An SCTP packet with one chunk that has only a header. Its CRC32c is left at zero.
    pub fn sctp(&self, source_port: u16, destination_port: u16, chunk: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(source_port.to_be_bytes());
        bytes.extend(destination_port.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend([chunk, 0, 0, 4]);
        self.raw(IpNumber::SCTP.0, &bytes)
    }

    /// Any protocol, or a later fragment.
    pub fn raw(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = self.header(IpNumber(protocol));
        header.set_payload_len(payload.len()).expect("a test's payload fits");
        header.header_checksum = header.calc_header_checksum();
        let mut frame = self.ethernet(EtherType::IPV4.0);
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    /// A frame of another EtherType, with some payload.
    pub fn other(&self, ether_type: u16) -> Vec<u8> {
        let mut frame = self.ethernet(ether_type);
        frame.extend_from_slice(&[0; 46]);
        frame
    }

    fn packet(&self, protocol: IpNumber) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ethernet2(self.source_mac.0, self.destination_mac.0)
            .ip(IpHeaders::Ipv4(self.header(protocol), Ipv4Extensions::default()))
    }

    fn ethernet(&self, ether_type: u16) -> Vec<u8> {
        let header = Ethernet2Header {
            source: self.source_mac.0,
            destination: self.destination_mac.0,
            ether_type: EtherType(ether_type),
        };
        header.to_bytes().to_vec()
    }

    fn header(&self, protocol: IpNumber) -> Ipv4Header {
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

/// "Who has `target`?", by broadcast.
pub fn arp_request(from: (MacAddr, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    ArpPacket::request(from.0, from.1, target).emit(&mut frame, MacAddr::BROADCAST);
    frame
}

/// "I have it": the answer of `from` to `to`.
pub fn arp_reply(from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let mut frame = Vec::new();
    ArpPacket::request(to.0, to.1, from.1).reply(from.0).emit(&mut frame, to.0);
    frame
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
