//! What can be asked of a running director, and what it answers. The shell carries them over
//! the control socket as JSON, one value a line.

use serde::{Deserialize, Serialize};

use super::report::{ConnectionsPage, StatusReport};

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Command {
    Status,
    /// A page of the connection table, from `cursor` (0 at first) on.
    Connections {
        cursor: u32,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    Status(Box<StatusReport>),
    Connections(ConnectionsPage),
}
