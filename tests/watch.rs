//! Every kind of change of a configuration, made in every way a file is written, is seen once, and
//! right: the real watch on a real file system.
//!
//! A thread a way: it makes one change after the other, each as soon as the one before is there.

#[path = "support/edits.rs"]
mod edits;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use tempfile::TempDir;
use vipr::config;
use vipr::shell::watch::{Applied, Configuration, Loaded, Watch};

use edits::{BASE, edits};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing must happen for a test to believe that nothing will: several times what a
/// change may take to settle.
const QUIET: Duration = Duration::from_millis(300);

/// A way to make a text that of `conf/vipr.toml` below a directory.
struct Way {
    name: &'static str,
    /// Writes the first text.
    set_up: fn(&Path, &str),
    write: fn(&Path, &str),
    /// The program that does it, if one does.
    program: Option<&'static str>,
    /// Whether its directory is another one afterwards, which is to be said.
    replaces_directory: bool,
}

const PLAIN: Way =
    Way { name: "", set_up: plain, write: in_place, program: None, replaces_directory: false };

const WAYS: [Way; 20] = [
    Way { name: "written in place", write: in_place, ..PLAIN },
    Way { name: "truncated, and written a moment later", write: truncated_for_a_moment, ..PLAIN },
    Way { name: "written in pieces", write: in_pieces, ..PLAIN },
    Way { name: "renamed over", write: renamed_over, ..PLAIN },
    Way { name: "renamed over from another directory", write: renamed_from_elsewhere, ..PLAIN },
    Way { name: "a hard link put in its place", write: linked, ..PLAIN },
    Way { name: "deleted and made again", write: deleted_and_made_again, ..PLAIN },
    Way { name: "moved away and made again", write: moved_away, ..PLAIN },
    Way { name: "cp", write: cp, program: Some("cp"), ..PLAIN },
    Way { name: "mv", write: mv, program: Some("mv"), ..PLAIN },
    Way { name: "sed -i", write: sed, program: Some("sed"), ..PLAIN },
    Way { name: "ed", write: ed, program: Some("ed"), ..PLAIN },
    Way { name: "vim, by renaming", write: vim_renaming, program: Some("vim.tiny"), ..PLAIN },
    Way { name: "vim, with a backup", write: vim_with_backup, program: Some("vim.tiny"), ..PLAIN },
    Way { name: "..data swapped", set_up: mounted, write: swapped, ..PLAIN },
    Way {
        name: "its symlink made to lead elsewhere",
        set_up: linked_to_first,
        write: retargeted,
        ..PLAIN
    },
    Way {
        name: "written where its symlink leads",
        set_up: linked_to_first,
        write: written_there,
        ..PLAIN
    },
    Way {
        name: "renamed over where its symlink leads",
        set_up: linked_to_first,
        write: renamed_there,
        ..PLAIN
    },
    Way {
        name: "its directory replaced",
        write: directory_replaced,
        replaces_directory: true,
        ..PLAIN
    },
    Way {
        name: "its directory deleted and made again",
        write: directory_made_again,
        replaces_directory: true,
        ..PLAIN
    },
];

fn file(root: &Path) -> PathBuf {
    root.join("conf/vipr.toml")
}

/// Writes the text beside, for something to take it from there.
fn beside(root: &Path, text: &str) -> PathBuf {
    fs::write(root.join("new"), text).expect("a file beside");
    root.join("new")
}

fn plain(root: &Path, text: &str) {
    fs::write(file(root), text).expect("the file");
}

fn in_place(root: &Path, text: &str) {
    fs::write(file(root), text).expect("the file");
}

fn truncated_for_a_moment(root: &Path, text: &str) {
    let mut opened = fs::File::create(file(root)).expect("the file");
    thread::sleep(Duration::from_millis(5));
    opened.write_all(text.as_bytes()).expect("its text");
}

fn in_pieces(root: &Path, text: &str) {
    // The end comes first, so that no piece is valid by itself.
    let mut opened = fs::File::create(file(root)).expect("the file");
    let head = text.len() / 2;
    let write_at = std::os::unix::fs::FileExt::write_all_at;
    write_at(&opened, &text.as_bytes()[head..], head as u64).expect("the end");
    thread::yield_now();
    opened.write_all(&text.as_bytes()[..head]).expect("the beginning");
}

fn renamed_over(root: &Path, text: &str) {
    fs::write(root.join("conf/vipr.toml.new"), text).expect("the new file");
    fs::rename(root.join("conf/vipr.toml.new"), file(root)).expect("a rename");
}

fn renamed_from_elsewhere(root: &Path, text: &str) {
    fs::rename(beside(root, text), file(root)).expect("a rename");
}

fn linked(root: &Path, text: &str) {
    let new = beside(root, text);
    fs::remove_file(file(root)).expect("removal");
    fs::hard_link(&new, file(root)).expect("a link");
    // Else the next text is written through this link, before it is to be.
    fs::remove_file(&new).expect("removal");
}

fn deleted_and_made_again(root: &Path, text: &str) {
    fs::remove_file(file(root)).expect("removal");
    fs::write(file(root), text).expect("the file");
}

fn moved_away(root: &Path, text: &str) {
    fs::rename(file(root), root.join("conf/vipr.toml~")).expect("a rename");
    fs::write(file(root), text).expect("the file");
}

fn cp(root: &Path, text: &str) {
    run(Command::new("cp").arg(beside(root, text)).arg(file(root)));
}

fn mv(root: &Path, text: &str) {
    run(Command::new("mv").arg(beside(root, text)).arg(file(root)));
}

fn sed(root: &Path, text: &str) {
    let read = format!("1r {}", beside(root, text).display());
    run(Command::new("sed").args(["-i", "-e", &read, "-e", "d"]).arg(file(root)));
}

fn ed(root: &Path, text: &str) {
    let mut child = Command::new("ed")
        .arg("-s")
        .arg(file(root))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ed");
    let script = format!("1,$d\nr {}\nw\nq\n", beside(root, text).display());
    child.stdin.take().expect("its standard input").write_all(script.as_bytes()).expect("orders");
    assert!(child.wait().expect("its end").success(), "ed");
}

fn vim_renaming(root: &Path, text: &str) {
    vim(root, text, "set backupcopy=no");
}

fn vim_with_backup(root: &Path, text: &str) {
    vim(root, text, "set backup writebackup backupcopy=yes");
}

fn vim(root: &Path, text: &str, settings: &str) {
    let replace = format!("%!cat {}", beside(root, text).display());
    let orders = [settings, &replace, "wq"];
    run(Command::new("vim.tiny")
        .args(["-es", "-u", "NONE", "-i", "NONE"])
        .args(orders.iter().flat_map(|order| ["-c", *order]))
        .arg(file(root)));
}

/// As a ConfigMap is mounted.
fn mounted(root: &Path, text: &str) {
    swapped(root, text);
    symlink("..data/vipr.toml", file(root)).expect("a symlink");
}

fn swapped(root: &Path, text: &str) {
    let data = root.join("conf/..data");
    let before = fs::read_link(&data);
    let number = before.as_ref().map_or(0, |before| {
        let name = before.to_str().expect("its name");
        name.trim_start_matches('.').parse::<u32>().expect("a number")
    });
    let name = format!("..{}", number + 1);
    fs::create_dir(root.join("conf").join(&name)).expect("a directory");
    fs::write(root.join("conf").join(&name).join("vipr.toml"), text).expect("the file");
    symlink(&name, root.join("conf/..data_tmp")).expect("a symlink");
    fs::rename(root.join("conf/..data_tmp"), &data).expect("a rename");
    if let Ok(before) = before {
        fs::remove_dir_all(root.join("conf").join(before)).expect("removal");
    }
}

fn linked_to_first(root: &Path, text: &str) {
    fs::create_dir_all(root.join("elsewhere/a")).expect("a directory");
    fs::create_dir_all(root.join("elsewhere/b")).expect("a directory");
    fs::write(root.join("elsewhere/a/real.toml"), text).expect("the file");
    symlink("../elsewhere/a/real.toml", file(root)).expect("a symlink");
}

fn retargeted(root: &Path, text: &str) {
    let before = fs::read_link(file(root)).expect("its symlink");
    let other = if before.ends_with("a/real.toml") { "b" } else { "a" };
    fs::write(root.join(format!("elsewhere/{other}/real.toml")), text).expect("the file");
    symlink(format!("../elsewhere/{other}/real.toml"), root.join("conf/link")).expect("a symlink");
    fs::rename(root.join("conf/link"), file(root)).expect("a rename");
}

fn written_there(root: &Path, text: &str) {
    fs::write(root.join("elsewhere/a/real.toml"), text).expect("the file");
}

fn renamed_there(root: &Path, text: &str) {
    fs::rename(beside(root, text), root.join("elsewhere/a/real.toml")).expect("a rename");
}

fn directory_replaced(root: &Path, text: &str) {
    fs::create_dir(root.join("new-conf")).expect("a directory");
    fs::write(root.join("new-conf/vipr.toml"), text).expect("the file");
    let _ = fs::remove_dir_all(root.join("old-conf"));
    fs::rename(root.join("conf"), root.join("old-conf")).expect("a rename");
    fs::rename(root.join("new-conf"), root.join("conf")).expect("a rename");
}

fn directory_made_again(root: &Path, text: &str) {
    fs::remove_dir_all(root.join("conf")).expect("removal");
    fs::create_dir(root.join("conf")).expect("a directory");
    fs::write(file(root), text).expect("the file");
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.expect("the program runs").success(), "{command:?}");
}

/// A watched file below a directory of its own.
struct Fixture {
    watch: Watch,
    woken: Receiver<()>,
    root: TempDir,
}

impl Fixture {
    fn new(set_up: fn(&Path, &str)) -> Fixture {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("conf")).expect("a directory");
        set_up(root.path(), BASE);
        let loaded = Loaded::read(&file(root.path())).expect("it is valid");
        let (sender, woken) = mpsc::channel();
        let watch = Watch::start(loaded, move || {
            let _ = sender.send(());
        });
        let mut fixture = Fixture { watch: watch.expect("a thread"), woken, root };
        // Nothing is missed from here on.
        let number = fixture.watch.reload().expect("it runs");
        fixture.until("the start", |configuration| configuration.answered == number);
        fixture
    }

    fn path(&self) -> String {
        file(self.root.path()).display().to_string()
    }

    /// Waits until it holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Configuration) -> bool) -> Configuration {
        let end = Instant::now() + PATIENCE;
        loop {
            let configuration = self.watch.configuration();
            if holds(configuration) {
                return Configuration::clone(configuration);
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.woken.recv_timeout(left).is_err() {
                let Configuration { serial, error, .. } = &**self.watch.configuration();
                panic!("{what}: not seen; serial {serial}, error {error:?}");
            }
        }
    }

    /// Waits until nothing happens any more.
    fn settled(&mut self) -> Configuration {
        while self.woken.recv_timeout(QUIET).is_ok() {}
        Configuration::clone(self.watch.configuration())
    }

    /// Writes a text, and waits until it is what is to be in force, by one reload.
    fn edit(&mut self, what: &str, text: &str, write: impl FnOnce(&Path, &str)) {
        let before = self.watch.configuration().serial;
        write(self.root.path(), text);
        let expected = config::parse(text, "expected").expect("it is valid");
        let seen = self.until(what, |configuration| *configuration.snapshot == expected);
        assert_eq!(seen.serial, before + 1, "{what}: reloads");
        assert_eq!(*seen.text, *text, "{what}");
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdin(Stdio::null()).output().is_ok();
    assert!(
        found || std::env::var_os("VIPR_REQUIRE_NAMESPACES").is_none_or(|value| value != "1"),
        "{program} is not installed"
    );
    found
}

#[test]
fn every_edit_is_one_reload_however_the_file_is_written() {
    LogLines::start();
    let edits = edits();
    assert!(edits.iter().all(|edit| edit.text.len() < 4096), "one write is one piece");
    let cells: usize = thread::scope(|scope| {
        let of_way = |way: &Way| {
            if way.program.is_some_and(|program| !is_installed(program)) {
                println!("SKIPPED: {}: it is not installed", way.name);
                return 0;
            }
            let mut fixture = Fixture::new(way.set_up);
            for edit in &edits {
                let what = format!("{}, {}", edit.what, way.name);
                let said = LogLines::about(&fixture.path(), "its directory was replaced").len();
                fixture.edit(&what, &edit.text, way.write);
                if way.replaces_directory {
                    let now = LogLines::about(&fixture.path(), "its directory was replaced").len();
                    assert!(now > said, "{what}: nothing is said about the watch");
                }
            }
            // No reload came late, and none is left to come.
            let last = fixture.settled();
            assert_eq!(last.serial, 1 + edits.len() as u64, "{}: reloads", way.name);
            assert_eq!(last.error, None, "{}", way.name);
            edits.len()
        };
        let threads: Vec<_> = WAYS
            .iter()
            .map(|way| {
                let builder = thread::Builder::new().name(way.name.to_owned());
                builder.spawn_scoped(scope, move || of_way(way)).expect("a thread")
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("this way works")).sum()
    });
    println!("{cells} changes, one reload each");
}

#[test]
fn an_edit_that_is_also_asked_for_is_one_reload() {
    let mut fixture = Fixture::new(plain);
    let base = config::parse(BASE, "base").expect("it is valid");
    let edits = edits();
    for edit in &edits {
        fs::write(file(fixture.root.path()), &edit.text).expect("the file");
        let number = fixture.watch.reload().expect("it runs");
        let expected = config::parse(&edit.text, "expected").expect("it is valid");
        let seen = fixture.until(edit.what, |seen| seen.answered == number);
        assert_eq!(*seen.snapshot, expected, "{}: it is there with the answer", edit.what);
        assert_eq!(config::diff(&base, &seen.snapshot), edit.differences, "{}", edit.what);
    }
    assert_eq!(fixture.settled().serial, 1 + edits.len() as u64);
}

#[test]
fn several_edits_within_a_second_end_with_the_last() {
    let mut fixture = Fixture::new(plain);
    for edit in &edits() {
        renamed_over(fixture.root.path(), &edit.text);
        thread::sleep(Duration::from_millis(10));
    }
    let last = BASE.replacen("weight = 1", "weight = 77", 1);
    renamed_over(fixture.root.path(), &last);
    let settled = fixture.settled();
    assert_eq!(*settled.text, *last);
    // Fewer than there were edits, for several settle as one; and not the last alone, for steady
    // edits do not put it off.
    assert!((2..27).contains(&settled.serial), "{}", settled.serial);
}

#[test]
fn reading_it_is_no_edit_and_neither_is_what_happens_beside_it() {
    let mut fixture = Fixture::new(plain);
    let serial = fixture.settled().serial;
    let conf = fixture.root.path().join("conf");
    for _ in 0..3 {
        fs::read(file(fixture.root.path())).expect("its text");
        fs::metadata(file(fixture.root.path())).expect("its attributes");
        fs::read_dir(&conf).expect("its directory").count();
    }
    let touched = fs::File::options().append(true).open(file(fixture.root.path())).expect("it");
    touched.set_modified(std::time::SystemTime::now()).expect("its time");
    fs::write(conf.join("other.toml"), "x").expect("another file");
    fs::remove_file(conf.join("other.toml")).expect("removal");
    renamed_over(fixture.root.path(), BASE);
    assert!(fixture.woken.recv_timeout(QUIET).is_err(), "the same text is no news");
    assert_eq!(fixture.watch.configuration().serial, serial);
}

#[test]
fn what_is_broken_for_longer_is_refused_and_the_running_one_stays() {
    let mut fixture = Fixture::new(plain);
    type Break = fn(&Path);
    let broken: [(&str, Break); 5] = [
        ("empty", |root| renamed_over(root, "")),
        ("cut off", |root| renamed_over(root, &BASE[..BASE.len() / 2])),
        ("not text", |root| fs::write(file(root), b"\xff\xfe").expect("the file")),
        ("gone", |root| fs::remove_file(file(root)).expect("removal")),
        ("a directory", |root| fs::create_dir(file(root)).expect("a directory")),
    ];
    for (what, break_it) in broken {
        let failures = fixture.watch.configuration().failures;
        break_it(fixture.root.path());
        let refused = fixture.until(what, |seen| seen.failures > failures && seen.error.is_some());
        assert_eq!((refused.serial, &*refused.text), (1, BASE), "{what}");
    }
    fs::remove_dir(file(fixture.root.path())).expect("removal");
    fs::write(file(fixture.root.path()), BASE).expect("the file");
    let mended = fixture.until("mended", |seen| seen.error.is_none());
    assert_eq!(mended.serial, 1, "it is what runs");
    fixture.edit("afterwards", &edits()[0].text, in_place);
}

#[test]
fn the_differences_told_are_those_to_what_ran_whatever_came_between() {
    LogLines::start();
    let mut fixture = Fixture::new(plain);
    let before = fixture.watch.configuration().clone();
    // Two are accepted while what is in force does not follow.
    let first = BASE.replacen("weight = 1", "weight = 9", 1);
    fixture.edit("the first", &first, in_place);
    let second = BASE.replacen("\"wrr\"", "\"wlc\"", 1);
    fixture.edit("the second", &second, in_place);
    let after = fixture.watch.configuration().clone();
    fixture.watch.applied(Applied { generation: 2, before, after, pause: Duration::ZERO });
    let change = loop {
        if let Some(change) = fixture.watch.poll_change() {
            break change;
        }
        fixture.woken.recv_timeout(PATIENCE).expect("the differences");
    };
    let expected = "service web: scheduler wrr → wlc";
    assert_eq!((change.generation, change.more), (2, 0));
    assert_eq!(change.lines, [expected]);
    assert_eq!(LogLines::about(&fixture.path(), "generation 2 is in force").len(), 1);
    assert!(!LogLines::about("", expected).is_empty());
}

#[test]
fn a_thousand_differences_are_told_and_a_hundred_logged() {
    LogLines::start();
    let mut fixture = Fixture::new(plain);
    let before = fixture.watch.configuration().clone();
    let mut text = BASE.to_owned();
    for number in 0..1500 {
        let (high, low) = (number / 250, number % 250 + 1);
        text += &format!(
            "[[service.real_server]]\nname = \"many{number}\"\naddress = \"10.7.{high}.{low}\"\n\
             segment = \"back\"\n"
        );
    }
    fixture.edit("many", &text, renamed_over);
    let after = fixture.watch.configuration().clone();
    fixture.watch.applied(Applied { generation: 2, before, after, pause: Duration::ZERO });
    let change = loop {
        if let Some(change) = fixture.watch.poll_change() {
            break change;
        }
        fixture.woken.recv_timeout(PATIENCE).expect("the differences");
    };
    assert_eq!((change.lines.len(), change.more), (1000, 500));
    assert_eq!(LogLines::about("", "real server many").len(), 100);
    assert_eq!(LogLines::about("", "and 1400 more differences").len(), 1);
}

/// What was logged by all tests of this program.
struct LogLines(Mutex<Vec<String>>);

static LOG_LINES: LogLines = LogLines(Mutex::new(Vec::new()));

impl LogLines {
    fn start() {
        // Another test may have been first.
        let _ = log::set_logger(&LOG_LINES);
        log::set_max_level(LevelFilter::Info);
    }

    /// The lines that have both in them.
    fn about(subject: &str, text: &str) -> Vec<String> {
        let lines = LOG_LINES.0.lock().expect("the log");
        lines.iter().filter(|line| line.contains(subject) && line.contains(text)).cloned().collect()
    }
}

impl Log for LogLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        self.0.lock().expect("the log").push(record.args().to_string());
    }

    fn flush(&self) {}
}
