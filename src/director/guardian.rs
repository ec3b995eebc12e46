//! The VIP is the director's alone: it finds out who else claims it, says so, and defends it.
//!
//! A bridge that has learnt where everybody is does not show the director the answer that a leaking
//! real server gives to a client. So listening for claims is not enough: the director asks for its
//! own VIPs, like a client from its own address (or as a probe where it has none, which nobody
//! enters into a cache), and sees who answers. Who it is comes out by asking the claimant, and only
//! him, for the addresses of the real servers.
//!
//! What is sent is told per family; everything else does not care which one it is. RFC 5227, 2.4.

use core::net::{IpAddr, Ipv4Addr};
use core::ops::Bound;
use std::sync::Arc;

use super::askers::Asker;
use super::conflicts::{self, Claimant};
use super::stations::Station;
use super::traffic::Arrival;
use super::{DestinationId, Director, Event, Instant, SegmentId, ServiceId};
use crate::config::snapshot::{Defend, Protocol};
use crate::wire::MacAddr;
use crate::wire::arp::ArpPacket;
use crate::wire::nd::NdPacket;

/// What one call of `handle_timeout` sends for the guardian, at most; the rest follows at once.
const PER_TIMEOUT_MAX: usize = 64;

/// Real servers' addresses that a stranger is asked for.
const IDENTIFIED_BY_MAX: usize = 64;

/// Someone else says that a VIP is his.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub vip: IpAddr,
    pub segment: SegmentId,
    pub mac: MacAddr,
    /// Whether everybody on the segment heard it.
    pub to_all: bool,
}

/// What the guardian has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GuardianCounters {
    /// Questions for the director's own VIPs.
    pub asked: u64,
    /// Announcements in answer to a claim.
    pub defended: u64,
    /// Stations told by unicast who has a VIP.
    pub repaired: u64,
    /// The same, left out because there were too many.
    pub repairs_refused: u64,
    /// Connections opened to a claimant because it was open whom the client believes.
    pub contested: u64,
    /// Connections taken up that went to a claimant.
    pub adopted: u64,
    /// Segments that may have been of such a connection, but there were several claimants.
    pub unknowable: u64,
}

impl Director {
    /// Whether a sender address on this segment can only be the director's: a VIP announced there.
    pub(super) fn is_claim(&self, ingress: SegmentId, sender: IpAddr) -> bool {
        self.segments.get(ingress).is_some_and(|segment| segment.role.has_vips())
            && self.services.vip(sender).is_some_and(|vip| vip.configured)
    }

    /// Someone else claims a VIP.
    pub(super) fn note_claim(&mut self, now: Instant, claim: Claim) {
        let Claim { vip, segment, mac, to_all } = claim;
        let Some(defend) = self.segments.get(segment).map(|segment| segment.defend) else { return };
        let real_server = self.real_server_name_at(now, mac);
        let reaction = self.conflicts.claim(now, vip, segment, mac, real_server.as_ref());
        if reaction.defend && defend != Defend::Off {
            self.guardian.defended += 1;
            self.announcer.once(now, vip, segment);
        }
        if defend == Defend::Repair && (reaction.is_new || to_all) {
            self.askers.repair_all(now, segment, vip);
        }
        if real_server.is_none() && reaction.is_new {
            self.ask_who_it_is(now, claim);
        }
        if reaction.tell {
            self.tell_claim(vip, segment, mac, real_server);
        }
    }

    /// A station was answered that asked for a VIP. It may hear somebody else, too.
    pub(super) fn note_asker(&mut self, now: Instant, asker: Asker, address: IpAddr) {
        let Asker { segment, vip, .. } = asker;
        let repairs =
            self.segments.get(segment).is_some_and(|segment| segment.defend == Defend::Repair);
        if repairs && self.is_claim(segment, vip) {
            let claimed = self.conflicts.is_claimed(vip, segment);
            self.askers.note(now, asker, address, claimed);
        }
    }

    /// A card of a real server is known now: claims from it have a name, and it may be one that
    /// answers for VIPs.
    pub(super) fn card_known(&mut self, now: Instant, mac: MacAddr) {
        if let Some(name) = self.real_server_name_at(now, mac) {
            for claimant in self.conflicts.identify(now, mac, &name) {
                self.tell_claim(claimant.vip, claimant.segment, mac, claimant.real_server);
            }
        }
        let vip_segments: Vec<SegmentId> = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.role.has_vips())
            .map(|(id, _)| id)
            .collect();
        for segment in vip_segments {
            self.inquiry.hurry(now, segment);
        }
    }

    /// Asks, repairs and tells what is due.
    pub(super) fn guard(&mut self, now: Instant) {
        for _ in 0..PER_TIMEOUT_MAX {
            let Some(due) = self.conflicts.poll(now) else { break };
            match due {
                conflicts::Due::Ask { vip, segment } => self.ask_for_vip(vip, segment),
                conflicts::Due::Tell(Claimant { vip, segment, mac, real_server, .. }) => {
                    self.tell_claim(vip, segment, mac, real_server);
                }
                conflicts::Due::Over(claimant) => self.events.push(Event::ConflictOver {
                    vip: claimant.vip,
                    segment: self.segment_label(claimant.segment),
                    mac: claimant.mac,
                    real_server: claimant.real_server,
                    claims: claimant.count,
                }),
            }
        }
        for _ in 0..PER_TIMEOUT_MAX {
            let Some((segment, last)) = self.inquiry.poll(now) else { break };
            if let Some(vip) = self.vip_after(last) {
                self.inquiry.asked(segment, vip);
                self.ask_for_vip(vip, segment);
            }
        }
        for _ in 0..PER_TIMEOUT_MAX {
            let conflicts = &self.conflicts;
            let is_claimed = |asker: &Asker| conflicts.is_claimed(asker.vip, asker.segment);
            let Some((asker, address)) = self.askers.poll(now, is_claimed) else { break };
            if !self.repair_limit.take(now) {
                self.guardian.repairs_refused += 1;
            } else if self.tell_owner(asker, address) {
                self.guardian.repaired += 1;
            }
        }
    }

    /// When [`Self::guard`] next has something to do.
    pub(super) fn next_guard(&self) -> Option<Instant> {
        let deadlines = [
            self.conflicts.next_deadline(),
            self.inquiry.next_deadline(),
            self.askers.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Segments or VIPs are others now: `self.announced` says which. `news`: some came.
    pub(super) fn guard_anew(&mut self, now: Instant, segments: &[SegmentId], news: bool) {
        let Director { announced, conflicts, askers, segments: all, .. } = self;
        let is_announced = |vip: IpAddr, segment: SegmentId| {
            let mac = all.get(segment).map(|segment| segment.mac);
            mac.is_some_and(|mac| announced.contains(&(vip, segment, mac)))
        };
        let repairs = |segment: SegmentId| {
            all.get(segment).is_some_and(|segment| segment.defend == Defend::Repair)
        };
        conflicts.retain(is_announced);
        askers.retain(|vip, segment| repairs(segment) && is_announced(vip, segment));
        let vips = self.announced.len() / segments.len().max(1);
        self.inquiry.set(now, segments, vips, news);
    }

    /// The real server that has a connection of which the director sees a segment for the first
    /// time, because the station that sends it took a claimant for the VIP's holder.
    pub(super) fn adopter(
        &mut self,
        arrival: &Arrival<'_>,
        vip: IpAddr,
        service: ServiceId,
    ) -> Option<DestinationId> {
        let ingress = arrival.ingress;
        let asker = Asker { segment: ingress, vip, mac: arrival.source_mac };
        if arrival.protocol != Protocol::Tcp || !self.askers.contains(&asker) {
            return None;
        }
        if self.conflicts.of(vip, ingress).nth(1).is_some() {
            self.guardian.unknowable += 1;
            return None;
        }
        self.claimant_of(vip, ingress, service)
    }

    /// The real server for a connection that a station opens right after it asked for the VIP, while
    /// one real server claims it: that one. For whomever the station will believe in a moment, the
    /// connection's packets get there; those of a connection to another one would meet a stranger,
    /// who resets it.
    pub(super) fn contested(
        &self,
        now: Instant,
        arrival: &Arrival<'_>,
        vip: IpAddr,
        service: ServiceId,
    ) -> Option<DestinationId> {
        let ingress = arrival.ingress;
        let asker = Asker { segment: ingress, vip, mac: arrival.source_mac };
        if arrival.protocol != Protocol::Tcp
            || !self.conflicts.is_claimed(vip, ingress)
            || !self.askers.has_just_asked(now, &asker)
            || self.conflicts.of(vip, ingress).nth(1).is_some()
        {
            return None;
        }
        let id = self.claimant_of(vip, ingress, service)?;
        let found = self.services.destinations.get(id)?;
        let service = self.services.services.get(service)?;
        let candidate = service.candidates.get(found.position? as usize)?;
        (candidate.available && candidate.weight > 0).then_some(id)
    }

    /// The real server of a service that is the first to claim this VIP on this segment.
    fn claimant_of(
        &self,
        vip: IpAddr,
        segment: SegmentId,
        service: ServiceId,
    ) -> Option<DestinationId> {
        let claimant = self.conflicts.of(vip, segment).next()?.mac;
        let Some(Station::RealServers(list)) = self.stations.find(claimant) else { return None };
        let service = self.services.services.get(service)?;
        let mut real_servers = service.destinations.iter().chain(&service.draining).copied();
        real_servers.find(|&id| {
            let found = self.services.destinations.get(id);
            found.is_some_and(|found| !found.cut && list.contains_key(&found.address))
        })
    }

    /// The VIP to be asked for after this one, round and round.
    fn vip_after(&self, last: Option<IpAddr>) -> Option<IpAddr> {
        let after = last.map_or(Bound::Unbounded, |last| {
            let end = (last, SegmentId(u16::MAX), MacAddr::BROADCAST);
            Bound::Excluded(end)
        });
        let mut following = self.announced.range((after, Bound::Unbounded));
        following.next().or_else(|| self.announced.first()).map(|&(vip, _, _)| vip)
    }

    /// The name of a real server with this MAC.
    fn real_server_name_at(&self, now: Instant, mac: MacAddr) -> Option<Arc<str>> {
        let id = self.real_server_at(now, mac, None)?;
        self.services.destinations.get(id).map(|destination| destination.name.clone())
    }

    fn tell_claim(
        &mut self,
        vip: IpAddr,
        segment: SegmentId,
        mac: MacAddr,
        real_server: Option<Arc<str>>,
    ) {
        let segment = self.segment_label(segment);
        self.events.push(Event::Conflict { vip, segment, mac, real_server });
    }

    /// Asks a stranger, and nobody else, for the addresses of the VIP's real servers.
    fn ask_who_it_is(&mut self, now: Instant, claim: Claim) {
        let Some(vip) = self.services.vip(claim.vip) else { return };
        let services = vip.services.iter().filter_map(|&id| self.services.services.get(id));
        let destinations = services.flat_map(|service| &service.destinations);
        let mut addresses: Vec<IpAddr> = destinations
            .filter_map(|&id| Some(self.services.destinations.get(id)?.address))
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses.into_iter().take(IDENTIFIED_BY_MAX) {
            if !self.repair_limit.take(now) {
                return;
            }
            self.send_question(address, claim.segment, Some(claim.mac));
        }
    }

    fn ask_for_vip(&mut self, vip: IpAddr, segment: SegmentId) {
        if self.send_question(vip, segment, None) {
            self.guardian.asked += 1;
        }
    }

    /// "Who has `target`?", asked of one station or of all.
    fn send_question(&mut self, target: IpAddr, egress: SegmentId, of: Option<MacAddr>) -> bool {
        let Some(segment) = self.segments.get(egress) else { return false };
        let source = segment.source_for(target);
        let mac = segment.mac;
        match (target, source) {
            (IpAddr::V4(target), source) => {
                let sender = match source {
                    Some(IpAddr::V4(sender)) => sender,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let question = ArpPacket::request(mac, sender, target);
                let to = of.unwrap_or(MacAddr::BROADCAST);
                self.emit(egress, |buffer| question.emit(buffer, to))
            }
            (IpAddr::V6(target), Some(IpAddr::V6(source))) => {
                let question = NdPacket::solicitation(mac, source, target, of);
                let to = of.unwrap_or(MacAddr::ZERO);
                self.emit(egress, |buffer| question.emit(buffer, mac, to))
            }
            // Asked without an address, a claimant would tell everybody (RFC 4861, 7.2.4).
            (IpAddr::V6(_), _) => false,
        }
    }

    /// Tells one station that a VIP is the director's, so that it believes it at once: gratuitous
    /// ARP by unicast (a second reply Linux would ignore for a second after the first), or an
    /// advertisement that overrides.
    fn tell_owner(&mut self, asker: Asker, address: IpAddr) -> bool {
        let Some(segment) = self.segments.get(asker.segment) else { return false };
        let mac = segment.mac;
        match (asker.vip, address) {
            (IpAddr::V4(vip), _) => {
                let announcement = ArpPacket::announcement(mac, vip);
                self.emit(asker.segment, |buffer| announcement.emit(buffer, asker.mac))
            }
            (IpAddr::V6(vip), IpAddr::V6(address)) => {
                let announcement =
                    NdPacket { destination: address, ..NdPacket::announcement(mac, vip) };
                self.emit(asker.segment, |buffer| announcement.emit(buffer, mac, asker.mac))
            }
            (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}
