//! `vipr reload`.

use clap::Args;

use super::client::{Client, Target};
use super::{Failure, output};
use crate::shell::protocol::{ReloadOutcome, Reply, Request, ShellCommand};

/// Make the router read its configuration again, and say what changed.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.target)?;
    let Reply::Reload(outcome) = client.ask(&Request::Shell(ShellCommand::Reload))? else {
        return Err(client.unexpected());
    };
    match outcome {
        ReloadOutcome::Applied { generation, changes, more } => output::print(|output| {
            writeln!(output, "generation {generation} is in force")?;
            for change in &changes {
                writeln!(output, "  {change}")?;
            }
            if more > 0 {
                writeln!(output, "  and {more} more")?;
            }
            Ok(())
        }),
        ReloadOutcome::Unchanged { generation } => output::print(|output| {
            Ok(writeln!(output, "generation {generation} is in force already; nothing changed")?)
        }),
        ReloadOutcome::Refused { generation, diagnostics } => Err(Failure::Usage(format!(
            "refused; generation {generation} stays in force\n\n{}",
            diagnostics.trim_end()
        ))),
    }
}
