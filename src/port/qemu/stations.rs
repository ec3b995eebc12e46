//! Behind which machine a MAC address is: what a switch learns from the frames that pass.

use std::collections::HashMap;

use crate::wire::MacAddr;

/// Addresses that one machine may have. What it sends from others is passed on all the same, and
/// answers to those go to every machine.
pub const STATIONS_MAX: usize = 256;

/// The addresses that have been seen, with the machine that each was last seen at.
#[derive(Debug, Default)]
pub struct Stations {
    machine_of: HashMap<MacAddr, usize>,
    /// How many each machine has, by its number.
    counts: Vec<usize>,
}

impl Stations {
    /// A frame came from this address, sent by this machine.
    #[inline]
    pub fn learn(&mut self, mac: MacAddr, machine: usize) {
        if self.machine_of.get(&mac) != Some(&machine) {
            self.move_to(mac, machine);
        }
    }

    /// The machine that an address is behind.
    #[inline]
    pub fn find(&self, mac: MacAddr) -> Option<usize> {
        self.machine_of.get(&mac).copied()
    }

    /// The machine has gone, and its addresses with it.
    pub fn forget(&mut self, machine: usize) {
        self.machine_of.retain(|_, there| *there != machine);
        if let Some(count) = self.counts.get_mut(machine) {
            *count = 0;
        }
    }

    #[cold]
    fn move_to(&mut self, mac: MacAddr, machine: usize) {
        if self.counts.len() <= machine {
            self.counts.resize(machine + 1, 0);
        }
        if self.counts[machine] >= STATIONS_MAX {
            // Where it was before it is no longer.
            if let Some(before) = self.machine_of.remove(&mac) {
                self.counts[before] -= 1;
            }
            return;
        }
        self.counts[machine] += 1;
        if let Some(before) = self.machine_of.insert(mac, machine) {
            self.counts[before] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: usize) -> MacAddr {
        let [high, low] = (number as u16).to_be_bytes();
        MacAddr([0x52, 0x54, 0, 0, high, low])
    }

    #[test]
    fn an_address_is_where_it_was_last_seen_and_goes_with_its_machine() {
        let mut stations = Stations::default();
        assert_eq!(stations.find(mac(1)), None);
        stations.learn(mac(1), 0);
        stations.learn(mac(2), 3);
        assert_eq!((stations.find(mac(1)), stations.find(mac(2))), (Some(0), Some(3)));
        stations.learn(mac(1), 3);
        assert_eq!(stations.find(mac(1)), Some(3));
        stations.learn(mac(2), 0);
        stations.forget(3);
        assert_eq!((stations.find(mac(1)), stations.find(mac(2))), (None, Some(0)));
    }

    #[test]
    fn a_machine_with_too_many_addresses_keeps_nobody_else_from_having_some() {
        let mut stations = Stations::default();
        stations.learn(mac(1), 1);
        for number in 10..10 + STATIONS_MAX + 5 {
            stations.learn(mac(number), 0);
        }
        assert_eq!(stations.machine_of.len(), STATIONS_MAX + 1);
        assert_eq!(stations.find(mac(10 + STATIONS_MAX)), None);
        // One that moves to the machine with too many is behind nobody that is known.
        stations.learn(mac(1), 0);
        assert_eq!(stations.find(mac(1)), None);
        stations.learn(mac(1), 1);
        assert_eq!(stations.find(mac(1)), Some(1));
        // And there is room again when one has moved away.
        stations.learn(mac(10), 1);
        stations.learn(mac(2), 0);
        assert_eq!(stations.find(mac(2)), Some(0));
    }
}
