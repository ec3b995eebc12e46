//! What the tests of ports share: namespaces of their own, ip(8), frames with a mark.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vipr::port::{Batch, Port, Readiness};

/// Says to a test that it is inside its namespaces.
const INSIDE: &str = "VIPR_PORT_TEST_INSIDE";

/// Runs `body` in fresh namespaces, under the name of the calling test.
pub fn in_namespace(test: &str, body: fn()) {
    let test = test.strip_prefix(concat!(env!("CARGO_CRATE_NAME"), "::")).unwrap_or(test);
    in_namespace_with(&[], test, body);
}

/// The same, by way of another command.
pub fn in_namespace_with(wrapper: &[&str], test: &str, body: fn()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut unshare = vec!["--net", "--mount"];
    if !rustix::process::geteuid().is_root() {
        unshare.push("--map-root-user");
    }
    let probe = Command::new("unshare").args(&unshare).args(["ip", "link"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip(test, "unshare(1) may not make namespaces here, or ip(8) is missing");
    }
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        return skip(test, &format!("/dev/net/tun: {error}"));
    }
    let output = Command::new("unshare")
        .args(&unshare)
        .args(wrapper)
        .arg(env::current_exe().expect("a test knows its file"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        // Where nft and iptables are, which an ordinary user's shell does not look into.
        .env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()))
        .output()
        .expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    errors.lines().filter(|line| line.starts_with("SKIPPED")).for_each(say);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "the name of the test is wrong: {text}");
}

pub fn skip(test: &str, why: &str) {
    say(&format!("SKIPPED: {test}: {why}"));
}

/// Says it even if the test passes, when the harness swallows what `println!` says.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A test in namespaces of its own.
macro_rules! namespaced {
    (fn $name:ident() $body:block) => {
        #[test]
        fn $name() {
            $crate::support::in_namespace(concat!(module_path!(), "::", stringify!($name)), || {
                $body
            });
        }
    };
}

/// Runs a command that must succeed.
pub fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().expect(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What ip(8) says of a device.
pub fn device(name: &str) -> Option<Value> {
    let output =
        Command::new("ip").args(["-json", "-details", "link", "show", name]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).ok()?;
    all.get(0).cloned()
}

pub fn field<'a>(device: &'a Value, name: &str) -> Option<&'a str> {
    device.get(name)?.as_str()
}

pub fn is_up(name: &str) -> bool {
    device(name)
        .is_some_and(|device| device["flags"].as_array().unwrap().iter().any(|flag| flag == "UP"))
}

pub fn master(name: &str) -> Option<String> {
    field(&device(name)?, "master").map(str::to_owned)
}

pub fn mtu(name: &str) -> u64 {
    device(name).unwrap()["mtu"].as_u64().unwrap()
}

pub fn disable_ipv6(name: &str) -> String {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Names of all devices but loopback.
pub fn devices() -> Vec<String> {
    let output = Command::new("ip").args(["-json", "link"]).output().unwrap();
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    all.iter()
        .map(|device| field(device, "ifname").unwrap().to_owned())
        .filter(|name| name != "lo")
        .collect()
}

/// A frame that no kernel has an interest in (an EtherType for experiments), with a mark.
pub fn frame(mark: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x0b]);
    bytes[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x0a]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes[14..18].copy_from_slice(&mark.to_be_bytes());
    bytes
}

pub fn mark(bytes: &[u8]) -> Option<u32> {
    let body = bytes.get(12..18)?.strip_prefix(&[0x88, 0xb5])?;
    body.try_into().ok().map(u32::from_be_bytes)
}

/// Marks of the frames that arrive until there are `count` of them, or two seconds passed.
pub fn receive_marks(port: &mut impl Port, count: usize) -> Vec<u32> {
    let mut batch = Batch::new(64);
    let mut marks = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    while marks.len() < count && Instant::now() < deadline {
        batch.clear();
        let readiness = port.receive(&mut batch).unwrap();
        marks.extend((0..batch.len()).filter_map(|index| mark(batch.frame(index).bytes)));
        if readiness == Readiness::Drained {
            thread::sleep(Duration::from_millis(1));
        }
    }
    marks
}
