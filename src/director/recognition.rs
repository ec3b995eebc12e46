//! What follows from who uses a neighbor: its configured MAC, whether its real servers get
//! connections, and by which MACs the machine is recognised when it sends frames back.

use core::net::IpAddr;

use super::neighbors::{Hop, NeighborId};
use super::stations::Station;
use super::{DestinationId, Director, Instant, SegmentId};
use crate::wire::MacAddr;

/// MACs learnt for one RIP on VIP segments, at most.
const LEARNT_PER_RIP_MAX: usize = 4;

/// A real server's own address, and how the machine that has it is recognised.
#[derive(Debug, Default)]
pub(super) struct Rip {
    /// Where it is reached: once on each segment that has a real server with this address.
    neighbors: Vec<NeighborId>,
    /// Whatever answered for the RIP on a VIP segment.
    learnt: Vec<MacAddr>,
    /// The MACs it is entered with among the stations.
    entered: Vec<MacAddr>,
}

impl Director {
    /// A real server is reached through a neighbor from now on. The neighbor is to be refreshed.
    pub(super) fn add_neighbor_user(&mut self, id: NeighborId, user: DestinationId) {
        self.neighbors.add_user(id, user);
        let Some(neighbor) = self.neighbors.get(id) else { return };
        let rip = self.rips.entry(neighbor.address).or_default();
        if !rip.neighbors.contains(&id) {
            rip.neighbors.push(id);
        }
    }

    /// Takes in what a neighbor's real servers say about it; without any it is forgotten.
    pub(super) fn refresh_neighbor(&mut self, now: Instant, id: NeighborId) {
        let Some(neighbor) = self.neighbors.get(id) else { return };
        let address = neighbor.address;
        let mut users =
            neighbor.users.iter().filter_map(|&user| self.services.destinations.get(user));
        let name = users.clone().next().map(|first| first.name.clone());
        match name {
            Some(name) => {
                let mac = users.find_map(|user| user.mac);
                let before = (neighbor.is_usable(), neighbor.hop());
                self.neighbors.configure(now, id, mac, name);
                let after = self.neighbors.get(id);
                if after.is_some_and(|after| (after.is_usable(), after.hop()) != before) {
                    self.follow_neighbor(id);
                }
            }
            None => {
                self.neighbors.remove(id);
                self.drop_held(id);
                if let Some(rip) = self.rips.get_mut(&address) {
                    rip.neighbors.retain(|&known| known != id);
                }
            }
        }
        self.recognise_by(address);
    }

    /// Lets a neighbor's real servers, and frames held for it, follow its state.
    pub(super) fn follow_neighbor(&mut self, id: NeighborId) {
        let Some(neighbor) = self.neighbors.get(id) else { return };
        let (usable, segment, hop) = (neighbor.is_usable(), neighbor.segment, neighbor.hop());
        for &user in &neighbor.users {
            self.services.set_reachable(user, usable);
        }
        if let Hop::Mac(mac) = hop
            && !self.hold.is_empty()
        {
            self.release_held(id, segment, mac);
        }
    }

    /// Enters the stations with a RIP anew: where it is reached, its configured cards, and those
    /// that answered for it on a VIP segment.
    pub(super) fn recognise_by(&mut self, address: IpAddr) {
        let Some(rip) = self.rips.get_mut(&address) else { return };
        for mac in rip.entered.drain(..) {
            self.stations.remove_real_server(mac, address);
        }
        let Some(&first) = rip.neighbors.first() else {
            self.rips.remove(&address);
            return;
        };
        for neighbor in rip.neighbors.iter().filter_map(|&id| self.neighbors.get(id)) {
            let users =
                neighbor.users.iter().filter_map(|&user| self.services.destinations.get(user));
            rip.entered.extend(neighbor.mac());
            rip.entered.extend(users.flat_map(|user| &user.vip_macs));
        }
        rip.entered.extend(&rip.learnt);
        rip.entered.sort_unstable();
        rip.entered.dedup();
        for &mac in &rip.entered {
            self.stations.add_real_server(mac, address, first);
        }
    }

    /// An ARP packet named a real server's RIP on a segment where it is not reached. On a VIP
    /// segment that gives away a card of it, by which it may be recognised.
    pub(super) fn learn_card(&mut self, ingress: SegmentId, sender: IpAddr, mac: MacAddr) -> bool {
        if !self.segments.get(ingress).is_some_and(|segment| segment.role.has_vips()) {
            return false;
        }
        let Some(rip) = self.rips.get_mut(&sender) else { return false };
        if rip.learnt.len() < LEARNT_PER_RIP_MAX && !rip.learnt.contains(&mac) {
            rip.learnt.push(mac);
            self.recognise_by(sender);
        }
        true
    }

    /// A real server on the machine with this MAC, if it is known, unless the machine speaks for
    /// itself from `source`.
    #[inline]
    pub(super) fn real_server_at(
        &self,
        mac: MacAddr,
        source: Option<IpAddr>,
    ) -> Option<DestinationId> {
        let Some(Station::RealServers(list)) = self.stations.find(mac) else { return None };
        if list.iter().any(|&(rip, _)| Some(rip) == source) {
            return None;
        }
        let &(_, neighbor) = list.first()?;
        self.neighbors.get(neighbor)?.users.first().copied()
    }
}
