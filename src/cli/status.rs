//! `vipr status`.

use clap::Args;

use super::Failure;

/// Show services and real servers.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    todo!()
}
