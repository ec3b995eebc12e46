//! `vipr check`: what it prints, where, and its exit status.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MINIMAL: &str = include_str!("../config/minimal.toml");

fn check(file: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vipr")).args(["check", file]).output().expect("vipr check")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The whole output, good and bad; after a change of words: `TRYCMD=overwrite cargo test`.
#[test]
fn output_is_as_recorded() {
    trycmd::TestCases::new().case("tests/data/check/*.trycmd");
}

#[test]
fn a_dash_reads_standard_input() {
    for (input, status, stdout, stderr) in
        [(MINIMAL, 0, "<stdin>: valid\n", ""), ("role = 3\n", 2, "", "vipr: <stdin>: 2 mistakes\n")]
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vipr"))
            .args(["check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("vipr check -");
        let mut stdin = child.stdin.take().expect("its standard input");
        stdin.write_all(input.as_bytes()).expect("write");
        drop(stdin);
        let output = child.wait_with_output().expect("its output");
        assert_eq!(output.status.code(), Some(status), "{input}");
        assert!(text(&output.stdout).starts_with(stdout), "{input}");
        assert_eq!(output.stdout.is_empty(), stdout.is_empty(), "{input}");
        assert!(text(&output.stderr).ends_with(stderr), "{input}");
        assert_eq!(output.stderr.is_empty(), stderr.is_empty(), "{input}");
    }
}

/// One line saying what, where and what to do; nothing on stdout; exit status 2.
#[test]
fn a_file_that_cannot_be_read_is_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    fs::write(path("latin-1.toml"), b"[router]\n# caf\xe9\n").expect("write");
    fs::write(path("utf-16.toml"), b"\xff\xfe[\0r\0").expect("write");
    fs::File::create(path("huge.toml")).and_then(|f| f.set_len((16 << 20) + 1)).expect("write");
    for (name, what) in [
        ("missing.toml", "No such file or directory (os error 2): check the path"),
        ("", "Is a directory (os error 21): name the file in it"),
        ("latin-1.toml", ":2:6: not UTF-8 text: save the file as UTF-8"),
        ("utf-16.toml", ":1:1: not UTF-8 text: save the file as UTF-8"),
        ("huge.toml", "is larger than 16 MiB: is this the configuration?"),
    ] {
        let file = path(name);
        let output = check(&file);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(output.stdout.is_empty(), "{file}");
        assert!(stderr.starts_with("vipr: ") && stderr.contains(&file), "{stderr}");
        assert!(stderr.ends_with(&format!("{what}\n")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// However large the configuration, the summary is a screenful, and says what it leaves out.
#[test]
fn the_summary_fits_on_a_screen() {
    let head = "[segment.lan]\nrole = \"both\"\ntap = \"vipr\"\n";
    let service = |i: usize| {
        format!(
            "[[service]]\nvip = \"10.1.{}.{}\"\nprotocol = \"tcp\"\nports = 80\n",
            i / 200,
            i % 200 + 1
        )
    };
    let real_servers = |count: usize| {
        let entry = |i| {
            format!("[[service.real_server]]\naddress = \"10.0.{}.{}\"\n", i / 200, i % 200 + 1)
        };
        (0..count).map(entry).collect::<String>()
    };
    let segments = |count: usize| {
        let entry = |i| format!("[segment.s{i}]\nrole = \"vip\"\ntap = \"s{i}\"\n");
        (0..count).map(entry).collect::<String>()
    };
    let services = |count: usize, each: usize| {
        (0..count).map(|i| service(i) + &real_servers(each)).collect::<String>()
    };
    for (body, left_out) in [
        (services(1, 3), &[][..]),
        (services(1, 500), &["  … and 472 more real servers"]),
        (services(5, 10), &["  … and 6 more real servers"]),
        (services(100, 1), &["… and 71 more services", "1 real server"]),
        (segments(25), &["… and 18 more segments", "no services"]),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("large.toml");
        fs::write(&path, format!("{head}{body}")).expect("write");
        let output = check(&path.to_string_lossy());
        let stdout = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(stdout.lines().count() <= 42, "{} lines:\n{stdout}", stdout.lines().count());
        assert!(stdout.lines().all(|line| !line.ends_with(' ')), "{stdout}");
        assert_eq!(stdout.contains('…'), !left_out.is_empty(), "{stdout}");
        for words in left_out {
            assert!(stdout.lines().any(|line| line.ends_with(words)), "{words}\n{stdout}");
        }
    }
}

#[test]
fn the_data_of_these_tests_is_used() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/check");
    let files = fs::read_dir(directory).expect("tests/data/check");
    let names = files.map(|entry| entry.expect("an entry").file_name());
    let cases = names.filter(|name| name.to_string_lossy().ends_with(".trycmd")).count();
    assert!(cases >= 2, "{cases}");
}
