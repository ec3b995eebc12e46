//! What goes over the control socket: one JSON value a line, a question and then its answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::director::report::{ConnectionsPage, StatusReport};
use crate::director::{Command, Response};

/// A question or an order, as a client sends it: `{"command": "status"}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Request {
    /// For what surrounds the core.
    Shell(ShellCommand),
    /// For the core.
    Director(Command),
}

/// What the shell answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum ShellCommand {
    /// Read the configuration file again, and say what came of it.
    Reload,
    /// The text of the configuration in force, from this byte (0 at first) on.
    Configuration { offset: usize },
}

/// The answer: an object with one key, which names what the value is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    Status(Box<RouterStatus>),
    Connections(ConnectionsPage),
    Reload(ReloadOutcome),
    Configuration(ConfigurationPage),
    /// The request was not understood or cannot be met: a line for a person.
    Error(String),
    /// Whatever else the core answers.
    #[serde(untagged)]
    Director(Response),
}

/// `vipr status --json`: what the core says of itself, and which file it runs on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterStatus {
    #[serde(flatten)]
    pub report: StatusReport,
    pub configuration: ConfigurationReport,
}

/// Where the configuration in force came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationReport {
    pub path: String,
    /// Time of day (RFC 3339, UTC) at which it was read.
    pub loaded_at: String,
    /// The same in seconds since 1970.
    #[serde(default)]
    pub loaded_at_unix: u64,
    /// How many were refused since start.
    pub failures: u64,
    /// Why the file on disk is not the one running, if it is not.
    pub error: Option<String>,
    /// What of it is not in effect yet: one line each, with what it waits for.
    #[serde(default)]
    pub pending: Vec<String>,
    #[serde(default)]
    pub reloads: ReloadsReport,
}

/// How long frames waited, in microseconds, while new configurations were taken into force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadsReport {
    /// How many since start; the configuration of the start is not one of them.
    pub count: u64,
    pub last_pause_us: u64,
    pub max_pause_us: u64,
    /// How many of them took longer than a millisecond.
    pub pauses_over_1_ms: u64,
}

impl ReloadsReport {
    pub(super) fn add(&mut self, pause: Duration) {
        self.count += 1;
        self.last_pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.max_pause_us = self.max_pause_us.max(self.last_pause_us);
        self.pauses_over_1_ms += u64::from(pause > Duration::from_millis(1));
    }
}

/// Part of the text of the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationPage {
    /// Another one than on the page before: start again.
    pub generation: u64,
    /// The file it was read from.
    pub path: String,
    pub text: String,
    /// The offset of the next page; `None` at the end.
    pub next: Option<usize>,
}

/// What came of a `reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum ReloadOutcome {
    /// It is in force.
    Applied {
        generation: u64,
        /// One line a difference.
        changes: Vec<String>,
        /// Differences beyond these.
        #[serde(default)]
        more: usize,
    },
    /// It is in force already.
    Unchanged { generation: u64 },
    /// It is not in force; the one before it still is.
    Refused { generation: u64, diagnostics: String },
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, for the client to show.
    pub fn parse(line: &[u8]) -> Result<Request, String> {
        let value: Value =
            serde_json::from_slice(line).map_err(|error| format!("not a JSON value: {error}"))?;
        if let Ok(command) = ShellCommand::deserialize(&value) {
            return Ok(Request::Shell(command));
        }
        Command::deserialize(&value)
            .map(Request::Director)
            .map_err(|error| format!("not a command of this router: {error}"))
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Reply {
        match response {
            Response::Connections(page) => Reply::Connections(page),
            other => Reply::Director(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        for request in [
            Request::Shell(ShellCommand::Reload),
            Request::Shell(ShellCommand::Configuration { offset: 65_536 }),
            Request::Director(Command::Status),
            Request::Director(Command::Connections { cursor: 7 }),
        ] {
            let line = serde_json::to_vec(&request).unwrap();
            assert_eq!(Request::parse(&line), Ok(request));
        }
        assert_eq!(
            Request::parse(br#"{"command":"reload"}"#),
            Ok(Request::Shell(ShellCommand::Reload))
        );
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        for (line, reason) in [
            (&b""[..], "not a JSON value"),
            (b"status", "not a JSON value"),
            (b"\xff\xfe", "not a JSON value"),
            (b"{}", "command"),
            (b"[]", "not a command"),
            (br#"{"command":"statsu"}"#, "statsu"),
            (br#"{"command":"connections"}"#, "cursor"),
            (br#"{"command":"connections","cursor":-1}"#, "-1"),
            (br#"{"command":"configuration"}"#, "configuration"),
        ] {
            let error = Request::parse(line).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn pauses_are_summed_up() {
        let mut reloads = ReloadsReport::default();
        for micros in [80, 1001, 1000] {
            reloads.add(Duration::from_micros(micros));
        }
        let expected = ReloadsReport {
            count: 3,
            last_pause_us: 1000,
            max_pause_us: 1001,
            pauses_over_1_ms: 1,
        };
        assert_eq!(reloads, expected);
    }

    #[test]
    fn replies_are_named_by_their_one_key() {
        let reply = Reply::Reload(ReloadOutcome::Unchanged { generation: 3 });
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(text, r#"{"reload":{"outcome":"unchanged","generation":3}}"#);
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
        let reply = Reply::Error("no".to_owned());
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"error":"no"}"#);
    }
}
