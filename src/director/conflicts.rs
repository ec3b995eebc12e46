//! Who else claims a VIP, since when and how often; when a claim is answered, and when it is over.
//!
//! A claim is over when it was not made again for [`CLAIM_TIMEOUT`], in which the claimant was
//! asked several times. For a while after that it is remembered, because connections that it
//! attracted may go on.

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

/// A stranger's first claim is told so much later: until then it may turn out whose it is.
const TELL_DELAY: Duration = Duration::from_millis(300);

/// How often someone who claims a VIP is asked for it.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// A claim that is not made again in this time is over: three questions stayed unanswered.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a claim that is over is remembered: as long as an idle connection, by default.
const MEMORY: Duration = Duration::from_secs(900);

/// Someone else who claims a VIP, or did.
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
    /// False once it is over.
    pub active: bool,
    /// When a person was last told.
    told: Option<Instant>,
    /// When a person is to be told, if that waits.
    tell_at: Option<Instant>,
    asked: Instant,
}

/// What a claim calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reaction {
    /// Announce the VIP again.
    pub defend: bool,
    /// Say so in the log.
    pub tell: bool,
    /// It is the first, or the first after it was over.
    pub is_new: bool,
}

/// What is to be done by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask for a VIP under claim.
    Ask { vip: IpAddr, segment: SegmentId },
    /// Tell of a claimant.
    Tell(Claimant),
    /// Tell that a claim is over.
    Over(Claimant),
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
        let (tell, is_new) = self.note(now, vip, segment, mac, real_server);
        Reaction { defend: self.may_defend(now, vip, segment), tell, is_new }
    }

    /// Everyone who claims a VIP now, in the order they were first heard.
    pub fn iter(&self) -> impl Iterator<Item = &Claimant> {
        self.claimants.iter().filter(|known| known.active)
    }

    /// Everyone who claims this VIP on this segment, or did a while ago.
    pub fn of(&self, vip: IpAddr, segment: SegmentId) -> impl Iterator<Item = &Claimant> {
        self.claimants.iter().filter(move |known| (known.vip, known.segment) == (vip, segment))
    }

    /// Whether anybody claims this VIP on this segment.
    pub fn is_claimed(&self, vip: IpAddr, segment: SegmentId) -> bool {
        self.of(vip, segment).any(|known| known.active)
    }

    /// Whose claims with this MAC are is known now; those that are to be told anew.
    pub fn identify(
        &mut self,
        now: Instant,
        mac: MacAddr,
        real_server: &Arc<str>,
    ) -> Vec<Claimant> {
        let known = self.claimants.iter_mut().filter(|known| known.mac == mac);
        let mut told = Vec::new();
        for known in known.filter(|known| known.real_server.as_ref() != Some(real_server)) {
            known.real_server = Some(Arc::clone(real_server));
            if known.active {
                known.told = Some(now);
                known.tell_at = None;
                told.push(known.clone());
            }
        }
        told
    }

    /// Forgets claims to VIPs that are not announced any more.
    pub fn retain(&mut self, mut keep: impl FnMut(IpAddr, SegmentId) -> bool) {
        self.claimants.retain(|known| keep(known.vip, known.segment));
        self.defended.retain(|&(vip, segment, _)| keep(vip, segment));
    }

    /// When [`Self::poll`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.claimants.iter().map(Claimant::deadline).min()
    }

    /// The next thing due, if any.
    pub fn poll(&mut self, now: Instant) -> Option<Due> {
        loop {
            let at = self.claimants.iter().position(|known| known.deadline() <= now)?;
            let known = &mut self.claimants[at];
            if !known.active {
                self.claimants.remove(at);
                continue;
            }
            if now.since(known.last) >= CLAIM_TIMEOUT {
                known.active = false;
                known.tell_at = None;
                return Some(Due::Over(known.clone()));
            }
            if known.tell_at.is_some_and(|at| at <= now) {
                known.tell_at = None;
                known.told = Some(now);
                return Some(Due::Tell(known.clone()));
            }
            let (vip, segment) = (known.vip, known.segment);
            // One question is for all who claim it.
            for same in &mut self.claimants {
                if (same.vip, same.segment) == (vip, segment) {
                    same.asked = now;
                }
            }
            return Some(Due::Ask { vip, segment });
        }
    }

    fn may_defend(&mut self, now: Instant, vip: IpAddr, segment: SegmentId) -> bool {
        self.defended.retain(|&(_, _, at)| now.since(at) < DEFEND_INTERVAL);
        let defend = !self.defended.iter().any(|&(v, s, _)| (v, s) == (vip, segment));
        // The list is as long as there are VIPs under claim in ten seconds, which are configured.
        if defend {
            self.defended.push((vip, segment, now));
        }
        defend
    }

    /// Enters a claim; whether it is to be told, and whether it is new.
    fn note(
        &mut self,
        now: Instant,
        vip: IpAddr,
        segment: SegmentId,
        mac: MacAddr,
        real_server: Option<&Arc<str>>,
    ) -> (bool, bool) {
        let same = |known: &&mut Claimant| (known.vip, known.segment) == (vip, segment);
        if let Some(known) = self.claimants.iter_mut().filter(same).find(|known| known.mac == mac) {
            let is_new = !known.active;
            known.last = now;
            known.count += 1;
            known.active = true;
            if real_server.is_some() {
                known.real_server = real_server.cloned();
            }
            return (known.is_to_be_told(now), is_new);
        }
        if self.claimants.len() >= CLAIMANTS_MAX
            && let Some((oldest, _)) =
                self.claimants.iter().enumerate().min_by_key(|(_, known)| known.last)
        {
            self.claimants.remove(oldest);
        }
        let mut known = Claimant {
            vip,
            segment,
            mac,
            real_server: real_server.cloned(),
            first: now,
            last: now,
            count: 1,
            active: true,
            told: None,
            tell_at: None,
            asked: now,
        };
        let tell = known.is_to_be_told(now);
        self.claimants.push(known);
        (tell, true)
    }
}

impl Claimant {
    fn deadline(&self) -> Instant {
        if !self.active {
            return self.last + MEMORY;
        }
        let next = (self.asked + ASK_INTERVAL).min(self.last + CLAIM_TIMEOUT);
        self.tell_at.map_or(next, |at| next.min(at))
    }

    /// Whether a person is to be told now. A stranger is told of a little later.
    fn is_to_be_told(&mut self, now: Instant) -> bool {
        if self.told.is_some_and(|told| now.since(told) < TELL_INTERVAL) || self.tell_at.is_some() {
            return false;
        }
        if self.told.is_none() && self.real_server.is_none() {
            self.tell_at = Some(now + TELL_DELAY);
            return false;
        }
        self.told = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId(0);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn vip() -> IpAddr {
        IpAddr::from([192, 0, 2, 10])
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// What is due until then, as words, with the second.
    fn run(conflicts: &mut Conflicts, until: u64) -> Vec<(u64, &'static str)> {
        let mut seen = Vec::new();
        while let Some(due) = conflicts.next_deadline().filter(|&due| due <= at(until)) {
            while let Some(what) = conflicts.poll(due) {
                let word = match what {
                    Due::Ask { .. } => "ask",
                    Due::Tell(_) => "tell",
                    Due::Over(_) => "over",
                };
                seen.push((due.since(Instant::ZERO).as_secs(), word));
            }
        }
        seen
    }

    #[test]
    fn a_claim_is_told_at_once_then_each_minute_and_answered_each_ten_seconds() {
        let mut conflicts = Conflicts::default();
        let name: Arc<str> = "rs1".into();
        let reactions: Vec<(bool, bool)> = [0, 1, 10, 19, 20, 60]
            .into_iter()
            .map(|seconds| conflicts.claim(at(seconds), vip(), SEGMENT, MAC, Some(&name)))
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
    fn a_claimant_is_asked_each_five_seconds_until_it_is_silent_for_twenty() {
        let mut conflicts = Conflicts::default();
        let name: Arc<str> = "rs1".into();
        assert!(conflicts.claim(at(0), vip(), SEGMENT, MAC, Some(&name)).is_new);
        assert_eq!(run(&mut conflicts, 5), [(5, "ask")]);
        assert!(!conflicts.claim(at(5), vip(), SEGMENT, MAC, Some(&name)).is_new);
        assert_eq!(run(&mut conflicts, 60), [(10, "ask"), (15, "ask"), (20, "ask"), (25, "over")]);
        assert_eq!(conflicts.iter().count(), 0);
        assert_eq!(conflicts.of(vip(), SEGMENT).count(), 1, "connections of it may go on");
        assert!(!conflicts.is_claimed(vip(), SEGMENT));
        assert!(conflicts.claim(at(100), vip(), SEGMENT, MAC, Some(&name)).is_new);
        assert!(conflicts.is_claimed(vip(), SEGMENT));
        assert_eq!(run(&mut conflicts, 2000).last(), Some(&(120, "over")));
        assert_eq!(conflicts.of(vip(), SEGMENT).count(), 0, "forgotten");
        assert_eq!(conflicts.next_deadline(), None);
    }

    #[test]
    fn a_stranger_is_told_of_when_there_was_time_to_find_out_who_it_is() {
        let name: Arc<str> = "rs1".into();
        let mut conflicts = Conflicts::default();
        assert!(!conflicts.claim(at(0), vip(), SEGMENT, MAC, None).tell);
        assert_eq!(run(&mut conflicts, 1), [(0, "tell")]);
        assert_eq!(conflicts.identify(at(2), MAC, &name).len(), 1, "told again, by its name");

        let mut conflicts = Conflicts::default();
        assert!(!conflicts.claim(at(0), vip(), SEGMENT, MAC, None).tell);
        assert_eq!(conflicts.identify(at(0), MAC, &name).len(), 1);
        assert_eq!(conflicts.identify(at(0), MAC, &name), [], "once");
        assert_eq!(run(&mut conflicts, 1), []);
        assert_eq!(conflicts.iter().next().map(|known| &known.real_server), Some(&Some(name)));
    }

    #[test]
    fn the_list_of_claimants_is_bounded() {
        let mut conflicts = Conflicts::default();
        for i in 0..=CLAIMANTS_MAX as u8 {
            conflicts.claim(at(u64::from(i)), vip(), SEGMENT, MacAddr([2, 0, 0, 0, 0, i]), None);
        }
        assert_eq!(conflicts.iter().count(), CLAIMANTS_MAX);
        assert!(conflicts.iter().all(|known| known.mac != MacAddr([2, 0, 0, 0, 0, 0])));
    }

    #[test]
    fn claims_to_what_is_no_longer_announced_are_forgotten() {
        let mut conflicts = Conflicts::default();
        conflicts.claim(at(0), vip(), SEGMENT, MAC, None);
        conflicts.retain(|_, segment| segment != SEGMENT);
        assert_eq!(conflicts.of(vip(), SEGMENT).count(), 0);
    }
}
