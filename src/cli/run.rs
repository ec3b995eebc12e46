//! `vipr run`.

use clap::Args;

use super::Failure;

/// The router, in the foreground.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    todo!()
}
