//! Where the later fragments of a packet go: after their first fragment, which alone has ports.
//!
//! Bounded and timed. Fragments that come before their first one are not kept.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

use super::DestinationId;
use super::instant::Instant;
use super::keyed::{HashKey, KeyedMap};
use crate::wire::packet::Ip;

/// Packets whose fragments are followed at a time; the oldest gives way.
pub(super) const FRAGMENTED_PACKETS_MAX: usize = 4096;

/// How long later fragments are waited for (Linux's `ipfrag_time`).
const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(30);

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

/// Remembers where first fragments went.
#[derive(Debug)]
pub(super) struct FragmentTable {
    packets: KeyedMap<FragmentKey, (DestinationId, Instant)>,
    /// Keys with their deadlines, oldest first; a key whose deadline is another by now was
    /// followed by a newer packet of the same identification.
    by_age: VecDeque<(FragmentKey, Instant)>,
}

impl FragmentTable {
    pub fn new(key: HashKey) -> FragmentTable {
        FragmentTable { packets: key.map(), by_age: VecDeque::new() }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::arena::Arena;
    use crate::wire::packet::Transport;

    fn fragment(identification: u32) -> Ip {
        Ip {
            source: IpAddr::from([198, 51, 100, 7]),
            destination: IpAddr::from([192, 0, 2, 10]),
            protocol: 17,
            network_start: 14,
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
}
