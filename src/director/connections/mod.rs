//! The connection table: which real server has which flow, and until when.
//!
//! A packet of a known flow touches two cache lines here: one of the index ([`index`]) and its
//! connection's own. What packets do not need (links of the lists it is in, its template) is
//! kept beside, in [`links`]. Deadlines are the business of the timer wheel ([`wheel`]), the
//! meaning of TCP segments that of [`state`].
//!
//! Everything is allocated once, at full capacity, and touched only as it fills; nothing here
//! ever grows, moves or is rehashed. At most 128 bytes a connection, all in. Where that is in
//! memory, [`ConnectionTable::memory`] tells whoever can get huge pages for it.

mod index;
mod links;
mod sctp;
mod state;
mod wheel;

use core::time::Duration;

pub use self::index::FlowHash;
use self::index::Index;
use self::links::{CLASS, List, NIL, Node};
pub use self::sctp::SctpEvent;
pub use self::state::{ConnectionState, TcpEvent};
use self::wheel::{Wheel, WheelSlot};
use super::DestinationId;
use super::flow::FlowKey;
use super::instant::Instant;

/// Connections at most, whatever the configuration asks for.
pub const CAPACITY_MAX: u32 = index::CAPACITY_MAX;

/// Refers to a connection for as long as it lives. Ordered as [`ConnectionTable::page`] shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

/// Where a connection probably is, or whatever is in its place by now.
#[derive(Clone, Copy, Debug)]
pub struct Hint(u32);

impl Hint {
    pub const NONE: Hint = Hint(NIL);
}

impl ConnectionId {
    const NONE: ConnectionId = ConnectionId { slot: NIL, generation: 0 };
}

/// What a connection goes by when the table is full: who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Eviction {
    /// Half-open TCP or SCTP, and a flow without a handshake that had a single packet so far:
    /// nobody may be behind its source address. The first to go, oldest first.
    HalfOpen,
    /// Closing or closed TCP or SCTP: next.
    Closing,
    /// A persistence template: last, as it only says where future connections go.
    Template,
    /// Never evicted for a new connection.
    Kept,
}

/// Classes that are evicted from.
const EVICTABLE: usize = 3;

/// One connection (or persistence template). One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Connection {
    key: FlowKey,
    /// The real server of the service that has it.
    pub destination: DestinationId,
    deadline: Instant,
    /// Counts what happens to the slot: odd while a connection is in it, even when none is.
    generation: u32,
    wheel_slot: WheelSlot,
    pub state: ConnectionState,
    /// The list it is in.
    class: Eviction,
}

impl Connection {
    #[inline]
    pub const fn key(&self) -> &FlowKey {
        &self.key
    }

    const fn is_live(&self) -> bool {
        !self.generation.is_multiple_of(2)
    }

    /// From this moment on the connection counts as gone, whether it has been removed or not.
    #[inline]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it had as many packets as it takes to believe that there is a client: two, where
    /// there was no handshake.
    pub fn is_proven(&self) -> bool {
        self.class == self.state.eviction()
    }
}

/// How much longer a template lives that is not needed by time but by connections.
pub const TEMPLATE_REPRIEVE: Duration = Duration::from_secs(60);

/// The table has no room and nothing in it may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// Connections by key, with deadlines. Fixed capacity.
pub struct ConnectionTable {
    capacity: u32,
    index: Index,
    /// By slot; those that were never used are beyond the end.
    entries: Vec<Connection>,
    /// By slot, as many as `entries`.
    nodes: Vec<Node>,
    /// The last slot that was given back, and in its node the one before.
    vacant: u32,
    len: u32,
    wheel: Wheel,
    /// By [`Eviction`], in the order in which connections came into the class.
    evictable: [List<CLASS>; EVICTABLE],
}

impl ConnectionTable {
    /// An empty table for at most `capacity` connections (no more than [`CAPACITY_MAX`]);
    /// memory is touched only as it fills.
    pub fn new(now: Instant, capacity: u32, hash_key: (u64, u64)) -> ConnectionTable {
        let capacity = capacity.min(CAPACITY_MAX);
        ConnectionTable {
            capacity,
            index: Index::new(capacity, hash_key),
            entries: Vec::with_capacity(capacity as usize),
            nodes: Vec::with_capacity(capacity as usize),
            vacant: NIL,
            len: 0,
            wheel: Wheel::new(now),
            evictable: [List::EMPTY; EVICTABLE],
        }
    }

    /// Connections in the table, expired ones that have not been removed yet included.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Where the large parts of the table are in memory: address and bytes of each, touched or
    /// not. They stay there.
    pub fn memory(&self) -> [(usize, usize); 3] {
        fn of<T>(memory: &Vec<T>) -> (usize, usize) {
            (memory.as_ptr().addr(), memory.capacity() * size_of::<T>())
        }
        [self.index.memory(), of(&self.entries), of(&self.nodes)]
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The connection with this key, expired or not: the deadline is the caller's to check.
    #[inline]
    pub fn find(&self, key: &FlowKey) -> Option<ConnectionId> {
        self.find_hashed(self.hash(key), key).map(|(id, _)| id)
    }

    /// The first half of [`Self::find`]: touches no table.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        self.index.hash(key)
    }

    /// The second half of [`Self::find`].
    #[inline]
    pub fn find_hashed(
        &self,
        hash: FlowHash,
        key: &FlowKey,
    ) -> Option<(ConnectionId, &Connection)> {
        self.index.candidates(hash).find_map(|slot| {
            let found = self.entries.get(slot as usize)?;
            let id = ConnectionId { slot, generation: found.generation };
            (found.key == *key).then_some((id, found))
        })
    }

    /// Reads what [`Self::find_hashed`] reads first for this hash, to have it near afterwards. To
    /// be done for a whole burst before [`Self::approach_entry`] is, so that one cache miss does
    /// not wait for another. Gives something of what it read.
    #[inline]
    pub fn approach_index(&self, hash: FlowHash) -> u64 {
        self.index.touch(hash)
    }

    /// The same for what is read after that: the connection itself. Gives where it probably is, for
    /// [`Self::find_hinted`].
    #[inline]
    pub fn approach_entry(&self, hash: FlowHash) -> (Hint, u64) {
        let slot = self.index.candidates(hash).next().unwrap_or(NIL);
        let read = self.entries.get(slot as usize).map_or(0, |entry| u64::from(entry.generation));
        (Hint(slot), read)
    }

    /// [`Self::find_hashed`] that first looks where the connection was a moment ago.
    #[inline]
    pub fn find_hinted(
        &self,
        hint: Hint,
        hash: FlowHash,
        key: &FlowKey,
    ) -> Option<(ConnectionId, &Connection)> {
        match self.entries.get(hint.0 as usize) {
            Some(found) if found.key == *key && found.is_live() => {
                Some((ConnectionId { slot: hint.0, generation: found.generation }, found))
            }
            _ => self.find_hashed(hash, key),
        }
    }

    #[inline]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.entries.get(id.slot as usize).filter(|found| found.generation == id.generation)
    }

    /// Adds a connection whose key is not in the table.
    ///
    /// # Errors
    /// [`TableFull`] at capacity: the caller evicts ([`Self::oldest`]) or refuses.
    pub fn insert(
        &mut self,
        key: FlowKey,
        destination: DestinationId,
        state: ConnectionState,
        deadline: Instant,
    ) -> Result<ConnectionId, TableFull> {
        debug_assert!(self.find(&key).is_none(), "{key:?} is in the table already");
        if self.len() == self.capacity {
            return Err(TableFull);
        }
        let slot = if self.vacant == NIL { self.entries.len() as u32 } else { self.vacant };
        self.index.insert(self.index.hash(&key), slot).map_err(|_| TableFull)?;
        if slot == self.vacant {
            self.vacant = self.nodes[slot as usize].next_vacant();
        } else {
            self.nodes.push(Node::UNUSED);
        }
        let last = self.entries.get(slot as usize).map_or(0, |entry| entry.generation);
        let generation = last.wrapping_add(1);
        let wheel_slot = self.wheel.link(&mut self.nodes, slot, deadline);
        let class = state.eviction_at_first();
        if let Some(list) = list_of(&mut self.evictable, class) {
            list.push(&mut self.nodes, slot);
        }
        let entry = Connection { key, destination, deadline, generation, wheel_slot, state, class };
        match self.entries.get_mut(slot as usize) {
            Some(vacant) => *vacant = entry,
            None => self.entries.push(entry),
        }
        self.len += 1;
        Ok(ConnectionId { slot, generation })
    }

    /// Notes a packet of a connection: its new state and its new deadline.
    #[inline]
    pub fn update(&mut self, id: ConnectionId, state: ConnectionState, deadline: Instant) {
        let Some(connection) = self
            .entries
            .get_mut(id.slot as usize)
            .filter(|found| found.generation == id.generation)
        else {
            return;
        };
        // Read what is beside the state before the state is written: one load spans both, and
        // would wait for the store.
        let (left, entered) = (connection.class, state.eviction());
        let wheel_slot = connection.wheel_slot;
        connection.state = state;
        connection.class = entered;
        connection.deadline = deadline;
        if self.wheel.is_late_for(wheel_slot, deadline) {
            self.wheel.unlink(&mut self.nodes, id.slot, wheel_slot);
            connection.wheel_slot = self.wheel.link(&mut self.nodes, id.slot, deadline);
        }
        if left != entered {
            self.change_class(id.slot, left, entered);
        }
    }

    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        Some(self.remove_slot(id.slot))
    }

    /// The connection of this class that has been in it longest. None of those that are kept.
    pub fn oldest(&self, class: Eviction) -> Option<ConnectionId> {
        let slot = match class {
            Eviction::HalfOpen | Eviction::Closing | Eviction::Template => {
                self.evictable[class as usize].first()?
            }
            Eviction::Kept => return None,
        };
        Some(ConnectionId { slot, generation: self.entries[slot as usize].generation })
    }

    /// Removes and returns one connection whose deadline has passed. A template that has placed
    /// connections which still live stays for another [`TEMPLATE_REPRIEVE`], as in IPVS.
    ///
    /// Looks at no more than `budget` connections, which it counts down; `None` when there is
    /// none to return or the budget is used up ([`Self::next_wake`] then says "at once").
    pub fn expire(&mut self, now: Instant, budget: &mut u32) -> Option<Connection> {
        while *budget > 0 {
            let slot = self.wheel.due(now)?;
            *budget -= 1;
            let connection = &mut self.entries[slot as usize];
            if connection.deadline <= now {
                if self.nodes[slot as usize].controlled == 0 {
                    return Some(self.remove_slot(slot));
                }
                connection.deadline = now + TEMPLATE_REPRIEVE;
            }
            self.wheel.unlink(&mut self.nodes, slot, connection.wheel_slot);
            connection.wheel_slot = self.wheel.link(&mut self.nodes, slot, connection.deadline);
        }
        None
    }

    /// When [`Self::expire`] next has something to do; may be early, is late by at most a tick.
    pub fn next_wake(&self) -> Option<Instant> {
        self.wheel.next_wake()
    }

    /// The connections in up to `limit` slots (at least one) from slot `cursor` on, and where
    /// to go on, if there is more. A page may be empty and not be the last.
    pub fn page(
        &self,
        cursor: u32,
        limit: u32,
        mut visit: impl FnMut(ConnectionId, &Connection),
    ) -> Option<u32> {
        let used = self.entries.len() as u32;
        let end = cursor.saturating_add(limit.max(1)).min(used);
        for slot in cursor..end {
            if let Some(connection) = self.entries.get(slot as usize)
                && connection.is_live()
            {
                visit(ConnectionId { slot, generation: connection.generation }, connection);
            }
        }
        (end < used).then_some(end)
    }

    /// Makes `template` the one that a connection was placed by. A connection has one at most,
    /// and keeps the first.
    pub fn set_control(&mut self, id: ConnectionId, template: ConnectionId) {
        if self.get(id).is_none() || self.get(template).is_none() || self.control(id).is_some() {
            return;
        }
        self.nodes[id.slot as usize].control = template;
        self.nodes[template.slot as usize].controlled += 1;
    }

    /// The template that a connection was placed by, if it still lives.
    pub fn control(&self, id: ConnectionId) -> Option<ConnectionId> {
        self.get(id)?;
        let template = self.nodes[id.slot as usize].control;
        self.get(template).map(|_| template)
    }

    /// How many connections were placed by this template and still live.
    pub fn controlled(&self, template: ConnectionId) -> u32 {
        self.get(template).map_or(0, |_| self.nodes[template.slot as usize].controlled)
    }

    fn remove_slot(&mut self, slot: u32) -> Connection {
        let entry = &mut self.entries[slot as usize];
        let connection = *entry;
        entry.generation = entry.generation.wrapping_add(1);
        self.len -= 1;
        self.index.remove(self.index.hash(&connection.key), slot);
        self.wheel.unlink(&mut self.nodes, slot, connection.wheel_slot);
        if let Some(list) = list_of(&mut self.evictable, connection.class) {
            list.unlink(&mut self.nodes, slot);
        }
        let node = &mut self.nodes[slot as usize];
        node.controlled = 0;
        let template = core::mem::replace(&mut node.control, ConnectionId::NONE);
        node.set_next_vacant(self.vacant);
        self.vacant = slot;
        if self.get(template).is_some() {
            self.nodes[template.slot as usize].controlled -= 1;
        }
        connection
    }

    #[cold]
    fn change_class(&mut self, slot: u32, left: Eviction, entered: Eviction) {
        if let Some(list) = list_of(&mut self.evictable, left) {
            list.unlink(&mut self.nodes, slot);
        }
        if let Some(list) = list_of(&mut self.evictable, entered) {
            list.push(&mut self.nodes, slot);
        }
    }
}

/// The list a class is evicted from.
fn list_of(lists: &mut [List<CLASS>; EVICTABLE], class: Eviction) -> Option<&mut List<CLASS>> {
    match class {
        Eviction::HalfOpen | Eviction::Closing | Eviction::Template => {
            Some(&mut lists[class as usize])
        }
        Eviction::Kept => None,
    }
}

#[cfg(test)]
mod tests;
