//! The watch on the configuration file: a thread that reads, parses and validates what changed,
//! off the packet path, and swaps the result in for the event loop to find.
//!
//! One edit is one reload, however the file is written: in place, by rename, by a swapped
//! symlink, by deleting it first, or with its whole directory. What is compared is the content.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::file::{self, LoadError};
use super::watched::{self, Appearance, Directory};
use crate::config::{self, Snapshot};

/// A change counts as complete when nothing more came for this long.
pub const SETTLE: Duration = Duration::from_millis(30);
/// Or this long after it began, whatever still comes.
pub const SETTLE_MAX: Duration = Duration::from_millis(80);
/// How often to look without having been told: a directory whose ancestor was renamed, or a file
/// system that does not tell.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The configuration in force, and what became of later ones.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub snapshot: Arc<Snapshot>,
    /// How many have been accepted, the one at start included.
    pub serial: u64,
    /// What was changed by the last that was accepted: one line a difference.
    pub changes: Arc<[String]>,
    pub loaded_at: SystemTime,
    /// How many have been refused.
    pub failures: u64,
    /// Why the file on disk is not the one in force, if it is not.
    pub error: Option<String>,
    /// The last [`Watch::reload`] that this reflects.
    pub answered: u64,
}

/// A configuration file as it was read at start.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Absolute.
    pub path: PathBuf,
    pub text: String,
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
        Ok(Loaded { path, text, snapshot })
    }
}

/// A running watch; it ends when dropped.
pub struct Watch {
    path: PathBuf,
    configuration: Cache<Arc<ArcSwap<Configuration>>, Arc<Configuration>>,
    messages: Sender<Message>,
    asked: u64,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the file that `loaded` came from. `wake` is called, on the watch's thread, after
    /// each change of [`Self::configuration`].
    ///
    /// # Errors
    /// When no thread can be started. A system that does not tell about changes is no error: it
    /// is logged, and the file is looked at every [`LOOK_INTERVAL`].
    pub fn start(loaded: Loaded, wake: impl Fn() + Send + 'static) -> io::Result<Watch> {
        let configuration = Arc::new(ArcSwap::from_pointee(Configuration {
            snapshot: loaded.snapshot,
            serial: 1,
            changes: Arc::new([]),
            loaded_at: SystemTime::now(),
            failures: 0,
            error: None,
            answered: 0,
        }));
        let (sender, receiver) = mpsc::channel();
        let mut reader = Reader {
            path: loaded.path.clone(),
            seen: Ok(loaded.text.clone()),
            running: loaded.text,
            configuration: Arc::clone(&configuration),
            wake: Box::new(wake),
        };
        let mut follower = Follower::new(loaded.path.clone(), sender.clone());
        let thread = thread::Builder::new().name("vipr-config".to_owned()).spawn(move || {
            follower.follow();
            // It may have changed since it was read.
            reader.look(None);
            while let Some(cause) = follower.wait(&receiver) {
                follower.follow();
                reader.look(cause);
            }
        })?;
        Ok(Watch {
            path: loaded.path,
            configuration: Cache::new(configuration),
            messages: sender,
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
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Message {
    /// Something happened in one of the directories watched.
    Changed,
    Reload(u64),
    Stop,
}

/// Knows when to look.
struct Follower {
    path: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// Whether a `Changed` is in the channel already; one is enough.
    told: Arc<AtomicBool>,
    directories: Vec<Directory>,
    appearance: Option<Appearance>,
}

impl Follower {
    fn new(path: PathBuf, messages: Sender<Message>) -> Follower {
        let told = Arc::new(AtomicBool::new(false));
        let teller = Arc::clone(&told);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the file is an event too.
            let matters = event.map_or(true, |event| !event.kind.is_access());
            if matters && !teller.swap(true, Ordering::AcqRel) {
                let _ = messages.send(Message::Changed);
            }
        });
        let watcher = watcher.inspect_err(|error| unwatched(&path, error)).ok();
        Follower { path, watcher, told, directories: Vec::new(), appearance: None }
    }

    /// Watches the directories that matter now.
    fn follow(&mut self) {
        self.appearance = Appearance::of(&self.path);
        let wanted = watched::directories(&self.path);
        if wanted == self.directories {
            return;
        }
        let Some(watcher) = &mut self.watcher else { return };
        for directory in &self.directories {
            // One that is gone has taken its watch along.
            let _ = watcher.unwatch(&directory.path);
        }
        for directory in &wanted {
            if let Err(error) = watcher.watch(&directory.path, RecursiveMode::NonRecursive) {
                unwatched(&directory.path, &error);
            }
        }
        if !self.directories.is_empty() {
            let holder = wanted.last().map_or(Path::new("/"), |directory| &directory.path);
            log::info!(
                "configuration {}: its directory was replaced; watching {} now",
                self.path.display(),
                holder.display()
            );
        }
        self.directories = wanted;
    }

    /// Waits until there is a reason to look: the number of a [`Watch::reload`], if that is the
    /// reason. `None` at the end.
    fn wait(&mut self, messages: &Receiver<Message>) -> Option<Option<u64>> {
        loop {
            match messages.recv_timeout(LOOK_INTERVAL) {
                Ok(Message::Changed) => return self.settle(messages),
                Ok(Message::Reload(number)) => return Some(Some(number)),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let moved = watched::directories(&self.path) != self.directories;
                    if moved || Appearance::of(&self.path) != self.appearance {
                        return Some(None);
                    }
                }
            }
        }
    }

    /// Waits until the change that has begun looks complete.
    fn settle(&mut self, messages: &Receiver<Message>) -> Option<Option<u64>> {
        let end = Instant::now() + SETTLE_MAX;
        loop {
            self.told.store(false, Ordering::Release);
            let left = end.saturating_duration_since(Instant::now());
            match messages.recv_timeout(left.min(SETTLE)) {
                Ok(Message::Changed) => {}
                Ok(Message::Reload(number)) => return Some(Some(number)),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => return Some(None),
            }
        }
    }
}

fn unwatched(path: &Path, error: &notify::Error) {
    log::warn!(
        "configuration: cannot watch {}: {error}; looking every {} s instead (raise \
         fs.inotify.max_user_watches and max_user_instances, or use `vipr reload`)",
        path.display(),
        LOOK_INTERVAL.as_secs()
    );
}

/// Knows what was seen last, and tells what is new.
struct Reader {
    path: PathBuf,
    /// The text that was looked at last, or why there was none.
    seen: Result<String, String>,
    /// The text of the configuration in force.
    running: String,
    configuration: Arc<ArcSwap<Configuration>>,
    wake: Box<dyn Fn() + Send>,
}

impl Reader {
    /// Reads the file; if it is not as it was seen last, or if someone asks, says what it is.
    fn look(&mut self, asked: Option<u64>) {
        let seen = file::read(&self.path).map_err(|error| error.to_string());
        if seen == self.seen && asked.is_none() {
            return;
        }
        let mut next = Configuration::clone(&self.configuration.load());
        next.answered = asked.unwrap_or(next.answered);
        match &seen {
            Err(error) => self.refuse(&mut next, error.clone()),
            Ok(text) if *text == self.running => {
                log::info!("configuration {}: unchanged, as it runs", self.path.display());
                next.error = None;
            }
            Ok(text) => match file::parse(&self.path, text) {
                Ok(mut snapshot) => {
                    snapshot.share(&next.snapshot);
                    next.changes = config::diff(&next.snapshot, &snapshot).into();
                    next.snapshot = Arc::new(snapshot);
                    next.serial += 1;
                    next.loaded_at = SystemTime::now();
                    next.error = None;
                    self.running.clone_from(text);
                }
                Err(error) => self.refuse(&mut next, error.to_string()),
            },
        }
        self.seen = seen;
        self.configuration.store(Arc::new(next));
        (self.wake)();
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

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
        /// Watches `conf/vipr.toml`, which `set_up` has written with weight 1.
        fn new(set_up: fn(&Path)) -> Fixture {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("conf")).unwrap();
            set_up(root.path());
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

        fn plain() -> Fixture {
            Fixture::new(|root| fs::write(root.join("conf/vipr.toml"), text(1)).unwrap())
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

    /// Makes this the text of `conf/vipr.toml`, below the root.
    type Edit = fn(&Path, &str);

    fn write(root: &Path, text: &str) {
        fs::write(root.join("conf/vipr.toml"), text).unwrap();
    }

    fn rename_over(root: &Path, text: &str) {
        fs::write(root.join("conf/vipr.toml.new"), text).unwrap();
        fs::rename(root.join("conf/vipr.toml.new"), root.join("conf/vipr.toml")).unwrap();
    }

    fn rename_over_from_elsewhere(root: &Path, text: &str) {
        fs::write(root.join("new"), text).unwrap();
        fs::rename(root.join("new"), root.join("conf/vipr.toml")).unwrap();
    }

    fn delete_and_recreate(root: &Path, text: &str) {
        fs::remove_file(root.join("conf/vipr.toml")).unwrap();
        fs::write(root.join("conf/vipr.toml"), text).unwrap();
    }

    fn move_away_and_recreate(root: &Path, text: &str) {
        fs::rename(root.join("conf/vipr.toml"), root.join("conf/vipr.toml~")).unwrap();
        fs::write(root.join("conf/vipr.toml"), text).unwrap();
    }

    fn truncate_and_append(root: &Path, text: &str) {
        use std::io::Write;

        let mut file = fs::File::create(root.join("conf/vipr.toml")).unwrap();
        let (head, tail) = text.as_bytes().split_at(text.len() / 2);
        file.write_all(head).unwrap();
        thread::yield_now();
        file.write_all(tail).unwrap();
    }

    fn replace_directory(root: &Path, text: &str) {
        fs::create_dir(root.join("new")).unwrap();
        fs::write(root.join("new/vipr.toml"), text).unwrap();
        fs::rename(root.join("conf"), root.join("old")).unwrap();
        fs::rename(root.join("new"), root.join("conf")).unwrap();
    }

    fn delete_and_recreate_directory(root: &Path, text: &str) {
        fs::remove_dir_all(root.join("conf")).unwrap();
        fs::create_dir(root.join("conf")).unwrap();
        fs::write(root.join("conf/vipr.toml"), text).unwrap();
    }

    #[test]
    fn one_edit_is_one_reload_however_it_is_made() {
        let ways: [(&str, Edit); 8] = [
            ("written in place", write),
            ("renamed over", rename_over),
            ("renamed over from another directory", rename_over_from_elsewhere),
            ("deleted and made again", delete_and_recreate),
            ("moved away and made again", move_away_and_recreate),
            ("truncated and written in pieces", truncate_and_append),
            ("its directory replaced", replace_directory),
            ("its directory deleted and made again", delete_and_recreate_directory),
        ];
        for (way, edit) in ways {
            let mut fixture = Fixture::plain();
            edit(fixture.root.path(), &text(2));
            fixture.until(way, |configuration| weight(configuration) == 2);
            // And it goes on being watched.
            write(fixture.root.path(), &text(3));
            fixture.until(way, |configuration| weight(configuration) == 3);
            let last = fixture.settled();
            assert_eq!((last.serial, last.error), (3, None), "{way}");
        }
    }

    /// As a ConfigMap is mounted.
    fn mount(root: &Path) {
        fs::create_dir(root.join("conf/..1")).unwrap();
        fs::write(root.join("conf/..1/vipr.toml"), text(1)).unwrap();
        symlink("..1", root.join("conf/..data")).unwrap();
        symlink("..data/vipr.toml", root.join("conf/vipr.toml")).unwrap();
    }

    #[test]
    fn a_swapped_symlink_is_an_edit_of_what_it_leads_to() {
        let mut fixture = Fixture::new(mount);
        for new in 2..5 {
            let conf = fixture.root.path().join("conf");
            let name = format!("..{new}");
            fs::create_dir(conf.join(&name)).unwrap();
            fs::write(conf.join(&name).join("vipr.toml"), text(new)).unwrap();
            symlink(&name, conf.join("..data_tmp")).unwrap();
            fs::rename(conf.join("..data_tmp"), conf.join("..data")).unwrap();
            fs::remove_dir_all(conf.join(format!("..{}", new - 1))).unwrap();
            fixture.until("swap", |configuration| weight(configuration) == new);
        }
        assert_eq!(fixture.settled().serial, 4);
    }

    #[test]
    fn what_a_symlink_leads_to_is_watched_where_it_is() {
        let mut fixture = Fixture::new(|root| {
            fs::create_dir(root.join("elsewhere")).unwrap();
            fs::write(root.join("elsewhere/real.toml"), text(1)).unwrap();
            symlink("../elsewhere/real.toml", root.join("conf/vipr.toml")).unwrap();
        });
        fs::write(fixture.root.path().join("elsewhere/real.toml"), text(2)).unwrap();
        fixture.until("edit", |configuration| weight(configuration) == 2);
        assert_eq!(fixture.settled().serial, 2);
    }

    #[test]
    fn edits_in_quick_succession_end_with_the_last_and_do_not_wait_for_the_end() {
        let mut fixture = Fixture::plain();
        let end = Instant::now() + Duration::from_millis(800);
        let (mut last, mut seen_underway) = (1, 0);
        while Instant::now() < end {
            last += 1;
            write(fixture.root.path(), &text(last));
            thread::sleep(Duration::from_millis(10));
            seen_underway = fixture.watch.configuration().serial;
        }
        assert!(seen_underway > 2, "steady edits starve the watch");
        fixture.until("last edit", |configuration| weight(configuration) == last);
        assert_eq!(fixture.settled().error, None);
    }

    #[test]
    fn reading_touching_and_neighbors_are_no_edits() {
        let mut fixture = Fixture::plain();
        fs::read(fixture.path()).unwrap();
        rename_over(fixture.root.path(), &text(1));
        fs::write(fixture.root.path().join("conf/other.toml"), "x").unwrap();
        assert!(fixture.woken.recv_timeout(QUIET).is_err());
        assert_eq!(fixture.watch.configuration().serial, 1);
    }

    #[test]
    fn a_bad_file_leaves_the_running_one_in_force_until_it_is_mended() {
        let mut fixture = Fixture::plain();
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
        write(fixture.root.path(), &text(2));
        let mended = fixture.until("a new file", |configuration| weight(configuration) == 2);
        assert_eq!((mended.serial, mended.error), (2, None));
    }

    #[test]
    fn a_reload_is_answered_whatever_the_file_is() {
        let mut fixture = Fixture::plain();
        let unchanged = fixture.reload();
        assert_eq!((unchanged.serial, unchanged.error), (1, None));

        write(fixture.root.path(), &text(2));
        assert_eq!(fixture.reload().serial, 2);

        write(fixture.root.path(), "[segment");
        let failures = fixture.reload().failures;
        assert!(fixture.reload().error.is_some());
        assert!(fixture.settled().failures > failures, "each refused reload is counted");
        assert_eq!(weight(&fixture.settled()), 2);
    }
}
