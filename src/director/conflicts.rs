//! Who else claims a VIP, since when and how often; and when a claim is answered.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use super::SegmentId;
use super::instant::Instant;
use crate::wire::MacAddr;

/// Claimants remembered; the one longest silent gives way.
pub(super) const CLAIMANTS_MAX: usize = 64;

/// At most one defence of a VIP on a segment in this time (RFC 5227, 2.4, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// A person is told of a claimant that goes on at most this often.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Someone else who claims a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    pub vip: IpAddr,
    pub segment: SegmentId,
    pub mac: MacAddr,
    /// If it is a real server's MAC.
    pub real_server: Option<Arc<str>>,
    pub first: Instant,
    pub last: Instant,
    pub count: u64,
    told: Instant,
}

/// What a claim calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reaction {
    /// Announce the VIP again.
    pub defend: bool,
    /// Say so in the log.
    pub tell: bool,
}

/// All claimants, and when each VIP was last defended.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    claimants: Vec<Claimant>,
    defended: Vec<(IpAddr, SegmentId, Instant)>,
}

impl Conflicts {
    /// Notes a claim.
    pub fn claim(
        &mut self,
        now: Instant,
        vip: IpAddr,
        segment: SegmentId,
        mac: MacAddr,
        real_server: Option<&Arc<str>>,
    ) -> Reaction {
        let tell = self.note(now, vip, segment, mac, real_server);
        self.defended.retain(|&(_, _, at)| now.since(at) < DEFEND_INTERVAL);
        let defend = !self.defended.iter().any(|&(v, s, _)| (v, s) == (vip, segment));
        // The list is as long as there are VIPs under claim in ten seconds, which are configured.
        if defend {
            self.defended.push((vip, segment, now));
        }
        Reaction { defend, tell }
    }

    /// Everyone known, in the order they were first heard.
    pub fn iter(&self) -> impl Iterator<Item = &Claimant> {
        self.claimants.iter()
    }

    fn note(
        &mut self,
        now: Instant,
        vip: IpAddr,
        segment: SegmentId,
        mac: MacAddr,
        real_server: Option<&Arc<str>>,
    ) -> bool {
        let known = self
            .claimants
            .iter_mut()
            .find(|known| (known.vip, known.segment, known.mac) == (vip, segment, mac));
        if let Some(known) = known {
            known.last = now;
            known.count += 1;
            known.real_server = real_server.cloned();
            let tell = now.since(known.told) >= TELL_INTERVAL;
            if tell {
                known.told = now;
            }
            return tell;
        }
        if self.claimants.len() >= CLAIMANTS_MAX
            && let Some((oldest, _)) =
                self.claimants.iter().enumerate().min_by_key(|(_, known)| known.last)
        {
            self.claimants.remove(oldest);
        }
        self.claimants.push(Claimant {
            vip,
            segment,
            mac,
            real_server: real_server.cloned(),
            first: now,
            last: now,
            count: 1,
            told: now,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId(0);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_claim_is_told_at_once_then_each_minute_and_answered_each_ten_seconds() {
        let mut conflicts = Conflicts::default();
        let vip = IpAddr::from([192, 0, 2, 10]);
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let reactions: Vec<(bool, bool)> = [0, 1, 10, 19, 20, 60]
            .into_iter()
            .map(|seconds| conflicts.claim(at(seconds), vip, SEGMENT, mac, None))
            .map(|reaction| (reaction.defend, reaction.tell))
            .collect();
        assert_eq!(
            reactions,
            [
                (true, true),
                (false, false),
                (true, false),
                (false, false),
                (true, false),
                (true, true)
            ]
        );
        let known: Vec<_> = conflicts.iter().collect();
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].first, known[0].last, known[0].count), (at(0), at(60), 6));
    }

    #[test]
    fn a_claimant_that_turns_out_to_be_a_real_server_is_named_from_then_on() {
        let mut conflicts = Conflicts::default();
        let (vip, mac) = (IpAddr::from([192, 0, 2, 10]), MacAddr([2, 0, 0, 0, 0, 9]));
        for real_server in [None, Some("rs1".into()), None] {
            conflicts.claim(at(1), vip, SEGMENT, mac, real_server.as_ref());
            assert_eq!(conflicts.iter().next().map(|known| &known.real_server), Some(&real_server));
        }
    }

    #[test]
    fn the_list_of_claimants_is_bounded() {
        let mut conflicts = Conflicts::default();
        let vip = IpAddr::from([192, 0, 2, 10]);
        for i in 0..=CLAIMANTS_MAX as u8 {
            conflicts.claim(at(u64::from(i)), vip, SEGMENT, MacAddr([2, 0, 0, 0, 0, i]), None);
        }
        assert_eq!(conflicts.iter().count(), CLAIMANTS_MAX);
        assert!(conflicts.iter().all(|known| known.mac != MacAddr([2, 0, 0, 0, 0, 0])));
    }
}
