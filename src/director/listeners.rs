//! Which multicast groups of IPv6 the director listens to on each segment, and when it says so:
//! twice when that changes, and whenever it is asked. Behind a bridge that passes a group's frames
//! on to its listeners only, no solicitation for a VIP arrives without (RFC 3810).
//!
//! What there is to say is bounded by what is configured, and how often by [`ANSWER_INTERVAL`],
//! however often one asks.

use core::hash::BuildHasher;
use core::net::Ipv6Addr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::SegmentId;
use super::instant::Instant;
use super::keyed::HashKey;
use crate::wire::mld::{Listening, Query, REPORT_GROUPS_MAX, Version};

/// How often a change is told, and how far apart (RFC 3810, 9.1 and 9.11).
const CHANGE_REPORTS: u8 = 2;
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two answers on a segment, at least.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);

/// A querier's longest wait that is taken at its word.
const DELAY_MAX: Duration = Duration::from_secs(30);

/// How long after a query of version 1 that version is spoken (RFC 3810, 9.12, with the defaults).
const V1_TIMEOUT: Duration = Duration::from_secs(260);

/// A report to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub segment: SegmentId,
    pub version: Version,
    pub what: Listening,
    /// No more than one in version 1.
    pub groups: Vec<Ipv6Addr>,
}

/// What is listened to, by segment.
#[derive(Debug)]
pub(super) struct Listeners {
    segments: BTreeMap<SegmentId, Listener>,
    key: HashKey,
    /// Makes each answer's delay another.
    turn: u64,
}

#[derive(Debug, Default)]
struct Listener {
    groups: BTreeSet<Ipv6Addr>,
    /// Groups whose coming or going is to be told so many times more.
    changes: BTreeMap<Ipv6Addr, (Listening, u8)>,
    change_at: Option<Instant>,
    answer: Option<Answer>,
    answered: Option<Instant>,
    v1_until: Option<Instant>,
    /// Reports that are due.
    outbox: VecDeque<(Listening, Vec<Ipv6Addr>)>,
}

#[derive(Debug)]
struct Answer {
    at: Instant,
    /// About these; `None` about all.
    groups: Option<BTreeSet<Ipv6Addr>>,
}

impl Listeners {
    pub fn new(key: HashKey) -> Listeners {
        Listeners { segments: BTreeMap::new(), key, turn: 0 }
    }

    /// Sets the groups that are listened to on a segment. On one that is gone none is, and no one
    /// is left to be told.
    pub fn set(&mut self, now: Instant, segment: SegmentId, groups: BTreeSet<Ipv6Addr>) {
        let listener = self.segments.entry(segment).or_default();
        let came = groups.difference(&listener.groups).map(|&group| (group, Listening::Now));
        let went = listener.groups.difference(&groups).map(|&group| (group, Listening::NoLonger));
        let changed: Vec<_> = came.chain(went).collect();
        for (group, what) in changed {
            listener.changes.insert(group, (what, CHANGE_REPORTS));
            listener.change_at = Some(now);
        }
        listener.groups = groups;
    }

    /// Forgets segments that are not among these.
    pub fn retain(&mut self, mut keep: impl FnMut(SegmentId) -> bool) {
        self.segments.retain(|&segment, _| keep(segment));
    }

    /// Someone asks who listens.
    pub fn hear(&mut self, now: Instant, segment: SegmentId, query: &Query) {
        let Some(listener) = self.segments.get_mut(&segment) else { return };
        if query.version == Version::V1 {
            listener.v1_until = Some(now + V1_TIMEOUT);
        }
        if query.group.is_some_and(|group| !listener.groups.contains(&group)) {
            return;
        }
        self.turn = self.turn.wrapping_add(1);
        let within = query.max_delay.min(DELAY_MAX).as_nanos() as u64;
        let delay = self.key.hash_one(self.turn) % within.max(1);
        let earliest = listener.answered.map_or(now, |answered| answered + ANSWER_INTERVAL);
        let at = earliest.max(now + Duration::from_nanos(delay));
        let answer = listener.answer.get_or_insert(Answer { at, groups: Some(BTreeSet::new()) });
        answer.at = answer.at.min(at);
        match (&mut answer.groups, query.group) {
            (Some(groups), Some(group)) => {
                groups.insert(group);
            }
            (groups, None) => *groups = None,
            (None, Some(_)) => {}
        }
    }

    /// When [`Self::poll`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.segments.values().filter_map(Listener::deadline).min()
    }

    /// The next report due, if any.
    pub fn poll(&mut self, now: Instant) -> Option<Report> {
        for (&segment, listener) in &mut self.segments {
            if listener.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            let is_v1 = listener.v1_until.is_some_and(|until| now < until);
            let version = if is_v1 { Version::V1 } else { Version::V2 };
            if listener.outbox.is_empty() {
                listener.fill(now, version);
            }
            if let Some((what, groups)) = listener.outbox.pop_front() {
                return Some(Report { segment, version, what, groups });
            }
        }
        None
    }
}

impl Listener {
    fn deadline(&self) -> Option<Instant> {
        if !self.outbox.is_empty() {
            return Some(Instant::ZERO);
        }
        [self.change_at, self.answer.as_ref().map(|answer| answer.at)].into_iter().flatten().min()
    }

    /// Writes the reports that are due.
    fn fill(&mut self, now: Instant, version: Version) {
        if self.change_at.is_some_and(|at| at <= now) {
            for what in [Listening::Now, Listening::NoLonger] {
                let told = self.changes.iter().filter(|(_, change)| change.0 == what);
                self.outbox.extend(portions(version, what, told.map(|(&group, _)| group)));
            }
            self.changes.retain(|_, (_, left)| {
                *left -= 1;
                *left > 0
            });
            self.change_at = (!self.changes.is_empty()).then_some(now + CHANGE_INTERVAL);
        }
        if let Some(answer) = self.answer.take_if(|answer| answer.at <= now) {
            self.answered = Some(now);
            let groups = answer.groups.as_ref().unwrap_or(&self.groups);
            // Those asked about may have gone meanwhile.
            let still = groups.iter().copied().filter(|group| self.groups.contains(group));
            self.outbox.extend(portions(version, Listening::Still, still));
        }
    }
}

/// Groups in reports as large as may be.
fn portions(
    version: Version,
    what: Listening,
    groups: impl Iterator<Item = Ipv6Addr>,
) -> Vec<(Listening, Vec<Ipv6Addr>)> {
    let size = if version == Version::V1 { 1 } else { REPORT_GROUPS_MAX };
    let groups: Vec<Ipv6Addr> = groups.collect();
    groups.chunks(size).map(|portion| (what, portion.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SegmentId = SegmentId(0);

    fn group(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, last)
    }

    fn groups(last: impl IntoIterator<Item = u16>) -> BTreeSet<Ipv6Addr> {
        last.into_iter().map(group).collect()
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn general(version: Version, millis: u64) -> Query {
        Query { version, group: None, max_delay: Duration::from_millis(millis) }
    }

    /// Everything said up to a time: when, in which version, what, and of how many groups.
    fn run(listeners: &mut Listeners, until: u64) -> Vec<(u64, Version, Listening, usize)> {
        let mut said = Vec::new();
        let mut now = Instant::ZERO;
        while let Some(due) = listeners.next_deadline()
            && due <= at(until)
        {
            now = now.max(due);
            while let Some(report) = listeners.poll(now) {
                let millis = now.since(Instant::ZERO).as_millis() as u64;
                said.push((millis, report.version, report.what, report.groups.len()));
            }
        }
        said
    }

    #[test]
    fn what_comes_and_what_goes_is_told_twice() {
        let mut listeners = Listeners::new(HashKey(1, 2));
        listeners.set(at(0), A, groups([1, 2]));
        let now = |millis, count| (millis, Version::V2, Listening::Now, count);
        assert_eq!(run(&mut listeners, 500), [now(0, 2)]);
        listeners.set(at(500), A, groups([2, 3]));
        let gone = |millis| (millis, Version::V2, Listening::NoLonger, 1);
        assert_eq!(
            run(&mut listeners, 9000),
            [now(500, 2), gone(500), now(1500, 1), gone(1500)],
            "the second telling of 2 goes with the first of 3"
        );
        listeners.set(at(9000), A, groups([2, 3]));
        assert_eq!(listeners.next_deadline(), None, "nothing changed");
    }

    #[test]
    fn a_query_is_answered_within_the_time_it_gives_and_no_more_than_once_a_second() {
        let mut listeners = Listeners::new(HashKey(1, 2));
        listeners.set(at(0), A, groups([1, 2]));
        run(&mut listeners, 5000);
        for _ in 0..1000 {
            listeners.hear(at(5000), A, &general(Version::V2, 1000));
        }
        let said = run(&mut listeners, 60_000);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!((5000..6000).contains(&said[0].0) && said[0].2 == Listening::Still, "{said:?}");
        let answered = said[0].0;
        listeners.hear(at(answered), A, &general(Version::V2, 0));
        assert_eq!(
            run(&mut listeners, 60_000),
            [(answered + 1000, Version::V2, Listening::Still, 2)]
        );
    }

    #[test]
    fn a_query_about_one_group_is_answered_if_it_is_listened_to() {
        let mut listeners = Listeners::new(HashKey(1, 2));
        listeners.set(at(0), A, groups([1, 2]));
        run(&mut listeners, 5000);
        let about = |last| Query { group: Some(group(last)), ..general(Version::V2, 1) };
        listeners.hear(at(5000), A, &about(3));
        assert_eq!(listeners.next_deadline(), None);
        listeners.hear(at(5000), SegmentId(7), &about(1));
        assert_eq!(listeners.next_deadline(), None);
        listeners.hear(at(5000), A, &about(1));
        let one = run(&mut listeners, 9000);
        assert_eq!(
            one.iter().map(|said| (said.2, said.3)).collect::<Vec<_>>(),
            [(Listening::Still, 1)]
        );
        listeners.hear(at(9000), A, &about(1));
        listeners.hear(at(9000), A, &general(Version::V2, 1));
        listeners.hear(at(9000), A, &about(2));
        assert_eq!(run(&mut listeners, 19_000).len(), 1, "all of it in one");
    }

    #[test]
    fn an_old_querier_is_answered_in_its_version_for_as_long_as_it_is_there() {
        let mut listeners = Listeners::new(HashKey(1, 2));
        listeners.set(at(0), A, groups([1, 2]));
        run(&mut listeners, 5000);
        listeners.hear(at(5000), A, &general(Version::V1, 1));
        let said = run(&mut listeners, 6000);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().all(|said| (said.1, said.3) == (Version::V1, 1)), "{said:?}");
        let after = 5000 + 260_000;
        listeners.hear(at(after), A, &general(Version::V2, 1));
        assert!(run(&mut listeners, after + 1000).iter().all(|said| said.1 == Version::V2));
    }

    #[test]
    fn many_groups_take_several_reports_and_a_segment_that_is_gone_none() {
        let mut listeners = Listeners::new(HashKey(1, 2));
        listeners.set(at(0), A, groups(0..100));
        let sizes: Vec<usize> = run(&mut listeners, 0).iter().map(|said| said.3).collect();
        assert_eq!(sizes, [REPORT_GROUPS_MAX, 100 - REPORT_GROUPS_MAX]);
        listeners.retain(|_| false);
        assert_eq!(listeners.next_deadline(), None);
    }
}
