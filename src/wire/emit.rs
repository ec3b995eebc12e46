//! What the packets written here have in common: each answers a frame that just arrived, and goes
//! back to the station it came from.

use core::net::Ipv4Addr;

use etherparse::{EtherType, Ethernet2Header, IpDscp, IpNumber, Ipv4Header};

use super::MacAddr;
use super::frame::ETHERNET_HEADER_LEN;

/// Hops an answer may take (RFC 1700, "IP time to live").
const TTL: u8 = 64;

/// Where the payload of an emitted packet starts: its IPv4 header never has options.
pub(super) const PAYLOAD_START: usize = ETHERNET_HEADER_LEN + Ipv4Header::MIN_LEN;

/// The IPv4 header of an answer, as far as answers differ.
pub(super) struct Answer {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: IpNumber,
    pub dscp: IpDscp,
    pub identification: u16,
    pub dont_fragment: bool,
}

impl Answer {
    /// Writes the Ethernet and the IPv4 header of the answer to `frame`, appending to the cleared
    /// `buffer`; the caller appends `payload_len` bytes, no more than the answered packet had
    /// or 576.
    pub fn emit(
        &self,
        buffer: &mut Vec<u8>,
        frame: &[u8],
        source_mac: MacAddr,
        payload_len: usize,
    ) {
        let mut sender = [0; 6];
        sender.copy_from_slice(frame.get(6..12).unwrap_or(&[0; 6]));
        let ethernet = Ethernet2Header {
            destination: sender,
            source: source_mac.0,
            ether_type: EtherType::IPV4,
        };
        let mut header = Ipv4Header {
            dscp: self.dscp,
            total_len: (Ipv4Header::MIN_LEN + payload_len) as u16,
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            time_to_live: TTL,
            protocol: self.protocol,
            source: self.source.octets(),
            destination: self.destination.octets(),
            ..Ipv4Header::default()
        };
        header.header_checksum = header.calc_header_checksum();
        buffer.extend_from_slice(&ethernet.to_bytes());
        buffer.extend_from_slice(&header.to_bytes());
    }
}

/// Puts a checksum of the payload into the field at `offset` of the payload.
pub(super) fn set_checksum(buffer: &mut [u8], offset: usize, checksum: u16) {
    if let Some(field) = buffer.get_mut(PAYLOAD_START + offset..PAYLOAD_START + offset + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
