//! `vipr replay`.

use clap::Args;

use super::Failure;

/// Offer captured frames to the router's core.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    todo!()
}
