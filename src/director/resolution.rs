//! Address resolution: ARP answered for VIPs and DIPs and for nothing else, real servers' MACs
//! learnt from ARP, and the questions and announcements the director itself sends, in both
//! families. What only IPv6 has is in [`super::discovery`].

use core::net::{IpAddr, Ipv4Addr};

use super::askers::Asker;
use super::guardian::Claim;
use super::neighbors::{self, Heard, NeighborId};
use super::stations::Station;
use super::{Director, DropReason, Event, Instant, SegmentId, Verdict, announcer};
use crate::wire::arp::{ArpOperation, ArpPacket};
use crate::wire::nd::NdPacket;
use crate::wire::packet::Packet;
use crate::wire::{Frame, MacAddr};

/// ARP packets sent by one call of `handle_timeout`, at most; the rest follows at once.
const ARP_PER_TIMEOUT_MAX: usize = 64;

impl Director {
    pub(super) fn judge_arp(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        packet: &Packet,
        arp: &ArpPacket,
    ) -> Verdict {
        if !arp.sender_mac.is_station() || !is_possible_sender(arp.sender) {
            return Verdict::drop(DropReason::ArpMalformed);
        }
        if matches!(self.stations.find(arp.sender_mac), Some(Station::Own)) {
            return Verdict::drop(DropReason::OwnFrame);
        }
        self.heard_for_examination(ingress, arp.sender.into(), arp.sender_mac);
        if self.is_claim(ingress, arp.sender.into()) {
            self.note_claim(
                now,
                Claim {
                    vip: arp.sender.into(),
                    segment: ingress,
                    mac: arp.sender_mac,
                    to_all: packet.destination.is_multicast(),
                },
            );
            return Verdict::consume();
        }
        let heard = self.hear(now, ingress, arp.sender.into(), arp.sender_mac);
        let alone = !packet.destination.is_multicast();
        if arp.operation == ArpOperation::Request
            && self.is_answered(ingress, alone, arp.target.into())
        {
            // One that has no address yet only wants to know whether somebody has this one.
            if !arp.sender.is_unspecified() {
                let asker = Asker { segment: ingress, vip: arp.target.into(), mac: arp.sender_mac };
                self.note_asker(now, asker, arp.sender.into());
            }
            return self.answer_arp(ingress, packet, arp);
        }
        if heard { Verdict::consume() } else { Verdict::drop(DropReason::ArpNotOurs) }
    }

    /// Sends the ARP and ND that is due: requests for real servers' MACs, announcements, reports of
    /// what is listened to.
    pub(super) fn send_due_arp(&mut self, now: Instant) {
        for _ in 0..ARP_PER_TIMEOUT_MAX {
            match self.neighbors.poll(now) {
                None => break,
                Some(neighbors::Due::Ask { neighbor, of }) => self.ask(neighbor, of),
                Some(neighbors::Due::Down { neighbor, probes }) => {
                    self.neighbor_down(neighbor, probes);
                }
            }
        }
        let announce = self.snapshot.announce;
        for _ in 0..ARP_PER_TIMEOUT_MAX {
            match self.announcer.poll(now, &announce) {
                None => break,
                Some(announcer::Due::Vip { vip, segment }) => self.announce(vip, segment),
                Some(announcer::Due::Refresh { segment, turn }) => {
                    let vips = self.services.configured_vips();
                    if let Some(&vip) = vips.get(turn % vips.len().max(1)) {
                        self.announce(vip, segment);
                    }
                }
            }
        }
        for _ in 0..ARP_PER_TIMEOUT_MAX {
            if !self.send_report(now) {
                break;
            }
        }
    }

    /// Learns where an address is; whether that told anything about a real server.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        sender: IpAddr,
        mac: MacAddr,
    ) -> bool {
        if let Some(neighbor) = self.neighbors.find_id(ingress, sender) {
            self.heard_for_checks(now, neighbor, mac);
        }
        match self.neighbors.hear(now, ingress, sender, mac) {
            Heard::Stranger => self.learn_card(now, ingress, sender, mac),
            Heard::Known => true,
            Heard::Up { neighbor } => {
                self.neighbor_up(now, neighbor, mac);
                true
            }
            Heard::Moved { neighbor, from } => {
                if let Some(known) = self.neighbors.get(neighbor) {
                    self.events.push(Event::NeighborMoved {
                        real_server: known.name.clone(),
                        address: known.address,
                        segment: self.segment_label(ingress),
                        from,
                        to: mac,
                    });
                }
                self.recognise_by(sender);
                self.card_known(now, mac);
                true
            }
        }
    }

    /// Whether a request for this address is answered: a VIP on a VIP segment, a DIP on its own.
    /// A VIP with only old connections left is confirmed to those who ask by unicast.
    pub(super) fn is_answered(&self, ingress: SegmentId, alone: bool, target: IpAddr) -> bool {
        let Some(segment) = self.segments.get(ingress) else { return false };
        if segment.has_address(target) {
            return true;
        }
        segment.role.has_vips()
            && self.services.vip(target).is_some_and(|vip| vip.configured || alone)
    }

    fn answer_arp(&mut self, ingress: SegmentId, packet: &Packet, arp: &ArpPacket) -> Verdict {
        let Some(segment) = self.segments.get(ingress) else {
            return Verdict::drop(DropReason::SegmentGone);
        };
        let reply = arp.reply(segment.mac);
        if self.emit(ingress, |buffer| reply.emit(buffer, packet.source)) {
            Verdict::reply()
        } else {
            Verdict::drop(DropReason::TransmitFull)
        }
    }

    pub(super) fn ask(&mut self, id: NeighborId, of: Option<MacAddr>) {
        let Some(neighbor) = self.neighbors.get(id) else { return };
        self.ask_for(neighbor.segment, neighbor.address, of);
    }

    /// Asks on a segment for any address: of one station, or of all.
    pub(super) fn ask_for(&mut self, egress: SegmentId, target: IpAddr, of: Option<MacAddr>) {
        let Some(segment) = self.segments.get(egress) else { return };
        let mac = segment.mac;
        match (target, segment.source_for(target)) {
            (IpAddr::V4(target), source) => {
                let sender = match source {
                    Some(IpAddr::V4(sender)) => sender,
                    // A probe: the sender is not known, and no one enters it (RFC 5227, 2.1.1).
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let request = ArpPacket::request(mac, sender, target);
                self.emit(egress, |buffer| request.emit(buffer, of.unwrap_or(MacAddr::BROADCAST)));
            }
            (IpAddr::V6(target), Some(IpAddr::V6(source))) => {
                let request = NdPacket::solicitation(mac, source, target, of);
                self.emit(egress, |buffer| request.emit(buffer, mac, of.unwrap_or(MacAddr::ZERO)));
            }
            // Where there is a neighbor of IPv6 there is an address to ask from.
            (IpAddr::V6(_), _) => {}
        }
    }

    fn announce(&mut self, vip: IpAddr, egress: SegmentId) {
        let Some(mac) = self.segments.get(egress).map(|segment| segment.mac) else { return };
        match vip {
            IpAddr::V4(vip) => {
                let announcement = ArpPacket::announcement(mac, vip);
                self.emit(egress, |buffer| announcement.emit(buffer, MacAddr::BROADCAST));
            }
            IpAddr::V6(vip) => {
                let announcement = NdPacket::announcement(mac, vip);
                self.emit(egress, |buffer| announcement.emit(buffer, mac, MacAddr::BROADCAST));
            }
        }
    }

    fn neighbor_up(&mut self, now: Instant, id: NeighborId, mac: MacAddr) {
        let Some(neighbor) = self.neighbors.get(id) else { return };
        self.events.push(Event::NeighborUp {
            real_server: neighbor.name.clone(),
            address: neighbor.address,
            segment: self.segment_label(neighbor.segment),
            mac,
        });
        let (address, users) = (neighbor.address, neighbor.users.clone());
        self.follow_neighbor(id);
        self.recognise_by(address);
        self.card_known(now, mac);
        // What their checks said while nobody was there need not hold any longer.
        for user in users {
            self.recheck_fallen(now, user);
        }
    }

    fn neighbor_down(&mut self, id: NeighborId, probes: u32) {
        let Some(neighbor) = self.neighbors.get(id) else { return };
        self.events.push(Event::NeighborDown {
            real_server: neighbor.name.clone(),
            address: neighbor.address,
            segment: self.segment_label(neighbor.segment),
            probes,
        });
        self.follow_neighbor(id);
        self.drop_held(id);
    }

    /// Sends what was held for a neighbor that was found.
    pub(super) fn release_held(&mut self, id: NeighborId, egress: SegmentId, mac: MacAddr) {
        let Some(source) = self.segments.get(egress).map(|segment| segment.mac) else {
            return self.drop_held(id);
        };
        for mut held in self.hold.take(id) {
            self.counters.held -= 1;
            let offload = held.offload;
            Frame { bytes: &mut held.bytes, offload }.rewrite_macs(mac, source);
            self.send_held(egress, held.bytes, offload);
        }
    }

    /// Gives up on what was held for a neighbor.
    pub(super) fn drop_held(&mut self, id: NeighborId) {
        for _ in self.hold.take(id) {
            self.counters.held -= 1;
            self.counters.count_drop(DropReason::HoldExpired);
        }
    }
}

/// Whether a single host can have the address, or has none yet (a probe's 0.0.0.0).
fn is_possible_sender(sender: Ipv4Addr) -> bool {
    !sender.is_multicast() && !sender.is_broadcast() && !sender.is_loopback()
}
