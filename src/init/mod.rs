//! vipr as the only program of a machine: what runs as PID 1 and keeps the router running.
//!
//! It mounts what the router needs, loads the kernel modules that this machine needs of those it
//! was packed with, brings the configuration from where the kernel's command line says, and then
//! starts the router (`vipr run`) as its child, starts it again when it fails, and reaps whatever
//! else ends. It moves no frame: the machine's cards become uplinks of bridges by the
//! configuration, as anywhere.
//!
//! The host can reach it by ports of a virtio console, where it has them: `vipr.config` takes
//! configurations ([`push`]), `vipr.control` is the router's control socket ([`relay`]).

mod machine;
mod options;
mod power;
mod push;
mod relay;
mod router;
mod setup;
mod source;
mod virtio;

use std::time::Duration;

use rustix::process::getpid;
use rustix::system::{RebootCommand, reboot};

use crate::shell::logger;
use options::Options;

/// How long a message stays on a machine's screen before the power goes off.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Whether this process is the first of its machine and nobody said what it is to do: the kernel
/// starts `/init` without arguments of ours.
pub fn is_first_program(arguments: &[std::ffi::OsString]) -> bool {
    let name = arguments.first().and_then(|name| std::path::Path::new(name).file_name());
    getpid().is_init()
        && (arguments.len() <= 1 || name.is_some_and(|name| name == "init" || name == "linuxrc"))
}

/// Runs the machine until it is to power off. Comes back only with an error that kept it from
/// starting where it is not the first program.
///
/// # Errors
/// A line for a person.
pub fn run() -> Result<(), String> {
    if !getpid().is_init() {
        return Err("init: this is not the first program of a machine (PID 1): it is for images \
                    with vipr alone in them; on a machine with others use vipr run"
            .to_owned());
    }
    setup::mount_all();
    let options = Options::read();
    logger::start(options.log);
    let result = machine::run(&options);
    if let Err(error) = &result {
        log::error!("init: {error}; powering off in {} s", LAST_WORDS.as_secs());
        std::thread::sleep(LAST_WORDS);
    }
    log::info!("init: powering off");
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff).map_err(|error| format!("init: cannot power off: {error}"))
}
