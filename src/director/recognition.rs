//! What follows from who uses a neighbor: its configured MAC, whether its real servers get
//! connections, and by which MACs the machine is recognised when it sends frames back.

use core::net::IpAddr;
use core::time::Duration;

use super::destination::Destination;
use super::neighbors::{Hop, Neighbor, NeighborId};
use super::stations::Station;
use super::{DestinationId, Director, Instant, SegmentId};
use crate::wire::MacAddr;

/// Cards learnt for one RIP on VIP segments, at most.
const CARDS_PER_RIP_MAX: usize = 4;

/// How long a card is known that is not heard of again, as bridges have it. Whoever is taken for
/// a real server by mistake, or by someone's malice, gets nothing through meanwhile.
const CARD_TIMEOUT: Duration = Duration::from_secs(300);

/// A real server's own address, and how the machine that has it is recognised.
#[derive(Debug, Default)]
pub(super) struct Rip {
    /// Where it is reached: once on each segment that has a real server with this address.
    neighbors: Vec<NeighborId>,
    /// Whatever answered for the RIP on a VIP segment, and is not configured.
    cards: Vec<Card>,
    /// The MACs it is entered with among the stations.
    entered: Vec<MacAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Card {
    mac: MacAddr,
    heard: Instant,
}

impl Card {
    fn is_stale(&self, now: Instant) -> bool {
        now.since(self.heard) >= CARD_TIMEOUT
    }
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
        let voices = self.voices(neighbor);
        let mac = voices.clone().find_map(|user| user.mac);
        let name = voices.map(|user| user.name.clone()).next();
        match name {
            Some(name) => {
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

    /// Whether a neighbor is as it should be if a real server without MACs came or went: others
    /// are configured there, and it has the name that the first of them gives it. Cheap, where a
    /// machine has real servers of a thousand services.
    pub(super) fn is_settled(&self, id: NeighborId) -> bool {
        let Some(neighbor) = self.neighbors.get(id) else { return false };
        let mut users =
            neighbor.users.iter().filter_map(|&user| self.services.destinations.get(user));
        let first = users.find(|user| user.is_configured());
        first.is_some_and(|first| first.name == neighbor.name)
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
        let mut macs = core::mem::take(&mut rip.entered);
        for mac in macs.drain(..) {
            self.stations.remove_real_server(mac, address);
        }
        let Some(&first) = rip.neighbors.first() else {
            self.rips.remove(&address);
            return;
        };
        let Some(rip) = self.rips.get(&address) else { return };
        for neighbor in rip.neighbors.iter().filter_map(|&id| self.neighbors.get(id)) {
            macs.extend(neighbor.mac());
            macs.extend(self.voices(neighbor).flat_map(|user| &user.vip_macs));
        }
        let Some(rip) = self.rips.get_mut(&address) else { return };
        rip.cards.retain(|card| !macs.contains(&card.mac));
        macs.extend(rip.cards.iter().map(|card| card.mac));
        macs.sort_unstable();
        macs.dedup();
        for &mac in &macs {
            self.stations.add_real_server(mac, address, first);
        }
        rip.entered = macs;
    }

    /// The real servers that say what a neighbor is: those configured, and only if there are
    /// none, those that drain.
    fn voices(&self, neighbor: &Neighbor) -> impl Iterator<Item = &Destination> + Clone {
        let users = neighbor.users.iter().filter_map(|&user| self.services.destinations.get(user));
        let any_configured = users.clone().any(|user| user.is_configured());
        users.filter(move |user| user.is_configured() || !any_configured)
    }

    /// An ARP packet named a real server's RIP on a segment where it is not reached. On a VIP
    /// segment that gives away a card of it, by which it may be recognised.
    pub(super) fn learn_card(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        sender: IpAddr,
        mac: MacAddr,
    ) -> bool {
        if !self.segments.get(ingress).is_some_and(|segment| segment.role.has_vips()) {
            return false;
        }
        let Some(rip) = self.rips.get_mut(&sender) else { return false };
        if let Some(known) = rip.cards.iter_mut().find(|card| card.mac == mac) {
            known.heard = now;
        } else if !rip.entered.contains(&mac) {
            if rip.cards.len() == CARDS_PER_RIP_MAX {
                rip.cards.retain(|card| !card.is_stale(now));
            }
            if rip.cards.len() < CARDS_PER_RIP_MAX {
                rip.cards.push(Card { mac, heard: now });
                self.recognise_by(sender);
                self.card_known(now, mac);
            }
        }
        true
    }

    /// A real server on the machine with this MAC, if it is known, unless the machine speaks for
    /// itself from `source`.
    #[inline]
    pub(super) fn real_server_at(
        &self,
        now: Instant,
        mac: MacAddr,
        source: Option<IpAddr>,
    ) -> Option<DestinationId> {
        let Some(Station::RealServers(list)) = self.stations.find(mac) else { return None };
        if source.is_some_and(|source| list.contains_key(&source)) {
            return None;
        }
        let is_stale = |rip| {
            let rip: Option<&Rip> = self.rips.get(rip);
            rip.is_some_and(|rip| {
                rip.cards.iter().any(|card| card.mac == mac && card.is_stale(now))
            })
        };
        let (_, neighbor) = list.iter().find(|(rip, _)| !is_stale(rip))?;
        self.neighbors.get(*neighbor)?.users.first().copied()
    }
}
