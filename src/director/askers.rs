//! Stations that asked for a VIP: who may have been misled by another claimant, and when each is
//! told again who has it.
//!
//! Kept per VIP and segment from the first question on, because whoever asked may have believed
//! somebody else. Bounded: the station that asked longest ago gives way, unless it is being told.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::SegmentId;
use super::instant::Instant;
use super::keyed::{HashKey, KeyedMap};
use crate::wire::MacAddr;

/// Stations remembered, each once for every VIP that it asked for.
pub(super) const ASKERS_MAX: usize = 4096;

/// When a station is told, counted from its question. The first time is soon after the answers:
/// a kernel's overtakes the director's, and comes within a millisecond. The last is later than the
/// second in which Linux keeps to what it believed first, were it not gratuitous.
const SCHEDULE: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(200),
    Duration::from_millis(800),
];

/// While somebody else claims the VIP, a station is reminded this often: a claimant that looks for his
/// client in the VIP's name does so by unicast, of which the director sees nothing.
const REMIND_INTERVAL: Duration = Duration::from_millis(900);

/// And for so long after its last question.
const REMIND_FOR: Duration = Duration::from_secs(300);

/// So long after its question it is open whom a station believes: a claimant's answer may come after
/// the director's, and be mended only with the next step of [`SCHEDULE`].
const CONTESTED_FOR: Duration = Duration::from_millis(50);

/// All stations of a VIP are told anew at most this often; the schedule of one time covers what
/// comes in between.
const ALL_INTERVAL: Duration = Duration::from_millis(100);

/// A station and what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Asker {
    pub segment: SegmentId,
    pub vip: IpAddr,
    pub mac: MacAddr,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    asked: Instant,
    /// The address it asked from, to which it is told.
    address: IpAddr,
    repair: Option<Repair>,
}

/// Where its schedule is.
#[derive(Clone, Copy, Debug)]
struct Repair {
    begun: Instant,
    /// The step of the schedule that comes next; beyond its end it is reminded.
    step: usize,
    due: Instant,
}

impl Repair {
    fn begin(now: Instant) -> Repair {
        Repair { begun: now, step: 0, due: now + SCHEDULE[0] }
    }

    /// What follows this step.
    fn next(self, now: Instant) -> Repair {
        let step = self.step + 1;
        let due = match SCHEDULE.get(step) {
            Some(&after) => self.begun + after,
            // From now on, not from when it was due: after a gap in time, once.
            None => now + REMIND_INTERVAL,
        };
        Repair { step: step.min(SCHEDULE.len()), due, ..self }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Askers {
    entries: KeyedMap<Asker, Entry>,
    by_age: BTreeSet<(Instant, Asker)>,
    agenda: BTreeSet<(Instant, Asker)>,
    /// When all stations of a VIP were last to be told.
    all_told: BTreeMap<(SegmentId, IpAddr), Instant>,
    /// Stations that were not taken in, or gave way.
    refused: u64,
}

impl Askers {
    pub fn new(key: HashKey) -> Askers {
        Askers {
            entries: key.map(),
            by_age: BTreeSet::new(),
            agenda: BTreeSet::new(),
            all_told: BTreeMap::new(),
            refused: 0,
        }
    }

    /// A station asked. If somebody else claims the VIP it is told who has it, beginning now.
    pub fn note(&mut self, now: Instant, asker: Asker, address: IpAddr, repair: bool) {
        let known = self.entries.get(&asker).map(|known| known.asked);
        if let Some(asked) = known {
            self.by_age.remove(&(asked, asker));
        } else if self.entries.len() >= ASKERS_MAX && !self.make_room() {
            return;
        }
        self.by_age.insert((now, asker));
        let entry =
            self.entries.entry(asker).or_insert(Entry { asked: now, address, repair: None });
        entry.asked = now;
        entry.address = address;
        if repair {
            self.begin(now, asker);
        }
    }

    /// Whether a station asked for a VIP.
    pub fn contains(&self, asker: &Asker) -> bool {
        self.entries.contains_key(asker)
    }

    /// Whether a station asked for a VIP only just now.
    pub fn has_just_asked(&self, now: Instant, asker: &Asker) -> bool {
        self.entries.get(asker).is_some_and(|entry| now.since(entry.asked) < CONTESTED_FOR)
    }

    /// All stations that asked for a VIP are told who has it.
    pub fn repair_all(&mut self, now: Instant, segment: SegmentId, vip: IpAddr) {
        let told = self.all_told.get(&(segment, vip));
        if self.entries.is_empty() || told.is_some_and(|&told| now.since(told) < ALL_INTERVAL) {
            return;
        }
        self.all_told.insert((segment, vip), now);
        let askers =
            self.entries.keys().filter(|asker| (asker.segment, asker.vip) == (segment, vip));
        let mut askers: Vec<Asker> = askers.copied().collect();
        // Their order must not depend on the hash's.
        askers.sort_unstable();
        for asker in askers {
            self.begin(now, asker);
        }
    }

    /// Forgets those who asked for what is no longer announced, or no longer repaired.
    pub fn retain(&mut self, mut keep: impl FnMut(IpAddr, SegmentId) -> bool) {
        self.entries.retain(|asker, _| keep(asker.vip, asker.segment));
        self.by_age.retain(|(_, asker)| keep(asker.vip, asker.segment));
        self.agenda.retain(|(_, asker)| keep(asker.vip, asker.segment));
        self.all_told.retain(|&(segment, vip), _| keep(vip, segment));
    }

    /// When [`Self::poll`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.agenda.first().map(|&(at, _)| at)
    }

    /// The next station to be told, if any, and the address it asked from. `is_claimed` says whether
    /// somebody else still claims the VIP.
    pub fn poll(
        &mut self,
        now: Instant,
        is_claimed: impl Fn(&Asker) -> bool,
    ) -> Option<(Asker, IpAddr)> {
        loop {
            let &(at, asker) = self.agenda.first()?;
            if at > now {
                return None;
            }
            self.agenda.pop_first();
            let entry = self.entries.get_mut(&asker)?;
            let Some(repair) = entry.repair else { continue };
            let is_reminder = repair.step == SCHEDULE.len();
            let reminds = is_claimed(&asker) && now.since(entry.asked) < REMIND_FOR;
            let next = repair.next(now);
            if next.step < SCHEDULE.len() || reminds {
                entry.repair = Some(next);
                self.agenda.insert((next.due, asker));
            } else {
                entry.repair = None;
            }
            if !is_reminder || reminds {
                return Some((asker, entry.address));
            }
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn begin(&mut self, now: Instant, asker: Asker) {
        let Some(entry) = self.entries.get_mut(&asker) else { return };
        let repair = Repair::begin(now);
        if let Some(before) = entry.repair.replace(repair) {
            self.agenda.remove(&(before.due, asker));
        }
        self.agenda.insert((repair.due, asker));
    }

    /// Lets the station go that asked longest ago; `false` if it is being told.
    fn make_room(&mut self) -> bool {
        self.refused += 1;
        let Some(&(asked, oldest)) = self.by_age.first() else { return false };
        if self.entries.get(&oldest).is_some_and(|entry| entry.repair.is_some()) {
            return false;
        }
        self.by_age.remove(&(asked, oldest));
        self.entries.remove(&oldest);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 100));

    fn asker(number: usize) -> Asker {
        let [.., a, b] = number.to_be_bytes();
        let vip = IpAddr::from([192, 0, 2, 10]);
        Asker { segment: SegmentId(0), vip, mac: MacAddr([2, 0, 0, 0, a, b]) }
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// The milliseconds at which somebody is told until then.
    fn run(askers: &mut Askers, until: u64) -> Vec<u64> {
        run_while(askers, until, false)
    }

    fn run_while(askers: &mut Askers, until: u64, claimed: bool) -> Vec<u64> {
        let mut seen = Vec::new();
        while let Some(due) = askers.next_deadline().filter(|&due| due <= at(until)) {
            while askers.poll(due, |_| claimed).is_some() {
                seen.push(due.since(Instant::ZERO).as_millis() as u64);
            }
        }
        seen
    }

    #[test]
    fn a_station_is_told_five_times_within_a_second_and_from_the_start_if_it_asks_again() {
        let mut askers = Askers::new(HashKey(1, 2));
        askers.note(at(0), asker(1), FROM, true);
        assert_eq!(run(&mut askers, 100), [2, 10, 40]);
        askers.note(at(100), asker(1), FROM, true);
        assert_eq!(run(&mut askers, 5000), [102, 110, 140, 300, 900]);
        assert_eq!(askers.next_deadline(), None);
    }

    #[test]
    fn while_the_claim_lasts_a_station_is_reminded_for_five_minutes() {
        let mut askers = Askers::new(HashKey(1, 2));
        askers.note(at(0), asker(1), FROM, true);
        assert_eq!(run_while(&mut askers, 3000, true), [2, 10, 40, 200, 800, 1700, 2600]);
        assert_eq!(run(&mut askers, 9000), [] as [u64; 0], "it is over");
        assert_eq!(askers.next_deadline(), None);
        askers.note(at(10_000), asker(1), FROM, true);
        assert_eq!(run_while(&mut askers, 1_000_000, true).last(), Some(&309_600));
        assert_eq!(askers.next_deadline(), None);
    }

    #[test]
    fn nobody_is_told_while_nobody_else_claims_the_vip_but_then_all_are() {
        let mut askers = Askers::new(HashKey(1, 2));
        askers.note(at(0), asker(1), FROM, false);
        askers.note(at(0), asker(2), FROM, false);
        assert_eq!(askers.next_deadline(), None);
        let Asker { segment, vip, .. } = asker(1);
        askers.repair_all(at(10), segment, IpAddr::from([192, 0, 2, 11]));
        assert_eq!(askers.next_deadline(), None, "another VIP");
        askers.repair_all(at(10), segment, vip);
        askers.repair_all(at(60), segment, vip);
        assert_eq!(run(&mut askers, 109), [12, 12, 20, 20, 50, 50]);
        askers.repair_all(at(110), segment, vip);
        assert_eq!(run(&mut askers, 112), [112, 112]);
    }

    #[test]
    fn the_table_is_bounded_and_counts_whom_it_let_go() {
        let mut askers = Askers::new(HashKey(1, 2));
        for number in 0..ASKERS_MAX {
            askers.note(at(number as u64), asker(number), FROM, false);
        }
        askers.note(at(5000), asker(0), FROM, false);
        askers.note(at(5001), asker(ASKERS_MAX), FROM, false);
        assert_eq!((askers.len(), askers.refused()), (ASKERS_MAX, 1));
        assert!(askers.contains(&asker(0)), "it asked again");
        assert!(!askers.contains(&asker(1)));

        askers.note(at(5002), asker(2), FROM, true);
        for number in 0..ASKERS_MAX {
            askers.note(at(5003), asker(number), FROM, true);
        }
        let refused = askers.refused();
        askers.note(at(5004), asker(ASKERS_MAX + 1), FROM, true);
        assert_eq!((askers.len(), askers.refused()), (ASKERS_MAX, refused + 1));
        assert!(!askers.contains(&asker(ASKERS_MAX + 1)), "all of them are being told");
    }

    #[test]
    fn stations_of_what_is_no_longer_announced_are_forgotten() {
        let mut askers = Askers::new(HashKey(1, 2));
        askers.note(at(0), asker(1), FROM, true);
        askers.retain(|_, _| false);
        assert_eq!((askers.len(), askers.next_deadline()), (0, None));
    }
}
