//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use core::net::Ipv4Addr;

use super::MacAddr;

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

    /// Writes the whole frame, addressed to `destination`, appending to the cleared `buffer`.
    pub fn emit(&self, _buffer: &mut Vec<u8>, _destination: MacAddr) {
        todo!()
    }
}
