//! Ctrl-C: everything that waits gives up, and what was started ends.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::build::{Error, Result};

static STOPPED: AtomicBool = AtomicBool::new(false);
/// The processes of the machines, which end first: then nobody waits for them in vain.
static MACHINES: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Catches the signals that end a program.
pub fn on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            STOPPED.store(true, Ordering::SeqCst);
            for pid in MACHINES.lock().into_iter().flat_map(|machines| machines.clone()) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    })?;
    Ok(())
}

/// A machine's process, from its start until [`forget_all`].
pub fn note(pid: u32) {
    if let (Ok(mut machines), Some(pid)) =
        (MACHINES.lock(), i32::try_from(pid).ok().and_then(Pid::from_raw))
    {
        machines.push(pid);
    }
}

/// The machines have ended: their numbers may be others' from now on.
pub fn forget_all() {
    if let Ok(mut machines) = MACHINES.lock() {
        machines.clear();
    }
}

pub fn is_asked() -> bool {
    STOPPED.load(Ordering::SeqCst)
}

/// An error where somebody has asked to stop.
pub fn check() -> Result<()> {
    if is_asked() { Err(Error::new("stopped by a signal")) } else { Ok(()) }
}
