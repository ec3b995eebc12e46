//! IPv6's address resolution: solicitations answered for VIPs and the director's own addresses and
//! for nothing else, real servers' MACs learnt, other claimants of a VIP noticed; and queries for
//! multicast listeners.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeSet;

use super::askers::Asker;
use super::guardian::Claim;
use super::stations::Station;
use super::{Director, DropReason, Instant, SegmentId, Verdict};
use crate::wire::mld::{self, Version};
use crate::wire::nd::{NdKind, NdPacket};
use crate::wire::packet::{Ip, Malformed};
use crate::wire::{Frame, MacAddr, ipv6};

impl Director {
    /// Judges an IPv6 packet that has to do with resolution; `None` for any other.
    pub(super) fn judge_discovery(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &Frame<'_>,
        source_mac: MacAddr,
        ip: &Ip,
    ) -> Option<Verdict> {
        if let Some(packet) = NdPacket::parse(frame.bytes, ip) {
            return Some(self.judge_neighbor_packet(now, ingress, frame, source_mac, packet));
        }
        let query = mld::parse_query(frame.bytes, ip)?;
        Some(match query {
            Ok(query) => {
                self.listeners.hear(now, ingress, &query);
                Verdict::consume()
            }
            Err(malformed) => Verdict::drop(malformed.into()),
        })
    }

    fn judge_neighbor_packet(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &Frame<'_>,
        source_mac: MacAddr,
        packet: Result<NdPacket, Malformed>,
    ) -> Verdict {
        let packet = match packet {
            Ok(packet) => packet,
            Err(malformed) => return Verdict::drop(malformed.into()),
        };
        let mac = packet.link_layer.unwrap_or(source_mac);
        if matches!(self.stations.find(mac), Some(Station::Own)) {
            return Verdict::drop(DropReason::OwnFrame);
        }
        // Whose MAC it tells: of a solicitation the one who asks, unless it has no address yet.
        let told = match packet.kind {
            NdKind::Advertisement { .. } => Some(packet.target),
            NdKind::Solicitation => Some(packet.source).filter(|source| !source.is_unspecified()),
        };
        let mut heard = false;
        if let Some(address) = told.map(IpAddr::V6) {
            self.heard_for_examination(ingress, address, mac);
            if self.is_claim(ingress, address) {
                let to_all = !is_alone(frame);
                self.note_claim(now, Claim { vip: address, segment: ingress, mac, to_all });
                return Verdict::consume();
            }
            heard = self.may_replace(ingress, &packet, address, mac)
                && self.hear(now, ingress, address, mac);
        }
        let alone = is_alone(frame);
        if packet.kind == NdKind::Solicitation
            && self.is_answered(ingress, alone, packet.target.into())
        {
            // One that has no address yet only wants to know whether somebody has this one.
            if !packet.source.is_unspecified() {
                let asker = Asker { segment: ingress, vip: packet.target.into(), mac };
                self.note_asker(now, asker, packet.source.into());
            }
            return self.answer_solicitation(ingress, source_mac, &packet);
        }
        if heard { Verdict::consume() } else { Verdict::drop(DropReason::NdNotOurs) }
    }

    /// Whether what a packet says of an address counts against what is known of it: not if it is
    /// an advertisement that would not override (RFC 4861, 7.2.5).
    fn may_replace(
        &self,
        ingress: SegmentId,
        packet: &NdPacket,
        address: IpAddr,
        mac: MacAddr,
    ) -> bool {
        match packet.kind {
            NdKind::Advertisement { overriding: false, .. } => {
                let found = self.neighbors.find(ingress, address);
                found.and_then(|found| found.found_mac()).is_none_or(|found| found == mac)
            }
            _ => true,
        }
    }

    fn answer_solicitation(
        &mut self,
        ingress: SegmentId,
        source_mac: MacAddr,
        packet: &NdPacket,
    ) -> Verdict {
        let Some(mac) = self.segments.get(ingress).map(|segment| segment.mac) else {
            return Verdict::drop(DropReason::SegmentGone);
        };
        let reply = packet.reply(mac);
        if self.emit(ingress, |buffer| reply.emit(buffer, mac, source_mac)) {
            Verdict::reply()
        } else {
            Verdict::drop(DropReason::TransmitFull)
        }
    }

    /// Listens to the groups of all addresses that are answered for, segment by segment.
    pub(super) fn follow_groups(&mut self, now: Instant) {
        self.groups_stale = false;
        let vips: Vec<Ipv6Addr> = self
            .services
            .configured_vips()
            .into_iter()
            .filter_map(|vip| match vip {
                IpAddr::V6(vip) => Some(vip),
                IpAddr::V4(_) => None,
            })
            .collect();
        let mut all: Vec<(SegmentId, BTreeSet<Ipv6Addr>)> = Vec::new();
        for (id, segment) in self.segments.iter_mut() {
            let vips = if segment.role.has_vips() { &vips[..] } else { &[] };
            segment.follow_vips(!vips.is_empty());
            let own = segment.own_ipv6();
            let groups = own.chain(vips.iter().copied()).map(ipv6::solicited_node).collect();
            all.push((id, groups));
        }
        self.listeners.retain(|known| all.iter().any(|&(id, _)| id == known));
        for (id, groups) in all {
            self.listeners.set(now, id, groups);
        }
    }

    /// Sends one report that is due; whether there was any.
    pub(super) fn send_report(&mut self, now: Instant) -> bool {
        let Some(report) = self.listeners.poll(now) else { return false };
        if let Some(mac) = self.segments.get(report.segment).map(|segment| segment.mac) {
            self.emit(report.segment, |buffer| match (report.version, &report.groups[..]) {
                (Version::V1, &[group]) => mld::emit_report_v1(buffer, mac, report.what, group),
                (_, groups) => mld::emit_report(buffer, mac, report.what, groups),
            });
        }
        true
    }
}

/// Whether a frame is for the director alone, and not for a group.
fn is_alone(frame: &Frame<'_>) -> bool {
    !ipv6::is_discovery_mac(MacAddr(frame.bytes.first_chunk().copied().unwrap_or_default()))
}
