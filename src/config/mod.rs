//! The configuration: a TOML document, everything that can be wrong with it, and the validated,
//! immutable [`Snapshot`] that the rest of the program runs on.
//!
//! No I/O: the caller reads the file. Text goes in, a [`Snapshot`] or [`Diagnostics`] come out, in
//! three steps, none of which stops at a mistake:
//!
//! 1. `toml` makes a table with positions of the text (TOML 1.1); [`syntax`] takes down its errors.
//! 2. [`document`] knows the keys and reads each value by itself, with the help of [`section`],
//!    [`values`], [`attach`], [`ports`] and [`durations`].
//! 3. [`validate`] checks what the values say together and fills in what depends on others.
//!
//! Who cannot deliver a value hands on the proof that a mistake was reported
//! (`diagnostics::Reported`), so there is no way to an incomplete snapshot.

mod attach;
pub mod check;
mod checks;
mod diagnostics;
mod diff;
mod document;
mod durations;
mod ports;
mod section;
pub mod snapshot;
mod syntax;
mod validate;
mod values;

use toml::de::DeTable;

pub use diagnostics::{Diagnostic, Diagnostics, MISTAKES_LISTED_MAX};
pub use diff::{diff, pending};
pub use document::{
    ADDRESSES_MAX, CONNECTIONS_MAX_MAX, LISTEN_MAX, MTU_MAX, MTU_MIN, VIP_MACS_MAX, WEIGHT_MAX,
};
pub use durations::{format_duration, parse_duration};
pub use ports::PORT_RANGES_MAX;
pub use snapshot::Snapshot;
pub use validate::{MH_SLOTS_MAX, REAL_SERVERS_MAX, SEGMENTS_MAX, SERVICES_MAX};
pub use values::DURATION_MAX;

use diagnostics::Mistakes;
use document::Document;

/// Longer texts are refused unread. 65,536 real servers with every key set are 13 MB.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// Reads a configuration. `origin` is what diagnostics call the file.
///
/// # Errors
/// Every mistake in it at once.
pub fn parse(text: &str, origin: &str) -> Result<Snapshot, Diagnostics> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the file is larger than {} MiB", TEXT_BYTES_MAX >> 20);
        return Err(Diagnostics::whole(origin, message, "is this the configuration?"));
    }
    let mut mistakes = Mistakes::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    let document = if errors.is_empty() {
        Document::read(table.get_ref(), &mut mistakes)
    } else {
        let mended = syntax::mend(text, &mut mistakes);
        let (table, errors) = DeTable::parse_recoverable(&mended);
        syntax::report(&mended, &errors, &mut mistakes);
        Document::read(table.get_ref(), &mut mistakes)
    };
    match validate::validate(&document, &mut mistakes) {
        Ok(snapshot) if mistakes.is_empty() => Ok(snapshot),
        _ => Err(mistakes.into_diagnostics(text, origin)),
    }
}

#[cfg(test)]
mod tests;
