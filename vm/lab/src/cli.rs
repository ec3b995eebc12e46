//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::build::guest::{CARDS, Guest};
use crate::build::packages::{Kernel, Packages};
use crate::build::{self, Result};

/// Virtual machines around vipr. `make vm-lab` and `make image` use it.
#[derive(Debug, Parser)]
#[command(name = "vipr-lab", disable_help_subcommand = true)]
struct Arguments {
    /// Where packages and what is made of them are kept.
    #[arg(long, value_name = "DIR", default_value = "target/lab", global = true)]
    cache: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Guest(GuestArguments),
}

/// Builds an archive with busybox, modules and files of yours for QEMU's -initrd, and prints the
/// path of the kernel that goes with it.
///
/// With --run the machine runs that program as root and powers off when it ends.
#[derive(Debug, clap::Args)]
struct GuestArguments {
    /// Kernel modules beside those for virtio cards; what they depend on comes with them.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    modules: Vec<String>,
    /// A file of this host, executable there.
    #[arg(long = "add", value_name = "PATH-THERE=FILE", value_parser = pair)]
    files: Vec<(String, PathBuf)>,
    /// A program of a package, with its libraries: ipvsadm=usr/sbin/ipvsadm.
    #[arg(long = "program", value_name = "PACKAGE=PATH", value_parser = pair)]
    programs: Vec<(String, PathBuf)>,
    /// A script or program that is all the machine does.
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// Where the archive goes.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

fn pair(text: &str) -> std::result::Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let packages = Packages::new(arguments.cache.join("packages"));
    let result = match &arguments.command {
        Command::Guest(guest) => build_guest(&packages, guest),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipr-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build_guest(packages: &Packages, arguments: &GuestArguments) -> Result<()> {
    let kernel = Kernel::find(packages)?;
    let mut guest = Guest::new(packages)?;
    let mut modules: Vec<&str> = CARDS.to_vec();
    modules.extend(arguments.modules.iter().map(String::as_str));
    guest.modules(&kernel.modules()?, &modules)?;
    for (package, path) in &arguments.programs {
        guest.program(packages, package, &path.to_string_lossy())?;
    }
    for (place, file) in &arguments.files {
        guest.executable(place, build::read(file)?);
    }
    if let Some(run) = &arguments.run {
        guest.executable("etc/lab/run", build::read(run)?);
    }
    build::write(&arguments.output, &guest.finish())?;
    println!("{}", kernel.image.display());
    Ok(())
}
