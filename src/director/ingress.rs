//! The first look at a frame: who sent it, to whom, and what kind it is.

use super::batch::{Reading, Sight};
use super::stations::Station;
use super::{Action, Director, DropReason, Instant, SegmentId, Verdict};
use crate::wire::frame::{self, ETHERNET_HEADER_LEN};
use crate::wire::packet::{Body, Malformed};
use crate::wire::{Frame, ipv6};

/// EtherType of ARP (RFC 826).
const ARP: [u8; 2] = [0x08, 0x06];

/// EtherType of IPv6 (RFC 2464).
const IPV6: [u8; 2] = [0x86, 0xdd];

impl Director {
    /// Decides about a frame, which has been read already if there is a sight of it;
    /// [`Director::handle_frame`] counts what was decided.
    #[inline]
    pub(super) fn judge(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
        sight: Option<&Sight>,
    ) -> Verdict {
        let Some(segment) = self.segments.get(ingress) else {
            return Verdict::drop(DropReason::SegmentGone);
        };
        let Some((header, _)) = frame.bytes.split_first_chunk::<ETHERNET_HEADER_LEN>() else {
            return Verdict::drop(DropReason::FrameTooShort);
        };
        let (destination, source) = frame::macs(header);
        if !source.is_station() {
            return Verdict::drop(DropReason::BadSourceMac);
        }
        if matches!(self.stations.find(source), Some(Station::Own)) {
            return Verdict::drop(DropReason::OwnFrame);
        }
        if destination != segment.mac {
            if !destination.is_multicast() {
                return Verdict::drop(DropReason::ForeignMac);
            }
            if !is_arp(header) && !is_discovery(header) {
                return Verdict::drop(DropReason::GroupMac);
            }
        }
        let mut read;
        let sight = match sight {
            Some(sight) => sight,
            None => {
                read = Sight::NONE;
                self.sight(segment.mac, frame.bytes, None, &mut read);
                &read
            }
        };
        let packet = match sight.reading {
            Reading::Packet => &sight.packet,
            Reading::Malformed(Malformed::Ipv6Route) if !destination.is_multicast() => {
                return self.answer_route(now, ingress, frame, source);
            }
            Reading::Malformed(malformed) => return Verdict::drop(malformed.into()),
            Reading::None => return Verdict::drop(DropReason::ForeignMac),
        };
        match &packet.body {
            Body::Ip(ip) if destination.is_multicast() => self
                .judge_discovery(now, ingress, frame, source, ip)
                .unwrap_or(Verdict::drop(DropReason::GroupMac)),
            Body::Ip(ip) => self.judge_ip(now, ingress, frame, source, ip, sight.flow.as_ref()),
            Body::Arp(arp) => self.judge_arp(now, ingress, packet, arp),
            Body::Vlan => Verdict::drop(DropReason::VlanTag),
            Body::Other(_) => Verdict::drop(DropReason::EtherTypeUnsupported),
        }
    }

    /// Enters a verdict into the frame balance.
    #[inline]
    pub(super) fn count(&mut self, ingress: SegmentId, bytes: usize, action: Action) {
        self.counters.received += 1;
        if let Some(segment) = self.segments.get_mut(ingress) {
            segment.received.add(bytes);
        }
        match action {
            Action::Forward { egress } => {
                self.counters.forwarded += 1;
                if let Some(segment) = self.segments.get_mut(egress) {
                    segment.sent.add(bytes);
                }
            }
            // Its fragments count as sent when they are taken from the queue.
            Action::Fragment { .. } => self.counters.forwarded += 1,
            Action::Reply => self.counters.replied += 1,
            Action::Consume => self.counters.consumed += 1,
            Action::Hold => self.counters.held += 1,
            Action::Drop(reason) => self.counters.count_drop(reason),
        }
    }
}

/// Whether an Ethernet header says that ARP follows.
#[inline]
pub(super) fn is_arp(header: &[u8; ETHERNET_HEADER_LEN]) -> bool {
    header[12..] == ARP
}

/// Whether an Ethernet header says that neighbor discovery may follow.
#[inline]
pub(super) fn is_discovery(header: &[u8; ETHERNET_HEADER_LEN]) -> bool {
    header[12..] == IPV6 && ipv6::is_discovery_mac(frame::macs(header).0)
}
