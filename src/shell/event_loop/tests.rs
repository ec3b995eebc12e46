use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant as Wall;

use tempfile::TempDir;

use super::super::fake::{Device, Lan};
use super::*;
use crate::director::BURST_MAX;
use crate::director::report::StatusReport;
use crate::shell::protocol::ReloadOutcome;
use crate::wire::samples::{ARP_REQUEST, CLIENT_MAC, DIRECTOR_MAC, TCP_SYN, patched};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

const REAL_SERVER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x11];
const BACK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x01, 0x02];

/// Two segments; the front has the MAC of the sample frames.
fn text(socket: &Path, back_tap: &str, weight: u32) -> String {
    format!(
        r#"
        [router]
        control_socket = "{}"
        [segment.front]
        role = "vip"
        tap = "tap-front"
        mac = "{DIRECTOR_MAC}"
        [segment.back]
        role = "backend"
        tap = "{back_tap}"
        mac = "02:00:00:00:01:02"
        [[service]]
        name = "web"
        vip = "192.0.2.10"
        protocol = "tcp"
        ports = 80
        scheduler = "wrr"
        [[service.real_server]]
        name = "rs1"
        address = "10.0.0.11"
        mac = "52:54:00:00:00:11"
        segment = "back"
        weight = {weight}
        "#,
        socket.display()
    )
}

struct Fixture {
    event_loop: EventLoop<Lan>,
    lan: Lan,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vipr.sock");
        Fixture::with(&text(&socket, "tap-back", 1), directory)
    }

    fn with(text: &str, directory: TempDir) -> Fixture {
        let path = directory.path().join("vipr.toml");
        let socket = directory.path().join("vipr.sock");
        fs::write(&path, text).unwrap();
        let loaded = Loaded::read(&path).unwrap();
        let lan = Lan::default();
        let mut event_loop = EventLoop::start(loaded, lan.clone(), 7).unwrap();
        let control = Control::bind(&socket).unwrap();
        event_loop.serve_control(control).unwrap();
        Fixture { event_loop, lan, directory }
    }

    fn write(&self, text: &str) {
        fs::write(self.directory.path().join("vipr.toml"), text).unwrap();
    }

    fn edit(&self, back_tap: &str, weight: u32) {
        self.write(&text(&self.directory.path().join("vipr.sock"), back_tap, weight));
    }

    /// Turns until it holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Fixture) -> bool) {
        let end = Wall::now() + PATIENCE;
        while !holds(self) {
            assert!(Wall::now() < end, "{what}");
            self.event_loop.step(Some(Duration::from_millis(10))).unwrap();
        }
    }

    fn status(&mut self) -> StatusReport {
        match self.event_loop.router.handle_command(clock::now(), Command::Status) {
            Response::Status(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    /// Configurations taken into force since the start.
    fn reloads(&mut self) -> u64 {
        let report = self.status();
        self.event_loop.followed.complete(report).configuration.reloads.count
    }

    /// Frames that arrived on each segment.
    fn received(&mut self) -> [u64; 2] {
        let segments = self.status().segments;
        [segments[0].received_frames, segments[1].received_frames]
    }

    fn generation(&self) -> u64 {
        self.event_loop.router.generation()
    }

    /// Asks over the control socket, and turns until there is an answer.
    fn ask(&mut self, request: &str) -> Reply {
        let mut stream = UnixStream::connect(self.directory.path().join("vipr.sock")).unwrap();
        stream.set_nonblocking(true).unwrap();
        writeln!(stream, "{request}").unwrap();
        let (mut stream, mut line) = (BufReader::new(stream), String::new());
        // What came of an unfinished line stays in `line`.
        self.until(request, |_| stream.read_line(&mut line).is_ok_and(|len| len > 0));
        serde_json::from_str(&line).unwrap()
    }
}

/// A frame that is dropped for its EtherType.
fn junk() -> Vec<u8> {
    patched(&TCP_SYN, &[(12, &[0x88, 0xcc])])
}

#[test]
fn a_frame_comes_out_of_the_other_port_with_only_its_addresses_changed() {
    let mut fixture = Fixture::new();
    fixture.lan.arrive("tap-front", [TCP_SYN.to_vec()]);
    fixture.until("forwarded", |fixture| {
        fixture.lan.device("tap-back", |device| device.sent.iter().any(|f| f.len() == 54))
    });
    let expected = patched(&TCP_SYN, &[(0, &REAL_SERVER_MAC), (6, &BACK_MAC)]);
    fixture.lan.device("tap-back", |device| assert!(device.sent.contains(&expected)));
}

impl Fixture {
    /// More frames than a burst arrive on the front, and are dealt with: all, and none is left.
    fn rush(&mut self) {
        const FRAMES: usize = 5 * BURST_MAX + 1;
        let before = self.received()[0];
        self.lan.arrive("tap-front", vec![junk(); FRAMES]);
        let all = before + FRAMES as u64;
        self.until("the rush is over", |fixture| fixture.received()[0] == all);
    }

    /// Whether nobody has to be looked at before a sleep.
    fn may_sleep(&mut self) -> bool {
        let EventLoop { poll, router, .. } = &mut self.event_loop;
        router.before_wait(poll.registry(), None).is_none()
    }

    /// How often a port was read.
    fn looks(&self, tap: &str) -> u32 {
        self.lan.device(tap, |device| device.looks)
    }

    /// One turn in which nothing is due.
    fn turn(&mut self) {
        self.event_loop.step(Some(Duration::from_secs(1))).unwrap();
    }
}

#[test]
fn after_a_rush_ports_tell_of_frames_again_before_the_router_sleeps() {
    let mut fixture = Fixture::new();
    fixture.rush();
    // What came while nobody was told is found by the turn that would sleep.
    let before = fixture.received()[0];
    fixture.lan.device("tap-front", |device| device.arriving.push_back(junk()));
    fixture.turn();
    assert_eq!(fixture.received()[0], before + 1);
    // From now on it sleeps, and is woken.
    fixture.until("it may sleep", Fixture::may_sleep);
    assert!(fixture.may_sleep(), "no port is looked at again and again");
    fixture.lan.arrive("tap-front", [junk()]);
    fixture.turn();
    assert_eq!(fixture.received()[0], before + 2);
}

#[test]
fn a_port_that_does_not_tell_is_looked_at_while_another_is_busy() {
    let mut fixture = Fixture::new();
    fixture.lan.device("tap-back", |device| device.flood = Some(junk()));
    fixture.lan.wake("tap-back");
    fixture.rush();
    let before = fixture.received()[0];
    fixture.lan.device("tap-front", |device| device.arriving.push_back(junk()));
    for _ in 0..2 * (TURNS_PER_POLL + 1) {
        fixture.turn();
    }
    assert_eq!(fixture.received()[0], before + 1);
    // Not for ever: one that has nothing tells again, and costs no look.
    for _ in 0..30 * (TURNS_PER_POLL + 1) {
        fixture.turn();
    }
    let looked = fixture.looks("tap-front");
    for _ in 0..10 * (TURNS_PER_POLL + 1) {
        fixture.turn();
    }
    assert_eq!(fixture.looks("tap-front"), looked);
    fixture.lan.arrive("tap-front", [junk()]);
    for _ in 0..2 * (TURNS_PER_POLL + 1) {
        fixture.turn();
    }
    assert_eq!(fixture.received()[0], before + 2);
}

#[test]
fn a_port_that_cannot_be_waited_for_is_looked_at_again_and_again_but_not_without_a_pause() {
    let mut fixture = Fixture::new();
    fixture.rush();
    let fd = fixture.lan.device("tap-front", |device| device.descriptor);
    let mut taken = mio::unix::SourceFd(&fd);
    // No descriptor can be waited for twice.
    let (nobody, interest) = (mio::Token(usize::MAX), mio::Interest::READABLE);
    fixture.event_loop.poll.registry().register(&mut taken, nobody, interest).unwrap();
    for round in 0..3 {
        let before = fixture.received()[0];
        fixture.lan.device("tap-front", |device| device.arriving.push_back(junk()));
        fixture.turn();
        assert_eq!(fixture.received()[0], before + 1, "{round}");
        let EventLoop { poll, router, .. } = &mut fixture.event_loop;
        let pause = router.before_wait(poll.registry(), None).unwrap();
        assert!(!pause.is_zero() && pause <= Duration::from_millis(1), "{pause:?}");
    }
    fixture.event_loop.poll.registry().deregister(&mut taken).unwrap();
    fixture.until("it may sleep", Fixture::may_sleep);
}

#[test]
fn a_device_that_goes_while_nobody_is_told_is_noticed_before_the_router_sleeps() {
    let mut fixture = Fixture::new();
    fixture.rush();
    fixture.lan.device("tap-front", |device| device.is_gone = true);
    fixture.turn();
    assert_eq!(fixture.lan.device("tap-front", |device| device.open_now), 0);
}

#[test]
fn an_answer_goes_out_in_the_turn_in_which_the_question_came() {
    let mut fixture = Fixture::new();
    fixture.until("announced", |fixture| {
        fixture.lan.device("tap-front", |device| !device.sent.is_empty())
    });
    fixture.lan.device("tap-front", |device| device.sent.clear());
    let before = fixture.received()[0];
    fixture.lan.arrive("tap-front", [ARP_REQUEST.to_vec()]);
    fixture.until("asked", |fixture| fixture.received()[0] > before);
    let to_client = |frame: &Vec<u8>| frame[..6] == CLIENT_MAC.0;
    let answered = |device: &mut Device| device.sent.iter().any(to_client);
    assert!(fixture.lan.device("tap-front", answered));
}

#[test]
fn what_one_router_leaves_the_next_takes_up_before_it_reads_a_frame() {
    let ack = patched(&TCP_SYN, &[(47, &[0x10]), (50, &[0x90, 0x3b])]);
    let expected = patched(&ack, &[(0, &REAL_SERVER_MAC), (6, &BACK_MAC)]);
    // Whether the stop was a clean one, and what becomes of the connection.
    for (clean, survives) in [(true, true), (false, false)] {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let state = format!("[router]\nstate = \"{}\"", at("state").display());
        let text = text(&at("vipr.sock"), "tap-back", 1).replace("[router]", &state);
        let mut fixture = Fixture::with(&text, directory);
        fixture.event_loop.take_up_state();
        fixture.lan.arrive("tap-front", [TCP_SYN.to_vec()]);
        fixture.until("forwarded", |fixture| {
            fixture.lan.device("tap-back", |device| device.sent.len() == 1)
        });
        if clean {
            fixture.event_loop.leave_state();
        }
        let Fixture { event_loop, directory, .. } = fixture;
        drop(event_loop);

        let mut fixture = Fixture::with(&text, directory);
        // It waits at the device already.
        fixture.lan.arrive("tap-front", [ack.clone()]);
        fixture.event_loop.take_up_state();
        fixture.until("judged", |fixture| fixture.received()[0] == 1);
        let forwarded = fixture.lan.device("tap-back", |device| device.sent.contains(&expected));
        assert_eq!(forwarded, survives);
        let is_reset = |frame: &Vec<u8>| frame.len() == 54 && frame[47] & 0x04 != 0;
        let reset = fixture.lan.device("tap-front", |device| device.sent.iter().any(is_reset));
        assert_eq!(reset, !survives);
        let first = fixture.lan.device("tap-front", |device| device.sent[0].clone());
        assert_eq!(first[..6], [0xff; 6], "the VIP is announced before anything");
        let files = fs::read_dir(fixture.directory.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let names: Vec<String> = names.filter(|name| name.starts_with("state")).collect();
        assert_eq!(names, [""; 0], "nothing of it is left");
    }
}

#[test]
fn a_flood_on_one_port_does_not_starve_the_other() {
    let mut fixture = Fixture::new();
    let frames = 10 * BURST_MAX;
    fixture.lan.device("tap-front", |device| device.flood = Some(junk()));
    fixture.lan.wake("tap-front");
    fixture.lan.arrive("tap-back", (0..frames).map(|_| junk()));
    let before = fixture.received();
    for turn in 1..=10 {
        fixture.event_loop.step(Some(Duration::ZERO)).unwrap();
        let [front, back] = fixture.received();
        let share = turn * BURST_MAX as u64;
        assert_eq!([front - before[0], back - before[1]], [share, share], "turn {turn}");
    }
    // And control is served all the while.
    assert!(matches!(fixture.ask(r#"{"command":"status"}"#), Reply::Status(_)));
    assert!(fixture.status().counters.dropped >= 2 * frames as u64);
}

#[test]
fn a_drained_port_is_waited_for_and_not_asked_again() {
    let mut fixture = Fixture::new();
    fixture.lan.arrive("tap-front", (0..BURST_MAX + 1).map(|_| junk()));
    fixture.until("both bursts", |fixture| fixture.received()[0] == BURST_MAX as u64 + 1);
    assert!(!fixture.event_loop.router.has_work());
    assert_ne!(fixture.event_loop.timeout(fixture.event_loop.poll_timeout()), Some(Duration::ZERO));
}

#[test]
fn a_segment_whose_device_is_gone_leaves_the_others_alone() {
    let mut fixture = Fixture::new();
    fixture.lan.device("tap-back", |device| device.is_gone = true);
    fixture.lan.wake("tap-back");
    fixture.until("back is down", |fixture| !fixture.status().segments[1].up);
    fixture.lan.arrive("tap-front", [TCP_SYN.to_vec()]);
    fixture.until("counted", |fixture| fixture.status().segments[1].send_errors > 0);
    fixture.lan.device("tap-back", |device| device.is_gone = false);
    fixture.until("back is up", |fixture| fixture.status().segments[1].up);
    assert_eq!(fixture.lan.device("tap-front", |device| device.opened), 1);
    assert_eq!(fixture.lan.device("tap-back", |device| device.opened), 2);
}

#[test]
fn an_edit_is_in_force_once_and_touches_only_the_ports_it_names() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.generation(), 1);
    fixture.edit("tap-other", 2);
    fixture.until("in force", |fixture| fixture.generation() == 2);
    assert_eq!(fixture.lan.device("tap-front", |device| device.opened), 1);
    assert_eq!(fixture.lan.device("tap-back", |device| device.open_now), 0);
    assert_eq!(fixture.lan.device("tap-other", |device| device.open_now), 1);
    assert_eq!(fixture.status().services[0].real_servers[0].weight, 2);
    assert!(matches!(
        fixture.ask(r#"{"command":"reload"}"#),
        Reply::Reload(ReloadOutcome::Unchanged { generation: 2 })
    ));
}

#[test]
fn frames_are_handled_between_the_steps_of_a_large_configuration() {
    let mut fixture = Fixture::new();
    let mut large = text(&fixture.directory.path().join("vipr.sock"), "tap-back", 2);
    for service in 0..100 {
        large += &format!(
            "[[service]]\nvip = \"198.18.0.{service}\"\nprotocol = \"tcp\"\nports = 80\n\
             scheduler = \"rr\"\n"
        );
        for server in 0..20 {
            large += &format!(
                "[[service.real_server]]\naddress = \"10.1.{service}.{server}\"\n\
                 mac = \"52:54:00:00:00:11\"\nsegment = \"back\"\n"
            );
        }
    }
    fixture.write(&large);
    fixture.until("the first step", |fixture| fixture.event_loop.coming.is_some());
    assert_eq!(fixture.event_loop.timeout(fixture.event_loop.poll_timeout()), Some(Duration::ZERO));
    fixture.lan.arrive("tap-front", [TCP_SYN.to_vec()]);
    fixture.event_loop.step(Some(Duration::ZERO)).unwrap();
    fixture.lan.device("tap-back", |device| assert!(device.sent.iter().any(|f| f.len() == 54)));
    assert!(fixture.event_loop.coming.is_some(), "and it is not yet in force");
    assert_eq!(fixture.reloads(), 0);
    fixture.until("the last step", |fixture| fixture.event_loop.coming.is_none());
    assert_eq!(fixture.reloads(), 1);
    assert_eq!(fixture.status().services.len(), 101);
}

#[test]
fn a_reload_answers_with_what_came_of_it() {
    let mut fixture = Fixture::new();
    fixture.edit("tap-back", 5);
    match fixture.ask(r#"{"command":"reload"}"#) {
        Reply::Reload(ReloadOutcome::Applied { generation: 2, changes, more: 0 }) => {
            assert_eq!(changes.len(), 1);
            assert!(changes[0].contains("weight"), "{changes:?}");
        }
        // The watch may have been quicker.
        Reply::Reload(ReloadOutcome::Unchanged { generation: 2 }) => {}
        other => panic!("{other:?}"),
    }
    fixture.write("[segment");
    match fixture.ask(r#"{"command":"reload"}"#) {
        Reply::Reload(ReloadOutcome::Refused { generation: 2, diagnostics }) => {
            assert!(diagnostics.contains("vipr.toml"), "{diagnostics}");
        }
        other => panic!("{other:?}"),
    }
    let Reply::Status(status) = fixture.ask(r#"{"command":"status"}"#) else { panic!() };
    assert!(status.configuration.error.is_some_and(|error| error.contains("vipr.toml")));
    assert!(status.configuration.failures >= 1);
    fixture.edit("tap-back", 5);
    assert!(matches!(
        fixture.ask(r#"{"command":"reload"}"#),
        Reply::Reload(ReloadOutcome::Unchanged { generation: 2 })
    ));
}

#[test]
fn the_control_socket_moves_with_the_configuration() {
    let mut fixture = Fixture::new();
    let moved = fixture.directory.path().join("moved.sock");
    fixture.write(&text(&moved, "tap-back", 1));
    fixture.until("moved", |_| moved.exists());
    assert!(!fixture.directory.path().join("vipr.sock").exists());
    drop(fixture.event_loop);
    assert!(!moved.exists());
}
