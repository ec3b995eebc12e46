use mio::Poll;

use super::super::fake::Lan;
use super::super::link_watch::LOOK_INTERVAL;
use super::*;
use crate::config;
use crate::director::{Director, Limits};

/// The ports of the segments of a configuration, and the ids a director gives to them.
struct Fixture {
    poll: Poll,
    lan: Lan,
    ports: Ports<Lan>,
    director: Director,
}

/// Segments by name and TAP, with the VLAN behind a point.
fn snapshot(segments: &[(&str, &str)]) -> Arc<config::Snapshot> {
    let mut text = String::new();
    for (name, tap) in segments {
        let (tap, vlan) = match tap.split_once('.') {
            Some((tap, vlan)) => (tap, format!("vlan = {vlan}\n")),
            None => (*tap, String::new()),
        };
        text += &format!("[segment.{name}]\nrole = \"both\"\ntap = \"{tap}\"\n{vlan}");
    }
    text += "[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80\n\
             scheduler = \"rr\"\n";
    Arc::new(config::parse(&text, "vipr.toml").unwrap_or_else(|error| panic!("{error}")))
}

impl Fixture {
    fn new() -> Fixture {
        let lan = Lan::default();
        let snapshot = snapshot(&[("a", "tap-a"), ("b", "tap-b")]);
        let director = Director::new(Instant::ZERO, snapshot, Limits::default(), 0);
        let ports = Ports::new(lan.clone());
        Fixture { poll: Poll::new().unwrap(), lan, ports, director }
    }

    /// Which segments were opened, and whether they did.
    fn reconcile(&mut self, segments: &[(&str, &str)]) -> Vec<(String, bool)> {
        let snapshot = snapshot(segments);
        self.director.apply(Instant::ZERO, Arc::clone(&snapshot));
        let ids = self.director.segments();
        let find = |name: &str| snapshot.segments.iter().find(|s| *s.name == *name).unwrap();
        let wanted: Vec<_> = ids.iter().map(|(id, name)| (*id, find(name))).collect();
        let opened = self.ports.reconcile(self.poll.registry(), Instant::ZERO, &wanted);
        let name = |id| self.director.segment_name(id).unwrap().to_string();
        opened.into_iter().map(|(id, result)| (name(id), result.is_ok())).collect()
    }

    fn opened(&self, tap: &str) -> (u32, u32) {
        self.lan.device(tap, |device| (device.opened, device.open_now))
    }

    fn up(&self, name: &str) -> bool {
        self.ports.status(name).is_some_and(|status| status.up)
    }

    fn retry_at(&self) -> Option<Instant> {
        self.ports.slots.iter().flatten().filter_map(Slot::retry_at).min()
    }

    fn id(&self, name: &str) -> SegmentId {
        let segments = self.director.segments();
        segments.iter().find(|(_, other)| **other == *name).unwrap().0
    }
}

#[test]
fn segments_of_one_device_share_its_port_and_hand_it_on() {
    let mut fixture = Fixture::new();
    let opened = |names: &[&str]| -> Vec<(String, bool)> {
        names.iter().map(|name| (name.to_string(), true)).collect()
    };
    let all = [("a", "trunk.10"), ("b", "trunk.20"), ("c", "trunk")];
    assert_eq!(fixture.reconcile(&all), opened(&["a", "b", "c"]), "each is told the MTU");
    assert_eq!(fixture.opened("trunk"), (1, 1));
    assert!(["a", "b", "c"].iter().all(|name| fixture.up(name)));
    for name in ["a", "b", "c"] {
        let id = fixture.id(name);
        fixture.ports.send(Instant::ZERO, id, &[0; 60], Offload::default());
    }
    assert_eq!(fixture.lan.device("trunk", |device| device.sent.len()), 3);
    // Another VLAN is no matter of the port's.
    let moved = [("a", "trunk.11"), ("b", "trunk.20"), ("c", "trunk")];
    assert_eq!(fixture.reconcile(&moved), []);
    // The first leaves, the port stays.
    assert_eq!(fixture.reconcile(&moved[1..]), []);
    assert_eq!(fixture.opened("trunk"), (1, 1));
    assert!(!fixture.up("a") && fixture.up("b") && fixture.up("c"));
    assert_eq!(fixture.ports.next_ready(), Some(fixture.id("b")), "it is read as b's");
    assert_eq!(fixture.reconcile(&all), opened(&["a"]), "and comes back");
    // With the last the device goes.
    fixture.reconcile(&[("d", "other")]);
    assert_eq!(fixture.opened("trunk"), (1, 0));
}

#[test]
fn a_device_that_comes_up_again_counts_as_opened_anew() {
    let mut fixture = Fixture::new();
    fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
    let mut now = Instant::ZERO;
    let mut look = |fixture: &mut Fixture, is_down: bool| -> Vec<SegmentId> {
        fixture.lan.device("tap-a", |device| device.is_down = is_down);
        let at = fixture.ports.poll_timeout().unwrap();
        assert!(at <= now + LOOK_INTERVAL, "{at:?}");
        now = at.max(now);
        let opened = fixture.ports.handle_timeout(fixture.poll.registry(), now);
        opened.into_iter().map(|(id, result)| result.map(|_| id).unwrap()).collect()
    };
    assert_eq!(look(&mut fixture, false), []);
    assert_eq!(look(&mut fixture, true), []);
    assert!(!fixture.up("a") && fixture.up("b"));
    assert_eq!(look(&mut fixture, true), []);
    let a = fixture.id("a");
    assert_eq!(look(&mut fixture, false), [a]);
    assert_eq!(look(&mut fixture, false), [], "once");
    assert!(fixture.up("a"));
}

#[test]
fn only_ports_whose_device_changes_are_touched() {
    let mut fixture = Fixture::new();
    let opened = |names: &[&str]| -> Vec<(String, bool)> {
        names.iter().map(|name| (name.to_string(), true)).collect()
    };
    assert_eq!(fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]), opened(&["a", "b"]));
    assert_eq!(fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]), opened(&[]));
    // Another device under the old name.
    assert_eq!(fixture.reconcile(&[("a", "tap-a"), ("b", "tap-c")]), opened(&["b"]));
    assert_eq!((fixture.opened("tap-b"), fixture.opened("tap-c")), ((1, 0), (1, 1)));
    // The old device under another name: closed before it is opened.
    assert_eq!(fixture.reconcile(&[("a", "tap-a"), ("c", "tap-c")]), opened(&["c"]));
    assert_eq!(fixture.opened("tap-c"), (2, 1));
    assert_eq!(fixture.reconcile(&[("c", "tap-c")]), opened(&[]));
    assert_eq!((fixture.opened("tap-a"), fixture.opened("tap-c")), ((1, 0), (2, 1)));
    assert_eq!(fixture.ports.status("a"), None);
}

#[test]
fn a_port_whose_device_is_gone_is_opened_again_ever_more_rarely() {
    let mut fixture = Fixture::new();
    fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
    let (id, mut now, mut batch) = (fixture.id("a"), Instant::ZERO, Batch::new(4));
    assert!(fixture.up("a") && fixture.up("b"));
    fixture.lan.device("tap-a", |device| {
        device.is_gone = true;
        device.refuses_to_open = true;
        device.arriving.push_back(vec![0; 60]);
    });
    fixture.ports.receive(fixture.poll.registry(), now, id, &mut batch);
    assert_eq!(batch.len(), 1, "what came before the end counts");
    assert!(!fixture.up("a") && fixture.up("b"));
    assert_eq!(fixture.opened("tap-a"), (1, 0));

    for pause in [1, 2, 4, 8, 16, 30, 30] {
        let due = now + Duration::from_secs(pause);
        assert_eq!(fixture.retry_at(), Some(due));
        let registry = fixture.poll.registry();
        let early = due - Duration::from_nanos(1);
        assert!(fixture.ports.handle_timeout(registry, early).is_empty());
        let opened = fixture.ports.handle_timeout(registry, due);
        assert!(matches!(opened.as_slice(), [(_, Err(_))]));
        now = due;
    }
    fixture.lan.device("tap-a", |device| {
        device.is_gone = false;
        device.refuses_to_open = false;
    });
    now += REOPEN_AFTER_MAX;
    let opened = fixture.ports.handle_timeout(fixture.poll.registry(), now);
    assert!(matches!(opened.as_slice(), [(_, Ok(1500))]));
    assert!(fixture.up("a"));
    assert_eq!(fixture.retry_at(), None);
}

#[test]
fn offload_is_for_all_ports_or_for_none() {
    let mut fixture = Fixture::new();
    let welcome = |fixture: &Fixture| {
        ["tap-a", "tap-b"].map(|tap| fixture.lan.device(tap, |device| device.offload))
    };
    fixture.lan.device("tap-a", |device| device.takes_offload = true);
    fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
    assert_eq!(welcome(&fixture), [false, false]);
    // A frame that comes with work left to do all the same is finished on the way to the port
    // that cannot, and only there.
    let mut bytes = crate::wire::samples::UDP.to_vec();
    bytes[40..42].copy_from_slice(&[0, 0]);
    let offload = Offload {
        checksum_pending: true,
        checksum_start: 34,
        checksum_offset: 6,
        ..Offload::default()
    };
    for (name, tap, is_finished) in [("a", "tap-a", false), ("b", "tap-b", true)] {
        fixture.ports.send(Instant::ZERO, fixture.id(name), &bytes, offload);
        let sent = fixture.lan.device(tap, |device| device.sent.pop()).unwrap();
        assert_eq!(sent[40..42] != [0, 0], is_finished, "{name}");
    }
    // Both can; then only one of them is left.
    fixture.lan.device("tap-c", |device| device.takes_offload = true);
    fixture.reconcile(&[("a", "tap-a"), ("c", "tap-c")]);
    assert!(fixture.lan.device("tap-a", |device| device.offload));
    assert!(fixture.lan.device("tap-c", |device| device.offload));
    fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
    assert_eq!(welcome(&fixture), [false, false]);
    fixture.reconcile(&[("a", "tap-a")]);
    assert!(welcome(&fixture)[0]);
}

#[test]
fn frames_that_a_port_does_not_take_are_counted() {
    let mut fixture = Fixture::new();
    fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
    let id = fixture.id("a");
    let send = |fixture: &mut Fixture| {
        fixture.ports.send(Instant::ZERO, id, &[0; 60], Offload::default());
        fixture.ports.status("a").unwrap()
    };
    assert_eq!(send(&mut fixture), PortStatus { up: true, send_errors: 0, missed: 0 });
    fixture.lan.device("tap-a", |device| device.is_down = true);
    assert_eq!(send(&mut fixture), PortStatus { up: false, send_errors: 1, missed: 0 });
    assert_eq!(send(&mut fixture), PortStatus { up: false, send_errors: 2, missed: 0 });
    fixture.lan.device("tap-a", |device| device.is_down = false);
    assert_eq!(send(&mut fixture), PortStatus { up: true, send_errors: 2, missed: 0 });
    assert_eq!(fixture.lan.device("tap-a", |device| device.sent.len()), 2);

    // A device that gives frames is up again; one that has none to give may not be.
    fixture.lan.device("tap-a", |device| device.is_down = true);
    send(&mut fixture);
    fixture.lan.device("tap-a", |device| device.is_down = false);
    let mut batch = Batch::new(4);
    for (frames, up) in [(0, false), (1, true)] {
        fixture.lan.arrive("tap-a", vec![vec![0; 60]; frames]);
        fixture.ports.receive(fixture.poll.registry(), Instant::ZERO, id, &mut batch);
        assert_eq!((batch.len(), fixture.up("a")), (frames, up));
    }
}
