//! What the director says to clients itself: resets, port unreachable, too big, echo replies.
//! Within the limits that RFC 1122 and RFC 1812 set, and no faster than allowed.

use core::convert::Infallible;

use super::traffic::Arrival;
use super::{Director, DropReason, Instant, SegmentId, Verdict};
use crate::config::snapshot::{Protocol, Unmatched};
use crate::wire::icmp::{self, IcmpError};
use crate::wire::packet::Ip;
use crate::wire::{Frame, MacAddr, checksum, ipv6, sctp, tcp};

impl Director {
    /// VIP traffic to no service, or TCP or SCTP that neither opens nor belongs to a connection.
    pub(super) fn answer_unmatched(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
    ) -> Verdict {
        match (self.snapshot.router.unmatched, arrival.protocol) {
            (Unmatched::Drop, _) => Verdict::drop(DropReason::Unmatched),
            (Unmatched::Reject, Protocol::Tcp) => self.answer_with_reset(now, frame, arrival),
            (Unmatched::Reject, Protocol::Sctp) => self.answer_with_abort(now, frame, arrival),
            (Unmatched::Reject, Protocol::Udp) => {
                self.answer_unreachable(now, frame, arrival, DropReason::UnmatchedUnanswerable)
            }
        }
    }

    /// A connection that no real server can take: port unreachable, as IPVS answers.
    pub(super) fn answer_no_real_server(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
    ) -> Verdict {
        self.answer_unreachable(now, frame, arrival, DropReason::NoRealServer)
    }

    /// An echo request to a VIP.
    pub(super) fn answer_echo(
        &mut self,
        ingress: SegmentId,
        frame: &Frame<'_>,
        ip: &Ip,
    ) -> Verdict {
        let Some(mac) = self.segments.get(ingress).map(|segment| segment.mac) else {
            return Verdict::drop(DropReason::SegmentGone);
        };
        if ip.is_fragment() {
            return Verdict::drop(DropReason::FragmentUnknown);
        }
        let bytes = &*frame.bytes;
        self.try_emit(ingress, |buffer| icmp::emit_echo_reply(buffer, bytes, ip, mac))
    }

    /// A packet larger than the segment of its real server carries, and not to be fragmented.
    pub(super) fn answer_too_big(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &Frame<'_>,
        ip: &Ip,
        mtu: u16,
    ) -> Verdict {
        let error = IcmpError::TooBig { mtu };
        self.answer_with_icmp(now, ingress, frame, ip, error, DropReason::TooBig)
    }

    /// A packet that asks to be sent on along a route, which a host does not: a VIP's sender is
    /// told (RFC 8200, 4.4). Not of one that went to a group (RFC 4443, 2.4).
    #[cold]
    pub(super) fn answer_route(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &Frame<'_>,
        source_mac: MacAddr,
    ) -> Verdict {
        let otherwise = DropReason::Ipv6Route;
        let Some((ip, at)) = ipv6::unfollowed_route(frame.bytes) else {
            return Verdict::drop(otherwise);
        };
        let has_vips = self.segments.get(ingress).is_some_and(|segment| segment.role.has_vips());
        if !has_vips || self.services.vip(ip.destination).is_none() {
            return Verdict::drop(otherwise);
        }
        if !self.is_possible_client(ip.source) {
            return Verdict::drop(DropReason::BadSourceAddress);
        }
        if let Some(verdict) = self.judge_loop(now, ingress, source_mac, &ip) {
            return verdict;
        }
        let error = IcmpError::Erroneous { at };
        self.answer_with_icmp(now, ingress, frame, &ip, error, otherwise)
    }

    fn answer_with_reset(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
    ) -> Verdict {
        if arrival.flags.rst() || arrival.ip.is_fragment() {
            return Verdict::drop(DropReason::UnmatchedUnanswerable);
        }
        let Some(mac) = self.segments.get(arrival.ingress).map(|segment| segment.mac) else {
            return Verdict::drop(DropReason::SegmentGone);
        };
        if !self.reset_limit.take(now) {
            return Verdict::drop(DropReason::RateLimited);
        }
        let pending = frame.offload.checksum_pending;
        let bytes = &*frame.bytes;
        self.try_emit(arrival.ingress, |buffer| {
            tcp::emit_reset(buffer, bytes, arrival.ip, mac, pending)
        })
    }

    /// SCTP that no association is there for (RFC 9260, section 8.4).
    fn answer_with_abort(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
    ) -> Verdict {
        let bytes = &*frame.bytes;
        let refusal = sctp::refusal_of(bytes, arrival.ip);
        let Some(refusal) = refusal.filter(|_| !arrival.ip.is_fragment()) else {
            return Verdict::drop(DropReason::UnmatchedUnanswerable);
        };
        let Some(mac) = self.segments.get(arrival.ingress).map(|segment| segment.mac) else {
            return Verdict::drop(DropReason::SegmentGone);
        };
        if !self.reset_limit.take(now) {
            return Verdict::drop(DropReason::RateLimited);
        }
        let pending = frame.offload.checksum_pending;
        self.try_emit(arrival.ingress, |buffer| {
            sctp::emit_refusal(buffer, bytes, arrival.ip, refusal, mac, pending)
        })
    }

    /// The caller has made sure that it is not about a RST.
    fn answer_unreachable(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
        otherwise: DropReason,
    ) -> Verdict {
        let whole = !arrival.ip.is_fragment() && !frame.offload.checksum_pending;
        if whole && checksum::verify_transport(frame.bytes, arrival.ip).is_err() {
            return Verdict::drop(DropReason::TransportChecksum);
        }
        let error = IcmpError::PortUnreachable;
        self.answer_with_icmp(now, arrival.ingress, frame, arrival.ip, error, otherwise)
    }

    /// Sends an ICMP error where the RFCs let it; else the packet drops for the reason given.
    fn answer_with_icmp(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &Frame<'_>,
        ip: &Ip,
        error: IcmpError,
        otherwise: DropReason,
    ) -> Verdict {
        let Some(mac) = self.segments.get(ingress).map(|segment| segment.mac) else {
            return Verdict::drop(DropReason::SegmentGone);
        };
        if !icmp::may_answer_with_error(ip, mac) {
            return Verdict::drop(otherwise);
        }
        if !self.icmp_limit.take(now) {
            return Verdict::drop(DropReason::RateLimited);
        }
        let bytes = &*frame.bytes;
        self.try_emit(ingress, |buffer| {
            icmp::emit_error(buffer, bytes, ip, error, mac, ip.destination);
            Ok::<(), Infallible>(())
        })
    }

    /// Queues an answer. A writer that fails found a wrong checksum in what was to be answered.
    fn try_emit<E>(
        &mut self,
        egress: SegmentId,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Verdict {
        match self.transmit.push_with(egress, write) {
            Ok(Ok(())) => Verdict::reply(),
            Ok(Err(_)) => Verdict::drop(DropReason::TransportChecksum),
            Err(_) => Verdict::drop(DropReason::TransmitFull),
        }
    }

    /// Queues a frame of the director's own; whether there was room.
    pub(super) fn emit(&mut self, egress: SegmentId, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let queued = self.transmit.push_with(egress, |buffer| {
            write(buffer);
            Ok::<(), Infallible>(())
        });
        queued.is_ok()
    }
}
