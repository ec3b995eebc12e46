//! What a person may do wrong, or lack: each is one line that says what to do, and nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A place of its own for a run of vipr-lab.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = TempDir::new().unwrap();
        for name in ["tmp", "lists"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The description of the repository, with `before` replaced by `after`.
    fn description(&self, before: &str, after: &str) -> PathBuf {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab.toml");
        let text = fs::read_to_string(own).unwrap();
        assert!(text.contains(before), "{before}");
        let path = self.path("lab.toml");
        fs::write(&path, text.replace(before, after)).unwrap();
        path
    }

    fn lab(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vipr-lab"));
        command.arg("--cache").arg(self.path("cache")).args(words);
        command.current_dir(self.folder.path()).env("TMPDIR", self.path("tmp"));
        command.env_remove("VIPR_LAB_KERNEL").env_remove("VIPR_LAB_MODULES");
        command
    }

    /// Runs it, which is to fail with one line that has these words in it.
    fn refuses(&self, command: &mut Command, words: &[&str]) {
        let Output { status, stderr, .. } = command.output().unwrap();
        let said = String::from_utf8_lossy(&stderr);
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(last.starts_with("vipr-lab: "), "{said}");
        for word in words {
            assert!(last.contains(word), "{word}: {said}");
        }
        let left: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn what_needs_a_running_lab_says_how_to_start_one() {
    let place = Place::new();
    for words in [&["status"][..], &["shell", "client"], &["capture", "front"]] {
        place.refuses(&mut place.lab(words), &["no lab is running", "make vm-lab"]);
    }
}

#[test]
fn a_story_that_there_is_not_is_answered_with_those_there_are() {
    let place = Place::new();
    let mut command = place.lab(&["run", "none"]);
    place.refuses(&mut command, &["no story \"none\"", "healthy", "arp-problem"]);
}

#[test]
fn a_description_that_is_wrong_is_refused_with_its_place() {
    let place = Place::new();
    let path = place.description("scheduler = ", "schedular = ");
    let mut command = place.lab(&["run", "healthy", "--description"]);
    let output = command.arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lab.toml") && said.contains("schedular"), "{said}");
    assert!(fs::read_dir(place.path("tmp")).unwrap().next().is_none());
}

#[test]
fn machines_that_have_no_room_are_not_begun() {
    // As many and as large as there may be.
    const NEEDED_MIB: u64 = 32 * 4096;
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    if available / 1024 > NEEDED_MIB {
        eprintln!("skipped: this host has room for the largest lab");
        return;
    }
    let place = Place::new();
    let path = place.description("memory_mib = 128", "memory_mib = 4096");
    let mut command = place.lab(&["run", "healthy", "--real-servers", "30", "--description"]);
    place.refuses(command.arg(path), &["MiB of memory", "REAL_SERVERS=1"]);
}

#[test]
fn without_qemu_it_is_said_what_to_install() {
    let place = Place::new();
    let path = place.description("weight = 3", "weight = 3");
    let mut command = place.lab(&["run", "healthy", "--description"]);
    let command = command.arg(path).env("PATH", place.path("tmp"));
    place.refuses(command, &["qemu-system-x86_64", "install"]);
}

/// Where there are QEMU and apt-get: on Debian, and where make has installed them.
#[test]
fn an_archive_that_is_not_reachable_is_named_with_the_way_around_it() {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !there("qemu-system-x86_64") || !there("apt-get") {
        eprintln!("skipped: QEMU or apt-get is not there");
        return;
    }
    let place = Place::new();
    let settings = place.path("apt.conf");
    let lists = place.path("lists");
    let text = format!(
        "Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Dir::State::lists \"{}\";\n",
        lists.display()
    );
    fs::write(&settings, text).unwrap();
    let path = place.description("weight = 3", "weight = 3");
    let mut command = place.lab(&["run", "healthy", "--description"]);
    let command = command.arg(path).env("APT_CONFIG", settings);
    place.refuses(command, &["cannot be fetched", "apt-get update", "VIPR_LAB_KERNEL"]);
}
