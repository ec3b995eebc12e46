//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::build::disk::{self, Contents};
use crate::build::guest::{CARDS, Guest};
use crate::build::packages::{Kernel, Packages};
use crate::build::{self, Result, image, vmlinux};
use crate::lab::bench;
use crate::lab::session::{self, Options};
use crate::lab::stories::{STORIES, Story};
use crate::lab::visitor;

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
    Image(ImageArguments),
    /// Boots the image a few times: its size, the time to the first answer, vipr's memory.
    BenchImage {
        /// The folder that image made.
        #[arg(default_value = "target/image")]
        image: PathBuf,
    },
    Run(RunArguments),
    Test(TestArguments),
    /// A shell in a machine of the running lab.
    Shell {
        /// client, rs1, …
        machine: String,
    },
    /// What the director of the running lab knows.
    Status,
    /// The frames of a segment of the running lab, as a pcap file.
    Capture {
        /// front or back.
        segment: String,
        /// Where they go, instead of standard output.
        file: Option<PathBuf>,
    },
    /// The stories there are.
    Stories,
}

/// Builds an archive with vipr as the only program, for QEMU's -initrd or an image.
#[derive(Debug, clap::Args)]
struct ImageArguments {
    /// The configuration in it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    program: Program,
    /// A disk image too, for machines with UEFI: vipr.raw.
    #[arg(long, requires = "config")]
    disk: bool,
    /// The folder for what is made: vipr.cpio.gz, vmlinuz and the same decompressed, vipr.raw.
    #[arg(short, long, value_name = "DIR", default_value = "target/image")]
    output: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Program {
    /// vipr, built static.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/x86_64-unknown-linux-gnu/minimal/vipr"
    )]
    vipr: PathBuf,
}

#[derive(Debug, clap::Args)]
struct LabArguments {
    /// The description of the lab.
    #[arg(long, value_name = "FILE", default_value = "vm/lab.toml")]
    description: PathBuf,
    /// The director is a process of this host, and its machines' switch.
    #[arg(long)]
    on_host: bool,
    /// How many real servers, instead of those described.
    #[arg(long, value_name = "NUMBER")]
    real_servers: Option<usize>,
    #[command(flatten)]
    program: Program,
}

/// Boots the lab, tells a story, and stays up until Ctrl-C.
#[derive(Debug, clap::Args)]
struct RunArguments {
    #[command(flatten)]
    lab: LabArguments,
    /// Everything on one segment.
    #[arg(long)]
    one_arm: bool,
    #[arg(default_value = "healthy")]
    story: String,
}

/// Tells all stories, or some, and fails if one is not as it should be.
#[derive(Debug, clap::Args)]
struct TestArguments {
    #[command(flatten)]
    lab: LabArguments,
    stories: Vec<String>,
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
    let cache = &arguments.cache;
    let packages = Packages::new(cache.join("packages"));
    let result = match &arguments.command {
        Command::Guest(guest) => build_guest(&packages, guest),
        Command::Image(image) => build_image(&packages, image),
        Command::BenchImage { image } => {
            let kernel = ["vmlinux", "vmlinuz"].map(|name| image.join(name));
            let kernel = kernel.iter().find(|path| path.exists()).unwrap_or(&kernel[1]);
            bench::run(kernel, &image.join("vipr.cpio.gz"))
        }
        Command::Run(run) => Story::find(&run.story)
            .and_then(|story| session::run(&options(cache, &run.lab, run.one_arm), story)),
        Command::Test(test) => session::test(&options(cache, &test.lab, false), &test.stories),
        Command::Shell { machine } => visitor::shell(cache, machine),
        Command::Status => visitor::status(cache),
        Command::Capture { segment, file } => visitor::capture(cache, segment, file.as_deref()),
        Command::Stories => {
            for story in &STORIES {
                println!("{:<18} {}", story.name, story.lesson);
            }
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipr-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(cache: &Path, lab: &LabArguments, one_arm: bool) -> Options {
    Options {
        cache: cache.to_owned(),
        description: lab.description.clone(),
        vipr: lab.program.vipr.clone(),
        real_servers: lab.real_servers,
        one_arm,
        on_host: lab.on_host,
    }
}

fn build_image(packages: &Packages, arguments: &ImageArguments) -> Result<()> {
    let kernel = Kernel::find(packages)?;
    let config = arguments.config.as_deref();
    let archive = image::archive(&kernel.modules()?, &arguments.program.vipr, config)?;
    let (initrd, vmlinuz) =
        (arguments.output.join("vipr.cpio.gz"), arguments.output.join("vmlinuz"));
    build::write(&initrd, &archive)?;
    build::write(&vmlinuz, &build::read(&kernel.image)?)?;
    println!("{}: {} bytes", initrd.display(), archive.len());
    println!("{}", vmlinuz.display());
    let for_qemu = vmlinux::for_qemu(&vmlinuz, &arguments.output.join("vmlinux"))?;
    if for_qemu != vmlinuz {
        println!("{}", for_qemu.display());
    }
    if arguments.disk {
        let disk = arguments.output.join("vipr.raw");
        let contents = Contents { kernel: &vmlinuz, initrd: &initrd, options: disk::OPTIONS };
        disk::build(packages, &contents, &disk)?;
        println!("{}", disk.display());
    }
    Ok(())
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
