//! When the director asks for its own VIPs, to find out who else would answer.
//!
//! Each VIP of a segment is asked for once in [`ROUND`], one at a time; when there is news on the
//! segment (a VIP or a real server came), all of them soon, at the pace of [`PACE`].

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::SegmentId;
use super::instant::Instant;

/// How long it takes to ask for every VIP, if there are not too many for [`PACE`].
const ROUND: Duration = Duration::from_secs(30);

/// From one question on a segment to the next, at least.
const PACE: Duration = Duration::from_millis(20);

/// From news to the first question: several come together, and a machine that comes up is not
/// ready with its first frame.
const NEWS_DELAY: Duration = Duration::from_millis(500);

/// Where the questions on a segment are.
#[derive(Clone, Copy, Debug)]
struct Round {
    next: Instant,
    /// The VIP asked for last.
    last: Option<IpAddr>,
    /// VIPs there are.
    vips: usize,
    /// Questions that are still to be asked in a hurry.
    hurried: usize,
}

/// The questions of all segments.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    rounds: BTreeMap<SegmentId, Round>,
    /// The same by time.
    agenda: BTreeSet<(Instant, SegmentId)>,
}

impl Inquiry {
    /// Sets on which segments so many VIPs are asked for. `news`: some of them came.
    pub fn set(&mut self, now: Instant, segments: &[SegmentId], vips: usize, news: bool) {
        let wanted: BTreeSet<SegmentId> = segments.iter().copied().collect();
        self.rounds.retain(|segment, _| wanted.contains(segment) && vips > 0);
        for &segment in segments.iter().filter(|_| vips > 0) {
            let first = Round { next: now + NEWS_DELAY, last: None, vips, hurried: vips };
            let round = self.rounds.entry(segment).or_insert(first);
            round.vips = vips;
            if news {
                round.hurry(now);
            }
        }
        self.agenda = self.rounds.iter().map(|(&segment, round)| (round.next, segment)).collect();
    }

    /// There is a reason to ask for everything on a segment.
    pub fn hurry(&mut self, now: Instant, segment: SegmentId) {
        if let Some(round) = self.rounds.get_mut(&segment) {
            self.agenda.remove(&(round.next, segment));
            round.hurry(now);
            self.agenda.insert((round.next, segment));
        }
    }

    /// When [`Self::poll`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.agenda.first().map(|&(at, _)| at)
    }

    /// A segment on which a VIP is to be asked for, and the VIP that it was the last time. To be
    /// followed by [`Self::asked`].
    pub fn poll(&mut self, now: Instant) -> Option<(SegmentId, Option<IpAddr>)> {
        let &(at, segment) = self.agenda.first()?;
        if at > now {
            return None;
        }
        self.agenda.pop_first();
        let round = self.rounds.get_mut(&segment)?;
        let each = ROUND / u32::try_from(round.vips.max(1)).unwrap_or(u32::MAX);
        round.hurried = round.hurried.saturating_sub(1);
        let pause = if round.hurried > 0 { PACE } else { each.max(PACE) };
        round.next = now + pause;
        self.agenda.insert((round.next, segment));
        Some((segment, round.last))
    }

    /// That is the VIP that was asked for.
    pub fn asked(&mut self, segment: SegmentId, vip: IpAddr) {
        if let Some(round) = self.rounds.get_mut(&segment) {
            round.last = Some(vip);
        }
    }
}

impl Round {
    fn hurry(&mut self, now: Instant) {
        if self.hurried == 0 {
            self.next = self.next.min(now + NEWS_DELAY);
        }
        self.hurried = self.vips;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SegmentId = SegmentId(0);

    /// The milliseconds at which there is a question until then.
    fn run(inquiry: &mut Inquiry, until_ms: u64) -> Vec<u64> {
        let until = Instant::ZERO + Duration::from_millis(until_ms);
        let mut seen = Vec::new();
        while let Some(at) = inquiry.next_deadline().filter(|&at| at <= until) {
            assert!(inquiry.poll(at).is_some());
            seen.push(at.since(Instant::ZERO).as_millis() as u64);
        }
        seen
    }

    #[test]
    fn all_vips_are_asked_for_soon_and_then_each_once_in_half_a_minute() {
        let mut inquiry = Inquiry::default();
        inquiry.set(Instant::ZERO, &[A], 3, true);
        assert_eq!(run(&mut inquiry, 25_000), [500, 520, 540, 10_540, 20_540]);
        inquiry.set(Instant::ZERO, &[A], 0, false);
        assert_eq!(inquiry.next_deadline(), None);
    }

    #[test]
    fn news_hurries_and_much_news_no_more_than_that() {
        let mut inquiry = Inquiry::default();
        inquiry.set(Instant::ZERO, &[A], 2, false);
        run(&mut inquiry, 1000);
        let now = Instant::ZERO + Duration::from_millis(2000);
        for _ in 0..100 {
            inquiry.hurry(now, A);
        }
        inquiry.hurry(now, SegmentId(7));
        assert_eq!(run(&mut inquiry, 17_530), [2500, 2520, 17_520]);
    }

    #[test]
    fn a_thousand_vips_do_not_make_a_flood() {
        let mut inquiry = Inquiry::default();
        inquiry.set(Instant::ZERO, &[A], 10_000, false);
        assert_eq!(run(&mut inquiry, 1500).len(), 51);
    }
}
