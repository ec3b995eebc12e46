//! `vipr diff`: what a reload would do, before doing it.

use clap::Args;

use super::client::{Client, Target};
use super::effects::effects;
use super::input::Input;
use super::{Failure, output};
use crate::config::{self, Snapshot, TEXT_BYTES_MAX};
use crate::director::Command;
use crate::shell::protocol::{ConfigurationPage, Reply, Request, ShellCommand};

/// How often to begin again because the router got another configuration meanwhile.
const ATTEMPTS_MAX: usize = 10;

/// Show what a configuration would change, before it is in force.
///
/// Against the running router, also what that does to the connections of now; with --against,
/// between two files, without a router. A configuration that is not valid is exit status 2, and
/// what is wrong with it is said as `vipr check` does.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The new configuration; - reads it from standard input.
    file: String,
    /// Compare with this file instead of what is running.
    #[arg(long, value_name = "OTHER")]
    against: Option<String>,
    /// Exit with 1 if there are differences, and with 2 for any trouble, as diff(1) does.
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match compare(arguments) {
        Ok(differ) if differ && arguments.exit_code => Err(Failure::Different),
        Err(Failure::Running(trouble)) if arguments.exit_code => Err(Failure::Usage(trouble)),
        result => result.map(|_| ()),
    }
}

/// Prints the differences; whether there are any.
fn compare(arguments: &Arguments) -> Result<bool, Failure> {
    let after = Input::read(&arguments.file)?.snapshot;
    let (changes, effects) = match &arguments.against {
        Some(file) => (config::diff(&Input::read(file)?.snapshot, &after), Vec::new()),
        None => {
            let mut client = Client::connect(&arguments.target)?;
            let before = running(&mut client)?;
            let Reply::Status(status) = client.ask(&Request::Director(Command::Status))? else {
                return Err(client.unexpected());
            };
            (config::diff(&before, &after), effects(&status.report, &before, &after))
        }
    };
    output::print(|output| {
        if changes.is_empty() {
            writeln!(output, "no differences")?;
        }
        for change in &changes {
            writeln!(output, "{change}")?;
        }
        if !effects.is_empty() {
            writeln!(output, "\nEffects:")?;
        }
        for effect in &effects {
            writeln!(output, "  {effect}")?;
        }
        Ok(())
    })?;
    Ok(!changes.is_empty())
}

/// The configuration in force.
fn running(client: &mut Client) -> Result<Snapshot, Failure> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some((path, text)) = fetch(client)? {
            return config::parse(&text, &path).map_err(|diagnostics| {
                Failure::Running(format!(
                    "the router runs a configuration that this vipr ({}) would not accept\n\n\
                     {diagnostics}",
                    env!("CARGO_PKG_VERSION")
                ))
            });
        }
    }
    Err(Failure::Running("the router's configuration changes all the time".to_owned()))
}

/// Path and text of the configuration in force; `None` if another came into force meanwhile.
fn fetch(client: &mut Client) -> Result<Option<(String, String)>, Failure> {
    let first = page(client, 0)?;
    let (generation, path, mut text, mut next) =
        (first.generation, first.path, first.text, first.next);
    while let Some(offset) = next {
        // A router that does not get on would be asked for ever.
        if offset != text.len() || offset > TEXT_BYTES_MAX {
            return Err(client.unexpected());
        }
        let page = page(client, offset)?;
        if page.generation != generation {
            return Ok(None);
        }
        if page.text.is_empty() {
            return Err(client.unexpected());
        }
        text += &page.text;
        next = page.next;
    }
    Ok(Some((path, text)))
}

fn page(client: &mut Client, offset: usize) -> Result<ConfigurationPage, Failure> {
    match client.ask(&Request::Shell(ShellCommand::Configuration { offset }))? {
        Reply::Configuration(page) => Ok(page),
        _ => Err(client.unexpected()),
    }
}
