//! The configuration that is followed, as the event loop sees it: what is in force, what became of
//! the file since, and who waits for a reload.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::clock;
use super::control::ClientId;
use super::protocol::{
    ConfigurationPage, ConfigurationReport, ReloadOutcome, ReloadsReport, RouterStatus,
};
use super::watch::{Applied, Configuration, Loaded, Watch};
use crate::config::{self, snapshot};
use crate::director::report::StatusReport;

/// Bytes of a configuration in one answer: about 0.1 ms of work.
const PAGE_LEN: usize = 64 << 10;

pub(super) struct Followed {
    watch: Watch,
    /// The one in force. The watch may have another by now.
    in_force: Arc<Configuration>,
    /// What the watch had when it was last asked for something new.
    latest: Arc<Configuration>,
    /// What the router was started with.
    started: snapshot::Router,
    /// What could not be moved where the one in force wants it: one line each.
    pub unmoved: Vec<String>,
    reloads: ReloadsReport,
    waiting: Vec<Waiting>,
}

/// A client that asked for a reload.
struct Waiting {
    client: ClientId,
    waits_for: Await,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Await {
    /// That the watch has read the file.
    Answer { number: u64 },
    /// What this generation changed.
    Change { generation: u64 },
}

impl Followed {
    /// Follows the file from now on. `wake` is called on another thread when there is news.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(loaded: Loaded, wake: impl Fn() + Send + 'static) -> io::Result<Followed> {
        let started = loaded.snapshot.router.clone();
        let in_force = Arc::new(loaded.configuration());
        Ok(Followed {
            watch: Watch::start(loaded, wake)?,
            latest: Arc::clone(&in_force),
            in_force,
            started,
            unmoved: Vec::new(),
            reloads: ReloadsReport::default(),
            waiting: Vec::new(),
        })
    }

    /// Has the file read again; whether there is still someone who does.
    pub fn reload(&mut self) -> bool {
        self.ask().is_some()
    }

    /// Has the file read again for a client, which is to be told through [`Self::outcomes`];
    /// whether there is still someone who does.
    pub fn reload_for(&mut self, client: ClientId) -> bool {
        let Some(number) = self.ask() else { return false };
        self.waiting.push(Waiting { client, waits_for: Await::Answer { number } });
        true
    }

    fn ask(&mut self) -> Option<u64> {
        let number = self.watch.reload();
        if number.is_none() {
            log::error!("configuration {}: its watch has ended", self.watch.path().display());
        }
        number
    }

    /// The configuration to take into force, if it is not. Report with [`Self::applied`].
    pub fn next(&mut self) -> Option<Arc<Configuration>> {
        self.latest = Arc::clone(self.watch.configuration());
        (self.latest.serial != self.in_force.serial).then(|| Arc::clone(&self.latest))
    }

    /// Notes that `next` is in force, for which frames waited so long, and has the watch tell what
    /// that changed. What ran before is freed there too.
    pub fn applied(&mut self, generation: u64, next: Arc<Configuration>, pause: Duration) {
        self.reloads.add(pause);
        let before = std::mem::replace(&mut self.in_force, Arc::clone(&next));
        self.watch.applied(Applied { generation, before, after: next, pause });
    }

    /// Who needs to wait no longer, and what came of it. `is_new` says that `generation` is what
    /// [`Self::next`] gave.
    pub fn outcomes(&mut self, generation: u64, is_new: bool) -> Vec<(ClientId, ReloadOutcome)> {
        let mut outcomes = Vec::new();
        let latest = Arc::clone(&self.latest);
        let answered = |waiting: &mut Waiting| matches!(waiting.waits_for, Await::Answer { number } if number <= latest.answered);
        if is_new && latest.error.is_none() {
            for waiting in self.waiting.iter_mut().filter_map(|w| answered(w).then_some(w)) {
                waiting.waits_for = Await::Change { generation };
            }
        }
        while let Some(change) = self.watch.poll_change() {
            let waits_for = Await::Change { generation: change.generation };
            for waiting in self.waiting.extract_if(.., |waiting| waiting.waits_for == waits_for) {
                let outcome = ReloadOutcome::Applied {
                    generation: change.generation,
                    changes: change.lines.clone(),
                    more: change.more,
                };
                outcomes.push((waiting.client, outcome));
            }
        }
        for waiting in self.waiting.extract_if(.., answered) {
            let outcome = match &latest.error {
                Some(diagnostics) => {
                    ReloadOutcome::Refused { generation, diagnostics: diagnostics.clone() }
                }
                None => ReloadOutcome::Unchanged { generation },
            };
            outcomes.push((waiting.client, outcome));
        }
        outcomes
    }

    /// Adds what only the shell knows.
    pub fn complete(&mut self, report: StatusReport) -> RouterStatus {
        let path = self.watch.path().display().to_string();
        let latest = self.watch.configuration();
        let in_force = &self.in_force;
        let mut pending = config::pending(&self.started, &in_force.snapshot.router);
        pending.extend_from_slice(&self.unmoved);
        RouterStatus {
            report,
            configuration: ConfigurationReport {
                path,
                loaded_at: clock::timestamp(in_force.loaded_at),
                // Before 1970 nobody ran this.
                loaded_at_unix: in_force
                    .loaded_at
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |time| time.as_secs()),
                failures: latest.failures,
                error: latest.error.clone(),
                pending,
                reloads: self.reloads,
            },
        }
    }

    /// The text in force from `offset` on; `None` if that is no place in it.
    pub fn page(&self, generation: u64, offset: usize) -> Option<ConfigurationPage> {
        let rest = self.in_force.text.get(offset..)?;
        let text = &rest[..rest.floor_char_boundary(PAGE_LEN)];
        Some(ConfigurationPage {
            generation,
            path: self.watch.path().display().to_string(),
            text: text.to_owned(),
            next: (text.len() < rest.len()).then(|| offset + text.len()),
        })
    }
}
