//! A running router is changed, asked and ordered about, by the program as a person or a script
//! uses it.

#[path = "../support/edits.rs"]
mod edits;
#[path = "../harness/mod.rs"]
mod harness;
mod router;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use edits::{BASE, edits};
use harness::frames::tcp;
use router::{Router, vipr, with_socket};

/// [`BASE`] with nothing to resolve, and all new connections to rs1.
fn one_real_server() -> String {
    BASE.replacen("\"wrr\"", "\"fo\"", 1)
}

/// Opens so many connections to rs1.
fn connect(router: &Router, count: u16) {
    for port in 0..count {
        router.arrive("vipr-front", tcp(40_000 + port, "S").bytes());
    }
    router
        .until("the connections", |status| connections(&status["services"][0]) == u64::from(count));
}

fn connections(service: &Value) -> u64 {
    let real_servers = service["real_servers"].as_array().expect("real servers");
    let count =
        |name| real_servers.iter().map(|found| found[name].as_u64().expect(name)).sum::<u64>();
    count("active") + count("inactive")
}

/// Weight, configured weight and state of the first real server.
fn rs1(status: &Value) -> (u64, u64, &str) {
    let rs1 = &status["services"][0]["real_servers"][0];
    let number = |name: &str| rs1[name].as_u64().expect("a number");
    (number("weight"), number("configured_weight"), rs1["state"].as_str().expect("a state"))
}

#[test]
fn a_weight_set_by_hand_is_in_force_at_once_and_shown_as_such() {
    let router = Router::start(BASE);
    // The order, then weight, configured weight and state, and what is said.
    type Row<'a> = (&'a [&'a str], (u64, u64, &'a str), &'a str);
    let rows: [Row<'_>; 5] = [
        (&["drain", "web", "rs1"], (0, 1, "quiesced"), "1 → 0 (set by hand)"),
        (&["weight", "192.0.2.10:80/tcp", "10.0.0.11", "7"], (7, 1, "up"), "0 → 7 (set by hand)"),
        (&["undrain", "web", "10.0.0.11"], (1, 1, "up"), "7 → 1 (as configured)"),
        (&["weight", "web", "rs1", "1"], (1, 1, "up"), "1 → 1 (as configured)"),
        (&["weight", "web", "rs1", "65535"], (65_535, 1, "up"), "1 → 65535 (set by hand)"),
    ];
    for (order, expected, said) in rows {
        let line = format!("service web: real server rs1 weight {said}, 0 connections\n");
        assert_eq!(router.vipr(order), (Some(0), line, String::new()), "{order:?}");
        assert_eq!(rs1(&router.status()), expected, "{order:?}");
    }
    let (_, table, _) = router.vipr(&["status"]);
    assert!(table.contains(" 65535* "), "{table}");
    let note = "* set by hand: service web: real server rs1 has the weight 1 in the configuration";
    assert!(table.contains(note), "{table}");

    // It stays whatever else changes, until the configuration gives that real server another.
    router.write(&BASE.replacen("\"wrr\"", "\"wlc\"", 1));
    let status = router.until("another scheduler", |status| status["generation"] == 2);
    assert_eq!(rs1(&status), (65_535, 1, "up"));
    router.write(&BASE.replacen("weight = 1", "weight = 2", 1));
    let status = router.until("another weight", |status| status["generation"] == 3);
    assert_eq!(rs1(&status), (2, 2, "up"));
}

#[test]
fn an_order_about_nothing_there_is_says_so_and_is_exit_status_2() {
    let router = Router::start(BASE);
    let rows: [(&[&str], &str); 6] = [
        (&["drain", "wbe", "rs1"], "vipr: no service wbe: there is web, dns\n"),
        (&["undrain", "web", "rs9"], "vipr: service web: no real server rs9: there is rs1, rs2\n"),
        (&["weight", "web", "10.0.0.99", "1"], "no real server 10.0.0.99: there is rs1, rs2"),
        (&["weight", "web", "rs1", "65536"], "65536 is not in 0..=65535"),
        (&["weight", "web", "rs1"], "<WEIGHT>"),
        (&["drain", "web", "rs1", "--wait", "--timeout", "soon"], "expected seconds, or as 5m"),
    ];
    for (order, expected) in rows {
        let (code, stdout, stderr) = router.vipr(order);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{order:?}: {stderr}");
        assert!(stderr.contains(expected), "{order:?}: {stderr}");
    }
    assert_eq!(rs1(&router.status()), (1, 1, "up"));
}

#[test]
fn drain_can_wait_until_the_last_connection_is_gone() {
    let text = one_real_server().replacen(
        "[segment.front]",
        "[timeouts]\ntcp_syn_recv = 3\n[segment.front]",
        1,
    );
    let router = Router::start(&text);
    let begin = Instant::now();
    connect(&router, 2);
    let drain = ["drain", "web", "rs1", "--wait", "--timeout"];
    let (code, stdout, stderr) = router.vipr(&[&drain[..], &["1"]].concat());
    let drained = "service web: real server rs1 weight 1 → 0 (set by hand), 2 connections\n";
    assert_eq!((code, stdout.as_str()), (Some(1), drained));
    let still = "vipr: service web: real server rs1 still has 2 connections after 1s; it stays \
                 drained\n";
    assert_eq!(stderr, still);

    let (code, stdout, stderr) = router.vipr(&[&drain[..], &["1m"]].concat());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let gone = "service web: real server rs1 has no connections any more";
    assert_eq!(stdout.lines().last(), Some(gone));
    assert!(begin.elapsed() >= Duration::from_secs(3), "they lived for that long");
}

#[test]
fn drain_waits_for_a_real_server_that_is_taken_out_meanwhile() {
    let text = one_real_server().replacen(
        "[segment.front]",
        "[timeouts]\ntcp_syn_recv = 2\n[segment.front]",
        1,
    );
    let router = Router::start(&text);
    connect(&router, 1);
    let without =
        text.replacen("\"10.0.0.11\"", "\"10.0.0.21\"", 1).replacen("\"rs1\"", "\"new\"", 1);
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| router.vipr(&["drain", "web", "rs1", "--wait"]));
        router.until("drained", |status| rs1(status).0 == 0);
        router.write(&without);
        router.until("taken out", |status| status["generation"] == 2);
        let (code, stdout, stderr) = drain.join().expect("it returns");
        assert_eq!((code, stdout.lines().count(), stderr.as_str()), (Some(0), 2, ""), "{stdout}");
    });

    // One that is put back to work will not be empty: waiting would be for ever.
    let router = Router::start(&one_real_server());
    connect(&router, 1);
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| router.vipr(&["drain", "web", "rs1", "--wait"]));
        router.until("drained", |status| rs1(status).0 == 0);
        assert_eq!(router.vipr(&["undrain", "web", "rs1"]).0, Some(0));
        let (code, _, stderr) = drain.join().expect("it returns");
        assert_eq!(code, Some(1));
        let expected = "vipr: service web: real server rs1 was given weight 1 meanwhile\n";
        assert_eq!(stderr, expected);
    });
}

#[test]
fn diff_says_what_each_edit_would_change_and_reload_says_the_same() {
    let router = Router::start(BASE);
    let mut generation = 1;
    for edit in edits() {
        let lines: String = edit.differences.iter().map(|line| format!("{line}\n")).collect();
        let new = router.beside(&edit.text);
        let (code, stdout, stderr) = router.vipr(&["diff", new.to_str().expect("a path")]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{}", edit.what);
        let (changes, effects) = stdout.split_once("\nEffects:\n").unwrap_or((&stdout, ""));
        assert_eq!(changes, lines, "{}", edit.what);
        let reopens = matches!(edit.what, "TAP" | "bridge");
        assert_eq!(effects.contains("closes and opens again"), reopens, "{}: {effects}", edit.what);

        router.write(&edit.text);
        let (code, stdout, stderr) = router.vipr(&["reload"]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{}", edit.what);
        generation += 1;
        let first = stdout.lines().next().expect("a line");
        // Whichever was quicker, the watch or the order.
        let already = format!("generation {generation} is in force already; nothing changed");
        if first != already {
            let indented: String =
                edit.differences.iter().map(|line| format!("  {line}\n")).collect();
            let expected = format!("generation {generation} is in force\n{indented}");
            assert_eq!(stdout, expected, "{}", edit.what);
        }
        let same = router.vipr(&["diff", new_copy(&router).as_str(), "--exit-code"]);
        assert_eq!(same, (Some(0), "no differences\n".to_owned(), String::new()), "{}", edit.what);

        router.write(BASE);
        generation += 1;
        router.until(edit.what, |status| status["generation"] == generation);
    }
}

/// The path of a copy of the router's file.
fn new_copy(router: &Router) -> String {
    let copy = router.directory.path().join("copy.toml");
    fs::copy(router.file(), &copy).expect("a copy");
    copy.to_str().expect("a path").to_owned()
}

#[test]
fn diff_tells_what_becomes_of_connections() {
    let router = Router::start(&one_real_server());
    connect(&router, 3);
    let without = one_real_server().replacen("10.0.0.11", "10.0.0.21", 1);
    let rows = [
        (
            without.clone(),
            "service web: 3 connections to real server rs1 finish, no new ones begin",
        ),
        (
            without.replacen("ports = 80", "ports = 80\non_removal = \"reset\"", 1),
            "service web: 3 connections to real server rs1 are reset",
        ),
        (
            one_real_server().replacen("weight = 1", "weight = 0", 1),
            "service web: 3 connections to real server rs1 stay, no new ones begin",
        ),
    ];
    for (text, expected) in rows {
        let new = router.beside(&text);
        let (code, stdout, _) = router.vipr(&["diff", new.to_str().expect("a path")]);
        let effects = stdout.split_once("\nEffects:\n").map(|(_, effects)| effects);
        assert_eq!(
            (code, effects),
            (Some(0), Some(format!("  {expected}\n").as_str())),
            "{stdout}"
        );
    }
    assert_eq!(router.generation(), 1, "asking changes nothing");
}

#[test]
fn diff_compares_configurations_of_any_size() {
    // Several pages, with characters of two bytes on their seams.
    let mut text = BASE.to_owned();
    while text.len() < 300_000 {
        text += "# äöüß äöüß äöüß äöüß äöüß äöüß äöüß äöüß\n";
    }
    let router = Router::start(&text);
    let new = router.beside(&text.replacen("weight = 1", "weight = 2", 1));
    let (code, stdout, stderr) =
        router.vipr(&["diff", "--exit-code", new.to_str().expect("a path")]);
    let expected = "service web: real server rs1 weight 1 → 2\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(1), expected, ""));
}

#[test]
fn diff_of_two_files_needs_no_router() {
    let directory = tempfile::tempdir().expect("a directory");
    let nowhere = directory.path().join("none.sock");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, with_socket(text, &nowhere)).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    let old = file("old.toml", BASE);
    let new = file("new.toml", &BASE.replacen("weight = 1", "weight = 2", 1));
    let bad = file("bad.toml", &BASE.replacen("weight = 1", "wieght = 1", 1));
    let change = "service web: real server rs1 weight 1 → 2\n";
    let rows: [(&[&str], i32, &str, &str); 8] = [
        (&[&new, "--against", &old], 0, change, ""),
        (&[&new, "--against", &old, "--exit-code"], 1, change, ""),
        (&[&old, "--against", &old], 0, "no differences\n", ""),
        (&[&old, "--against", &old, "--exit-code"], 0, "no differences\n", ""),
        (&[&bad, "--against", &old], 2, "", "unknown key `wieght`"),
        (&[&new, "--against", &bad], 2, "", "unknown key `wieght`"),
        (&[&new], 1, "", "no router answers"),
        (&[&new, "--exit-code"], 2, "", "no router answers"),
    ];
    for (arguments, status, expected, complaint) in rows {
        let (code, stdout, stderr) = vipr(&[&["diff"], arguments].concat(), &nowhere);
        assert_eq!((code, stdout.as_str()), (Some(status), expected), "{arguments:?}: {stderr}");
        assert!(stderr.contains(complaint), "{arguments:?}: {stderr}");
        assert_eq!(stderr.is_empty(), complaint.is_empty(), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_broken_configuration_is_refused_and_shown_until_it_is_mended() {
    let router = Router::start(BASE);
    router.write(&BASE.replacen("weight = 1", "wieght = 1", 1));
    let (code, stdout, stderr) = router.vipr(&["reload"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("vipr: refused; generation 1 stays in force\n"), "{stderr}");
    let (_, _, checked) = router.vipr(&["check", router.file().to_str().expect("a path")]);
    let diagnostics = checked.split("\n\nvipr: ").next().expect("diagnostics");
    assert!(diagnostics.contains("wieght") && stderr.contains(diagnostics), "{stderr}\n{checked}");

    let (_, table, _) = router.vipr(&["status"]);
    assert!(table.contains("configuration on disk is not the one running:\n"), "{table}");
    assert!(table.contains(diagnostics), "{table}");
    let status = router.status();
    assert!(status["configuration"]["error"].as_str().is_some_and(|e| e.contains("wieght")));
    assert!(status["configuration"]["failures"].as_u64().is_some_and(|count| count >= 1));

    router.write(BASE);
    let status = router.until("mended", |status| status["configuration"]["error"].is_null());
    assert_eq!(status["generation"], 1);
    assert!(!router.vipr(&["status"]).1.contains("not the one running"));
}

#[test]
fn what_cannot_change_while_running_is_named_until_the_next_start_and_the_rest_is_in_force() {
    let router = Router::start(BASE);
    let before = router.status();
    assert_eq!(before["configuration"]["pending"], Value::Array(Vec::new()));
    let smaller = BASE
        .replacen("name = \"edits\"", "name = \"edits\"\nconnections_max = 4096", 1)
        .replacen("weight = 1", "weight = 5", 1);
    router.write(&smaller);
    let status = router.until("the rest", |status| rs1(status).0 == 5);
    let line = "router: connections_max 1048576 → 4096 takes effect at the next start";
    assert_eq!(status["configuration"]["pending"], Value::Array(vec![line.into()]));
    assert_eq!(status["connections"]["max"], 1_048_576);
    assert!(router.vipr(&["status"]).1.lines().any(|shown| shown == line));
    router.write(BASE);
    router.until("as it was", |status| {
        rs1(status).0 == 1 && status["configuration"]["pending"] == Value::Array(Vec::new())
    });
}

#[test]
fn an_address_that_cannot_be_had_is_named_and_the_rest_is_in_force() {
    let router = Router::start(BASE);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let name = "name = \"edits\"\n";
    let wrong = BASE.replacen(name, &format!("{name}metrics = \"{address}\"\n"), 1).replacen(
        "weight = 1",
        "weight = 5",
        1,
    );
    router.write(&wrong);
    let status = router.until("the rest", |status| rs1(status).0 == 5);
    let pending = status["configuration"]["pending"].to_string();
    assert!(
        pending.contains(&format!("router: metrics stay off: metrics {address}: ")),
        "{pending}"
    );
    assert_eq!(status["configuration"]["error"], Value::Null);

    let elsewhere = router.directory.path().join("none/vipr.sock");
    let line = format!("[router]\ncontrol_socket = \"{}\"\n", elsewhere.display());
    router.write(&BASE.replacen("[router]\n", &line, 1));
    let status = router.until("the next", |status| status["generation"] == 3);
    let pending = status["configuration"]["pending"].to_string();
    let stays = format!("router: control_socket stays at {}: ", router.socket().display());
    assert!(pending.contains(&stays) && !pending.contains("metrics"), "{pending}");
}

#[test]
fn clients_stay_when_the_control_socket_moves() {
    let router = Router::start(BASE);
    let moved = router.directory.path().join("moved.sock");
    let line = format!("[router]\ncontrol_socket = \"{}\"\n", moved.display());
    let mut client = BufReader::new(UnixStream::connect(router.socket()).expect("a router"));
    client.get_ref().set_read_timeout(Some(router::PATIENCE)).expect("patience");
    let mut reload = || {
        client.get_mut().write_all(b"{\"command\":\"reload\"}\n").expect("a request");
        let mut answer = String::new();
        client.read_line(&mut answer).expect("an answer");
        serde_json::from_str::<Value>(&answer).expect("JSON")["reload"].clone()
    };
    router.write(&BASE.replacen("[router]\n", &line, 1));
    let answer = reload();
    // Unless the watch was quicker.
    if answer["outcome"] != "unchanged" {
        let change =
            format!("router: control_socket {} → {}", router.socket().display(), moved.display());
        assert_eq!(answer["changes"], Value::Array(vec![change.into()]));
    }
    assert_eq!(answer["generation"], 2);
    assert!(!router.socket().exists(), "the old one is gone");
    assert_eq!(reload()["outcome"], "unchanged", "still served");
    assert_eq!(vipr(&["status"], &moved).0, Some(0));
}

#[test]
fn sighup_is_one_reload_for_each_edit_and_none_without() {
    let router = Router::start_with_signals(BASE);
    let hang_up = || {
        let process = rustix::process::getpid();
        rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("a signal");
    };
    let edits = edits();
    for (edit, generation) in edits.iter().zip(2..) {
        router.write(&edit.text);
        hang_up();
        router.until(edit.what, |status| status["generation"] == generation);
    }
    hang_up();
    let (code, stdout, _) = router.vipr(&["reload"]);
    let last = 1 + edits.len();
    let unchanged = format!("generation {last} is in force already; nothing changed\n");
    assert_eq!((code, stdout), (Some(0), unchanged));
    // Broken and mended by the same signal.
    router.write("");
    hang_up();
    router.until("refused", |status| !status["configuration"]["error"].is_null());
    router.write(&edits[edits.len() - 1].text);
    hang_up();
    let status = router.until("mended", |status| status["configuration"]["error"].is_null());
    assert_eq!(status["generation"], last);
}
