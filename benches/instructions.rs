//! A guard against slow regressions of the core's hot paths that no noise of a machine can hide:
//! it counts instructions, with callgrind, and compares them with a committed baseline.
//!
//! `cargo bench --bench instructions` runs every case once under valgrind and fails if one takes
//! more than [`TOLERANCE`] beyond its baseline in `benches/instructions.toml`. If a change is worth
//! what it costs (or costs less than before), `cargo bench --bench instructions -- --update` writes
//! the new baseline, to be committed with it. Instructions are not time: they know neither caches
//! nor system calls, for which there is `make bench`.
//!
//! Another compiler makes other instructions: with another version than the baseline's the
//! tolerance is [`TOLERANCE_OTHER_COMPILER`], and a line says so.

#[path = "support/frames.rs"]
#[allow(dead_code, reason = "the forwarding benchmark uses the rest")]
mod frames;

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use etherparse::PacketBuilder;
use frames::{DIRECTOR_MAC, Establish, Kind, Writer};
use serde::{Deserialize, Serialize};
use vipr::director::{Action, BURST_MAX, Director, Instant, Limits, SegmentId, Verdict};
use vipr::wire::Frame;
use vipr::wire::packet::TcpFlags;

const TOLERANCE: f64 = 0.04;
const TOLERANCE_OTHER_COMPILER: f64 = 0.25;
/// Frames of a case: whole bursts.
const FRAMES: usize = 64 * BURST_MAX;
/// Established connections: enough for a burst to be judged in stages.
const CONNECTIONS: u32 = 2048;
/// Says that this process is the one to be counted.
const MEASURED: &str = "--measured";
/// The measured functions, as callgrind names them.
const PREFIX: &str = "instructions::case_";

const CONFIGURATION: &str = r#"
[segment.front]
role = "vip"
tap = "vipr-front"
mac = "02:00:00:00:01:01"

[segment.back]
role = "backend"
tap = "vipr-back"
mac = "02:00:00:00:02:01"

[[service]]
vip = "198.18.0.1"
protocol = "tcp"
ports = 80
scheduler = "wrr"
real_server = [
    { name = "rs1", address = "10.0.0.11", mac = "52:54:00:00:00:11", weight = 4 },
    { name = "rs2", address = "10.0.0.12", mac = "52:54:00:00:00:12", weight = 3 },
    { name = "rs3", address = "10.0.0.13", mac = "52:54:00:00:00:13", weight = 2 },
]

[[service]]
vip = "2001:db8::1"
protocol = "tcp"
ports = 80
scheduler = "wrr"
real_server = [
    { name = "rs1", address = "10.0.0.11", mac = "52:54:00:00:00:11", weight = 4 },
    { name = "rs2", address = "10.0.0.12", mac = "52:54:00:00:00:12", weight = 3 },
]
"#;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let has = |word: &str| words.iter().any(|given| given == word);
    if has(MEASURED) {
        measured();
        return ExitCode::SUCCESS;
    }
    let counted = match count() {
        Ok(counted) => counted,
        Err(problem) => {
            eprintln!("instructions: {problem}");
            return ExitCode::FAILURE;
        }
    };
    if has("--update") {
        let text = toml::to_string(&counted).expect("numbers and names");
        fs::write(baseline_path(), format!("{BASELINE_HEADER}{text}"))
            .expect("the baseline can be written");
        println!("instructions: wrote {}", baseline_path().display());
        return ExitCode::SUCCESS;
    }
    compare(&counted)
}

const BASELINE_HEADER: &str = "\
# Instructions a frame of the core's hot paths. Written by:
#     cargo bench --locked --bench instructions -- --update
";

#[derive(Serialize, Deserialize)]
struct Baseline {
    compiler: String,
    frames: BTreeMap<String, f64>,
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml")
}

/// Compares with the baseline and says what came of it.
fn compare(counted: &Baseline) -> ExitCode {
    let path = baseline_path();
    let baseline: Baseline = match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).expect("the baseline is as this program wrote it"),
        Err(error) => {
            eprintln!("instructions: {}: {error}; write one with --update", path.display());
            return ExitCode::FAILURE;
        }
    };
    let mut tolerance = TOLERANCE;
    if baseline.compiler != counted.compiler {
        tolerance = TOLERANCE_OTHER_COMPILER;
        println!(
            "instructions: the baseline is of {}, this is {}: {:.0} % are let pass",
            baseline.compiler,
            counted.compiler,
            tolerance * 100.0
        );
    }
    println!("{:<24} {:>9} {:>9} {:>7}", "instructions a frame", "baseline", "now", "");
    let mut worse = Vec::new();
    for (name, &now) in &counted.frames {
        let Some(&before) = baseline.frames.get(name) else {
            println!("{name:<24} {:>9} {now:>9.1}", "none");
            worse.push(name.as_str());
            continue;
        };
        let change = now / before - 1.0;
        let judgement = if change > tolerance {
            worse.push(name);
            "TOO MANY"
        } else if change < -tolerance {
            "fewer: commit a new baseline"
        } else {
            ""
        };
        println!("{name:<24} {before:>9.1} {now:>9.1} {:>+6.1}% {judgement}", change * 100.0);
    }
    if worse.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "instructions: {} beyond the baseline by more than {:.0} %. If that is worth it:\n    \
         cargo bench --locked --bench instructions -- --update\nand commit {}",
        worse.join(", "),
        tolerance * 100.0,
        path.display()
    );
    ExitCode::FAILURE
}

/// Runs this program under callgrind and reads what each case took.
fn count() -> Result<Baseline, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = directory.path().join("callgrind.out");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--toggle-collect={PREFIX}*"))
        .arg(program)
        .arg(MEASURED)
        .output()
        .map_err(|error| format!("valgrind: {error}; vm/install-deps.sh test installs it"))?;
    if !output.status.success() {
        return Err(format!("under valgrind: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let profile = fs::read_to_string(&out).map_err(|error| error.to_string())?;
    let frames = inclusive(&profile);
    if frames.len() != CASES.len() {
        return Err(format!("{} of {} cases are in the profile", frames.len(), CASES.len()));
    }
    Ok(Baseline { compiler: compiler(), frames })
}

/// What each case and all that it called took, a frame, by name. The format's description is in
/// valgrind's manual, "Callgrind Format Specification": after `fn=` come lines of costs, and after
/// `calls=` one whose cost is that of the call.
fn inclusive(profile: &str) -> BTreeMap<String, f64> {
    let mut costs: BTreeMap<String, f64> = BTreeMap::new();
    let mut case = None;
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            let name = name.split_once(PREFIX).map(|(_, name)| name);
            case = name.map(|name| name.split("::").next().unwrap_or(name).to_owned());
        } else if let Some(case) = &case
            && line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
            && let Some(cost) = line.split_whitespace().nth(1)
        {
            let cost: f64 = cost.parse().unwrap_or(0.0);
            *costs.entry(case.clone()).or_default() += cost / FRAMES as f64;
        }
    }
    costs
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// A director with what a case needs, and the frames it gets.
struct World {
    director: Director,
    front: SegmentId,
    now: Instant,
    frames: Vec<Vec<u8>>,
}

impl World {
    fn new(connections: u32, kind: Kind) -> World {
        let snapshot = vipr::config::parse(CONFIGURATION, "bench")
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let now = Instant::ZERO;
        let mut director = Director::new(now, Arc::new(snapshot), Limits::default(), 1);
        let front = director.segments()[0].0;
        let mut establish = Establish::new(connections, 1);
        while let Some(frame) = establish.next() {
            let mut frame = frame.to_vec();
            director.handle_frame(now, front, &mut Frame::plain(&mut frame));
        }
        let mut writer = Writer::new(kind, 0);
        let frames = (0..FRAMES)
            .map(|_| {
                let mut frame = writer.template(60);
                writer.write(&mut frame);
                frame
            })
            .collect();
        let mut world = World { director, front, now, frames };
        world.drain();
        world
    }

    /// Segments of one connection of IPv6, which is established.
    fn ipv6() -> World {
        let mut world = World::new(0, Kind::NotVip);
        for flags in [TcpFlags::SYN, TcpFlags::ACK] {
            let mut frame = tcp_over_ipv6(flags);
            world.director.handle_frame(world.now, world.front, &mut Frame::plain(&mut frame));
        }
        world.drain();
        world.frames = vec![tcp_over_ipv6(TcpFlags::ACK); FRAMES];
        world
    }

    fn drain(&mut self) {
        while self.director.poll_transmit().is_some() {}
        while self.director.poll_event().is_some() {}
    }

    fn one_by_one(&mut self, is_right: fn(Verdict) -> bool) {
        for frame in &mut self.frames {
            let frame = &mut Frame::plain(frame);
            let verdict = self.director.handle_frame(self.now, self.front, frame);
            assert!(is_right(black_box(verdict)), "{verdict:?}");
            while self.director.poll_transmit().is_some() {}
        }
    }
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict.action, Action::Forward { .. })
}

/// A TCP segment of a client to the VIP of IPv6.
fn tcp_over_ipv6(flags: u8) -> Vec<u8> {
    let client = "2001:db8:1::7".parse::<Ipv6Addr>().expect("an address").octets();
    let vip = "2001:db8::1".parse::<Ipv6Addr>().expect("an address").octets();
    let builder = PacketBuilder::ethernet2([0x52, 0x54, 0, 0, 0, 0xcc], DIRECTOR_MAC.0)
        .ipv6(client, vip, 64)
        .tcp(40_000, 80, 1, 65_535);
    let builder = if flags == TcpFlags::SYN { builder.syn() } else { builder.ack(1) };
    let mut frame = Vec::new();
    builder.write(&mut frame, &[]).expect("a vector takes it");
    frame
}

const fn established(connections: u32) -> Kind {
    Kind::Established { connections, services: 1 }
}

/// Each makes what it needs, uncounted, and then does what is counted. Each names itself, or the
/// compiler would make one of two that are alike.
const CASES: [fn(); 6] = [
    || case_established_v4(&mut World::new(1, established(1))),
    || case_established_v6(&mut World::ipv6()),
    || case_batch_of_64(&mut World::new(CONNECTIONS, established(CONNECTIONS))),
    || case_syn_that_opens(&mut World::new(0, Kind::Open { services: 1 })),
    || case_arp_answered(&mut World::new(0, Kind::ArpRequest)),
    || case_nobodys(&mut World::new(0, Kind::NotVip)),
];

fn measured() {
    for case in CASES {
        case();
    }
}

#[inline(never)]
fn case_established_v4(world: &mut World) {
    black_box("established_v4");
    world.one_by_one(is_forwarded);
}

#[inline(never)]
fn case_established_v6(world: &mut World) {
    black_box("established_v6");
    world.one_by_one(is_forwarded);
}

#[inline(never)]
fn case_batch_of_64(world: &mut World) {
    black_box("batch_of_64");
    for burst in world.frames.chunks_mut(BURST_MAX) {
        world.director.handle_batch(world.now, world.front, burst, |_, verdict, _| {
            assert!(is_forwarded(black_box(verdict)), "{verdict:?}");
        });
    }
}

#[inline(never)]
fn case_syn_that_opens(world: &mut World) {
    black_box("syn_that_opens");
    world.one_by_one(is_forwarded);
}

#[inline(never)]
fn case_arp_answered(world: &mut World) {
    black_box("arp_answered");
    world.one_by_one(|verdict| matches!(verdict.action, Action::Reply));
}

#[inline(never)]
fn case_nobodys(world: &mut World) {
    black_box("nobodys");
    world.one_by_one(|verdict| matches!(verdict.action, Action::Drop(_)));
}
