//! `vipr check`.

use clap::Args;

use super::Failure;

/// Validate a configuration, without privileges or devices.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    todo!()
}
