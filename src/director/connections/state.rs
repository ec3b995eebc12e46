//! The state of a connection as one who sees only the client's half can know it.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::Eviction;
use crate::config::snapshot::Timeouts;
use crate::wire::packet::TcpFlags;

/// IPVS's states, by the names `ipvsadm -Lnc` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum ConnectionState {
    None,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Synack,
    Udp,
    /// A persistence template: no connection, but remembered where one would go.
    Template,
}

/// The class of a TCP segment, by precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpEvent {
    Rst,
    Syn,
    Fin,
    Ack,
    /// None of the four.
    Other,
}

impl From<TcpFlags> for TcpEvent {
    fn from(_flags: TcpFlags) -> TcpEvent {
        todo!()
    }
}

impl ConnectionState {
    /// The state after a segment from the client (IPVS's input-only transitions).
    pub const fn after(self, _event: TcpEvent) -> ConnectionState {
        todo!()
    }

    /// How long a connection in this state lives without a packet.
    ///
    /// A template's is its service's persistence timeout, not known here; it counts as zero.
    pub const fn timeout(self, _timeouts: &Timeouts) -> Duration {
        todo!()
    }

    /// Whether it counts as an *active* connection of its real server.
    pub const fn is_active(self) -> bool {
        todo!()
    }

    /// Whether a SYN may start over in its place: closing, as far as one side shows (IPVS's
    /// `conn_reuse_mode` 2 and one-sided flows: FIN_WAIT, TIME_WAIT, CLOSE).
    pub const fn is_reusable(self) -> bool {
        todo!()
    }

    /// Who goes first when the table is full.
    pub const fn eviction(self) -> Eviction {
        todo!()
    }

    /// As `ipvsadm -Lnc` prints it.
    pub const fn name(self) -> &'static str {
        todo!()
    }
}
