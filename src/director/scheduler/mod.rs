//! Which real server gets a new connection: IPVS's schedulers, as one closed enum.

use crate::config::snapshot::SchedulerKind;

/// What a scheduler sees of a real server, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The configured (or overridden) weight.
    pub weight: u32,
    /// Whether it may be given new connections: up and not overloaded. A weight of 0 makes it
    /// ineligible too.
    pub available: bool,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
}

/// A scheduler with its state.
#[derive(Clone, Debug)]
pub enum Scheduler {
    Rr,
}

impl Scheduler {
    /// A fresh scheduler; `None` for a kind that is not built yet.
    pub fn new(_kind: SchedulerKind) -> Option<Scheduler> {
        todo!()
    }

    /// Whether [`Self::new`] knows this kind.
    pub const fn is_built(_kind: SchedulerKind) -> bool {
        todo!()
    }

    pub fn kind(&self) -> SchedulerKind {
        todo!()
    }

    /// Tells of a change to the candidates (added, removed, weights), before the next pick.
    /// Cursors stay where they are as far as that still means something.
    pub fn candidates_changed(&mut self, _candidates: &[Candidate]) {
        todo!()
    }

    /// The index of the chosen candidate; `None` if none can be chosen.
    pub fn pick(&mut self, _candidates: &[Candidate]) -> Option<usize> {
        todo!()
    }
}
