//! What the packets written here have in common: each answers a frame that just arrived, and goes
//! back to the station it came from.

use core::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header};

use super::MacAddr;
use super::packet::Ip;

/// Hops an answer may take (RFC 1700, "IP time to live").
const TTL: u8 = 64;

/// The IP header of an answer, as far as answers differ.
pub(super) struct Answer {
    /// The answer goes to the source of the packet it answers, so both are of its family.
    pub source: IpAddr,
    pub protocol: IpNumber,
    /// IPv4's TOS byte, IPv6's traffic class.
    pub traffic_class: u8,
    /// Of IPv4 alone.
    pub identification: u16,
    /// Of IPv4 alone.
    pub dont_fragment: bool,
}

impl Answer {
    /// Writes the Ethernet and the IP header of the answer to `packet`, which was read from
    /// `frame`, appending to the cleared `buffer`; the caller appends `payload_len` bytes, no more
    /// than the answered packet had or 1280. Returns where in the buffer they start.
    ///
    /// What the frame had between its addresses and its packet, the answer has too.
    pub fn emit(
        &self,
        buffer: &mut Vec<u8>,
        frame: &[u8],
        packet: &Ip,
        source_mac: MacAddr,
        payload_len: usize,
    ) -> usize {
        buffer.extend_from_slice(frame.get(6..12).unwrap_or(&[0; 6]));
        buffer.extend_from_slice(&source_mac.0);
        buffer.extend_from_slice(frame.get(12..packet.start()).unwrap_or_default());
        match (self.source, packet.source) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (dscp, ecn) = (self.traffic_class >> 2, self.traffic_class & 3);
                let mut header = Ipv4Header {
                    dscp: dscp.try_into().unwrap_or_default(),
                    ecn: ecn.try_into().unwrap_or_default(),
                    total_len: (Ipv4Header::MIN_LEN + payload_len) as u16,
                    identification: self.identification,
                    dont_fragment: self.dont_fragment,
                    time_to_live: TTL,
                    protocol: self.protocol,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv4Header::default()
                };
                header.header_checksum = header.calc_header_checksum();
                buffer.extend_from_slice(&header.to_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    traffic_class: self.traffic_class,
                    payload_length: payload_len as u16,
                    next_header: self.protocol,
                    hop_limit: TTL,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                buffer.extend_from_slice(&header.to_bytes());
            }
            _ => {}
        }
        buffer.len()
    }
}

/// Puts a checksum into the field at this place of the buffer.
pub(super) fn set_checksum(buffer: &mut [u8], place: usize, checksum: u16) {
    if let Some(field) = buffer.get_mut(place..place + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
