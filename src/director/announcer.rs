//! When VIPs are announced: a burst when one comes up, another a little later, and one
//! announcement a segment now and then so that no bridge forgets the director's MAC.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use super::SegmentId;
use super::instant::Instant;
use crate::config::snapshot::Announce;

/// Of IPv6, so many announcements in a row and no faster (RFC 4861, 7.2.6 and 10).
const ND_BURST_MAX: u8 = 3;
const ND_INTERVAL: Duration = Duration::from_secs(1);

/// An announcement to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// This VIP on this segment.
    Vip { vip: IpAddr, segment: SegmentId },
    /// Any one VIP on this segment: the `turn`-th, counted round.
    Refresh { segment: SegmentId, turn: usize },
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    Burst { vip: IpAddr, segment: SegmentId, left: u8 },
    Refresh { segment: SegmentId, turn: usize },
}

/// What is to be announced, by time.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    pending: BTreeMap<(Instant, u64), Pending>,
    /// Keeps what is due together in the order it was asked for.
    sequence: u64,
}

impl Announcer {
    /// A VIP came up on a segment: both bursts.
    pub fn vip_up(&mut self, now: Instant, vip: IpAddr, segment: SegmentId, announce: &Announce) {
        let max = if vip.is_ipv6() { ND_BURST_MAX } else { u8::MAX };
        if announce.count > 0 {
            self.put(now, Pending::Burst { vip, segment, left: announce.count.min(max) });
        }
        if announce.repeat > 0 {
            let at = now + announce.repeat_after;
            self.put(at, Pending::Burst { vip, segment, left: announce.repeat.min(max) });
        }
    }

    /// One announcement, now: a VIP is defended.
    pub fn once(&mut self, now: Instant, vip: IpAddr, segment: SegmentId) {
        self.put(now, Pending::Burst { vip, segment, left: 1 });
    }

    /// Sets which segments are refreshed, the first time one interval from now; those that were
    /// refreshed already go on in their rhythm.
    pub fn refresh(&mut self, now: Instant, segments: &[SegmentId], announce: &Announce) {
        let mut known = Vec::new();
        self.pending.retain(|_, pending| match pending {
            Pending::Refresh { segment, .. } => {
                let stays = segments.contains(segment) && !announce.refresh.is_zero();
                known.extend(stays.then_some(*segment));
                stays
            }
            Pending::Burst { .. } => true,
        });
        if announce.refresh.is_zero() {
            return;
        }
        for &segment in segments {
            if !known.contains(&segment) {
                self.put(now + announce.refresh, Pending::Refresh { segment, turn: 0 });
            }
        }
    }

    /// Drops the bursts of VIPs that are no longer to be announced.
    pub fn retain(&mut self, mut keep: impl FnMut(IpAddr, SegmentId) -> bool) {
        self.pending.retain(|_, pending| match pending {
            Pending::Burst { vip, segment, .. } => keep(*vip, *segment),
            Pending::Refresh { .. } => true,
        });
    }

    /// When [`Self::poll`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(&(deadline, _), _)| deadline)
    }

    /// The next announcement due, if any.
    pub fn poll(&mut self, now: Instant, announce: &Announce) -> Option<Due> {
        let mut entry = self.pending.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        match entry.get_mut() {
            Pending::Burst { vip, segment, left } => {
                let (vip, segment) = (*vip, *segment);
                *left -= 1;
                let left = *left;
                if left == 0 || vip.is_ipv6() {
                    entry.remove();
                }
                if left > 0 && vip.is_ipv6() {
                    self.put(now + ND_INTERVAL, Pending::Burst { vip, segment, left });
                }
                Some(Due::Vip { vip, segment })
            }
            &mut Pending::Refresh { segment, turn } => {
                entry.remove();
                let next = Pending::Refresh { segment, turn: turn.wrapping_add(1) };
                self.put(now + announce.refresh, next);
                Some(Due::Refresh { segment, turn })
            }
        }
    }

    fn put(&mut self, at: Instant, pending: Pending) {
        self.pending.insert((at, self.sequence), pending);
        self.sequence += 1;
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const A: SegmentId = SegmentId(0);
    const B: SegmentId = SegmentId(1);

    fn vip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn run(announcer: &mut Announcer, until: u64) -> Vec<(u64, Due)> {
        let mut seen = Vec::new();
        while let Some(at) = announcer.next_deadline()
            && at <= Instant::ZERO + Duration::from_secs(until)
        {
            while let Some(due) = announcer.poll(at, &Announce::default()) {
                seen.push((at.since(Instant::ZERO).as_secs(), due));
            }
        }
        seen
    }

    #[test]
    fn five_at_once_and_five_more_after_five_seconds() {
        let mut announcer = Announcer::default();
        announcer.vip_up(Instant::ZERO, vip(10), A, &Announce::default());
        let due = Due::Vip { vip: vip(10), segment: A };
        let mut expected = vec![(0, due); 5];
        expected.extend(vec![(5, due); 5]);
        assert_eq!(run(&mut announcer, 1000), expected);
        assert_eq!(announcer.next_deadline(), None);
    }

    #[test]
    fn of_ipv6_three_a_second_apart_and_three_more() {
        let mut announcer = Announcer::default();
        let vip = "2001:db8::10".parse().unwrap();
        announcer.vip_up(Instant::ZERO, vip, A, &Announce::default());
        let seconds: Vec<u64> = run(&mut announcer, 1000).into_iter().map(|(at, _)| at).collect();
        assert_eq!(seconds, [0, 1, 2, 5, 6, 7]);
        announcer.once(Instant::ZERO, vip, A);
        assert_eq!(run(&mut announcer, 1000), [(0, Due::Vip { vip, segment: A })]);
    }

    #[test]
    fn each_segment_is_refreshed_once_a_minute_by_turns() {
        let mut announcer = Announcer::default();
        announcer.refresh(Instant::ZERO, &[A, B], &Announce::default());
        let at = |segment, turn| Due::Refresh { segment, turn };
        assert_eq!(
            run(&mut announcer, 120),
            [(60, at(A, 0)), (60, at(B, 0)), (120, at(A, 1)), (120, at(B, 1))]
        );
        announcer.refresh(Instant::ZERO + Duration::from_secs(130), &[B], &Announce::default());
        assert_eq!(run(&mut announcer, 239), [(180, at(B, 2))], "B keeps its rhythm, A is gone");
        let never = Announce { refresh: Duration::ZERO, ..Announce::default() };
        announcer.refresh(Instant::ZERO, &[A, B], &never);
        assert_eq!(announcer.next_deadline(), None);
    }

    #[test]
    fn a_vip_that_went_is_not_announced_on() {
        let mut announcer = Announcer::default();
        announcer.vip_up(Instant::ZERO, vip(10), A, &Announce::default());
        announcer.vip_up(Instant::ZERO, vip(20), A, &Announce::default());
        announcer.retain(|address, _| address == vip(20));
        assert!(
            run(&mut announcer, 10)
                .iter()
                .all(|&(_, due)| due == Due::Vip { vip: vip(20), segment: A })
        );
    }
}
