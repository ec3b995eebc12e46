//! `vipr replay` as a user runs it: captures in, lines of JSON and captures out.

mod harness;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::frames::{FrameBuilder, arp_reply, arp_request, with_bit_flipped, with_macs};
use harness::frames6::{CLIENT6, Packet6, VIP6, from_client6, solicitation};
use harness::{BACK_MAC, FRONT_MAC, RS1_MAC, RS2_MAC};
use serde_json::{Value, json};
use support::capture::{self, ALL_FORMATS, Format, Frames, MICROSECONDS, NANOSECONDS};
use tempfile::TempDir;
use vipr::wire::MacAddr;

const TWO_SEGMENTS: &str = "two-segments.toml";
const ONE_ARM: &str = "one-arm.toml";
const RESOLVE: &str = "resolve.toml";

const CLIENT: (MacAddr, Ipv4Addr) = (mac(0x77), Ipv4Addr::new(192, 0, 2, 77));
const VIP: (MacAddr, Ipv4Addr) = (FRONT_MAC, Ipv4Addr::new(192, 0, 2, 10));
const DIP: (MacAddr, Ipv4Addr) = (BACK_MAC, Ipv4Addr::new(10, 0, 0, 1));
const RS1: (MacAddr, Ipv4Addr) = (RS1_MAC, Ipv4Addr::new(10, 0, 0, 11));

/// A MAC address in short.
const fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

/// When captures begin: 2023-11-14T22:13:20Z, in nanoseconds.
const START: u64 = 1_700_000_000_000_000_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

/// A run in a folder of its own.
struct Bench {
    folder: TempDir,
}

struct Replayed {
    stdout: String,
    stderr: String,
    lines: Vec<Value>,
    outputs: BTreeMap<String, Vec<u8>>,
}

impl Replayed {
    fn frames(&self, segment: &str) -> Frames {
        capture::read(&self.outputs[segment])
    }

    /// The frames of a segment without the director's own ARP.
    fn packets(&self, segment: &str) -> Frames {
        let mut frames = self.frames(segment);
        frames.retain(|(_, frame)| frame[12..14] != [0x08, 0x06]);
        frames
    }

    fn field(&self, name: &str) -> Vec<&Value> {
        self.lines.iter().map(|line| &line[name]).collect()
    }
}

impl Bench {
    fn new() -> Bench {
        Bench { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a temporary file");
        path
    }

    /// The command, its inputs `SEGMENT=FILE` in this folder.
    fn command(&self, config: &str, inputs: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vipr"));
        command.current_dir(self.folder.path()).arg("replay").arg("-c").arg(data(config));
        for input in inputs {
            command.args(["--in", input]);
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, config: &str, inputs: &[(&str, Vec<u8>)]) -> Replayed {
        let mut arguments = Vec::new();
        for (segment, bytes) in inputs {
            self.write(&format!("{segment}.in.pcap"), bytes);
            arguments.push(format!("{segment}={segment}.in.pcap"));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = self
            .command(config, &arguments)
            .args(["--out-dir", "out/deeper"])
            .output()
            .expect("vipr runs");
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let lines = parse_lines(&stdout);
        let mut outputs = BTreeMap::new();
        for entry in fs::read_dir(self.path("out/deeper")).expect("the folder was made") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
            assert_eq!(path.extension().and_then(|extension| extension.to_str()), Some("pcap"));
            outputs.insert(name, fs::read(&path).expect("a capture"));
        }
        Replayed { stdout, stderr, lines, outputs }
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/replay").join(name)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

fn parse_lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn replay(config: &str, inputs: &[(&str, Vec<u8>)]) -> Replayed {
    Bench::new().run(config, inputs)
}

fn from_client() -> FrameBuilder {
    FrameBuilder::new(CLIENT, VIP)
}

/// Frames a millisecond apart, from [`START`] on.
fn paced(frames: Vec<Vec<u8>>) -> Frames {
    frames.into_iter().zip(0..).map(|(frame, index)| (START + index * MILLISECOND, frame)).collect()
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("data/replay");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn connections_are_scheduled_and_only_two_addresses_change() {
    let frames = paced(vec![
        from_client().tcp(40001, 80, "S", b""),
        from_client().tcp(40002, 80, "S", b""),
        from_client().tcp(40003, 80, "S", b""),
        from_client().tcp(40001, 80, "A", b""),
        from_client().tcp(40002, 80, "PA", b"GET / HTTP/1.0\r\n\r\n"),
        from_client().tcp(40003, 80, "FA", b""),
    ]);
    let replayed = replay(TWO_SEGMENTS, &[("front", NANOSECONDS.write(&frames))]);
    let first = json!({
        "time": 1_700_000_000.0, "segment": "front", "verdict": "forwarded", "reason": null,
        "service": "web", "real_server": "rs1", "out_segment": "back",
    });
    assert_eq!(replayed.lines[0], first);
    assert!(replayed.stdout.starts_with("{\"time\":1700000000.000000000,\"segment\":\"front\","));
    assert_eq!(
        replayed.field("real_server"),
        ["rs1", "rs1", "rs2", "rs1", "rs1", "rs2"],
        "weights 2 and 1; then each flow stays"
    );
    let expected: Frames = frames
        .iter()
        .zip([RS1_MAC, RS1_MAC, RS2_MAC, RS1_MAC, RS1_MAC, RS2_MAC])
        .map(|((time, frame), real_server)| (*time, with_macs(frame, real_server, BACK_MAC)))
        .collect();
    assert_eq!(replayed.packets("back"), expected);
    assert_eq!(replayed.packets("front"), []);
    assert_eq!(replayed.outputs.len(), 2, "a capture for every segment");
}

/// Every frame of the outputs: segment, time, bytes.
fn listing(replayed: &Replayed) -> String {
    let mut text = String::new();
    for segment in replayed.outputs.keys() {
        for (time, frame) in replayed.frames(segment) {
            let bytes: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("{segment} {time} {bytes}\n"));
        }
    }
    text
}

#[test]
fn frames_of_every_kind_have_their_lines() {
    let other_host = Ipv4Addr::new(192, 0, 2, 99);
    let reply = FrameBuilder::new((RS1_MAC, VIP.1), CLIENT).tcp(80, 40001, "A", b"");
    let intruder = (mac(0x66), VIP.1);
    let from = |mac, address| FrameBuilder::new((mac, address), VIP);
    let front = paced(vec![
        arp_request(CLIENT.0, CLIENT.1, VIP.1),
        arp_request(CLIENT.0, CLIENT.1, other_host),
        arp_reply(intruder.0, intruder.1, FRONT_MAC, other_host),
        from_client().tcp(40001, 80, "S", b""),
        from_client().icmp_error(3, 4, [0; 4], &reply[14..42]),
        from_client().icmp_error(3, 4, [0; 4], &reply[14..41]),
        from_client().echo_request(1, 1, b"ping"),
        from_client().tcp(40002, 80, "A", b""),
        from_client().tcp(40002, 80, "R", b""),
        from_client().tcp(40002, 81, "S", b""),
        from_client().udp(40002, 54, b"?"),
        from_client().udp(40002, 53, b"?"),
        from_client().udp(40002, 53, &[0; 1480]),
        from_client().fragment(7, 0, true).udp(40002, 53, &[0; 32]),
        from_client().fragment(7, 5, false).raw(17, b"rest"),
        from_client().fragment(8, 5, false).raw(17, b"rest"),
        from_client().raw(47, b"GRE"),
        from(RS1_MAC, CLIENT.1).tcp(40001, 80, "A", b""),
        from(FRONT_MAC, CLIENT.1).tcp(40001, 80, "A", b""),
        from(CLIENT.0, Ipv4Addr::LOCALHOST).tcp(40001, 80, "S", b""),
        from(MacAddr::BROADCAST, CLIENT.1).tcp(40001, 80, "S", b""),
        FrameBuilder::new(CLIENT, (mac(0x99), VIP.1)).tcp(40001, 80, "A", b""),
        FrameBuilder::new(CLIENT, (MacAddr::BROADCAST, VIP.1)).tcp(40001, 80, "A", b""),
        FrameBuilder::new(CLIENT, (FRONT_MAC, other_host)).tcp(1, 80, "S", b""),
        with_bit_flipped(&from_client().tcp(40001, 80, "A", b""), 24),
        from_client().tcp(40001, 80, "A", b"")[..53].to_vec(),
        with_bit_flipped(&from_client().tcp(40009, 80, "A", b""), 50),
        from_client().raw(6, &[0; 19]),
        from_client().other(0x86dd),
        from_client().other(0x8100),
        from_client().other(0x88cc),
        from_client().other(0x0806),
        vec![0; 13],
        vec![],
    ]);
    let back = vec![
        (START + 500, arp_reply(RS1.0, RS1.1, DIP.0, DIP.1)),
        (START + 501, arp_request(RS1.0, RS1.1, DIP.1)),
        (START + 502, FrameBuilder::new(RS1, (BACK_MAC, VIP.1)).tcp(1, 80, "S", b"")),
    ];
    let inputs = [("front", NANOSECONDS.write(&front)), ("back", NANOSECONDS.write(&back))];
    let replayed = replay(TWO_SEGMENTS, &inputs);
    assert_eq!(replayed.lines.len(), front.len() + back.len());
    snapshot("every-kind-lines", &replayed.stdout);
    snapshot("every-kind-log", &replayed.stderr);
    snapshot("every-kind-frames", &listing(&replayed));
}

#[test]
fn one_arm_sends_back_through_the_segment_it_came_from() {
    let frames = paced(vec![
        arp_request(CLIENT.0, CLIENT.1, VIP.1),
        from_client().tcp(40001, 80, "S", b""),
        from_client().tcp(40002, 80, "S", b""),
    ]);
    let replayed = replay(ONE_ARM, &[("lan", NANOSECONDS.write(&frames))]);
    assert_eq!(replayed.field("verdict"), ["replied", "forwarded", "forwarded"]);
    assert_eq!(replayed.field("out_segment"), ["lan", "lan", "lan"]);
    let expected = [
        (frames[1].0, with_macs(&frames[1].1, RS1_MAC, FRONT_MAC)),
        (frames[2].0, with_macs(&frames[2].1, RS2_MAC, FRONT_MAC)),
    ];
    assert_eq!(replayed.packets("lan"), expected);
    let reply = (frames[0].0, arp_reply(VIP.0, VIP.1, CLIENT.0, CLIENT.1));
    assert!(replayed.frames("lan").contains(&reply), "the VIP is answered for, by unicast");
}

#[test]
fn a_frame_is_held_until_arp_has_found_its_real_server() {
    let syn = from_client().tcp(40001, 80, "S", b"");
    let front = vec![(START, syn.clone())];
    let found = START + 3 * MILLISECOND;
    let back = vec![(found, arp_reply(RS1.0, RS1.1, DIP.0, DIP.1))];
    let inputs = [("front", NANOSECONDS.write(&front)), ("back", NANOSECONDS.write(&back))];
    let replayed = replay(RESOLVE, &inputs);
    assert_eq!(replayed.field("verdict"), ["held", "consumed"]);
    assert_eq!(replayed.field("real_server")[0], "rs1");
    assert_eq!(replayed.frames("back")[0], (START, arp_request(DIP.0, DIP.1, RS1.1)));
    assert_eq!(replayed.packets("back"), [(found, with_macs(&syn, RS1_MAC, BACK_MAC))]);
    snapshot("resolve-lines", &replayed.stdout);
    snapshot("resolve-log", &replayed.stderr);
    snapshot("resolve-frames", &listing(&replayed));
    // The twin: an answer from someone else finds nothing.
    let other = (RS2_MAC, Ipv4Addr::new(10, 0, 0, 12));
    let back = vec![(found, arp_reply(other.0, other.1, DIP.0, DIP.1))];
    let inputs = [("front", NANOSECONDS.write(&front)), ("back", NANOSECONDS.write(&back))];
    assert_eq!(replay(RESOLVE, &inputs).packets("back"), []);
}

#[test]
fn ipv6_is_replayed_as_ipv4_is() {
    let from_client = Packet6 { macs: (CLIENT.0, FRONT_MAC), ..from_client6() };
    let datagram = from_client.datagram(5000, 81, &[7; 2000]);
    let frames = paced(vec![
        solicitation(CLIENT.0, CLIENT6, VIP6),
        from_client.tcp(40001, 80, "S", b""),
        from_client.icmp(128, 0, [0, 1, 0, 1], b"ping"),
        from_client.fragment(17, 9, 1448, false, &datagram[1448..]),
        from_client.raw(6, &[0; 19]),
    ]);
    let replayed = replay("ipv6.toml", &[("front", NANOSECONDS.write(&frames))]);
    let verdicts = ["replied", "forwarded", "replied", "held", "dropped"];
    assert_eq!(replayed.field("verdict"), verdicts);
    assert_eq!(replayed.field("reason")[4], "transport_header");
    assert_eq!(replayed.field("real_server")[1], "six1");
    let forwarded = (frames[1].0, with_macs(&frames[1].1, RS1_MAC, BACK_MAC));
    assert!(replayed.frames("back").contains(&forwarded));
}

#[test]
fn another_claimant_of_the_vip_is_named_and_what_he_misled_is_put_right() {
    let leak = (RS1_MAC, VIP.1);
    let dip = Ipv4Addr::new(192, 0, 2, 2);
    let frames = vec![
        (START, arp_request(CLIENT.0, CLIENT.1, VIP.1)),
        (START + SECOND, arp_reply(leak.0, leak.1, FRONT_MAC, dip)),
        (START + 2 * SECOND, from_client().tcp(40001, 80, "A", b"")),
        (START + 30 * SECOND, from_client().tcp(40002, 80, "S", b"")),
    ];
    let replayed = replay(TWO_SEGMENTS, &[("front", NANOSECONDS.write(&frames))]);
    assert_eq!(replayed.field("verdict"), ["replied", "consumed", "forwarded", "forwarded"]);
    assert_eq!(replayed.field("real_server")[2], "rs1", "the connection was his");
    for said in ["rs1: claims VIP 192.0.2.10", "rs1: no longer claims VIP 192.0.2.10"] {
        assert_eq!(replayed.stderr.matches(said).count(), 1, "{}", replayed.stderr);
    }
    let told = arp_request(FRONT_MAC, VIP.1, VIP.1);
    let to_client: Vec<u64> = replayed
        .frames("front")
        .iter()
        .filter(|(_, frame)| frame[..6] == CLIENT.0.0 && frame[6..] == told[6..])
        .map(|(time, _)| (time - START - SECOND) / MILLISECOND)
        .collect();
    assert_eq!(to_client[..6], [2, 10, 40, 200, 800, 1700]);
    assert!(to_client.iter().all(|&ms| ms < 20_000), "until it is over: {to_client:?}");
}

#[test]
fn timers_fire_up_to_the_last_frame_and_none_later() {
    let announcements = |last: u64| {
        let frames = vec![
            (START, arp_request(CLIENT.0, CLIENT.1, VIP.1)),
            (last, from_client().tcp(1, 80, "S", b"")),
        ];
        let replayed = replay(TWO_SEGMENTS, &[("front", NANOSECONDS.write(&frames))]);
        let mut times: Vec<u64> = replayed
            .frames("front")
            .iter()
            .filter(|(_, frame)| frame[12..14] == [8, 6] && frame[28..32] == frame[38..42])
            .map(|(time, _)| time - START)
            .collect();
        assert!(times.is_sorted());
        times.dedup();
        times
    };
    assert_eq!(announcements(START), [0], "the first burst is at once");
    assert_eq!(announcements(START + 5 * SECOND - 1), [0]);
    assert_eq!(announcements(START + 5 * SECOND), [0, 5 * SECOND]);
    let times = announcements(START + 3600 * SECOND);
    assert!(times.len() > 50, "one a minute: {times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 60 * SECOND), "{times:?}");
}

#[test]
fn an_idle_flow_ends_at_its_deadline_to_the_nanosecond() {
    for (idle, expected) in [(300 * SECOND - 1, "rs1"), (300 * SECOND + 1, "rs2")] {
        let datagram = from_client().udp(40001, 53, b"?");
        let frames = vec![(START, datagram.clone()), (START + idle, datagram)];
        let replayed = replay(TWO_SEGMENTS, &[("front", NANOSECONDS.write(&frames))]);
        assert_eq!(replayed.field("real_server"), ["rs1", expected], "idle for {idle} ns");
    }
}

/// Traffic of every kind on both segments, whole microseconds apart.
fn mixed_traffic() -> (Frames, Frames) {
    let (mut front, mut back) = (Frames::new(), Frames::new());
    for index in 0..200_u16 {
        let time = START + u64::from(index) * 700 * MILLISECOND;
        let port = 40000 + index % 40;
        front.push((time, from_client().tcp(port, 80, if index < 40 { "S" } else { "A" }, b"x")));
        front.push((time, from_client().udp(port, 53, b"?")));
        front.push((time + MILLISECOND, arp_request(CLIENT.0, CLIENT.1, VIP.1)));
        front.push((time + MILLISECOND, from_client().tcp(port, 81, "S", b"")));
        back.push((time, arp_request(RS1.0, RS1.1, DIP.1)));
    }
    (front, back)
}

#[test]
fn the_same_input_gives_the_same_bytes_in_any_format() {
    let (front, back) = mixed_traffic();
    let run = |front_format: Format, back_format: Format| {
        let inputs = [("front", front_format.write(&front)), ("back", back_format.write(&back))];
        let Replayed { stdout, stderr, outputs, .. } = replay(TWO_SEGMENTS, &inputs);
        (stdout, stderr, outputs)
    };
    let expected = run(MICROSECONDS, MICROSECONDS);
    assert_eq!(run(MICROSECONDS, MICROSECONDS), expected);
    for format in ALL_FORMATS {
        assert_eq!(run(format, NANOSECONDS), expected, "{format:?}");
    }
}

#[test]
fn captures_are_merged_by_time_and_ties_follow_the_order_of_the_inputs() {
    let probe =
        |time| (START + time, arp_request(CLIENT.0, CLIENT.1, Ipv4Addr::new(192, 0, 2, 99)));
    let front = NANOSECONDS.write(&[probe(1), probe(3), probe(3), probe(5)]);
    let back = NANOSECONDS.write(&[probe(0), probe(3), probe(4)]);
    let order = |inputs: &[(&str, Vec<u8>)]| {
        let replayed = replay(TWO_SEGMENTS, inputs);
        let segments: Vec<&str> =
            replayed.field("segment").iter().map(|name| name.as_str().expect("text")).collect();
        segments.join(" ")
    };
    let (front, back) = (("front", front), ("back", back));
    assert_eq!(order(&[front.clone(), back.clone()]), "back front front front back back front");
    assert_eq!(order(&[back, front]), "back front back front front back front");
}

#[test]
fn time_never_runs_back() {
    let probe =
        |time| (START + time, arp_request(CLIENT.0, CLIENT.1, Ipv4Addr::new(192, 0, 2, 99)));
    let frames = NANOSECONDS.write(&[probe(5), probe(2), probe(6), probe(0)]);
    let replayed = replay(TWO_SEGMENTS, &[("front", frames)]);
    let times: Vec<&str> = replayed.stdout.lines().map(|line| &line[8..28]).collect();
    let expected = ["1700000000.000000005"; 2].into_iter().chain(["1700000000.000000006"; 2]);
    assert!(times.iter().copied().eq(expected), "{times:?}");
}

#[test]
fn a_capture_without_frames_gives_nothing_but_files() {
    let replayed = replay(TWO_SEGMENTS, &[("front", MICROSECONDS.write(&[]))]);
    assert_eq!(replayed.stdout, "");
    for segment in ["front", "back"] {
        assert_eq!(replayed.outputs[segment], NANOSECONDS.write(&[]));
    }
}

#[test]
fn without_an_output_folder_there_are_only_lines() {
    let bench = Bench::new();
    bench
        .write("a.pcap", &MICROSECONDS.write(&paced(vec![arp_request(CLIENT.0, CLIENT.1, VIP.1)])));
    let output = bench.command(TWO_SEGMENTS, &["front=a.pcap"]).output().expect("vipr runs");
    let (stdout, stderr) = texts(&output);
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
    assert_eq!(parse_lines(&stdout)[0]["verdict"], "replied");
    assert_eq!(fs::read_dir(bench.folder.path()).expect("the folder").count(), 1);
}

/// Expects one line on standard error with these words, and nothing on standard output.
fn assert_refused(output: &Output, words: &[&str]) {
    let (stdout, stderr) = texts(output);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(words.iter().all(|word| stderr.contains(word)), "{words:?}: {stderr}");
}

#[test]
fn wrong_inputs_are_refused_in_one_line() {
    let bench = Bench::new();
    let good = MICROSECONDS.write(&paced(vec![arp_request(CLIENT.0, CLIENT.1, VIP.1)]));
    let patched = |offset: usize, bytes: &[u8]| {
        let mut patched = good.clone();
        patched[offset..offset + bytes.len()].copy_from_slice(bytes);
        patched
    };
    bench.write("good.pcap", &good);
    bench.write("garbage.pcap", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    bench.write("empty.pcap", b"");
    bench.write("cut.pcap", &good[..good.len() - 1]);
    bench.write("ng.pcap", &patched(0, &[0x0a, 0x0d, 0x0d, 0x0a]));
    bench.write("wifi.pcap", &patched(20, &[105]));
    bench.write("huge.pcap", &patched(24 + 8, &[0xff; 4]));
    fs::create_dir(bench.path("folder")).expect("a folder");
    let rows: &[(&[&str], &[&str])] = &[
        (&["middle=good.pcap"], &["--in middle=good.pcap", "no such segment", "front, back"]),
        (&["front=good.pcap", "front=cut.pcap"], &["segment front", "already", "good.pcap"]),
        (&["front=missing.pcap"], &["missing.pcap", "No such file"]),
        (&["front=folder"], &["folder", "cannot be read", "directory"]),
        (&["front=garbage.pcap"], &["garbage.pcap", "not a pcap capture"]),
        (&["front=empty.pcap"], &["empty.pcap", "not a pcap capture"]),
        (&["front=cut.pcap"], &["cut.pcap", "record 1 is cut short"]),
        (&["front=ng.pcap"], &["ng.pcap", "pcapng", "editcap"]),
        (&["front=wifi.pcap"], &["wifi.pcap", "link type 105"]),
        (&["front=huge.pcap"], &["huge.pcap", "record 1 has 4294967295 bytes"]),
        (&["front=good.pcap", "back=cut.pcap"], &["cut.pcap", "record 1 is cut short"]),
    ];
    for (inputs, words) in rows {
        let output = bench.command(TWO_SEGMENTS, inputs).output().expect("vipr runs");
        assert_refused(&output, words);
    }
    let output = bench.command("missing.toml", &["front=good.pcap"]).output().expect("vipr runs");
    assert_refused(&output, &["missing.toml", "No such file"]);
}

#[test]
fn a_wrong_command_line_or_configuration_ends_with_status_2() {
    let bench = Bench::new();
    bench.write("good.pcap", &MICROSECONDS.write(&[]));
    let wrong = bench.write("wrong.toml", b"[segment.front]\nrole = \"vip\"\ntpa = \"x\"\n");
    let wrong = wrong.to_str().expect("UTF-8");
    let rows: &[(&str, &[&str], &str)] = &[
        (TWO_SEGMENTS, &[], "--in"),
        (TWO_SEGMENTS, &["good.pcap"], "SEGMENT=IN.pcap"),
        (TWO_SEGMENTS, &["=good.pcap"], "SEGMENT=IN.pcap"),
        (TWO_SEGMENTS, &["front="], "SEGMENT=IN.pcap"),
        (wrong, &["front=good.pcap"], "tpa"),
    ];
    for (config, inputs, word) in rows {
        let output = bench.command(config, inputs).output().expect("vipr runs");
        let (stdout, stderr) = texts(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""), "{inputs:?}");
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
}

#[test]
fn a_capture_that_breaks_later_ends_with_status_1_after_what_came_before() {
    let bench = Bench::new();
    let whole = NANOSECONDS.write(&paced(vec![
        from_client().tcp(40001, 80, "S", b""),
        from_client().tcp(40001, 80, "A", b""),
    ]));
    bench.write("cut.pcap", &whole[..whole.len() - 1]);
    let output = bench
        .command(TWO_SEGMENTS, &["front=cut.pcap"])
        .args(["--out-dir", "out"])
        .output()
        .expect("vipr runs");
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cut.pcap: record 2 is cut short"), "{stderr}");
    assert_eq!(parse_lines(&stdout).len(), 1);
    let back = capture::read(&fs::read(bench.path("out/back.pcap")).expect("a capture"));
    assert!(back.iter().any(|(_, frame)| frame[12..14] == [8, 0]), "the frame was written");
}

#[test]
fn a_time_stamp_out_of_this_world_ends_with_status_1() {
    let bench = Bench::new();
    let probe = || arp_request(CLIENT.0, CLIENT.1, VIP.1);
    bench.write("gap.pcap", &NANOSECONDS.write(&[(0, probe()), (START, probe())]));
    let output = bench.command(TWO_SEGMENTS, &["front=gap.pcap"]).output().expect("vipr runs");
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let expected = "19675 days pass before the frame of 1700000000.000000000";
    assert!(stderr.contains(expected), "{stderr}");
    assert_eq!(parse_lines(&stdout).len(), 1);
}

#[test]
fn an_input_is_never_overwritten() {
    let bench = Bench::new();
    let bytes = MICROSECONDS.write(&paced(vec![arp_request(CLIENT.0, CLIENT.1, VIP.1)]));
    bench.write("front.pcap", &bytes);
    std::os::unix::fs::symlink("front.pcap", bench.path("link.pcap")).expect("a link");
    for input in ["front=front.pcap", "front=./front.pcap", "front=link.pcap"] {
        let output = bench
            .command(TWO_SEGMENTS, &[input])
            .args(["--out-dir", "."])
            .output()
            .expect("vipr runs");
        assert_refused(&output, &["front.pcap", "overwritten"]);
        assert_eq!(fs::read(bench.path("front.pcap")).expect("the input"), bytes);
    }
}

#[test]
fn an_output_folder_that_cannot_be_made_is_a_failure() {
    let bench = Bench::new();
    bench.write("a.pcap", &MICROSECONDS.write(&[]));
    let output = bench
        .command(TWO_SEGMENTS, &["front=a.pcap"])
        .args(["--out-dir", "a.pcap/out"])
        .output()
        .expect("vipr runs");
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("a.pcap/out: cannot be written"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = Bench::new();
    let frames = paced((0..20_000).map(|_| arp_request(CLIENT.0, CLIENT.1, VIP.1)).collect());
    bench.write("a.pcap", &NANOSECONDS.write(&frames));
    let mut child = bench
        .command(TWO_SEGMENTS, &["front=a.pcap"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vipr runs");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0; 10]).expect("it begins");
    drop(stdout);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), texts(&output).1.as_str()), (Some(0), ""));
}
