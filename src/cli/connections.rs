//! `vipr connections`.

use clap::Args;

use super::Failure;

/// Show the connection table.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    todo!()
}
