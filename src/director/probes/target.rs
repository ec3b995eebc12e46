//! Where a question goes, and where its answer comes back to.

use core::net::IpAddr;

use super::super::SegmentId;
use super::super::transmit::TransmitQueue;
use crate::wire::MacAddr;

/// The two ends of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::director) struct Target {
    pub egress: SegmentId,
    /// The director's MAC on that segment, and the real server's.
    pub source_mac: MacAddr,
    pub destination_mac: MacAddr,
    /// The director's own address.
    pub source: IpAddr,
    /// The VIP, as a rule.
    pub destination: IpAddr,
    /// What the segment carries, in bytes of the IP packet.
    pub mtu: u16,
}

impl Target {
    /// Queues an IP packet of this length that `write` fills in; a full queue loses it, as a wire
    /// would.
    pub fn send<R>(
        &self,
        transmit: &mut TransmitQueue,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let Some(buffer) = transmit.push_empty(self.egress) else {
            // Whoever writes wants to have written.
            return write(&mut vec![0; len]);
        };
        buffer.extend_from_slice(&self.destination_mac.0);
        buffer.extend_from_slice(&self.source_mac.0);
        buffer.extend_from_slice(self.ether_type());
        let start = buffer.len();
        buffer.resize(start + len, 0);
        write(&mut buffer[start..])
    }

    /// The director's link header has the EtherType of the addresses' family.
    fn ether_type(&self) -> &'static [u8; 2] {
        if self.destination.is_ipv4() { &[0x08, 0x00] } else { &[0x86, 0xdd] }
    }
}
