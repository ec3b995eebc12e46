//! The connection table: which real server has which flow, and until when.

mod index;
mod state;
mod wheel;

pub use state::{ConnectionState, TcpEvent};

use super::DestinationId;
use super::flow::FlowKey;
use super::instant::Instant;

/// Refers to a connection for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

/// What a connection goes by when the table is full: who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Eviction {
    /// Half-open TCP: the first to go, oldest first.
    HalfOpen,
    /// Closing or closed TCP: next.
    Closing,
    /// Never evicted for a new connection.
    Kept,
}

/// One connection (or persistence template).
#[derive(Debug)]
pub struct Connection {
    key: FlowKey,
    /// The real server of the service that has it.
    pub destination: DestinationId,
    pub state: ConnectionState,
    deadline: Instant,
}

/// The table has no room and nothing in it may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// Connections by key, with deadlines. Fixed capacity.
pub struct ConnectionTable {}

impl ConnectionTable {
    /// An empty table for at most `capacity` connections; memory is touched only as it fills.
    pub fn new(_now: Instant, _capacity: u32, _hash_key: (u64, u64)) -> ConnectionTable {
        todo!()
    }

    pub fn len(&self) -> u32 {
        todo!()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn capacity(&self) -> u32 {
        todo!()
    }

    /// The connection with this key, expired or not: the deadline is the caller's to check.
    pub fn find(&self, _key: &FlowKey) -> Option<ConnectionId> {
        todo!()
    }

    pub fn get(&self, _id: ConnectionId) -> Option<&Connection> {
        todo!()
    }

    /// Adds a connection whose key is not in the table.
    ///
    /// # Errors
    /// [`TableFull`] at capacity: the caller evicts ([`Self::oldest`]) or refuses.
    pub fn insert(
        &mut self,
        _key: FlowKey,
        _destination: DestinationId,
        _state: ConnectionState,
        _deadline: Instant,
    ) -> Result<ConnectionId, TableFull> {
        todo!()
    }

    /// Notes a packet of a connection: its new state and its new deadline.
    pub fn update(&mut self, _id: ConnectionId, _state: ConnectionState, _deadline: Instant) {
        todo!()
    }

    pub fn remove(&mut self, _id: ConnectionId) -> Option<Connection> {
        todo!()
    }

    /// The connection of this class that has been in it longest.
    pub fn oldest(&self, _class: Eviction) -> Option<ConnectionId> {
        todo!()
    }

    /// Removes and returns one connection whose deadline has passed.
    ///
    /// Looks at no more than `budget` connections, which it counts down; `None` when there is
    /// none to return or the budget is used up ([`Self::next_wake`] then says "at once").
    pub fn expire(&mut self, _now: Instant, _budget: &mut u32) -> Option<Connection> {
        todo!()
    }

    /// When [`Self::expire`] next has something to do; may be early, is late by at most a tick.
    pub fn next_wake(&self) -> Option<Instant> {
        todo!()
    }

    /// Up to `limit` connections from slot `cursor` on, and where to go on, if there is more.
    pub fn page(&self, _cursor: u32, _limit: u32, _visit: impl FnMut(&Connection)) -> Option<u32> {
        todo!()
    }
}
