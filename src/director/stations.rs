//! Whose MAC address is this? Asked of every frame's source, to notice one's own frames and
//! those that a real server sends back.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::keyed::{HashKey, KeyedMap};
use super::neighbors::NeighborId;
use crate::wire::MacAddr;

/// A station that the director knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Station {
    /// The director itself.
    Own,
    /// A machine with these real servers' addresses on it.
    RealServers(BTreeMap<IpAddr, NeighborId>),
}

/// Stations by MAC address. Asked for each frame, and nearly always in vain, which the filter
/// makes cheap. A bit of it that was set once stays: it costs a look-up, not a wrong answer.
#[derive(Debug)]
pub(super) struct Stations {
    by_mac: KeyedMap<MacAddr, Station>,
    filter: [u64; FILTER_WORDS],
}

const FILTER_WORDS: usize = 128;

impl Stations {
    pub fn new(key: HashKey) -> Stations {
        Stations { by_mac: key.map(), filter: [0; FILTER_WORDS] }
    }

    /// Adds a MAC of the director's own.
    pub fn add_own(&mut self, mac: MacAddr) {
        self.mark(mac);
        self.by_mac.insert(mac, Station::Own);
    }

    /// A MAC is no longer the director's own.
    pub fn remove_own(&mut self, mac: MacAddr) {
        if self.by_mac.get(&mac) == Some(&Station::Own) {
            self.by_mac.remove(&mac);
        }
    }

    /// A machine with this RIP is no longer known by this MAC.
    pub fn remove_real_server(&mut self, mac: MacAddr, rip: IpAddr) {
        let Some(Station::RealServers(list)) = self.by_mac.get_mut(&mac) else { return };
        list.remove(&rip);
        if list.is_empty() {
            self.by_mac.remove(&mac);
        }
    }

    /// Adds a MAC of the machine that has this RIP. One machine may have several.
    pub fn add_real_server(&mut self, mac: MacAddr, rip: IpAddr, neighbor: NeighborId) {
        self.mark(mac);
        match self.by_mac.entry(mac).or_insert_with(|| Station::RealServers(BTreeMap::new())) {
            Station::Own => {}
            Station::RealServers(list) => {
                list.entry(rip).or_insert(neighbor);
            }
        }
    }

    /// The station with this MAC, if it is known.
    #[inline(always)]
    pub fn find(&self, mac: MacAddr) -> Option<&Station> {
        let (word, bit) = filter_position(mac);
        if self.filter[word] & bit == 0 { None } else { self.look_up(mac) }
    }

    #[inline(never)]
    fn look_up(&self, mac: MacAddr) -> Option<&Station> {
        self.by_mac.get(&mac)
    }

    fn mark(&mut self, mac: MacAddr) {
        let (word, bit) = filter_position(mac);
        self.filter[word] |= bit;
    }
}

/// Multiplicative hashing; the filter only saves look-ups, so it needs no secret.
#[inline(always)]
fn filter_position(mac: MacAddr) -> (usize, u64) {
    let hash = mac.to_word().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51;
    ((hash >> 6) as usize % FILTER_WORDS, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::arena::Arena;

    #[test]
    fn a_machine_is_known_by_each_mac_with_all_its_addresses() {
        let mut arena = Arena::default();
        let id = arena.insert(()).cast();
        let (a, b, c) =
            (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]), MacAddr([2, 0, 0, 0, 0, 3]));
        let rip = |last| IpAddr::from([10, 0, 0, last]);
        let mut stations = Stations::new(HashKey(1, 2));
        stations.add_own(c);
        stations.add_real_server(a, rip(1), id);
        stations.add_real_server(a, rip(2), id);
        stations.add_real_server(a, rip(2), id);
        stations.add_real_server(c, rip(3), id);
        let both = BTreeMap::from([(rip(1), id), (rip(2), id)]);
        assert_eq!(stations.find(a), Some(&Station::RealServers(both)));
        assert_eq!(stations.find(b), None);
        assert_eq!(stations.find(c), Some(&Station::Own), "the director's own MAC stays its own");
        stations.remove_real_server(a, rip(1));
        assert_eq!(stations.find(a), Some(&Station::RealServers(BTreeMap::from([(rip(2), id)]))));
        stations.remove_real_server(a, rip(2));
        assert_eq!(stations.find(a), None);
        stations.remove_own(c);
        assert_eq!(stations.find(c), None);
    }
}
