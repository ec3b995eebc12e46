//! Real servers' MAC addresses: configured, or found by ARP or ND before traffic needs them, kept
//! fresh, and given up on when silent.
//!
//! Knows when to ask and what an answer means; the director sends the requests and hears the
//! answers. Only configured addresses are ever entered, so the wire cannot make it grow.
//!
//! A neighbor without a configured MAC is *probing* at first: asked [`PROBES_MAX`] times, a
//! second apart. An answer makes it *reachable*; it is asked again, by unicast, every
//! [`REFRESH_INTERVAL`], and by broadcast if that stays without answer. Silence makes it *down*:
//! asked on with growing pauses, no new connections, and those it has go to its last known MAC.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::arena::{Arena, Id};
use super::instant::Instant;
use super::keyed::{HashKey, KeyedMap};
use super::{DestinationId, SegmentId};
use crate::wire::MacAddr;

/// Requests without an answer before a neighbor is down; when refreshing, so many by unicast
/// and then so many by broadcast.
const PROBES_MAX: u32 = 3;
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// The longest pause between requests to a neighbor that is down.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long a MAC that was found stands against other answers (Linux's `locktime`). Of two
/// stations that answer one request the first wins, and a dispute costs a step a second, not one
/// a packet.
const LOCK_TIME: Duration = Duration::from_secs(1);

pub(super) type NeighborId = Id<Neighbor>;

/// A real server's address on a segment.
#[derive(Debug)]
pub(super) struct Neighbor {
    pub segment: SegmentId,
    pub address: IpAddr,
    /// The real server's name, for the log.
    pub name: Arc<str>,
    /// The real servers of services that are reached through it.
    pub users: Vec<DestinationId>,
    /// The MAC that frames go to: configured, or the last one found.
    mac: Option<MacAddr>,
    /// Since when it is this one, if it was found.
    since: Instant,
    state: State,
    timer: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The MAC is configured; never asked for.
    Static,
    /// Entered, and not brought to life yet.
    Entered,
    Probing {
        sent: u32,
    },
    Reachable {
        /// When it was last heard; `None` if that was not by this director.
        confirmed: Option<Instant>,
        unanswered: u32,
    },
    Down {
        wait: Duration,
    },
}

/// Where frames for a neighbor go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    Mac(MacAddr),
    /// Being looked for: hold the frame.
    Resolving,
    /// Looked for in vain.
    Unreachable,
}

/// What is to be done about a neighbor now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask for its MAC: of one station, or of all.
    Ask { neighbor: NeighborId, of: Option<MacAddr> },
    /// It went down after so many requests.
    Down { neighbor: NeighborId, probes: u32 },
}

/// What an ARP or ND packet from an address told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The address is no neighbor on that segment.
    Stranger,
    /// Nothing new, or nothing that counts (its MAC is configured).
    Known,
    /// Its MAC was found: it is up.
    Up { neighbor: NeighborId },
    /// It is reachable at another MAC than before.
    Moved { neighbor: NeighborId, from: MacAddr },
}

/// All neighbors.
pub(super) struct Neighbors {
    arena: Arena<Neighbor>,
    by_address: KeyedMap<(SegmentId, IpAddr), NeighborId>,
    timers: BTreeSet<(Instant, NeighborId)>,
}

impl Neighbors {
    pub fn new(key: HashKey) -> Neighbors {
        Neighbors { arena: Arena::default(), by_address: key.map(), timers: BTreeSet::new() }
    }

    /// The neighbor with this address, entered if need be; [`Self::configure`] brings it to life.
    pub fn enter(&mut self, segment: SegmentId, address: IpAddr, name: &Arc<str>) -> NeighborId {
        *self.by_address.entry((segment, address)).or_insert_with(|| {
            self.arena.insert(Neighbor {
                segment,
                address,
                name: name.clone(),
                users: Vec::new(),
                mac: None,
                since: Instant::ZERO,
                state: State::Entered,
                timer: None,
            })
        })
    }

    /// Sets a neighbor's name, and its MAC if it is configured.
    pub fn configure(
        &mut self,
        now: Instant,
        id: NeighborId,
        configured: Option<MacAddr>,
        name: Arc<str>,
    ) {
        let Some(neighbor) = self.arena.get_mut(id) else { return };
        neighbor.name = name;
        match configured {
            Some(mac) => {
                neighbor.mac = Some(mac);
                neighbor.state = State::Static;
                self.arm(id, None);
            }
            None if matches!(neighbor.state, State::Static | State::Entered) => {
                // Looked for at once; until the answer, frames are held.
                neighbor.mac = None;
                neighbor.state = State::Probing { sent: 0 };
                self.arm(id, Some(now));
            }
            None => {}
        }
    }

    pub fn add_user(&mut self, id: NeighborId, user: DestinationId) {
        if let Some(neighbor) = self.arena.get_mut(id) {
            neighbor.users.push(user);
        }
    }

    pub fn remove_user(&mut self, id: NeighborId, user: DestinationId) {
        if let Some(neighbor) = self.arena.get_mut(id) {
            let position = neighbor.users.iter().position(|&known| known == user);
            position.map(|position| neighbor.users.remove(position));
        }
    }

    /// Forgets a neighbor.
    pub fn remove(&mut self, id: NeighborId) {
        self.arm(id, None);
        if let Some(neighbor) = self.arena.remove(id) {
            self.by_address.remove(&(neighbor.segment, neighbor.address));
        }
    }

    /// The neighbor with this address, if there is one.
    pub fn find_id(&self, segment: SegmentId, address: IpAddr) -> Option<NeighborId> {
        self.by_address.get(&(segment, address)).copied()
    }

    /// The same with what is known of it.
    pub fn find(&self, segment: SegmentId, address: IpAddr) -> Option<&Neighbor> {
        self.by_address.get(&(segment, address)).and_then(|&id| self.arena.get(id))
    }

    pub fn get(&self, id: NeighborId) -> Option<&Neighbor> {
        self.arena.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NeighborId, &Neighbor)> {
        self.arena.iter()
    }

    /// An ARP or ND packet on `segment` said that `address` is at `mac`.
    pub fn hear(
        &mut self,
        now: Instant,
        segment: SegmentId,
        address: IpAddr,
        mac: MacAddr,
    ) -> Heard {
        let Some(&id) = self.by_address.get(&(segment, address)) else { return Heard::Stranger };
        let Some(neighbor) = self.arena.get_mut(id) else { return Heard::Stranger };
        let before = neighbor.state;
        match before {
            State::Static | State::Entered => return Heard::Known,
            State::Probing { .. } | State::Down { .. } | State::Reachable { .. } => {}
        }
        let is_up = matches!(before, State::Reachable { .. });
        let is_found = matches!(before, State::Reachable { confirmed: Some(_), .. });
        if is_found && neighbor.mac != Some(mac) && now.since(neighbor.since) < LOCK_TIME {
            return Heard::Known;
        }
        neighbor.state = State::Reachable { confirmed: Some(now), unanswered: 0 };
        let known = neighbor.mac.replace(mac);
        if known != Some(mac) || !is_up {
            neighbor.since = now;
        }
        if is_up {
            // The timer stays: when it fires it sees how fresh the neighbor is.
            return match known {
                Some(from) if from != mac => Heard::Moved { neighbor: id, from },
                _ => Heard::Known,
            };
        }
        self.arm(id, Some(now + REFRESH_INTERVAL + spread(id)));
        Heard::Up { neighbor: id }
    }

    /// Takes a neighbor that is being looked for to be where a director before this one had found
    /// it: used from now on, and asked at once whether that is still so. `false` if there is
    /// nothing to look for.
    pub fn assume(
        &mut self,
        now: Instant,
        segment: SegmentId,
        address: IpAddr,
        mac: MacAddr,
    ) -> bool {
        let Some(&id) = self.by_address.get(&(segment, address)) else { return false };
        let Some(neighbor) = self.arena.get_mut(id) else { return false };
        if !neighbor.is_resolving() {
            return false;
        }
        neighbor.mac = Some(mac);
        neighbor.since = now;
        neighbor.state = State::Reachable { confirmed: None, unanswered: 0 };
        self.arm(id, Some(now));
        true
    }

    /// When [`Self::poll`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(deadline, _)| deadline)
    }

    /// The next thing due, if any; its timer is set on.
    pub fn poll(&mut self, now: Instant) -> Option<Due> {
        loop {
            let &(deadline, id) = self.timers.first()?;
            if deadline > now {
                return None;
            }
            let Some(neighbor) = self.arena.get_mut(id) else {
                self.timers.pop_first();
                continue;
            };
            let (state, pause, due) = step(now, id, neighbor.state, neighbor.mac);
            neighbor.state = state;
            self.arm(id, Some(now + pause));
            if due.is_some() {
                return due;
            }
        }
    }

    /// Sets or clears a neighbor's timer.
    fn arm(&mut self, id: NeighborId, deadline: Option<Instant>) {
        let Some(neighbor) = self.arena.get_mut(id) else { return };
        if let Some(before) = neighbor.timer {
            self.timers.remove(&(before, id));
        }
        neighbor.timer = deadline;
        if let Some(deadline) = deadline {
            self.timers.insert((deadline, id));
        }
    }
}

impl Neighbor {
    /// Where frames for it go.
    pub fn hop(&self) -> Hop {
        match (self.state, self.mac) {
            (State::Probing { .. }, _) => Hop::Resolving,
            (_, Some(mac)) => Hop::Mac(mac),
            (_, None) => Hop::Unreachable,
        }
    }

    /// The MAC that frames go to, if known.
    pub fn mac(&self) -> Option<MacAddr> {
        self.mac
    }

    /// Its MAC, if that is configured.
    pub fn configured_mac(&self) -> Option<MacAddr> {
        self.mac.filter(|_| matches!(self.state, State::Static))
    }

    /// The MAC that was found for it, while it answers there.
    pub fn found_mac(&self) -> Option<MacAddr> {
        self.mac.filter(|_| matches!(self.state, State::Reachable { .. }))
    }

    /// Whether it may be given new connections.
    pub fn is_usable(&self) -> bool {
        !matches!(self.state, State::Down { .. } | State::Entered)
    }

    /// Whether its MAC is being looked for, for the first time.
    pub fn is_resolving(&self) -> bool {
        matches!(self.state, State::Probing { .. })
    }
}

/// What a neighbor whose timer fired does: its next state, the pause until the next time, and
/// what there is to do.
fn step(
    now: Instant,
    neighbor: NeighborId,
    state: State,
    mac: Option<MacAddr>,
) -> (State, Duration, Option<Due>) {
    let ask = |of| Some(Due::Ask { neighbor, of });
    let down = |probes| {
        (State::Down { wait: PROBE_INTERVAL }, PROBE_INTERVAL, Some(Due::Down { neighbor, probes }))
    };
    match state {
        // These have no timer.
        State::Static | State::Entered => (state, BACKOFF_MAX, None),
        State::Probing { sent } if sent < PROBES_MAX => {
            (State::Probing { sent: sent + 1 }, PROBE_INTERVAL, ask(None))
        }
        State::Probing { sent } => down(sent),
        State::Reachable { confirmed: Some(confirmed), unanswered: 0 }
            if now.since(confirmed) < REFRESH_INTERVAL =>
        {
            let age = now.since(confirmed);
            (state, REFRESH_INTERVAL - age + spread(neighbor), None)
        }
        State::Reachable { confirmed, unanswered } if unanswered < 2 * PROBES_MAX => {
            let of = if unanswered < PROBES_MAX { mac } else { None };
            let state = State::Reachable { confirmed, unanswered: unanswered + 1 };
            (state, PROBE_INTERVAL, ask(of))
        }
        State::Reachable { unanswered, .. } => down(unanswered),
        State::Down { wait } => {
            let wait = (wait * 2).min(BACKOFF_MAX);
            (State::Down { wait }, wait, ask(None))
        }
    }
}

/// Keeps neighbors that came up together from being refreshed together.
fn spread(id: NeighborId) -> Duration {
    Duration::from_millis(id.index() as u64 * 37 % 5000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId(0);
    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x11]);
    const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x99]);

    fn rip() -> IpAddr {
        IpAddr::from([10, 0, 0, 11])
    }

    fn one(configured: Option<MacAddr>) -> (Neighbors, NeighborId) {
        let mut neighbors = Neighbors::new(HashKey(1, 2));
        let id = neighbors.enter(SEGMENT, rip(), &"rs1".into());
        neighbors.configure(Instant::ZERO, id, configured, "rs1".into());
        (neighbors, id)
    }

    /// Everything due up to a time, with the second it was due.
    fn run(neighbors: &mut Neighbors, until: u64) -> Vec<(u64, Due)> {
        let mut seen = Vec::new();
        while let Some(at) = neighbors.next_deadline()
            && at <= Instant::ZERO + Duration::from_secs(until)
        {
            while let Some(due) = neighbors.poll(at) {
                seen.push((at.since(Instant::ZERO).as_secs(), due));
            }
        }
        seen
    }

    #[test]
    fn a_silent_neighbor_is_asked_three_times_then_down_and_asked_on_with_growing_pauses() {
        let (mut neighbors, neighbor) = one(None);
        assert_eq!(neighbors.get(neighbor).unwrap().hop(), Hop::Resolving);
        let ask = Due::Ask { neighbor, of: None };
        let down = Due::Down { neighbor, probes: 3 };
        assert_eq!(run(&mut neighbors, 3), [(0, ask), (1, ask), (2, ask), (3, down)]);
        assert_eq!(neighbors.get(neighbor).unwrap().hop(), Hop::Unreachable);
        assert!(!neighbors.get(neighbor).unwrap().is_usable());
        let times: Vec<u64> = run(&mut neighbors, 130).into_iter().map(|(at, _)| at).collect();
        assert_eq!(times, [4, 6, 10, 18, 34, 64, 94, 124]);
        let at = Instant::ZERO + Duration::from_secs(131);
        assert_eq!(neighbors.hear(at, SEGMENT, rip(), MAC), Heard::Up { neighbor });
        assert_eq!(neighbors.get(neighbor).unwrap().hop(), Hop::Mac(MAC));
    }

    #[test]
    fn an_answer_is_refreshed_by_unicast_then_broadcast_and_silence_is_down() {
        let (mut neighbors, neighbor) = one(None);
        run(&mut neighbors, 0);
        assert_eq!(neighbors.hear(Instant::ZERO, SEGMENT, rip(), MAC), Heard::Up { neighbor });
        let unicast = Due::Ask { neighbor, of: Some(MAC) };
        let broadcast = Due::Ask { neighbor, of: None };
        assert_eq!(
            run(&mut neighbors, 36),
            [
                (30, unicast),
                (31, unicast),
                (32, unicast),
                (33, broadcast),
                (34, broadcast),
                (35, broadcast),
                (36, Due::Down { neighbor, probes: 6 }),
            ]
        );
        assert_eq!(neighbors.get(neighbor).unwrap().hop(), Hop::Mac(MAC), "the last known");
    }

    #[test]
    fn hearing_from_a_neighbor_puts_the_refresh_off() {
        let (mut neighbors, neighbor) = one(None);
        run(&mut neighbors, 0);
        neighbors.hear(Instant::ZERO, SEGMENT, rip(), MAC);
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        assert_eq!(neighbors.hear(at(20), SEGMENT, rip(), MAC), Heard::Known);
        assert_eq!(run(&mut neighbors, 49), []);
        assert_eq!(run(&mut neighbors, 50), [(50, Due::Ask { neighbor, of: Some(MAC) })]);
        assert_eq!(
            neighbors.hear(at(50), SEGMENT, rip(), OTHER),
            Heard::Moved { neighbor, from: MAC }
        );
    }

    #[test]
    fn what_another_found_is_used_at_once_and_asked_about_at_once() {
        let (mut neighbors, neighbor) = one(None);
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        assert!(neighbors.assume(at(5), SEGMENT, rip(), MAC));
        assert_eq!(neighbors.get(neighbor).unwrap().hop(), Hop::Mac(MAC));
        assert_eq!(neighbors.get(neighbor).unwrap().found_mac(), Some(MAC));
        let (unicast, broadcast) =
            (Due::Ask { neighbor, of: Some(MAC) }, Due::Ask { neighbor, of: None });
        assert_eq!(
            run(&mut neighbors, 8),
            [(5, unicast), (6, unicast), (7, unicast), (8, broadcast)]
        );
        assert!(!neighbors.assume(at(8), SEGMENT, rip(), OTHER), "only while it is looked for");
        assert_eq!(neighbors.hear(at(8), SEGMENT, rip(), MAC), Heard::Known);
        assert_eq!(run(&mut neighbors, 37), [], "an answer confirms it");
        assert_eq!(run(&mut neighbors, 38), [(38, unicast)]);

        let (mut neighbors, neighbor) = one(None);
        assert!(neighbors.assume(at(5), SEGMENT, rip(), MAC));
        let due = run(&mut neighbors, 11);
        assert_eq!(due.last(), Some(&(11, Due::Down { neighbor, probes: 6 })), "silence is down");
        assert_eq!(neighbors.get(neighbor).unwrap().found_mac(), None);

        let (mut neighbors, neighbor) = one(None);
        assert!(neighbors.assume(at(5), SEGMENT, rip(), MAC));
        let moved = Heard::Moved { neighbor, from: MAC };
        assert_eq!(
            neighbors.hear(at(5), SEGMENT, rip(), OTHER),
            moved,
            "what is heard goes before"
        );
    }

    #[test]
    fn nothing_is_assumed_of_strangers_and_configured_macs() {
        let (mut neighbors, neighbor) = one(Some(OTHER));
        assert!(!neighbors.assume(Instant::ZERO, SEGMENT, rip(), MAC));
        assert_eq!(neighbors.get(neighbor).unwrap().hop(), Hop::Mac(OTHER));
        assert_eq!(neighbors.get(neighbor).unwrap().found_mac(), None);
        assert!(!neighbors.assume(Instant::ZERO, SEGMENT, IpAddr::from([10, 0, 0, 99]), MAC));
        assert!(!neighbors.assume(Instant::ZERO, SegmentId(1), rip(), MAC));
        assert_eq!(run(&mut neighbors, 100), []);
    }

    #[test]
    fn a_dispute_about_an_address_costs_a_step_a_second() {
        let (mut neighbors, neighbor) = one(None);
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut hear = |millis, mac| neighbors.hear(at(millis), SEGMENT, rip(), mac);
        assert_eq!(hear(0, MAC), Heard::Up { neighbor });
        assert_eq!(hear(1, OTHER), Heard::Known, "the first answer wins");
        assert_eq!(hear(500, MAC), Heard::Known);
        assert_eq!(hear(999, OTHER), Heard::Known);
        assert_eq!(hear(1000, OTHER), Heard::Moved { neighbor, from: MAC });
        assert_eq!(hear(1001, MAC), Heard::Known);
        assert_eq!(neighbors.get(neighbor).unwrap().hop(), Hop::Mac(OTHER));
    }

    #[test]
    fn a_configured_mac_is_neither_asked_for_nor_moved() {
        let (mut neighbors, neighbor) = one(Some(MAC));
        assert_eq!(run(&mut neighbors, 1000), []);
        assert_eq!(neighbors.hear(Instant::ZERO, SEGMENT, rip(), OTHER), Heard::Known);
        assert_eq!(neighbors.get(neighbor).unwrap().hop(), Hop::Mac(MAC));
    }

    #[test]
    fn a_neighbor_of_ipv6_is_looked_for_in_the_same_way() {
        let mut neighbors = Neighbors::new(HashKey(1, 2));
        let address = "2001:db8::11".parse().unwrap();
        let neighbor = neighbors.enter(SEGMENT, address, &"rs1".into());
        assert!(!neighbors.get(neighbor).unwrap().is_usable(), "not brought to life yet");
        for (configured, hop) in [(None, Hop::Resolving), (Some(MAC), Hop::Mac(MAC))] {
            neighbors.configure(Instant::ZERO, neighbor, configured, "rs1".into());
            let found = neighbors.get(neighbor).unwrap();
            assert_eq!((found.hop(), found.is_usable()), (hop, true));
        }
        neighbors.configure(Instant::ZERO, neighbor, None, "rs1".into());
        assert_eq!(run(&mut neighbors, 0), [(0, Due::Ask { neighbor, of: None })]);
        assert_eq!(neighbors.hear(Instant::ZERO, SEGMENT, address, MAC), Heard::Up { neighbor });
    }

    #[test]
    fn strangers_are_not_entered() {
        let (mut neighbors, _) = one(None);
        let stranger = IpAddr::from([10, 0, 0, 99]);
        assert_eq!(neighbors.hear(Instant::ZERO, SEGMENT, stranger, MAC), Heard::Stranger);
        assert_eq!(neighbors.hear(Instant::ZERO, SegmentId(1), rip(), MAC), Heard::Stranger);
        assert_eq!(neighbors.arena.len(), 1);
    }

    #[test]
    fn a_neighbor_goes_with_its_timer() {
        let (mut neighbors, neighbor) = one(None);
        neighbors.remove(neighbor);
        assert_eq!(neighbors.next_deadline(), None);
        assert!(neighbors.by_address.is_empty());
    }
}
