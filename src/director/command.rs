//! What can be asked of a running director, and what it answers. The shell carries them over
//! the control socket as JSON, one value a line.

use serde::{Deserialize, Serialize};

use super::examination::ExaminationReport;
use super::report::{ConnectionsPage, RealServerReport, StatusReport};

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Command {
    Status,
    /// A page of the connection table, from `cursor` (0 at first) on.
    Connections {
        cursor: u32,
    },
    /// One real server, configured or draining.
    RealServer {
        service: String,
        real_server: String,
    },
    /// Checks a real server now; the answer is what was known before.
    #[serde(rename = "check-now")]
    CheckNow {
        service: String,
        real_server: String,
    },
    /// Begins an examination of a service's real servers, or of all; the answer is its report so
    /// far.
    Examine {
        service: Option<String>,
        real_server: Option<String>,
    },
    /// The report of the last examination so far.
    Examination,
    /// Sets a real server's weight by hand (0 drains it); without one, back to the configured.
    Weight {
        service: String,
        real_server: String,
        weight: Option<u32>,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    Status(Box<StatusReport>),
    Connections(ConnectionsPage),
    RealServer(Box<RealServerReport>),
    Examination(ExaminationReport),
    /// An order was carried out: what changed.
    Done(String),
    /// An order was not carried out, or a question is about nothing there is: why.
    Refused(String),
}
