//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use core::net::Ipv4Addr;

use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation as Operation, ArpPacketSlice, EtherType,
    Ethernet2Header,
};

use super::MacAddr;
use super::packet::Malformed;

/// Bytes of an Ethernet frame that carries ARP for IPv4, without padding.
pub const ARP_FRAME_LEN: usize = 42;

/// Request or reply; anything else is [`Malformed::Arp`](super::packet::Malformed::Arp).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    Request,
    Reply,
}

/// An ARP packet, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    pub operation: ArpOperation,
    pub sender_mac: MacAddr,
    pub sender: Ipv4Addr,
    pub target_mac: MacAddr,
    pub target: Ipv4Addr,
}

impl ArpPacket {
    /// "Who has `target`?", asked by broadcast or, to refresh, of one station.
    /// With `sender` 0.0.0.0 it is a probe (RFC 5227, 2.1.1).
    pub fn request(sender_mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> ArpPacket {
        ArpPacket {
            operation: ArpOperation::Request,
            sender_mac,
            sender,
            target_mac: MacAddr::ZERO,
            target,
        }
    }

    /// "I have `address`": an announcement (RFC 5227, 2.3), a request for one's own address.
    pub fn announcement(mac: MacAddr, address: Ipv4Addr) -> ArpPacket {
        ArpPacket::request(mac, address, address)
    }

    /// The answer to `self`: `mac` has the address that was asked for.
    pub fn reply(&self, mac: MacAddr) -> ArpPacket {
        ArpPacket {
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// Reads the payload of an ARP frame; padding may follow the packet.
    ///
    /// # Errors
    /// [`Malformed::Arp`] for anything but a request or reply for IPv4 over Ethernet.
    pub(super) fn parse(bytes: &[u8]) -> Result<ArpPacket, Malformed> {
        let slice = ArpPacketSlice::from_slice(bytes).map_err(|_| Malformed::Arp)?;
        let operation = match slice.operation() {
            Operation::REQUEST => ArpOperation::Request,
            Operation::REPLY => ArpOperation::Reply,
            _ => return Err(Malformed::Arp),
        };
        if slice.hw_addr_type() != ArpHardwareId::ETHERNET
            || slice.proto_addr_type() != EtherType::IPV4
        {
            return Err(Malformed::Arp);
        }
        // The conversions fail unless the address lengths are 6 and 4.
        let mac = |bytes: &[u8]| bytes.try_into().map(MacAddr).map_err(|_| Malformed::Arp);
        let address = |bytes: &[u8]| {
            <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).map_err(|_| Malformed::Arp)
        };
        Ok(ArpPacket {
            operation,
            sender_mac: mac(slice.sender_hw_addr())?,
            sender: address(slice.sender_protocol_addr())?,
            target_mac: mac(slice.target_hw_addr())?,
            target: address(slice.target_protocol_addr())?,
        })
    }

    /// Writes the whole frame, addressed to `destination`, appending to the cleared `buffer`.
    ///
    /// The frame is [`ARP_FRAME_LEN`] bytes long: padding to Ethernet's minimum of 60 is for the
    /// card that puts it on a wire; a TAP takes it as it is.
    pub fn emit(&self, buffer: &mut Vec<u8>, destination: MacAddr) {
        let ethernet = Ethernet2Header {
            destination: destination.0,
            source: self.sender_mac.0,
            ether_type: EtherType::ARP,
        };
        let packet = ArpEthIpv4Packet {
            operation: match self.operation {
                ArpOperation::Request => Operation::REQUEST,
                ArpOperation::Reply => Operation::REPLY,
            },
            sender_mac: self.sender_mac.0,
            sender_ipv4: self.sender.octets(),
            target_mac: self.target_mac.0,
            target_ipv4: self.target.octets(),
        };
        buffer.extend_from_slice(&ethernet.to_bytes());
        buffer.extend_from_slice(&packet.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::wire::packet::{Body, parse};

    fn emitted(packet: ArpPacket, destination: MacAddr) -> Vec<u8> {
        let mut buffer = Vec::new();
        packet.emit(&mut buffer, destination);
        assert_eq!(buffer.len(), ARP_FRAME_LEN);
        let read = parse(&buffer).unwrap();
        assert_eq!((read.destination, read.source), (destination, packet.sender_mac));
        assert_eq!(read.body, Body::Arp(packet));
        buffer
    }

    #[test]
    fn a_request_has_these_bytes() {
        let request = ArpPacket::request(CLIENT_MAC, CLIENT, VIP);
        assert_eq!(emitted(request, MacAddr::BROADCAST), ARP_REQUEST);
    }

    #[test]
    fn a_reply_turns_the_request_around() {
        let reply = ArpPacket::request(CLIENT_MAC, CLIENT, VIP).reply(DIRECTOR_MAC);
        assert_eq!(
            reply,
            ArpPacket {
                operation: ArpOperation::Reply,
                sender_mac: DIRECTOR_MAC,
                sender: VIP,
                target_mac: CLIENT_MAC,
                target: CLIENT,
            }
        );
        let frame = emitted(reply, CLIENT_MAC);
        assert_eq!(frame[20..22], [0, 2]);
        assert_eq!(frame[22..32], [2, 0, 0, 0, 1, 1, 192, 0, 2, 10]);
    }

    #[test]
    fn a_probe_has_no_sender_and_an_announcement_asks_for_itself() {
        let probe = ArpPacket::request(DIRECTOR_MAC, Ipv4Addr::UNSPECIFIED, CLIENT);
        assert_eq!(emitted(probe, MacAddr::BROADCAST)[28..32], [0; 4]);
        let announcement = ArpPacket::announcement(DIRECTOR_MAC, VIP);
        assert_eq!(announcement.operation, ArpOperation::Request);
        assert_eq!((announcement.sender, announcement.target), (VIP, VIP));
        emitted(announcement, MacAddr::BROADCAST);
    }
}
