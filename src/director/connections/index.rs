//! The index of the connection table: from the hash of a key to the slot of an entry.
//!
//! Open addressing with linear probing over 8-byte slots that hold 32 bits of hash beside the
//! entry's number, so that a probe touches one cache line of the index and, but for one look-up
//! in billions, only the entry that is meant. The size is fixed: at least two slots an entry.
//! Removal shifts followers back (no tombstones); where they belong is in their stored hash, so
//! no entry is touched for it.
//!
//! The index knows no keys. A look-up is three steps that can be taken for a whole burst of
//! frames, one step at a time, so that their cache misses overlap: [`Index::hash`], then the
//! first candidate of [`Index::candidates`], then the entry.
//!
//! # The worst case
//! Hashes are SipHash-1-3 under a secret key, so whoever chooses the keys does not choose the
//! slots. At half load a run of occupied slots longer than k has probability below e^(−0.19 k)
//! at any slot: with 2^21 slots, runs over 100 are rare and one over [`PROBE_MAX`] does not
//! happen (10^−15). What does not happen is refused all the same: no entry is ever further than
//! that from its home, so no look-up takes more steps.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::director::flow::FlowKey;

/// Entries at most: positions are cut from 32 bits of hash.
pub(super) const CAPACITY_MAX: u32 = 1 << 30;

/// Slots a look-up reads, at most.
const PROBE_MAX: usize = 256;

/// 32 bits of the keyed hash of a [`FlowKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowHash(u32);

/// No room within reach of the hash's home position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexFull;

/// From hashes to entries.
pub(super) struct Index {
    hash_key: (u64, u64),
    /// The hash in the upper half, the entry's number plus one in the lower; 0 is empty.
    slots: Box<[u64]>,
    mask: usize,
}

impl Index {
    /// An index for at most `capacity` entries, 16 to 32 bytes each.
    pub(super) fn new(capacity: u32, hash_key: (u64, u64)) -> Index {
        assert!(capacity <= CAPACITY_MAX, "{capacity} connections");
        let size = (2 * capacity as usize).next_power_of_two();
        Index {
            hash_key,
            // Zeroed by the kernel, page by page, as pages are first touched.
            slots: vec![0; size].into_boxed_slice(),
            mask: size - 1,
        }
    }

    /// The first step of a look-up: touches no table.
    #[inline]
    pub(super) fn hash(&self, key: &FlowKey) -> FlowHash {
        // Begun here, so that the compiler knows how far it is and leaves all cases of that out.
        let mut hasher = SipHasher13::new_with_keys(self.hash_key.0, self.hash_key.1);
        key.feed(&mut hasher);
        FlowHash(hasher.finish() as u32)
    }

    /// Reads what is at the hash's home position, to have it near afterwards.
    #[inline]
    pub(super) fn touch(&self, hash: FlowHash) -> u64 {
        self.slots[self.position(hash, 0)]
    }

    /// The entries whose hash is this one; with next to certainty the one that is meant is the
    /// first.
    #[inline]
    pub(super) fn candidates(&self, hash: FlowHash) -> impl Iterator<Item = u32> {
        (0..PROBE_MAX)
            .map(move |step| self.slots[self.position(hash, step)])
            .take_while(|&slot| slot != EMPTY)
            .filter(move |&slot| hash_of(slot) == hash)
            .map(entry_of)
    }

    /// Adds an entry, which is not in the index yet.
    ///
    /// # Errors
    /// [`IndexFull`] when all [`PROBE_MAX`] slots from its home on are taken.
    pub(super) fn insert(&mut self, hash: FlowHash, entry: u32) -> Result<(), IndexFull> {
        for step in 0..PROBE_MAX {
            let position = self.position(hash, step);
            if self.slots[position] == EMPTY {
                self.slots[position] = slot(hash, entry);
                return Ok(());
            }
        }
        Err(IndexFull)
    }

    /// Removes an entry; `false` if it is not there under this hash.
    pub(super) fn remove(&mut self, hash: FlowHash, entry: u32) -> bool {
        let wanted = slot(hash, entry);
        for step in 0..PROBE_MAX {
            let position = self.position(hash, step);
            match self.slots[position] {
                found if found == wanted => {
                    self.close_gap(position);
                    return true;
                }
                EMPTY => return false,
                _ => {}
            }
        }
        false
    }

    /// Address and bytes of the slots, touched or not.
    pub(super) fn memory(&self) -> (usize, usize) {
        (self.slots.as_ptr().addr(), size_of_val(&*self.slots))
    }

    /// Shifts followers back until every one of them is reached from its home again.
    fn close_gap(&mut self, mut gap: usize) {
        let mut position = gap;
        loop {
            position = (position + 1) & self.mask;
            let follower = self.slots[position];
            let distance = position.wrapping_sub(gap) & self.mask;
            // No entry is further than PROBE_MAX from home, so none from here on could fill it.
            if follower == EMPTY || distance >= PROBE_MAX {
                break;
            }
            let home = self.position(hash_of(follower), 0);
            if position.wrapping_sub(home) & self.mask >= distance {
                self.slots[gap] = follower;
                gap = position;
            }
        }
        self.slots[gap] = EMPTY;
    }

    #[inline]
    fn position(&self, hash: FlowHash, step: usize) -> usize {
        (hash.0 as usize).wrapping_add(step) & self.mask
    }
}

const EMPTY: u64 = 0;

#[inline]
const fn slot(hash: FlowHash, entry: u32) -> u64 {
    (hash.0 as u64) << 32 | (entry as u64 + 1)
}

#[inline]
const fn hash_of(slot: u64) -> FlowHash {
    FlowHash((slot >> 32) as u32)
}

#[inline]
const fn entry_of(slot: u64) -> u32 {
    slot as u32 - 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    use super::*;

    fn found(index: &Index, hash: FlowHash) -> Vec<u32> {
        let mut entries: Vec<u32> = index.candidates(hash).collect();
        entries.sort_unstable();
        entries
    }

    #[test]
    fn there_are_two_slots_an_entry_at_least() {
        for (capacity, slots) in [(0, 1), (1, 2), (3, 8), (4, 8), (5, 16), (1 << 20, 1 << 21)] {
            assert_eq!(Index::new(capacity, (0, 0)).slots.len(), slots, "capacity {capacity}");
        }
    }

    #[test]
    fn the_hash_is_siphash_of_the_flow_under_the_key() {
        let v4 = FlowKey::v4(6, Ipv4Addr::LOCALHOST, 1, Ipv4Addr::LOCALHOST, 2);
        let v6 = FlowKey::v6(6, Ipv6Addr::LOCALHOST, 1, Ipv6Addr::LOCALHOST, 2);
        // Ports, protocol and kind, then the addresses; each word with its lowest byte first.
        let ports = |kind: u64| (1 << 48 | 2 << 32 | 6 << 16 | kind).to_le_bytes();
        let v4_bytes = [ports(0), (0x7f00_0001_7f00_0001_u64).to_le_bytes()].concat();
        let v6_bytes = [ports(1), [0; 8], 1_u64.to_le_bytes(), [0; 8], 1_u64.to_le_bytes()];
        for (key, bytes) in [(v4, v4_bytes), (v6, v6_bytes.concat())] {
            let expected = SipHasher13::new_with_keys(3, 4).hash(&bytes);
            assert_eq!(Index::new(1, (3, 4)).hash(&key), FlowHash(expected as u32));
            assert_ne!(Index::new(1, (3, 5)).hash(&key), FlowHash(expected as u32));
        }
    }

    #[test]
    fn a_removal_mends_the_run_it_breaks_also_across_the_end() {
        let mut index = Index::new(4, (0, 0));
        // Homes 6, 6, 7, 6, 0 of 8: the run goes 6, 7, 0, 1, 2.
        let entries = [(6, 0), (14, 1), (7, 2), (22, 3), (8, 4)].map(|(h, e)| (FlowHash(h), e));
        for (hash, entry) in entries {
            assert_eq!(index.insert(hash, entry), Ok(()));
        }
        assert!(index.remove(FlowHash(6), 0));
        assert!(!index.remove(FlowHash(6), 0), "it is gone");
        assert!(!index.remove(FlowHash(14), 2), "never under another's hash");
        for (hash, entry) in &entries[1..] {
            assert_eq!(found(&index, *hash), [*entry]);
        }
        let occupied: Vec<usize> = (0..8).filter(|&at| index.slots[at] != EMPTY).collect();
        assert_eq!(occupied, [0, 1, 6, 7], "the gap is closed");
    }

    #[test]
    fn an_entry_too_far_from_home_is_refused_and_the_rest_stay() {
        let mut index = Index::new(1024, (0, 0));
        let hash = FlowHash(2000);
        for entry in 0..PROBE_MAX as u32 {
            assert_eq!(index.insert(hash, entry), Ok(()));
        }
        assert_eq!(index.insert(hash, 9999), Err(IndexFull));
        assert_eq!(index.candidates(hash).count(), PROBE_MAX);
        assert!(index.remove(hash, 0));
        assert_eq!(index.insert(hash, 9999), Ok(()), "room again");
    }

    proptest! {
        /// Few homes and many equal hashes: everything collides with everything.
        #[test]
        fn agrees_with_a_hash_map(
            steps in prop::collection::vec((any::<bool>(), 0u32..64, 0u32..12, 0u32..3), 1..400),
        ) {
            let mut index = Index::new(64, (0, 0));
            let mut model: HashMap<u32, FlowHash> = HashMap::new();
            for (insert, entry, home, high) in steps {
                // Homes next to the end of the 128 slots, so that runs wrap.
                let hash = FlowHash(high << 16 | ((122 + home) & 127));
                match model.get(&entry).copied() {
                    None if insert => {
                        prop_assert_eq!(index.insert(hash, entry), Ok(()));
                        model.insert(entry, hash);
                    }
                    Some(hash) if !insert => {
                        prop_assert!(index.remove(hash, entry));
                        model.remove(&entry);
                    }
                    None => prop_assert!(!index.remove(hash, entry)),
                    Some(_) => {}
                }
                for (entry, hash) in &model {
                    prop_assert!(index.candidates(*hash).any(|found| found == *entry));
                }
                let occupied = index.slots.iter().filter(|slot| **slot != EMPTY).count();
                prop_assert_eq!(occupied, model.len());
            }
        }
    }
}
