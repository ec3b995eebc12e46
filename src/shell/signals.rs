//! Signals, as one more thing the event loop waits for.
//!
//! Handlers run on whichever thread the kernel picks and only write to a pipe, so no thread needs
//! a signal mask: a system call they interrupt is restarted, or retried by its caller.

use std::io;

use mio::{Interest, Registry};
use signal_hook_mio::v1_0::Signals as Source;

use super::tokens;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGTERM or SIGINT: end.
    Terminate,
}

/// The signals that were sent to this process.
pub struct Signals {
    source: Source,
}

impl Signals {
    /// Catches signals from now on, so that none ends the process half started.
    ///
    /// # Errors
    /// When the system refuses a pipe or a handler.
    pub fn catch() -> io::Result<Signals> {
        Source::new([libc::SIGHUP, libc::SIGTERM, libc::SIGINT]).map(|source| Signals { source })
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.source, tokens::SIGNALS, Interest::READABLE)
    }

    /// The signals that arrived since the last call; several of one kind count once.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> + '_ {
        self.source.pending().map(|number| match number {
            libc::SIGHUP => Signal::Reload,
            _ => Signal::Terminate,
        })
    }
}
