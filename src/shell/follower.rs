//! When to look at the configuration file: the system tells about changes in the directories that
//! matter, and where it does not, a look now and then finds them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::watch::Applied;
use super::watched::{self, Appearance, Directory};

/// A change counts as complete when nothing more came for this long.
pub const SETTLE: Duration = Duration::from_millis(30);
/// Or this long after it began, whatever still comes.
pub const SETTLE_MAX: Duration = Duration::from_millis(80);
/// How often to look without having been told: a directory whose ancestor was renamed, or a file
/// system that does not tell.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the watch's thread waits for.
pub(super) enum Message {
    /// Something happened in one of the directories watched.
    Changed,
    /// Someone wants the file read: the number of the request.
    Reload(u64),
    /// The event loop has a new configuration in force.
    Applied(Applied),
    Stop,
}

/// What there is to do.
pub(super) enum Cause {
    /// Look at the file; the number of the request, if someone asked.
    Look(Option<u64>),
    /// Tell what changed.
    Applied(Applied),
}

/// Has the system tell about changes from now on, through the sender.
type Connect = Box<dyn FnMut() -> notify::Result<RecommendedWatcher> + Send>;

pub(super) struct Follower {
    path: PathBuf,
    connect: Connect,
    watcher: Option<RecommendedWatcher>,
    /// Whether a `Changed` is in the channel already; one is enough.
    told: Arc<AtomicBool>,
    directories: Vec<Directory>,
    appearance: Option<Appearance>,
    /// Whether a directory is not watched that should be. It was said, and is tried again.
    blind: bool,
    /// The change that has begun.
    settling: Option<Settling>,
}

/// A change that looks incomplete.
#[derive(Clone, Copy)]
struct Settling {
    /// Unless more comes before.
    quiet_at: Instant,
    end: Instant,
}

impl Settling {
    fn begin(now: Instant) -> Settling {
        Settling { quiet_at: now + SETTLE, end: now + SETTLE_MAX }
    }

    fn go_on(self, now: Instant) -> Settling {
        Settling { quiet_at: now + SETTLE, ..self }
    }

    fn deadline(self) -> Instant {
        self.quiet_at.min(self.end)
    }
}

impl Follower {
    /// Follows the file at the absolute `path`.
    pub fn new(path: PathBuf, messages: Sender<Message>) -> Follower {
        let told = Arc::new(AtomicBool::new(false));
        let teller = Arc::clone(&told);
        let connect = move || {
            let (messages, told) = (messages.clone(), Arc::clone(&teller));
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let matters = event.map_or(true, |event| matters(event.kind));
                if matters && !told.swap(true, Ordering::AcqRel) {
                    let _ = messages.send(Message::Changed);
                }
            })
        };
        Follower::with(path, told, Box::new(connect))
    }

    fn with(path: PathBuf, told: Arc<AtomicBool>, connect: Connect) -> Follower {
        Follower {
            path,
            connect,
            watcher: None,
            told,
            directories: Vec::new(),
            appearance: None,
            blind: false,
            settling: None,
        }
    }

    /// Watches the directories that matter now. To be called before each look, so that nothing
    /// that comes after it is missed.
    pub fn follow(&mut self) {
        self.appearance = Appearance::of(&self.path);
        let wanted = watched::directories(&self.path);
        let is_first = self.directories.is_empty();
        if wanted == self.directories && !self.blind {
            return;
        }
        let result = self.watch(wanted);
        let was_blind = std::mem::replace(&mut self.blind, result.is_err());
        let path = self.path.display();
        let holder = self.directories.last().map_or(Path::new("/"), |directory| &directory.path);
        match result {
            Ok(()) if was_blind => {
                log::info!("configuration {path}: watching {} again", holder.display());
            }
            Ok(()) if is_first => {}
            Ok(()) => log::info!(
                "configuration {path}: its directory was replaced; watching {} now",
                holder.display()
            ),
            // It was said.
            Err(_) if was_blind => {}
            Err(error) => log::warn!(
                "configuration {path}: cannot watch {}: {error}; looking every {} s instead \
                 (raise fs.inotify.max_user_watches and max_user_instances)",
                holder.display(),
                LOOK_INTERVAL.as_secs()
            ),
        }
    }

    /// Waits until there is something to do; `None` at the end.
    pub fn wait(&mut self, messages: &Receiver<Message>) -> Option<Cause> {
        loop {
            let now = Instant::now();
            let patience = match self.settling {
                // Who never stops writing does not put it off.
                Some(settling) if settling.deadline() <= now => {
                    self.settling = None;
                    return Some(Cause::Look(None));
                }
                Some(settling) => settling.deadline() - now,
                None => LOOK_INTERVAL,
            };
            match messages.recv_timeout(patience) {
                Ok(Message::Changed) => {
                    self.told.store(false, Ordering::Release);
                    let now = Instant::now();
                    let settling = self.settling.map(|settling| settling.go_on(now));
                    self.settling = Some(settling.unwrap_or_else(|| Settling::begin(now)));
                }
                Ok(Message::Reload(number)) => {
                    self.settling = None;
                    return Some(Cause::Look(Some(number)));
                }
                Ok(Message::Applied(applied)) => return Some(Cause::Applied(applied)),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.settling.is_some() => {}
                Err(RecvTimeoutError::Timeout) => {
                    if self.has_changed() || self.sees_again() {
                        return Some(Cause::Look(None));
                    }
                }
            }
        }
    }

    /// Whether there are changes that nobody told about.
    fn has_changed(&self) -> bool {
        Appearance::of(&self.path) != self.appearance
            || watched::directories(&self.path) != self.directories
    }

    /// Tries again what did not work; whether it does now, or there was a change meanwhile.
    fn sees_again(&mut self) -> bool {
        if !self.blind {
            return false;
        }
        let seen = self.appearance;
        self.follow();
        !self.blind || self.appearance != seen
    }

    fn watch(&mut self, wanted: Vec<Directory>) -> notify::Result<()> {
        let before = std::mem::replace(&mut self.directories, wanted);
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            none => none.insert((self.connect)()?),
        };
        for directory in &before {
            // One that is gone has taken its watch along.
            let _ = watcher.unwatch(&directory.path);
        }
        // As many as can be had.
        let results = self
            .directories
            .iter()
            .map(|directory| watcher.watch(&directory.path, RecursiveMode::NonRecursive));
        results.collect::<Vec<_>>().into_iter().collect()
    }
}

/// Reading is an event too, and none that matters; the end of writing is, for a file may be
/// written through memory without another sign.
fn matters(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_watch_that_fails_is_tried_again_and_works_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vipr.toml");
        fs::write(&path, "").unwrap();
        let (sender, messages) = mpsc::channel();
        let mut working = Follower::new(path.clone(), sender);
        let mut attempts = 0;
        let mut connect = std::mem::replace(&mut working.connect, Box::new(|| unreachable!()));
        working.connect = Box::new(move || {
            attempts += 1;
            if attempts < 3 { Err(notify::Error::generic("none left")) } else { connect() }
        });
        working.follow();
        assert!(working.blind, "the first attempt");
        assert!(!working.sees_again(), "the second");
        assert!(working.sees_again(), "the third");
        assert!(!working.sees_again(), "there is nothing to mend");
        fs::write(&path, "x").unwrap();
        let told = messages.recv_timeout(10 * LOOK_INTERVAL);
        assert!(matches!(told, Ok(Message::Changed)));
    }

    #[test]
    fn a_directory_made_again_is_watched_even_if_it_looks_like_the_one_before() {
        let root = tempfile::tempdir().unwrap();
        let conf = root.path().join("conf");
        fs::create_dir(&conf).unwrap();
        let (sender, messages) = mpsc::channel();
        let mut follower = Follower::new(conf.join("vipr.toml"), sender);
        follower.follow();
        for _ in 0..10 {
            // A file system that gives inodes again does so here.
            fs::remove_dir_all(&conf).unwrap();
            fs::create_dir(&conf).unwrap();
            follower.follow();
            while messages.recv_timeout(SETTLE).is_ok() {
                follower.told.store(false, Ordering::Release);
            }
            fs::write(conf.join("vipr.toml"), "x").unwrap();
            assert!(matches!(messages.recv_timeout(10 * LOOK_INTERVAL), Ok(Message::Changed)));
            follower.told.store(false, Ordering::Release);
        }
    }

    #[test]
    fn what_nobody_told_about_is_found_while_the_watch_does_not_work() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vipr.toml");
        fs::write(&path, "").unwrap();
        let (_sender, messages) = mpsc::channel();
        let connect = || Err(notify::Error::generic("none left"));
        let mut follower = Follower::with(path.clone(), Arc::default(), Box::new(connect));
        follower.follow();
        fs::write(&path, "x").unwrap();
        assert!(matches!(follower.wait(&messages), Some(Cause::Look(None))));
    }

    #[test]
    fn steady_changes_do_not_put_a_look_off() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, messages) = mpsc::channel();
        let mut follower = Follower::new(directory.path().join("vipr.toml"), sender.clone());
        let begin = Instant::now();
        let teller = std::thread::spawn(move || {
            // More often than it can be quiet, for longer than it may take.
            while begin.elapsed() < 4 * SETTLE_MAX && sender.send(Message::Changed).is_ok() {
                std::thread::sleep(SETTLE / 10);
            }
        });
        assert!(matches!(follower.wait(&messages), Some(Cause::Look(None))));
        let waited = begin.elapsed();
        assert!(waited >= SETTLE && waited < 3 * SETTLE_MAX, "{waited:?}");
        drop(messages);
        teller.join().unwrap();
    }

    #[test]
    fn what_came_into_force_does_not_disturb_a_change_that_settles() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vipr.toml");
        fs::write(&path, "[segment.lan]\nrole = \"both\"\ntap = \"vipr-test\"\n").unwrap();
        let loaded = super::super::watch::Loaded::read(&path).unwrap();
        let configuration = Arc::new(loaded.configuration());
        let applied = Applied {
            generation: 2,
            before: Arc::clone(&configuration),
            after: configuration,
            pause: Duration::ZERO,
        };
        let (sender, messages) = mpsc::channel();
        let mut follower = Follower::new(path, sender.clone());
        sender.send(Message::Changed).unwrap();
        sender.send(Message::Applied(applied)).unwrap();
        assert!(matches!(follower.wait(&messages), Some(Cause::Applied(_))));
        assert!(follower.settling.is_some());
        assert!(matches!(follower.wait(&messages), Some(Cause::Look(None))));
        sender.send(Message::Stop).unwrap();
        assert!(follower.wait(&messages).is_none());
    }

    #[test]
    fn reading_does_not_matter_and_the_end_of_writing_does() {
        use notify::event::{CreateKind, ModifyKind};

        let rows = [
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), false),
            (EventKind::Access(AccessKind::Read), false),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), true),
            (EventKind::Modify(ModifyKind::Any), true),
            (EventKind::Create(CreateKind::File), true),
            (EventKind::Other, true),
        ];
        for (kind, expected) in rows {
            assert_eq!(matters(kind), expected, "{kind:?}");
        }
    }
}
