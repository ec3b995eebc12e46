//! Packets in several frames: fragments that come follow their first one, and packets without DF
//! leave in fragments where the next segment carries less.

use core::convert::Infallible;

use super::fragments::Waiting;
use super::super_frames::OnWire;
use super::transmit::QueueFull;
use super::{Action, DestinationId, Director, DropReason, Instant, SegmentId, Verdict};
use crate::config::snapshot::Protocol;
use crate::wire::fragment::Cut;
use crate::wire::packet::{self, Body, Ip};
use crate::wire::{Frame, MacAddr, Offload, checksum};

/// ICMP and ICMPv6, of which no first fragment goes anywhere.
const ICMP: [u8; 2] = [1, 58];

impl Director {
    /// A fragment without ports goes where its first fragment went, or waits for it.
    pub(super) fn judge_later_fragment(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
        source_mac: MacAddr,
        ip: &Ip,
    ) -> Verdict {
        let known = self.fragments.find(now, ip);
        if known.is_none() {
            if !self.services.vip(ip.destination).is_some_and(|vip| vip.configured) {
                return Verdict::drop(DropReason::NotVip);
            }
            if !self.is_possible_client(ip.source) {
                return Verdict::drop(DropReason::BadSourceAddress);
            }
        }
        if let Some(verdict) = self.judge_loop(now, ingress, source_mac, ip) {
            return verdict;
        }
        if let Some(destination) = known {
            return self.forward(now, ingress, frame, ip, destination);
        }
        let is_balanced = ip.is_ipv6() || Protocol::from_number(ip.protocol).is_some();
        if !is_balanced || ICMP.contains(&ip.protocol) {
            return Verdict::drop(DropReason::FragmentUnknown);
        }
        match self.fragments.wait(now, ip, ingress, frame) {
            Ok(()) => Verdict::hold(),
            Err(_) => Verdict::drop(DropReason::FragmentHoldFull),
        }
    }

    /// A first fragment goes to its real server, and with it what waited for it.
    pub(super) fn forward_first_fragment(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
        ip: &Ip,
        destination: DestinationId,
    ) -> Verdict {
        self.fragments.insert(now, ip, destination);
        let verdict = self.forward(now, ingress, frame, ip, destination);
        for waiting in self.fragments.release(ip) {
            self.counters.held -= 1;
            self.forward_waiting(now, waiting, destination);
        }
        verdict
    }

    fn forward_waiting(&mut self, now: Instant, waiting: Waiting, destination: DestinationId) {
        let Waiting { ingress, mut bytes, offload } = waiting;
        // It was read when it came, and its bytes are as they were.
        let Ok(packet::Packet { body: Body::Ip(ip), .. }) = packet::parse(&bytes) else {
            return self.counters.count_drop(DropReason::FragmentUnknown);
        };
        let mut frame = Frame { bytes: &mut bytes, offload };
        let verdict = self.forward(now, ingress, &mut frame, &ip, destination);
        match verdict.action {
            Action::Forward { egress } => match self.transmit.push(egress, bytes, offload) {
                Ok(()) => self.counters.forwarded += 1,
                Err(_) => self.counters.count_drop(DropReason::TransmitFull),
            },
            Action::Fragment { .. } => self.counters.forwarded += 1,
            Action::Reply => self.counters.replied += 1,
            Action::Consume => self.counters.consumed += 1,
            Action::Hold => self.counters.held += 1,
            Action::Drop(reason) => self.counters.count_drop(reason),
        }
    }

    /// Gives up on fragments whose first did not come.
    pub(super) fn expire_fragments(&mut self, now: Instant) {
        loop {
            let expired = self.fragments.expire(now);
            if expired.is_empty() {
                break;
            }
            for _ in expired {
                self.counters.held -= 1;
                self.counters.count_drop(DropReason::FragmentUnknown);
            }
        }
    }

    /// Sends a packet that is too big for a segment in fragments, its MACs rewritten already.
    pub(super) fn send_fragments(
        &mut self,
        egress: SegmentId,
        frame: &mut Frame<'_>,
        ip: &Ip,
        mtu: u16,
    ) -> Result<(), DropReason> {
        if frame.offload.checksum_pending {
            checksum::complete_transport(frame.bytes, ip);
        }
        let cut = Cut::new(frame.bytes, ip, mtu).ok_or(DropReason::TooBig)?;
        if cut.pieces().count() > self.transmit.room() {
            return Err(DropReason::TransmitFull);
        }
        for piece in cut.pieces() {
            let pushed = self.transmit.push_with(egress, |buffer| {
                cut.emit(buffer, piece);
                Ok::<(), Infallible>(())
            });
            pushed.map_err(|QueueFull| DropReason::TransmitFull)?;
        }
        Ok(())
    }

    /// Sends a frame that was held: whole, or in fragments where it is larger than the segment
    /// carries.
    pub(super) fn send_held(&mut self, egress: SegmentId, mut bytes: Vec<u8>, offload: Offload) {
        let mtu = self.segments.get(egress).map(|segment| segment.mtu());
        let sent = match (packet::parse(&bytes), mtu) {
            (Ok(packet::Packet { body: Body::Ip(ip), .. }), Some(mtu))
                if OnWire::of(&bytes, &ip, &offload).largest > u32::from(mtu)
                    && !ip.dont_fragment =>
            {
                self.send_fragments(egress, &mut Frame { bytes: &mut bytes, offload }, &ip, mtu)
            }
            _ => self.transmit.push(egress, bytes, offload).map_err(|_| DropReason::TransmitFull),
        };
        match sent {
            Ok(()) => self.counters.forwarded += 1,
            Err(reason) => self.counters.count_drop(reason),
        }
    }
}
