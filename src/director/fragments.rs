//! Where the later fragments of a packet go: after their first fragment, which alone has ports.
//! Those that come before it wait for it a little while.
//!
//! Bounded and timed, all of it. A first fragment says where those go that come after it and those
//! that wait, and nothing else does: what fragments overlap, or how, is for the real server to
//! judge that puts them together.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

use super::instant::Instant;
use super::keyed::{HashKey, KeyedMap};
use super::{DestinationId, SegmentId};
use crate::wire::packet::Ip;
use crate::wire::{Frame, Offload};

/// Packets whose fragments are followed at a time; the oldest gives way.
pub(super) const FRAGMENTED_PACKETS_MAX: usize = 4096;

/// How long later fragments are followed (Linux's `ipfrag_time`).
const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a fragment waits for the first one of its packet: they overtake each other on the way
/// by milliseconds, and what was lost does not come again.
pub(super) const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Fragments that wait, their bytes, and those of one packet (of which there are 45 in 64 KiB at
/// Ethernet's MTU).
const WAITING_FRAMES_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 512 << 10;
const WAITING_OF_PACKET_MAX: usize = 64;

/// What makes fragments parts of one packet (RFC 791, 3.2; RFC 8200, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FragmentKey {
    source: IpAddr,
    destination: IpAddr,
    /// Of IPv4 alone: in IPv6 only the first fragment need tell it.
    protocol: Option<u8>,
    identification: u32,
}

impl FragmentKey {
    fn of(packet: &Ip) -> FragmentKey {
        FragmentKey {
            source: packet.source,
            destination: packet.destination,
            protocol: (!packet.is_ipv6()).then_some(packet.protocol),
            identification: packet.identification,
        }
    }
}

/// A fragment that waits for the first one of its packet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub ingress: SegmentId,
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

/// No more fragments are let wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitingFull;

/// Remembers where first fragments went, and keeps what came before them.
#[derive(Debug)]
pub(super) struct FragmentTable {
    packets: KeyedMap<FragmentKey, (DestinationId, Instant)>,
    /// Keys with their deadlines, oldest first; a key whose deadline is another by now was
    /// followed by a newer packet of the same identification.
    by_age: VecDeque<(FragmentKey, Instant)>,
    /// Fragments of packets whose first is awaited, and until when, oldest first. So few that they
    /// need no index.
    waiting: VecDeque<(FragmentKey, Instant, Vec<Waiting>)>,
    waiting_frames: usize,
    waiting_bytes: usize,
}

impl FragmentTable {
    pub fn new(key: HashKey) -> FragmentTable {
        FragmentTable {
            packets: key.map(),
            by_age: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_frames: 0,
            waiting_bytes: 0,
        }
    }

    /// Notes where a first fragment goes.
    pub fn insert(&mut self, now: Instant, packet: &Ip, destination: DestinationId) {
        while let Some(&(key, deadline)) = self.by_age.front()
            && (deadline <= now || self.by_age.len() >= FRAGMENTED_PACKETS_MAX)
        {
            self.by_age.pop_front();
            if self.packets.get(&key).is_some_and(|&(_, current)| current == deadline) {
                self.packets.remove(&key);
            }
        }
        let key = FragmentKey::of(packet);
        let deadline = now + FRAGMENT_TIMEOUT;
        self.packets.insert(key, (destination, deadline));
        self.by_age.push_back((key, deadline));
    }

    /// Where the first fragment of this later one's packet went.
    pub fn find(&self, now: Instant, packet: &Ip) -> Option<DestinationId> {
        let &(destination, deadline) = self.packets.get(&FragmentKey::of(packet))?;
        (now < deadline).then_some(destination)
    }

    /// Lets a copy of a fragment wait for the first one of its packet.
    pub fn wait(
        &mut self,
        now: Instant,
        packet: &Ip,
        ingress: SegmentId,
        frame: &Frame<'_>,
    ) -> Result<(), WaitingFull> {
        let key = FragmentKey::of(packet);
        let len = frame.bytes.len();
        let place = self.waiting.iter().position(|(known, _, _)| *known == key);
        let of_packet = place.map_or(0, |place| self.waiting[place].2.len());
        if self.waiting_frames >= WAITING_FRAMES_MAX
            || self.waiting_bytes + len > WAITING_BYTES_MAX
            || of_packet >= WAITING_OF_PACKET_MAX
        {
            return Err(WaitingFull);
        }
        self.waiting_frames += 1;
        self.waiting_bytes += len;
        let waiting = Waiting { ingress, bytes: frame.bytes.to_vec(), offload: frame.offload };
        match place {
            Some(place) => self.waiting[place].2.push(waiting),
            None => self.waiting.push_back((key, now + WAIT_TIMEOUT, vec![waiting])),
        }
        Ok(())
    }

    /// Takes out what waits for this first fragment, in the order it came.
    pub fn release(&mut self, packet: &Ip) -> Vec<Waiting> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let key = FragmentKey::of(packet);
        let place = self.waiting.iter().position(|(known, _, _)| *known == key);
        let released = place.and_then(|place| self.waiting.remove(place));
        self.forget(released.map(|(_, _, frames)| frames))
    }

    /// Takes out what has waited in vain.
    pub fn expire(&mut self, now: Instant) -> Vec<Waiting> {
        let due = self.waiting.front().is_some_and(|&(_, deadline, _)| deadline <= now);
        let expired = if due { self.waiting.pop_front() } else { None };
        self.forget(expired.map(|(_, _, frames)| frames))
    }

    /// When [`Self::expire`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|&(_, deadline, _)| deadline)
    }

    fn forget(&mut self, frames: Option<Vec<Waiting>>) -> Vec<Waiting> {
        let frames = frames.unwrap_or_default();
        self.waiting_frames -= frames.len();
        self.waiting_bytes -= frames.iter().map(|frame| frame.bytes.len()).sum::<usize>();
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::arena::Arena;
    use crate::wire::packet::Transport;

    const A: SegmentId = SegmentId(0);

    fn fragment(identification: u32) -> Ip {
        Ip {
            source: IpAddr::from([198, 51, 100, 7]),
            destination: IpAddr::from([192, 0, 2, 10]),
            protocol: 17,
            header_len: 20,
            total_len: 100,
            identification,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 1480,
            hop_limit: 64,
            transport: Transport::LaterFragment,
        }
    }

    fn wait(table: &mut FragmentTable, now: Instant, id: u32, len: usize) -> bool {
        table.wait(now, &fragment(id), A, &Frame::plain(&mut vec![id as u8; len])).is_ok()
    }

    #[test]
    fn later_fragments_follow_the_first_until_the_deadline() {
        let mut arena = Arena::default();
        let (first, second) = (arena.insert(()).cast(), arena.insert(()).cast());
        let mut table = FragmentTable::new(HashKey(1, 2));
        let start = Instant::ZERO;
        table.insert(start, &fragment(1), first);
        assert_eq!(table.find(start, &fragment(1)), Some(first));
        assert_eq!(table.find(start, &fragment(2)), None);
        assert_eq!(table.find(start + FRAGMENT_TIMEOUT, &fragment(1)), None);
        // The identification is used again: the newer packet counts, and lives its full time.
        let later = start + Duration::from_secs(20);
        table.insert(later, &fragment(1), second);
        table.insert(start + Duration::from_secs(35), &fragment(9), first);
        assert_eq!(table.find(start + Duration::from_secs(49), &fragment(1)), Some(second));
    }

    #[test]
    fn the_oldest_gives_way_when_the_table_is_full() {
        let mut arena = Arena::default();
        let destination = arena.insert(()).cast();
        let mut table = FragmentTable::new(HashKey(1, 2));
        for identification in 0..=FRAGMENTED_PACKETS_MAX as u32 {
            table.insert(Instant::ZERO, &fragment(identification), destination);
        }
        assert_eq!(table.packets.len(), FRAGMENTED_PACKETS_MAX);
        assert_eq!(table.by_age.len(), FRAGMENTED_PACKETS_MAX);
        assert_eq!(table.find(Instant::ZERO, &fragment(0)), None);
        assert_eq!(table.find(Instant::ZERO, &fragment(1)), Some(destination));
    }

    #[test]
    fn in_ipv6_later_fragments_need_not_tell_the_protocol() {
        let mut arena = Arena::default();
        let destination = arena.insert(()).cast();
        let mut table = FragmentTable::new(HashKey(1, 2));
        let [source, other] = ["2001:db8::1", "2001:db8::2"].map(|ip| ip.parse().unwrap());
        let first = Ip { source, destination: other, ..fragment(0x1_0001) };
        table.insert(Instant::ZERO, &first, destination);
        let later = Ip { protocol: 60, ..first };
        assert_eq!(table.find(Instant::ZERO, &later), Some(destination));
        let of_16_bits = Ip { identification: 1, ..first };
        assert_eq!(table.find(Instant::ZERO, &of_16_bits), None);
        table.insert(Instant::ZERO, &fragment(1), destination);
        assert_eq!(table.find(Instant::ZERO, &Ip { protocol: 6, ..fragment(1) }), None);
    }

    #[test]
    fn what_waits_is_released_in_its_order_or_expires() {
        let mut table = FragmentTable::new(HashKey(1, 2));
        for (millis, id) in [(0, 1), (1, 2), (2, 1)] {
            assert!(wait(&mut table, Instant::ZERO + Duration::from_millis(millis), id, 10));
        }
        assert_eq!(table.release(&fragment(3)).len(), 0);
        assert_eq!(table.release(&fragment(1)).len(), 2);
        assert_eq!(table.release(&fragment(1)).len(), 0);
        let deadline = Instant::ZERO + Duration::from_millis(1) + WAIT_TIMEOUT;
        assert_eq!(table.next_deadline(), Some(deadline));
        assert_eq!(table.expire(Instant::ZERO).len(), 0);
        assert_eq!(table.expire(deadline).len(), 1);
        assert_eq!(
            (table.next_deadline(), table.waiting_frames, table.waiting_bytes),
            (None, 0, 0)
        );
    }

    #[test]
    fn frames_bytes_and_a_single_packet_are_bounded() {
        let mut table = FragmentTable::new(HashKey(1, 2));
        let now = Instant::ZERO;
        let of_one = (0..1000).filter(|_| wait(&mut table, now, 1, 10)).count();
        assert_eq!(of_one, WAITING_OF_PACKET_MAX);
        let others = (2..1000).filter(|&id| wait(&mut table, now, id, 10)).count();
        assert_eq!(of_one + others, WAITING_FRAMES_MAX);
        let mut table = FragmentTable::new(HashKey(1, 2));
        let large = (0..1000).filter(|&id| wait(&mut table, now, id, 60_000)).count();
        assert_eq!(large, WAITING_BYTES_MAX / 60_000);
    }
}
