//! The program as a person or a script sees it: what it prints where, and its exit status. Routers
//! are played by a thread that answers from a list, so no privilege is needed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tempfile::TempDir;

fn vipr(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipr"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["VIPR_CONFIG", "VIPR_SOCKET", "VIPR_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
        command.env_remove(variable);
    }
    command
}

/// Exit status, standard output, standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("vipr can be started");
    let text = |bytes| String::from_utf8(bytes).expect("what vipr prints is UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// A router that answers one client's requests with these lines, and gives back the requests.
struct FakeRouter {
    directory: TempDir,
    thread: JoinHandle<Vec<Value>>,
}

impl FakeRouter {
    fn new(answers: Vec<String>) -> FakeRouter {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("vipr.sock")).expect("a socket");
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut stream = BufReader::new(stream);
            let mut requests = Vec::new();
            for answer in answers {
                let mut line = String::new();
                if stream.read_line(&mut line).is_ok_and(|len| len == 0) {
                    break;
                }
                requests.push(serde_json::from_str(&line).expect("a request is JSON"));
                // A client may have left.
                if writeln!(stream.get_mut(), "{answer}").is_err() {
                    break;
                }
            }
            requests
        });
        FakeRouter { directory, thread }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("vipr.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = vipr(arguments);
        command.arg("--socket").arg(self.socket());
        command
    }

    fn requests(self) -> Vec<Value> {
        self.thread.join().expect("the router's thread")
    }
}

fn status() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/status.json");
    serde_json::from_str(&fs::read_to_string(path).expect("the report")).expect("it is JSON")
}

/// Where the first value is that a router said and `printed` lacks. What a newer report adds by
/// default is no loss.
fn first_lost(printed: &Value, said: &Value, place: &str) -> Option<String> {
    let below = |name: &str| format!("{place}.{name}");
    match (printed, said) {
        (Value::Object(printed), Value::Object(said)) => said.iter().find_map(|(name, value)| {
            let printed = printed.get(name).unwrap_or(&Value::Null);
            first_lost(printed, value, &below(name))
        }),
        (Value::Array(printed), Value::Array(said)) if printed.len() == said.len() => {
            let pairs = printed.iter().zip(said).enumerate();
            pairs
                .into_iter()
                .find_map(|(i, (printed, said))| first_lost(printed, said, &below(&i.to_string())))
        }
        _ => (printed != said).then(|| format!("{place}: {printed} is not {said}")),
    }
}

fn connection(port: u16) -> Value {
    json!({
        "protocol": "tcp", "expires_seconds": 59, "state": "SYN_RECV", "client": "192.0.2.100",
        "client_port": port, "vip": "192.0.2.10", "virtual_port": 80, "service": "web",
        "real_server": "rs1", "real_server_address": "10.0.0.11"
    })
}

fn page(ports: std::ops::Range<u16>, next: Option<u32>) -> String {
    let connections: Vec<Value> = ports.map(connection).collect();
    json!({ "connections": { "connections": connections, "next": next } }).to_string()
}

#[test]
fn status_is_a_table_for_people_and_json_for_programs() {
    let answer = json!({ "status": status() }).to_string();
    let router = FakeRouter::new(vec![answer.clone()]);
    let (code, stdout, stderr) = run(&mut router.command(&["status"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("TCP  192.0.2.10:80 wrr persistent 300"), "{stdout}");
    assert!(stdout.contains("  -> 10.0.0.11:80                 Route   3      12"), "{stdout}");
    assert_eq!(router.requests(), [json!({ "command": "status" })]);

    let router = FakeRouter::new(vec![answer]);
    let (code, stdout, _) = run(&mut router.command(&["status", "--json"]));
    assert_eq!(code, Some(0));
    let printed: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(first_lost(&printed, &status(), ""), None);
}

#[test]
fn connections_come_page_by_page() {
    let pages = || vec![page(1..3, Some(7)), page(3..3, Some(8)), page(3..4, None)];
    let router = FakeRouter::new(pages());
    let (code, stdout, stderr) = run(&mut router.command(&["connections"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[3],
        "TCP 00:59  SYN_RECV    192.0.2.100:3      192.0.2.10:80      10.0.0.11:80"
    );
    let cursors: Vec<Value> =
        router.requests().into_iter().map(|request| request["cursor"].clone()).collect();
    assert_eq!(cursors, [0, 7, 8]);

    let router = FakeRouter::new(pages());
    let (code, stdout, _) = run(&mut router.command(&["connections", "--json"]));
    assert_eq!(code, Some(0));
    let array: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(array, json!([connection(1), connection(2), connection(3)]));
}

#[test]
fn a_router_that_runs_in_a_circle_is_not_followed() {
    let router = FakeRouter::new(vec![page(1..3, Some(7)), page(3..4, Some(7)), page(9..10, None)]);
    let (code, stdout, _) = run(&mut router.command(&["connections"]));
    assert_eq!((code, stdout.lines().count()), (Some(0), 4));
    assert_eq!(router.requests().len(), 2);
}

#[test]
fn a_configuration_that_never_ends_is_not_read_for_ever() {
    let page = |generation: u64, text: &str, next: Option<usize>| {
        json!({ "configuration": { "generation": generation, "path": "vipr.toml", "text": text,
            "next": next } })
        .to_string()
    };
    let rows = [
        (vec![page(1, "a", Some(1)), page(1, "", Some(1)), page(1, "", None)], "another question"),
        (vec![page(1, "a", Some(0)), page(1, "a", Some(0))], "another question"),
        ((0..40).map(|i| page(i, "a", Some(1))).collect(), "changes all the time"),
    ];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/minimal.toml");
    for (answers, expected) in rows {
        let router = FakeRouter::new(answers);
        let (code, stdout, stderr) = run(router.command(&["diff"]).arg(&file));
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn a_reload_says_what_came_of_it() {
    let applied = json!({ "reload": { "outcome": "applied", "generation": 4,
        "changes": ["service web: real server rs1 weight 3 → 7"] } });
    let many = json!({ "reload": { "outcome": "applied", "generation": 4, "changes": ["one"],
        "more": 19_999 } });
    let unchanged = json!({ "reload": { "outcome": "unchanged", "generation": 4 } });
    let refused = json!({ "reload": { "outcome": "refused", "generation": 4,
        "diagnostics": "error: unknown key `wieght`\n" } });
    let rows = [
        (applied, 0, "generation 4 is in force\n  service web: real server rs1 weight 3 → 7\n", ""),
        (many, 0, "generation 4 is in force\n  one\n  and 19999 more\n", ""),
        (unchanged, 0, "generation 4 is in force already; nothing changed\n", ""),
        (
            refused,
            2,
            "",
            "vipr: refused; generation 4 stays in force\n\nerror: unknown key `wieght`\n",
        ),
    ];
    for (answer, code, stdout, stderr) in rows {
        let router = FakeRouter::new(vec![answer.to_string()]);
        let result = run(&mut router.command(&["reload"]));
        assert_eq!(result, (Some(code), stdout.to_owned(), stderr.to_owned()));
        assert_eq!(router.requests(), [json!({ "command": "reload" })]);
    }
}

#[test]
fn without_a_router_one_line_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let nowhere = directory.path().join("none.sock");
    let dead = directory.path().join("dead.sock");
    drop(UnixListener::bind(&dead).expect("a socket"));
    for socket in [nowhere, dead] {
        let expected = format!(
            "vipr: no router answers at {}: is `vipr run` running? (--socket names another)\n",
            socket.display()
        );
        let commands: [&[&str]; 6] = [
            &["status"],
            &["connections"],
            &["reload"],
            &["drain", "web", "rs1"],
            &["undrain", "web", "rs1"],
            &["weight", "web", "rs1", "2"],
        ];
        for command in commands {
            let by_option = run(vipr(command).arg("--socket").arg(&socket));
            assert_eq!(by_option, (Some(1), String::new(), expected.clone()));
            let by_environment = run(vipr(command).env("VIPR_SOCKET", &socket));
            assert_eq!(by_environment, by_option);
        }
    }
}

#[test]
fn a_router_that_talks_nonsense_is_a_failure_and_not_a_crash() {
    let rows: [(&[&str], &str); 5] = [
        (&[], "has gone away"),
        (&["nonsense"], "does not understand"),
        (&["{}"], "does not understand"),
        (&[r#"{"error":"more than 16 clients at a time"}"#], "more than 16 clients"),
        (&[r#"{"reload":{"outcome":"unchanged","generation":1}}"#], "another question"),
    ];
    for (answers, expected) in rows {
        let router = FakeRouter::new(answers.iter().map(|answer| answer.to_string()).collect());
        let (code, stdout, stderr) = run(&mut router.command(&["status"]));
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{answers:?}");
        assert!(
            stderr.starts_with("vipr: the router at ") && stderr.contains(expected),
            "{stderr}"
        );
    }
}

#[test]
fn who_stops_reading_ends_it_quietly() {
    let router = FakeRouter::new((0..50).map(|i| page(0..1000, Some(i + 1))).collect());
    let mut command = router.command(&["connections"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("vipr");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_wrong_command_line_is_exit_status_2() {
    let rows: [&[&str]; 12] = [
        &[],
        &["rum"],
        &["run", "extra"],
        &["run", "--log", "loud"],
        &["status", "--jsn"],
        &["status", "--json", "--stats"],
        &["connections", "--socket"],
        &["reload", "now"],
        &["drain", "web"],
        &["drain", "web", "rs1", "--timeout", "5m"],
        &["weight", "web", "rs1", "-1"],
        &["diff"],
    ];
    for arguments in rows {
        let (code, stdout, stderr) = run(&mut vipr(arguments));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr.contains("Usage:") || stderr.contains("--help"), "{stderr}");
    }
    let (code, stdout, _) = run(&mut vipr(&["--version"]));
    assert_eq!((code, stdout), (Some(0), format!("vipr {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn run_refuses_a_bad_configuration_before_it_touches_anything() {
    let directory = tempfile::tempdir().expect("a directory");
    let bad = directory.path().join("bad.toml");
    fs::write(&bad, "[segment.front]\nrole = \"vip\"\ntpa = \"vipr-front\"\n").expect("a file");
    let missing = directory.path().join("missing.toml");
    let rows = [(&bad, "bad.toml:3:1"), (&missing, "missing.toml: No such file")];
    for (path, expected) in rows {
        let (code, stdout, stderr) = run(vipr(&["run", "-c"]).arg(path));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.starts_with("vipr: ") && stderr.contains(expected), "{stderr}");
        let by_environment = run(vipr(&["run"]).env("VIPR_CONFIG", path));
        assert_eq!(by_environment, (code, stdout, stderr));
    }
}

#[test]
fn run_says_that_a_router_is_running_already() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("vipr.sock");
    let _running = UnixListener::bind(&socket).expect("a socket");
    let config = directory.path().join("vipr.toml");
    let text = format!(
        "[router]\ncontrol_socket = \"{}\"\n[segment.lan]\nrole = \"both\"\ntap = \"vipr-none\"\n\
         [[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80\nscheduler = \"rr\"\n\
         [[service.real_server]]\nname = \"rs1\"\naddress = \"192.0.2.11\"\n",
        socket.display()
    );
    fs::write(&config, text).expect("a file");
    let (code, stdout, stderr) = run(vipr(&["run", "-c"]).arg(&config));
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{stderr}");
    assert!(stderr.contains("already running"), "{stderr}");
    assert!(socket.exists(), "the running router keeps its socket");
}
