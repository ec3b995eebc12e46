//! mh: consistent hashing as in Maglev (Eisenbud et al., NSDI 2016, section 3.4) and in IPVS.
//!
//! A table of a prime number of slots. Candidates take free slots in turns, each in an order of
//! its own that its address gives, as many at a turn as its weight says. A client's address
//! gives its slot. When a candidate goes, its slots are dealt to the others, and few others
//! change hands. A quiesced candidate keeps its slots, and refuses; with `fallback`, further
//! slots are tried then.
//!
//! A pick is O(1). A table is built in portions while the last one is in use: the largest takes
//! some milliseconds.

use core::mem;
use core::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::hashing::folded;
use super::members::{Member, Roster};
use super::wrr::greatest_common_divisor;
use super::{Candidate, PickKey};
use crate::config::snapshot::SchedulerOptions;

const NOBODY: u32 = u32::MAX;

/// Slots that the fallback tries at most, as many as the default table has. After that a search
/// through the list is cheaper.
const FALLBACK_MAX: u32 = 4093;

/// The table and how it is dealt.
#[derive(Clone, Debug)]
pub struct Maglev {
    with_port: bool,
    fallback: bool,
    size: u32,
    /// The port that the real servers' addresses are hashed with.
    service_port: u16,
    roster: Roster,
    /// Whose each slot is: a seat.
    slots: Vec<u32>,
    /// Where in the list is who has the seat.
    seats: Vec<u32>,
    /// What the newest table was, or is being, dealt by.
    dealt_by: Vec<(IpAddr, u32)>,
    /// The next table.
    building: Option<Building>,
}

/// A table that is not finished.
#[derive(Clone, Debug)]
struct Building {
    slots: Vec<u32>,
    taken: u32,
    /// In the order of the list.
    players: Vec<Player>,
    /// Where in the list is who has the seat.
    seats: Vec<u32>,
    /// Whose turn it is, and how many slots that player has taken in it.
    turn: usize,
    taken_in_turn: u32,
}

#[derive(Clone, Debug)]
struct Player {
    /// The slot it wants next.
    wants: u32,
    /// The distance to the one after that.
    skip: u32,
    /// Slots it takes at a turn.
    turns: u32,
}

impl Maglev {
    pub(super) fn new(options: &SchedulerOptions, service_port: u16) -> Maglev {
        Maglev {
            with_port: options.port,
            fallback: options.fallback,
            size: options.table_size,
            service_port,
            roster: Roster::default(),
            slots: Vec::new(),
            seats: Vec::new(),
            dealt_by: Vec::new(),
            building: None,
        }
    }

    /// Begins a table for these candidates, unless the one in use or in building is for them.
    pub(super) fn candidates_changed(&mut self, members: &[Member]) {
        if let Some(moves) = self.roster.change(members) {
            let building = self.building.as_mut().map(|building| &mut building.seats);
            for seats in [&mut self.seats].into_iter().chain(building) {
                for seat in seats {
                    *seat = moves.of(*seat).unwrap_or(NOBODY);
                }
            }
        }
        let by = |member: &Member| (member.address, member.last_weight);
        if self.dealt_by.iter().copied().eq(members.iter().map(by)) {
            // The same seats in the same order, though others may sit in them.
            let newest = self.building.as_mut().map_or(&mut self.seats, |next| &mut next.seats);
            newest.clear();
            newest.extend(0..members.len() as u32);
        } else {
            self.dealt_by = members.iter().map(by).collect();
            self.building = Some(self.begin());
        }
    }

    /// Whether there is more to build.
    pub(super) fn is_building(&self) -> bool {
        self.building.is_some()
    }

    /// Builds on, for about as many steps of a few nanoseconds as `budget` says, and takes them
    /// off it. The new table comes into use when it is finished.
    pub(super) fn build(&mut self, budget: &mut usize) {
        let Some(building) = &mut self.building else { return };
        if building.go_on(self.size, budget) {
            self.slots = mem::take(&mut building.slots);
            self.seats = mem::take(&mut building.seats);
            self.building = None;
        }
    }

    pub(super) fn pick(&self, candidates: &[Candidate], key: &PickKey) -> Option<usize> {
        let port = if self.with_port { key.client_port } else { 0 };
        let hashed = folded(key.client).wrapping_add(port.into());
        let first = hash(hashed, OFFSET_KEY) % self.size;
        let eligible = |&at: &usize| candidates.get(at).is_some_and(Candidate::is_eligible);
        if self.slots.is_empty() {
            // The first table is not finished, and the service waits for nothing.
            let start = first as usize % candidates.len().max(1);
            return (start..candidates.len()).chain(0..start).find(eligible);
        }
        let own = self.at(first).filter(eligible);
        if own.is_some() || !self.fallback {
            return own;
        }
        // If there is nobody, nobody is found by trying slots either.
        let anybody = candidates.iter().position(Candidate::is_eligible)?;
        let tried = (0..self.size.min(FALLBACK_MAX)).find_map(|step| {
            let offset = (step + first) % self.size;
            let slot = hash(hashed.wrapping_add(offset), OFFSET_KEY) % self.size;
            self.at(slot).filter(eligible)
        });
        tried.or(Some(anybody))
    }

    /// Where in the list is whose slot this is.
    fn at(&self, slot: u32) -> Option<usize> {
        let seat = *self.slots.get(slot as usize)?;
        let position = *self.seats.get(seat as usize)?;
        (position != NOBODY).then_some(position as usize)
    }

    fn begin(&self) -> Building {
        let weights = || self.dealt_by.iter().map(|(_, weight)| *weight);
        let divisor = weights().fold(0, greatest_common_divisor).max(1);
        let greatest = weights().max().unwrap_or(0) / divisor;
        let shift = bits(greatest).saturating_sub(turn_bits(self.size));
        let players = self.dealt_by.iter().map(|&(address, weight)| {
            let hashed = folded(address).wrapping_add(self.service_port.into());
            Player {
                wants: hash(hashed, OFFSET_KEY) % self.size,
                skip: hash(hashed, SKIP_KEY) % (self.size - 1) + 1,
                turns: ((weight / divisor) >> shift).max(u32::from(weight != 0)),
            }
        });
        Building {
            slots: if greatest == 0 { Vec::new() } else { vec![NOBODY; self.size as usize] },
            taken: if greatest == 0 { self.size } else { 0 },
            players: players.collect(),
            seats: (0..self.dealt_by.len() as u32).collect(),
            turn: 0,
            taken_in_turn: 0,
        }
    }
}

impl Building {
    /// Whether that finishes it.
    fn go_on(&mut self, size: u32, budget: &mut usize) -> bool {
        while self.taken < size {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let seat = self.turn;
            let player = &mut self.players[seat];
            if player.turns > 0 {
                let slot = &mut self.slots[player.wants as usize];
                if *slot != NOBODY {
                    player.wants = (player.wants + player.skip) % size;
                    continue;
                }
                *slot = seat as u32;
                self.taken += 1;
                self.taken_in_turn += 1;
                if self.taken_in_turn < player.turns {
                    continue;
                }
            }
            self.taken_in_turn = 0;
            self.turn = (seat + 1) % self.players.len();
        }
        true
    }
}

/// The kernel's `fls`.
const fn bits(number: u32) -> u32 {
    u32::BITS - number.leading_zeros()
}

/// IPVS's `IP_VS_MH_TAB_BITS`: half of the number of bits that its Kconfig calls a table's index.
const fn turn_bits(size: u32) -> u32 {
    bits(size) / 2
}

const OFFSET_KEY: u64 = 2_654_435_761;
const SKIP_KEY: u64 = 2_654_446_892;

/// The kernel's `hsiphash` of 32 bits, on machines of 64 bits, with a key of two equal halves.
fn hash(value: u32, key: u64) -> u32 {
    SipHasher13::new_with_keys(key, key).hash(&value.to_le_bytes()) as u32
}
