//! `vipr reload`.

use clap::Args;

use super::Failure;

/// Make the router read its configuration again.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    todo!()
}
