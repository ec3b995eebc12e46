//! Schedulers that keep a destination's connections together: lblc and lblcr.
//!
//! For each destination address (a VIP) there is a candidate that new connections go to, until
//! it has more active connections than its weight while another has fewer than half; then the
//! one with the fewest connections for its weight takes its place (lblc), or joins it (lblcr,
//! where the least loaded of the set is taken, and the most loaded leaves a set that has not
//! changed for long).
//!
//! The table is of a fixed size. What was not used for long is forgotten, to the nanosecond at
//! look-up, where IPVS sweeps each half hour. When there is no room for another address, or
//! candidate of a set, the choice is made as by wlc, and counted.

use core::net::IpAddr;
use core::time::Duration;

use super::members::{Member, Roster};
use super::ranking::{By, Ranking};
use super::{Candidate, PickKey};
use crate::director::Instant;

/// Destination addresses of one service that are remembered.
pub(super) const ADDRESSES_MAX: usize = 64;
/// Candidates in a set of lblcr.
pub(super) const SET_MAX: usize = 64;

/// Unused for so long, an address makes room for another (`ENTRY_TIMEOUT`).
const IDLE: Duration = Duration::from_secs(6 * 60);

/// Where the connections of each destination address are.
#[derive(Clone, Debug)]
pub struct Locality {
    expiration: Duration,
    /// 1 for lblc, [`SET_MAX`] for lblcr.
    set_max: usize,
    roster: Roster,
    /// For a choice without a memory: as wlc.
    ranking: Ranking,
    /// Who has less than half as many active connections as its weight, and how many have.
    has_room: Vec<bool>,
    with_room: usize,
    /// With room for [`ADDRESSES_MAX`].
    entries: Vec<Entry>,
    /// The sets of the entries: `set_max` positions each.
    sets: Vec<u32>,
    refused: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    address: IpAddr,
    used: Instant,
    changed: Instant,
    /// How many of its positions in `sets` are in use; the newest is the last.
    len: usize,
}

impl Locality {
    /// lblc.
    pub(super) fn single(expiration: Duration) -> Locality {
        Locality::new(expiration, 1)
    }

    /// lblcr.
    pub(super) fn replicated(expiration: Duration) -> Locality {
        Locality::new(expiration, SET_MAX)
    }

    fn new(expiration: Duration, set_max: usize) -> Locality {
        Locality {
            expiration,
            set_max,
            roster: Roster::default(),
            ranking: Ranking::new(By::ConnectionsForWeight),
            has_room: Vec::new(),
            with_room: 0,
            entries: Vec::with_capacity(ADDRESSES_MAX),
            sets: vec![0; ADDRESSES_MAX * set_max],
            refused: 0,
        }
    }

    /// Whether it is lblcr.
    pub(super) fn is_replicated(&self) -> bool {
        self.set_max > 1
    }

    /// How often there was no room in the table.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn candidates_changed(&mut self, candidates: &[Candidate], members: &[Member]) {
        self.ranking.candidates_changed(candidates);
        self.has_room.clear();
        self.has_room.extend(candidates.iter().map(has_room));
        self.with_room = self.has_room.iter().filter(|has_room| **has_room).count();
        let Some(moves) = self.roster.change(members) else { return };
        for (entry, set) in self.entries.iter_mut().zip(self.sets.chunks_exact_mut(self.set_max)) {
            let mut kept = 0;
            for at in 0..entry.len {
                if let Some(moved) = moves.of(set[at]) {
                    set[kept] = moved;
                    kept += 1;
                }
            }
            entry.len = kept;
        }
    }

    pub(super) fn candidate_changed(&mut self, position: usize, candidates: &[Candidate]) {
        self.ranking.candidate_changed(position, candidates);
        if let Some(before) = self.has_room.get_mut(position) {
            let now = has_room(&candidates[position]);
            self.with_room = self.with_room - usize::from(*before) + usize::from(now);
            *before = now;
        }
    }

    pub(super) fn pick(&mut self, candidates: &[Candidate], key: &PickKey) -> Option<usize> {
        let found = self.find(key);
        if let Some(at) = found {
            self.entries[at].used = key.now;
            let least = self.least_of(at, candidates);
            if self.entries[at].len > 1 && key.now.since(self.entries[at].changed) > self.expiration
            {
                self.remove_most(at, candidates, key.now);
            }
            if let Some(least) = least
                && !self.is_overloaded(&candidates[least])
            {
                return Some(least);
            }
        }
        let chosen = self.ranking.pick()?;
        if let Some(at) = found.or_else(|| self.enter(key)) {
            self.join(at, chosen, key.now);
        }
        Some(chosen)
    }

    fn find(&mut self, key: &PickKey) -> Option<usize> {
        let at = self.entries.iter().position(|entry| entry.address == key.vip)?;
        let entry = &mut self.entries[at];
        if key.now.since(entry.used) >= self.expiration {
            entry.len = 0;
        }
        Some(at)
    }

    /// An empty set for another address.
    fn enter(&mut self, key: &PickKey) -> Option<usize> {
        let entry = Entry { address: key.vip, used: key.now, changed: key.now, len: 0 };
        if self.entries.len() < ADDRESSES_MAX {
            self.entries.push(entry);
            return Some(self.entries.len() - 1);
        }
        let (at, oldest) = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used)?;
        if key.now.since(oldest.used) < IDLE {
            self.refused += 1;
            return None;
        }
        self.entries[at] = entry;
        Some(at)
    }

    fn join(&mut self, at: usize, chosen: usize, now: Instant) {
        let entry = &mut self.entries[at];
        let set = &mut self.sets[at * self.set_max..][..self.set_max];
        let chosen = chosen as u32;
        if set[..entry.len].contains(&chosen) {
            return;
        }
        if self.set_max == 1 {
            entry.len = 0;
        } else if entry.len == set.len() {
            self.refused += 1;
            return;
        }
        set[entry.len] = chosen;
        entry.len += 1;
        entry.changed = now;
    }

    /// The least loaded of a set that is eligible: of equals the one that joined last.
    fn least_of(&self, at: usize, candidates: &[Candidate]) -> Option<usize> {
        self.set(at).filter(|&position| candidates[position].is_eligible()).reduce(|best, other| {
            let is_better =
                By::ConnectionsForWeight.is_better(&candidates[other], &candidates[best]);
            if is_better { other } else { best }
        })
    }

    /// Takes the most loaded out of a set: of equals the one that joined last.
    fn remove_most(&mut self, at: usize, candidates: &[Candidate], now: Instant) {
        let weighted = self.set(at).filter(|&position| candidates[position].weight > 0);
        let most = weighted.reduce(|most, other| {
            let is_less = By::ConnectionsForWeight.is_better(&candidates[most], &candidates[other]);
            if is_less { other } else { most }
        });
        let entry = &mut self.entries[at];
        let set = &mut self.sets[at * self.set_max..][..entry.len];
        if let Some(most) = most
            && let Some(place) = set.iter().position(|&position| position as usize == most)
        {
            set[place..].rotate_left(1);
            entry.len -= 1;
            entry.changed = now;
        }
    }

    /// The positions of a set, the one that joined last first.
    fn set(&self, at: usize) -> impl Iterator<Item = usize> {
        let set = &self.sets[at * self.set_max..][..self.entries[at].len];
        set.iter().rev().map(|&position| position as usize)
    }

    fn is_overloaded(&self, candidate: &Candidate) -> bool {
        candidate.active > candidate.weight && self.with_room > 0
    }
}

fn has_room(candidate: &Candidate) -> bool {
    candidate.is_eligible() && u64::from(candidate.active) * 2 < u64::from(candidate.weight)
}
