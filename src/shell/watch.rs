//! The watch on the configuration file: a thread that reads, parses and validates what changed,
//! off the packet path, and swaps the result in for the event loop to find.
//!
//! One edit is one reload, however the file is written: in place, by rename, by a swapped
//! symlink, by deleting it first, or with its whole directory. What is compared is the content.
//!
//! What a new configuration changes is worked out and logged here too, but only once the event
//! loop reports it in force: of several that come at once it takes the last, and the differences
//! are to what ran before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use super::file::{self, LoadError};
use super::follower::{Cause, Follower, Message};
use crate::config::{self, Snapshot};

/// Differences that are logged.
pub const CHANGES_LOGGED_MAX: usize = 100;
/// Differences that are told to who asked for a reload.
pub const CHANGES_TOLD_MAX: usize = 1000;

/// The configuration to be in force, and what became of later ones.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub snapshot: Arc<Snapshot>,
    /// What it was read from.
    pub text: Arc<str>,
    /// How many have been accepted, the one at start included.
    pub serial: u64,
    pub loaded_at: SystemTime,
    /// How many have been refused.
    pub failures: u64,
    /// Why the file on disk is not the one in force, if it is not.
    pub error: Option<String>,
    /// The last [`Watch::reload`] that this reflects.
    pub answered: u64,
}

/// A configuration came into force in the place of another.
#[derive(Clone, Debug)]
pub struct Applied {
    pub generation: u64,
    pub before: Arc<Configuration>,
    pub after: Arc<Configuration>,
    /// How long frames waited for it.
    pub pause: Duration,
}

/// What a configuration that came into force changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub generation: u64,
    /// One line a difference, at most [`CHANGES_TOLD_MAX`].
    pub lines: Vec<String>,
    /// How many differences there are beyond.
    pub more: usize,
}

/// A configuration file as it was read at start.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Absolute.
    pub path: PathBuf,
    pub text: Arc<str>,
    pub snapshot: Arc<Snapshot>,
}

impl Loaded {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn read(path: &Path) -> Result<Loaded, LoadError> {
        let text = file::read(path)?;
        let snapshot = Arc::new(file::parse(path, &text)?);
        // It cannot fail for a path that was just opened, unless the working directory is gone.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Loaded { path, text: text.into(), snapshot })
    }

    /// The first configuration in force.
    pub(super) fn configuration(&self) -> Configuration {
        Configuration {
            snapshot: Arc::clone(&self.snapshot),
            text: Arc::clone(&self.text),
            serial: 1,
            loaded_at: SystemTime::now(),
            failures: 0,
            error: None,
            answered: 0,
        }
    }
}

/// A running watch; it ends when dropped.
pub struct Watch {
    path: PathBuf,
    configuration: Cache<Arc<ArcSwap<Configuration>>, Arc<Configuration>>,
    messages: Sender<Message>,
    changes: Receiver<Change>,
    asked: u64,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the file that `loaded` came from. `wake` is called, on the watch's thread, after
    /// each change of [`Self::configuration`], and when [`Self::poll_change`] has something.
    ///
    /// # Errors
    /// When no thread can be started. A system that does not tell about changes is no error: it
    /// is logged, and the file is looked at every [`super::follower::LOOK_INTERVAL`].
    pub fn start(loaded: Loaded, wake: impl Fn() + Send + 'static) -> io::Result<Watch> {
        let configuration = Arc::new(ArcSwap::from_pointee(loaded.configuration()));
        let (messages, received) = mpsc::channel();
        let (changes, poll_changes) = mpsc::channel();
        let mut reader = Reader::new(loaded.path.clone(), Arc::clone(&configuration));
        let mut follower = Follower::new(loaded.path.clone(), messages.clone());
        let thread = thread::Builder::new().name("vipr-config".to_owned()).spawn(move || {
            follower.follow();
            // It may have changed since it was read.
            if reader.look(None) {
                wake();
            }
            while let Some(cause) = follower.wait(&received) {
                let has_news = match cause {
                    Cause::Look(asked) => {
                        follower.follow();
                        reader.look(asked)
                    }
                    // Nobody is left to be told when the other side is gone.
                    Cause::Applied(applied) => changes.send(reader.tell(&applied)).is_ok(),
                };
                if has_news {
                    wake();
                }
            }
        })?;
        Ok(Watch {
            path: loaded.path,
            configuration: Cache::new(configuration),
            messages,
            changes: poll_changes,
            asked: 0,
            thread: Some(thread),
        })
    }

    /// The file watched.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be in force now. Costs next to nothing.
    pub fn configuration(&mut self) -> &Arc<Configuration> {
        self.configuration.load()
    }

    /// Has the file read again at once, changed or not. Done when
    /// [`Configuration::answered`] reaches the number returned; `None` if the watch has ended
    /// before its time.
    pub fn reload(&mut self) -> Option<u64> {
        self.asked += 1;
        self.messages.send(Message::Reload(self.asked)).is_ok().then_some(self.asked)
    }

    /// Reports what came into force, to have it logged what changed. Costs next to nothing: the
    /// work is done on the watch's thread, and what ran before is freed there.
    pub fn applied(&self, applied: Applied) {
        // A watch that has ended says nothing more; why it did was logged.
        let _ = self.messages.send(Message::Applied(applied));
    }

    /// The next answer to [`Self::applied`], in their order.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.try_recv().ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Knows what was seen last, and tells what is new.
struct Reader {
    path: PathBuf,
    /// The text that was looked at last, or why there was none.
    seen: Result<Arc<str>, String>,
    configuration: Arc<ArcSwap<Configuration>>,
}

impl Reader {
    fn new(path: PathBuf, configuration: Arc<ArcSwap<Configuration>>) -> Reader {
        let seen = Ok(Arc::clone(&configuration.load().text));
        Reader { path, seen, configuration }
    }

    /// Reads the file; if it is not as it was seen last, or if someone asks, takes in what it is.
    /// Whether there is news.
    fn look(&mut self, asked: Option<u64>) -> bool {
        let seen = file::read(&self.path).map_err(|error| error.to_string());
        let is_as_before = match (&seen, &self.seen) {
            (Ok(now), Ok(before)) => **now == **before,
            (Err(now), Err(before)) => now == before,
            _ => false,
        };
        if is_as_before && asked.is_none() {
            return false;
        }
        let mut next = Configuration::clone(&self.configuration.load());
        next.answered = asked.unwrap_or(next.answered);
        match &seen {
            Err(error) => self.refuse(&mut next, error.clone()),
            Ok(text) if **text == *next.text && !next.snapshot.names_files() => {
                log::info!("configuration {}: unchanged, as it runs", self.path.display());
                next.error = None;
            }
            Ok(text) => match file::parse(&self.path, text) {
                Ok(mut snapshot) => {
                    snapshot.share(&next.snapshot);
                    next.snapshot = Arc::new(snapshot);
                    next.text = text.as_str().into();
                    next.serial += 1;
                    next.loaded_at = SystemTime::now();
                    next.error = None;
                }
                Err(error) => self.refuse(&mut next, error.to_string()),
            },
        }
        self.seen = match seen {
            Ok(text) if *text == *next.text => Ok(Arc::clone(&next.text)),
            Ok(text) => Ok(text.into()),
            Err(error) => Err(error),
        };
        self.configuration.store(Arc::new(next));
        true
    }

    /// Logs what a configuration changed that came into force.
    fn tell(&self, Applied { generation, before, after, pause }: &Applied) -> Change {
        log::info!(
            "configuration {}: generation {generation} is in force after a pause of {} µs",
            self.path.display(),
            pause.as_micros()
        );
        let mut lines = config::diff(&before.snapshot, &after.snapshot);
        let count = lines.len();
        match count {
            0 => log::info!("no differences to the one before"),
            1 => log::info!("1 difference to the one before:"),
            _ => log::info!("{count} differences to the one before:"),
        }
        for line in lines.iter().take(CHANGES_LOGGED_MAX) {
            log::info!("{line}");
        }
        if count > CHANGES_LOGGED_MAX {
            log::info!("and {} more differences", count - CHANGES_LOGGED_MAX);
        }
        lines.truncate(CHANGES_TOLD_MAX);
        Change { generation: *generation, more: count - lines.len(), lines }
    }

    fn refuse(&self, next: &mut Configuration, error: String) {
        log::error!(
            "configuration {}: refused, the running one stays in force\n{}",
            self.path.display(),
            error.trim_end()
        );
        next.failures += 1;
        next.error = Some(error);
    }
}

// `tests/watch.rs` has every way in which a file is written.
#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::*;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// How long nothing must happen for a test to believe that nothing will.
    const QUIET: Duration = Duration::from_millis(250);

    fn text(weight: u32) -> String {
        format!(
            r#"
            [segment.lan]
            role = "both"
            tap = "vipr-test"
            address = ["192.0.2.2/24"]
            [[service]]
            vip = "192.0.2.10"
            protocol = "tcp"
            ports = 80
            scheduler = "wrr"
            [[service.real_server]]
            name = "rs1"
            address = "192.0.2.11"
            weight = {weight}
            "#
        )
    }

    fn weight(configuration: &Configuration) -> u32 {
        configuration.snapshot.services[0].real_servers[0].weight
    }

    struct Fixture {
        watch: Watch,
        woken: Receiver<()>,
        /// Below it, `conf/vipr.toml` is watched.
        root: TempDir,
    }

    impl Fixture {
        /// Watches `conf/vipr.toml`, with weight 1.
        fn new() -> Fixture {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("conf")).unwrap();
            fs::write(root.path().join("conf/vipr.toml"), text(1)).unwrap();
            let loaded = Loaded::read(&root.path().join("conf/vipr.toml")).unwrap();
            let (sender, woken) = mpsc::channel();
            let watch = Watch::start(loaded, move || {
                let _ = sender.send(());
            });
            let watch = watch.unwrap();
            let mut fixture = Fixture { watch, woken, root };
            // Nothing is missed from here on.
            fixture.reload();
            fixture
        }

        fn path(&self) -> PathBuf {
            self.root.path().join("conf/vipr.toml")
        }

        fn until(&mut self, what: &str, holds: impl Fn(&Configuration) -> bool) -> Configuration {
            let end = Instant::now() + PATIENCE;
            loop {
                let configuration = self.watch.configuration();
                if holds(configuration) {
                    return Configuration::clone(configuration);
                }
                let left = end.saturating_duration_since(Instant::now());
                if self.woken.recv_timeout(left).is_err() {
                    panic!("{what}: still {:?}", self.watch.configuration());
                }
            }
        }

        fn reload(&mut self) -> Configuration {
            let number = self.watch.reload().unwrap();
            self.until("reload", |configuration| configuration.answered == number)
        }

        /// Waits until nothing happens any more.
        fn settled(&mut self) -> Configuration {
            while self.woken.recv_timeout(QUIET).is_ok() {}
            Configuration::clone(self.watch.configuration())
        }
    }

    fn rename_over(root: &Path, text: &str) {
        fs::write(root.join("conf/vipr.toml.new"), text).unwrap();
        fs::rename(root.join("conf/vipr.toml.new"), root.join("conf/vipr.toml")).unwrap();
    }

    #[test]
    fn a_bad_file_leaves_the_running_one_in_force_until_it_is_mended() {
        let mut fixture = Fixture::new();
        let bad = |configuration: &Configuration| configuration.error.is_some();
        let good = |configuration: &Configuration| configuration.error.is_none();

        rename_over(fixture.root.path(), "wieght = 1\n");
        let refused = fixture.until("a bad file", bad);
        assert_eq!((refused.serial, refused.failures, weight(&refused)), (1, 1, 1));
        assert!(refused.error.unwrap().contains("wieght"));

        // Mended to what it was: nothing to load.
        rename_over(fixture.root.path(), &text(1));
        let mended = fixture.until("the old file", good);
        assert_eq!((mended.serial, mended.failures), (1, 1));

        fs::remove_file(fixture.path()).unwrap();
        let missing = fixture.until("no file", bad);
        assert_eq!((missing.serial, missing.failures), (1, 2));
        assert!(missing.error.unwrap().contains("vipr.toml"));

        fs::remove_dir(fixture.root.path().join("conf")).unwrap();
        fs::create_dir(fixture.root.path().join("conf")).unwrap();
        rename_over(fixture.root.path(), &text(2));
        let mended = fixture.until("a new file", |configuration| weight(configuration) == 2);
        assert_eq!((mended.serial, mended.error), (2, None));
    }

    #[test]
    fn a_reload_is_answered_whatever_the_file_is() {
        let mut fixture = Fixture::new();
        let unchanged = fixture.reload();
        assert_eq!((unchanged.serial, unchanged.error), (1, None));

        rename_over(fixture.root.path(), &text(2));
        assert_eq!(fixture.reload().serial, 2);

        rename_over(fixture.root.path(), "[segment");
        let failures = fixture.reload().failures;
        assert!(fixture.reload().error.is_some());
        assert!(fixture.settled().failures > failures, "each refused reload is counted");
        assert_eq!(weight(&fixture.settled()), 2);
    }
}
