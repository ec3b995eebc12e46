//! What is addressed to the director itself: answers to its questions, and nothing else.
//!
//! Looked at only where a packet would otherwise be dropped, so that forwarding does not pay for
//! it.

use super::probes::Reply;
use super::probes::fault::IcmpError;
use super::{Director, DropReason, Instant, SegmentId, Verdict};
use crate::wire::checksum;
use crate::wire::icmp;
use crate::wire::nd::{NdKind, NdPacket};
use crate::wire::packet::{self, Body, Ip, Transport, quoted_echo, quoted_flow};
use crate::wire::{Frame, MacAddr};

impl Director {
    /// Whether a frame of the director's says that a VIP is at its MAC.
    pub(super) fn claims_vip(&self, frame: &[u8]) -> bool {
        match packet::parse(frame).map(|packet| packet.body) {
            Ok(Body::Arp(arp)) => self.services.vip(arp.sender.into()).is_some(),
            Ok(Body::Ip(ip)) => matches!(
                NdPacket::parse(frame, &ip),
                Some(Ok(NdPacket { kind: NdKind::Advertisement { .. }, target, .. }))
                    if self.services.vip(target.into()).is_some()
            ),
            _ => false,
        }
    }

    /// A packet to no VIP: consumed if it answers a question of the director's.
    pub(super) fn judge_not_vip(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &Frame<'_>,
        ip: &Ip,
    ) -> Verdict {
        let not_vip = Verdict::drop(DropReason::NotVip);
        if self.prober.len() == 0 {
            return not_vip;
        }
        let own = |address| self.segments.get(ingress).is_some_and(|own| own.has_address(address));
        if ip.is_fragment() || !own(ip.destination) {
            return not_vip;
        }
        let bytes = &*frame.bytes;
        let verified = match ip.transport {
            Transport::Icmp { .. } => checksum::verify_icmp(bytes, ip),
            _ if frame.offload.checksum_pending => Ok(()),
            _ => checksum::verify_transport(bytes, ip),
        };
        if verified.is_err() {
            return Verdict::drop(DropReason::TransportChecksum);
        }
        if self.take_answer(now, bytes, ip) {
            self.conclude_probes(now);
            return Verdict::consume();
        }
        not_vip
    }

    fn take_answer(&mut self, now: Instant, bytes: &[u8], ip: &Ip) -> bool {
        if let Transport::Icmp { kind, code } = ip.transport
            && icmp::quotes_packet(ip.is_ipv6(), kind)
        {
            // Of an echo request the identifier stands for the port.
            let flow = quoted_flow(bytes, ip)
                .map(|flow| (flow.source, flow.destination, flow.source_port))
                .or_else(|| {
                    let echo = quoted_echo(bytes, ip)?;
                    Some((echo.source, echo.destination, echo.identifier))
                });
            let Some((source, destination, port)) = flow else { return false };
            if !ip.is_ipv6() && matches!(kind, icmp::REDIRECT | icmp::SOURCE_QUENCH) {
                // Of a redirect the packet goes on: what becomes of it decides.
                return self.prober.is_about(source, destination, port);
            }
            // What follows type, code and checksum: of a packet too big the MTU on its way.
            let rest = bytes.get(ip.payload_start() + 4..).and_then(<[u8]>::first_chunk);
            let error =
                IcmpError::new(!ip.is_ipv6(), kind, code, rest.copied().unwrap_or_default());
            return self.prober.handle_error(now, ip.source, (source, destination), port, error);
        }
        let (Some(packet), Some(payload)) =
            (bytes.get(ip.start()..ip.end()), bytes.get(ip.payload_start()..ip.end()))
        else {
            return false;
        };
        let reply = Reply {
            source: ip.source,
            destination: ip.destination,
            transport: ip.transport,
            packet,
            payload,
        };
        self.prober.handle_reply(now, &reply, &mut self.transmit)
    }

    /// A packet to a VIP that can only be the director's own, by its source: if it is a question,
    /// whoever was asked sends it back. The verdict then names the real server.
    pub(super) fn judge_returned(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        source_mac: MacAddr,
        ip: &Ip,
    ) -> Option<Verdict> {
        if self.prober.len() == 0 {
            return None;
        }
        let (source, destination) = (ip.source, ip.destination);
        if !self.segments.iter().any(|(_, segment)| segment.has_address(source)) {
            return None;
        }
        let port = match ip.transport {
            Transport::Tcp { source_port, .. } | Transport::Udp { source_port, .. } => source_port,
            _ => return None,
        };
        if !self.prober.handle_returned(now, (source, destination), port) {
            return None;
        }
        self.conclude_probes(now);
        let verdict = Verdict::drop(DropReason::Loop);
        let looping = self.real_server_at(now, source_mac, None);
        Some(match looping {
            Some(looping) => self.name_loop(now, ingress, source_mac, ip, looping, verdict),
            None => verdict,
        })
    }
}
