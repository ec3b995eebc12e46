//! Configurations that are given on the command line.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use super::{Failure, output};
use crate::config::{self, Snapshot};
use crate::shell::file;

/// A valid configuration.
pub(super) struct Input {
    /// What diagnostics call it.
    pub origin: String,
    pub snapshot: Snapshot,
}

impl Input {
    /// Reads and validates a file; `-` is standard input. What is wrong with it is said on
    /// standard error.
    pub fn read(file: &str) -> Result<Input, Failure> {
        let (origin, text) = if file == "-" {
            ("<stdin>", read_text("standard input", &mut io::stdin().lock())?)
        } else {
            let mut opened = File::open(file).map_err(|error| unreadable(file, &error))?;
            (file, read_text(file, &mut opened)?)
        };
        match config::parse(&text, origin) {
            Ok(mut snapshot) => {
                let taken_in = snapshot.take_in_files(file::certificates);
                taken_in.map_err(|what| Failure::Usage(format!("{origin}: {what}")))?;
                Ok(Input { origin: origin.to_owned(), snapshot })
            }
            Err(diagnostics) => {
                output::complain(&format!("{diagnostics}\n"));
                let count = diagnostics.count();
                let mistakes = if count == 1 { "mistake" } else { "mistakes" };
                Err(Failure::Usage(format!("{origin}: {count} {mistakes}")))
            }
        }
    }
}

/// Reads a whole configuration, but no more than [`config::TEXT_BYTES_MAX`].
fn read_text(origin: &str, input: &mut dyn Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let limit = config::TEXT_BYTES_MAX;
    let read = input.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(origin, &error))?;
    if bytes.len() > limit {
        return Err(Failure::Usage(format!(
            "{origin} is larger than {} MiB: is this the configuration?",
            limit >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line_start = valid.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&valid[line_start..]).chars().count() + 1;
        Failure::Usage(format!("{origin}:{line}:{column}: not UTF-8 text: save the file as UTF-8"))
    })
}

fn unreadable(origin: &str, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::PermissionDenied => "check its permissions, or run as a user who may read it",
        ErrorKind::IsADirectory => "name the file in it",
        _ => "check the path and the device it is on",
    };
    Failure::Usage(format!("cannot read {origin}: {error}: {remedy}"))
}
