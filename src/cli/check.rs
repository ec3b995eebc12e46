//! `vipr check`.

use clap::Args;

use super::Failure;

/// Validate a configuration, without privileges or devices.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    file: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let t = std::fs::read_to_string(&arguments.file).unwrap();
    match crate::config::parse(&t, &arguments.file) {
        Ok(s) => println!("{s:#?}"),
        Err(d) => eprintln!("{d}"),
    }
    Ok(())
}
