//! The command line: one file a command. Results go to stdout, logs and errors to stderr.

mod check;
mod check_now;
mod client;
mod connections;
mod diff;
mod doctor;
mod effects;
mod input;
mod output;
mod real_server;
mod reload;
mod replay;
mod run;
mod status;
mod tune;
mod weight;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::init;

/// A director for LVS direct routing: its own small network stack on TAP interfaces.
#[derive(Debug, Parser)]
#[command(name = "vipr", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Replay(replay::Arguments),
    Status(status::Arguments),
    Connections(connections::Arguments),
    Reload(reload::Arguments),
    Diff(diff::Arguments),
    Drain(weight::Drain),
    Undrain(weight::Undrain),
    Weight(weight::Weight),
    CheckNow(check_now::Arguments),
    Doctor(doctor::Arguments),
    #[command(name = "realserver")]
    RealServer(real_server::Arguments),
    /// The only program of a machine: PID 1, around the router.
    ///
    /// It takes vipr.config=SOURCE and vipr.log=LEVEL from the kernel's command line. SOURCE is a
    /// path in the image, disk:/dev/vda, virtiofs:TAG, or port for what the host sends.
    Init,
    Tune(tune::Arguments),
}

/// How a command failed, and so the exit status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It failed while running: exit status 1.
    #[error("{0}")]
    Running(String),
    /// The command line or the configuration is wrong: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// What was compared differs, and the exit status was to say so: 1, without another word.
    #[error("there are differences")]
    Different,
    /// Whoever read standard output has seen enough: no failure at all.
    #[error("standard output: closed")]
    Closed,
}

/// Runs the program; its return value is the exit status (0 fine, 1 failed, 2 usage).
pub fn main() -> ExitCode {
    if init::is_first_program(&std::env::args_os().collect::<Vec<_>>()) {
        return exit_code(init::run().map_err(Failure::Usage));
    }
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Connections(arguments) => connections::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Drain(arguments) => weight::drain(&arguments),
        Command::Undrain(arguments) => weight::undrain(&arguments),
        Command::Weight(arguments) => weight::set(&arguments),
        Command::CheckNow(arguments) => check_now::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::RealServer(arguments) => real_server::run(&arguments),
        Command::Init => init::run().map_err(Failure::Usage),
        Command::Tune(arguments) => tune::run(&arguments),
    };
    exit_code(result)
}

fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Different) => ExitCode::from(1),
        Err(failure) => {
            output::complain(&format!("vipr: {failure}"));
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}
