//! The configuration: a TOML document, everything that can be wrong with it, and the validated,
//! immutable [`Snapshot`] that the rest of the program runs on.
//!
//! No I/O: the caller reads the file. Text goes in, a [`Snapshot`] or [`Diagnostics`] come out.

pub mod snapshot;

use core::fmt;

pub use snapshot::Snapshot;

/// Everything that is wrong with a configuration file; never empty. `Display` gives it whole.
#[derive(Debug)]
pub struct Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, _formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl core::error::Error for Diagnostics {}

/// Reads a configuration. `origin` is what diagnostics call the file.
///
/// # Errors
/// Every mistake in it at once.
pub fn parse(_text: &str, _origin: &str) -> Result<Snapshot, Diagnostics> {
    todo!()
}
