//! What one director leaves and the next takes up: a restart keeps the connections.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use vipr::config::snapshot::{Endpoint, Ports, Protocol};
use vipr::director::connections::ConnectionState;
use vipr::director::report::RealServerState;
use vipr::director::state::{
    ConnectionRecord, Dropped, Imported, NeighborRecord, RealServerRecord, Record, WeightOverride,
};
use vipr::director::{Command, Director, Instant, Limits, Response};
use vipr::wire::MacAddr;

use crate::harness::frames::{Tcp, arp_reply, arp_request, tcp, udp};
use crate::harness::*;

const SECOND: Duration = Duration::from_secs(1);

/// `web` with persistence, and DNS beside it.
fn persistent() -> String {
    let web = web().replace("\"wrr\"", "\"wrr\"\npersistence = { timeout = \"5m\", netmask = 24 }");
    format!(
        "{web}\n[[service]]\nname = \"dns\"\nvip = \"192.0.2.10\"\nprotocol = \"udp\"\nports = 53\n{}",
        real_server("dns1", 12, 1, "")
    )
}

fn exported(world: &World) -> Vec<Record> {
    let mut records = Vec::new();
    let Ok(()) = world.director.export::<Infallible>(world.now, |record| {
        records.push(record.clone());
        Ok(())
    });
    records
}

fn connections_of(records: &[Record]) -> Vec<ConnectionRecord> {
    let connection = |record: &Record| match record {
        Record::Connection(connection) => Some(*connection),
        _ => None,
    };
    records.iter().filter_map(connection).collect()
}

/// The next director, with a clock of its own.
fn restarted(toml: &str, records: &[Record], down: Duration) -> (World, Imported) {
    let now = Instant::from_nanos(77_000_000_000);
    let mut director = Director::new(now, snapshot(toml), Limits::default(), 8);
    let mut import = director.import(now, down);
    for record in records {
        import.take(record.clone());
    }
    let imported = import.finish();
    let mut world = World { director, now, sent: Vec::new(), events: Vec::new() };
    world.advance(Duration::ZERO);
    (world, imported)
}

fn dropped(of: impl FnOnce(&mut Dropped)) -> Dropped {
    let mut dropped = Dropped::default();
    of(&mut dropped);
    dropped
}

/// A client of another network, by the last but one byte of its address.
fn from(network: u8, port: u16, flags: &'static str) -> Vec<u8> {
    Tcp { source: [198, 51, network, 7], ..tcp(port, flags) }.bytes()
}

fn set_weight(world: &mut World, real_server: &str, weight: u32) {
    let response = world.director.handle_command(
        world.now,
        Command::Weight {
            service: "web".to_owned(),
            real_server: real_server.to_owned(),
            weight: Some(weight),
        },
    );
    assert!(matches!(response, Response::Done(_)), "{response:?}");
}

/// Connections of every kind: opening, established, closing, UDP; a weight set by hand.
fn busy() -> World {
    let mut world = World::new(&persistent());
    for (network, flags) in [(1, "S"), (2, "SA"), (3, "SAF"), (4, "SA"), (5, "SAR")] {
        for (at, _) in flags.char_indices() {
            world.tell("front", &from(network, 1000, &flags[at..=at]));
        }
    }
    assert_eq!(world.tell("front", &udp(5000, 53, b"?")), "forwarded dns1");
    set_weight(&mut world, "rs3", 0);
    world.advance(Duration::from_millis(2500));
    world
}

#[test]
fn everything_that_is_remembered_comes_back() {
    let mut world = busy();
    let records = exported(&world);
    let (mut next, imported) = restarted(&persistent(), &records, Duration::ZERO);
    assert_eq!(
        imported,
        Imported {
            connections: 6,
            templates: 5,
            overrides: 1,
            neighbors: 0,
            dropped: Dropped::default()
        }
    );
    assert_eq!(exported(&next), records);
    let connections = |world: &mut World| {
        let mut connections = world.connections();
        connections.sort_by_key(|of| (of.client, of.client_port));
        connections
    };
    assert_eq!(connections(&mut next), connections(&mut world));
    let counts = |world: &mut World| {
        let services = world.status().services;
        let servers = services.into_iter().flat_map(|service| service.real_servers);
        servers.map(|of| (of.name, of.weight, of.active, of.inactive, of.state)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&mut next), counts(&mut world));
    assert_eq!(next.take_events(), [] as [&str; 0]);
}

#[test]
fn an_established_connection_goes_on_and_a_strange_one_is_reset() {
    let mut world = World::new(&web());
    for (port, real_server) in [(1, "rs1"), (2, "rs1"), (3, "rs2")] {
        assert_eq!(
            world.tell("front", &tcp(port, "S").bytes()),
            format!("forwarded {real_server}")
        );
        world.tell("front", &tcp(port, "A").bytes());
    }
    let (mut next, _) = restarted(&web(), &exported(&world), SECOND);
    for (port, real_server) in [(1, "rs1"), (2, "rs1"), (3, "rs2")] {
        assert_eq!(next.tell("front", &tcp(port, "A").bytes()), format!("forwarded {real_server}"));
    }
    assert_eq!(next.tell("front", &tcp(4, "A").bytes()), "replied");
}

#[test]
fn the_time_in_between_counts() {
    let world = busy();
    // SYN_RECV has 60 s, FIN_WAIT 120, CLOSE 10, UDP 300 as the templates, ESTABLISHED 900; each
    // has used up 2.5 s of them.
    for (down, connections, templates) in [
        (0, 6, 5),
        (7, 6, 5),
        (8, 5, 5),
        (57, 5, 5),
        (58, 4, 5),
        (118, 3, 5),
        // The templates of the two that are established live as long as they do.
        (298, 2, 2),
        (897, 2, 2),
        (898, 0, 0),
        (u64::MAX, 0, 0),
    ] {
        let down = Duration::from_secs(down);
        let (mut next, imported) = restarted(&persistent(), &exported(&world), down);
        assert_eq!(
            (imported.connections, imported.templates),
            (connections, templates),
            "{down:?}"
        );
        assert_eq!(
            imported.dropped,
            self::dropped(|dropped| dropped.expired = 11 - connections - templates),
            "{down:?}"
        );
        assert_eq!(next.status().connections.current, connections + templates);
        for connection in next.connections() {
            let whole = match connection.state {
                ConnectionState::Established => 897,
                ConnectionState::Udp | ConnectionState::Template => 297,
                ConnectionState::FinWait => 117,
                ConnectionState::SynRecv => 57,
                _ => 7,
            };
            assert_eq!(connection.expires_seconds, whole - down.as_secs(), "{connection:?}");
        }
    }
}

#[test]
fn a_configuration_that_changed_meanwhile_keeps_what_it_still_has() {
    let world = busy();
    let rs1 = real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]");
    let of_rs1 = {
        let records = connections_of(&exported(&world));
        records.iter().filter(|record| record.real_server == 0).count() as u32
    };
    assert!(of_rs1 > 0);
    let unconfigured = |count| dropped(|dropped| dropped.unconfigured = count);
    let overrides = |count| dropped(|dropped| dropped.overrides = count);
    let rows = [
        ("another name and weight", "weight = 4", "weight = 9", Dropped::default()),
        ("another scheduler", "\"wrr\"", "\"lc\"", Dropped::default()),
        ("no rs1", rs1.as_str(), "", unconfigured(of_rs1)),
        ("another port", "ports = 80", "ports = 81", Dropped { overrides: 1, ..unconfigured(10) }),
        (
            "more ports",
            "ports = 80",
            "ports = [80, 81]",
            Dropped { overrides: 1, ..unconfigured(10) },
        ),
        ("another VIP", "192.0.2.10", "192.0.2.11", Dropped { overrides: 1, ..unconfigured(11) }),
        ("no DNS", "protocol = \"udp\"", "protocol = \"tcp\"", unconfigured(1)),
        ("no persistence", "persistence = { timeout = \"5m\", netmask = 24 }", "", unconfigured(5)),
        ("another netmask", "netmask = 24", "netmask = 16", unconfigured(5)),
        ("another weight", "weight = 2", "weight = 5", overrides(1)),
    ];
    for (what, old, new, expected) in rows {
        let changed = persistent().replace(old, new);
        assert_ne!(changed, persistent(), "{what}");
        let (mut next, imported) = restarted(&changed, &exported(&world), Duration::ZERO);
        assert_eq!(imported.dropped, expected, "{what}");
        let taken = imported.connections + imported.templates;
        assert_eq!(taken, 11 - expected.unconfigured, "{what}");
        assert_eq!(imported.overrides, 1 - expected.overrides, "{what}");
        assert_eq!(next.status().connections.current, taken, "{what}");
    }

    // Another segment by the same name of device is another place.
    let moved = persistent()
        .replace("[segment.back]", "[segment.rear]")
        .replace("segment = \"back\"", "segment = \"rear\"");
    let (_, imported) = restarted(&moved, &exported(&world), Duration::ZERO);
    assert_eq!(imported.dropped, Dropped { overrides: 1, ..unconfigured(11) });

    // Shorter timeouts bind at once.
    let shorter = format!("{}\n[timeouts]\ntcp_established = 5\nudp = 9\n", persistent());
    let (mut next, imported) = restarted(&shorter, &exported(&world), SECOND);
    assert_eq!(imported.connections, 6);
    for connection in next.connections() {
        match connection.state {
            ConnectionState::Established => assert_eq!(connection.expires_seconds, 5),
            ConnectionState::Udp => assert_eq!(connection.expires_seconds, 9),
            _ => {}
        }
    }
}

#[test]
fn in_a_smaller_table_what_is_established_comes_first() {
    let mut world = World::new(&web());
    for port in 1..=8 {
        world.tell("front", &tcp(port, "S").bytes());
        if port > 4 {
            world.tell("front", &tcp(port, "A").bytes());
        }
    }
    for port in 7..=8 {
        world.tell("front", &tcp(port, "F").bytes());
    }
    for (room, half_open, established, closing) in
        [(8, 4, 2, 2), (5, 3, 2, 0), (3, 1, 2, 0), (2, 0, 2, 0), (1, 0, 1, 0)]
    {
        let toml = format!("[router]\nconnections_max = {room}\n{}", web());
        let (mut next, imported) = restarted(&toml, &exported(&world), Duration::ZERO);
        assert_eq!(imported.connections, room);
        assert_eq!(imported.dropped, dropped(|dropped| dropped.no_room = 8 - room));
        let states = next.connections();
        let count = |state| states.iter().filter(|of| of.state == state).count();
        assert_eq!(count(ConnectionState::SynRecv), half_open, "room for {room}");
        assert_eq!(count(ConnectionState::Established), established, "room for {room}");
        assert_eq!(count(ConnectionState::FinWait), closing, "room for {room}");
        let servers = next.status().services[0].real_servers.clone();
        let sum: u32 = servers.iter().map(|of| of.active + of.inactive).sum();
        assert_eq!(sum, room, "what went is not counted");
    }
}

#[test]
fn in_a_smaller_table_templates_and_single_packets_give_way() {
    let mut world = World::new(&persistent());
    for network in 1..=3 {
        world.tell("front", &from(network, 1, "S"));
        world.tell("front", &from(network, 1, "A"));
    }
    for (port, packets) in [(1, 1), (2, 2), (3, 1)] {
        for _ in 0..packets {
            assert_eq!(world.tell("front", &udp(port, 53, b"?")), "forwarded dns1");
        }
    }
    // Room, established connections, UDP of two packets and of one, templates.
    for (room, established, two, one, templates) in [
        (9, 3, 1, 2, 3),
        (8, 3, 1, 1, 3),
        (7, 3, 1, 0, 3),
        (5, 3, 1, 0, 1),
        (4, 3, 1, 0, 0),
        (2, 2, 0, 0, 0),
    ] {
        let toml = format!("[router]\nconnections_max = {room}\n{}", persistent());
        let (next, imported) = restarted(&toml, &exported(&world), Duration::ZERO);
        assert_eq!(imported.dropped, dropped(|dropped| dropped.no_room = 9 - room));
        assert_eq!((imported.connections, imported.templates), (room - templates, templates));
        let records = connections_of(&exported(&next));
        let count = |state, proven| {
            records.iter().filter(|of| (of.state, of.proven) == (state, proven)).count() as u32
        };
        let found = [
            count(ConnectionState::Established, true),
            count(ConnectionState::Udp, true),
            count(ConnectionState::Udp, false),
            count(ConnectionState::Template, true),
        ];
        assert_eq!(found, [established, two, one, templates], "room for {room}");
    }
}

#[test]
fn a_draining_real_server_is_remembered_in_case_it_is_configured_again() {
    let without =
        web().replace(&real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]"), "");
    for (on_removal, remembered) in [("drain", 1), ("reset", 0)] {
        let with = |toml: &str| {
            toml.replace("\"wrr\"", &format!("\"wrr\"\non_removal = \"{on_removal}\""))
        };
        let mut world = World::new(&with(&web()));
        assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
        world.tell("front", &tcp(1, "A").bytes());
        // Not swept yet, where that applies.
        world.director.apply(world.now, snapshot(&with(&without)));
        let records = exported(&world);
        assert_eq!(connections_of(&records).len(), remembered, "{on_removal}");
        let (mut next, imported) = restarted(&with(&web()), &records, SECOND);
        assert_eq!(imported.connections as usize, remembered, "{on_removal}");
        let rs1 = next.status().services[0].real_servers[0].clone();
        assert_eq!((rs1.active as usize, rs1.state), (remembered, RealServerState::Up));
        let (mut next, imported) = restarted(&with(&without), &records, SECOND);
        assert_eq!(imported.dropped.unconfigured as usize, remembered, "{on_removal}");
        assert_eq!(next.status().services[0].real_servers.len(), 2);
    }
}

#[test]
fn a_client_stays_with_its_real_server_as_long_as_its_connections_live() {
    let mut world = World::new(&persistent());
    for port in [1, 2] {
        assert_eq!(world.tell("front", &from(9, port, "S")), "forwarded rs1");
    }
    world.tell("front", &from(9, 1, "A"));
    // The connections of these are over before their templates would be.
    assert_eq!(world.tell("front", &from(7, 1, "S")), "forwarded rs1");
    assert_eq!(world.tell("front", &from(8, 1, "S")), "forwarded rs2");
    let records = exported(&world);
    let templates: Vec<_> =
        connections_of(&records).into_iter().map(|record| record.template).collect();
    assert_eq!(templates, [None, None, None, Some(0), Some(0), Some(1), Some(2)]);

    let (mut next, imported) = restarted(&persistent(), &records, SECOND * 100);
    assert_eq!((imported.connections, imported.templates), (1, 3));
    assert_eq!(next.tell("front", &from(8, 9, "S")), "forwarded rs2");

    let (mut next, imported) = restarted(&persistent(), &records, SECOND * 400);
    assert_eq!((imported.connections, imported.templates), (1, 1));
    assert_eq!(imported.dropped, dropped(|dropped| dropped.expired = 5));
    next.advance(SECOND * 300);
    for port in 10..14 {
        assert_eq!(next.tell("front", &from(9, port, "S")), "forwarded rs1");
    }
    // This one is as good as new: the first choice of a scheduler that began afresh.
    assert_eq!(next.tell("front", &from(8, 9, "S")), "forwarded rs1");
    // Once its last connection is gone, and a while has passed, the template goes too.
    next.tell("front", &from(9, 1, "R"));
    next.advance(SECOND * 700);
    assert_eq!(next.connections(), []);
}

#[test]
fn macs_are_used_at_once_and_asked_about_at_once() {
    let toml = web().replace("mac = \"52:54:00:00:00:12\"\n", "");
    let mut world = World::new(&toml);
    world.offer("back", &arp_reply(RS2_MAC, RS2, BACK_MAC, BACK_DIP));
    let records = exported(&world);
    let neighbor = |segment: &str, address: [u8; 4], mac| {
        Record::Neighbor(NeighborRecord {
            segment: segment.to_owned(),
            address: address.into(),
            mac,
        })
    };
    let macs: Vec<_> =
        records.iter().filter(|record| matches!(record, Record::Neighbor(_))).collect();
    assert_eq!(macs, [&neighbor("back", RS2, RS2_MAC)], "only what was found");

    let (mut next, imported) = restarted(&toml, &records, SECOND);
    assert_eq!(imported.neighbors, 1);
    let mut asked = arp_request(BACK_MAC, BACK_DIP, RS2);
    asked[..6].copy_from_slice(&RS2_MAC.0);
    let requests = |world: &mut World| {
        let mut sent = world.take_sent();
        sent.retain(|sent| sent.segment == "back");
        sent.into_iter().map(|sent| sent.bytes).collect::<Vec<_>>()
    };
    assert_eq!(requests(&mut next), [asked.clone()]);
    let third = |world: &mut World| {
        let [_, _, third] = [1, 2, 3].map(|port| world.tell("front", &tcp(port, "S").bytes()));
        third
    };
    assert_eq!(third(&mut next), "forwarded rs2", "nothing is held");
    // Its own frames are recognised too.
    let back = Tcp { source_mac: RS2_MAC, ..tcp(3, "S") };
    assert_eq!(next.tell("front", &back.bytes()), "dropped loop rs2");
    assert_eq!(next.take_events().len(), 1);
    // Silent, it is down after six requests.
    next.advance(SECOND * 7);
    let events = next.take_events();
    assert!(events.len() == 1 && events[0].contains("rs2") && events[0].contains("down"));
    let (_, imported) = restarted(&toml, &exported(&next), SECOND);
    assert_eq!(imported.neighbors, 0, "one that is down is looked for anew");

    // Without a record it is looked for by broadcast, and frames are held.
    let (mut next, _) = restarted(&toml, &[], SECOND);
    assert_eq!(requests(&mut next), [arp_request(BACK_MAC, BACK_DIP, RS2)]);
    assert_eq!(third(&mut next), "held rs2");

    let group = MacAddr([0x01, 0, 0x5e, 0, 0, 1]);
    for (what, record) in [
        ("a static MAC", neighbor("back", RS1, RS3_MAC)),
        ("no real server", neighbor("back", [10, 0, 0, 99], RS3_MAC)),
        ("another segment", neighbor("front", RS2, RS2_MAC)),
        ("no segment", neighbor("rear", RS2, RS2_MAC)),
        ("a group", neighbor("back", RS2, group)),
        ("nobody", neighbor("back", RS2, MacAddr::ZERO)),
        ("the director's own", neighbor("back", RS2, FRONT_MAC)),
    ] {
        let (mut next, imported) = restarted(&toml, &[record], SECOND);
        assert_eq!(imported.neighbors, 0, "{what}");
        assert_eq!(next.status().services[0].real_servers[0].mac, Some(RS1_MAC), "{what}");
        assert_eq!(next.status().services[0].real_servers[1].mac, None, "{what}");
    }
}

#[test]
fn what_no_director_can_have_left_is_not_taken_up() {
    let web_server = |last: u8| {
        Record::RealServer(RealServerRecord {
            listen: vec![endpoint(VIP.into(), Protocol::Tcp, "80".parse_ports())],
            address: [10, 0, 0, last].into(),
            segment: "back".to_owned(),
            weight_override: None,
        })
    };
    let dns_server = Record::RealServer(RealServerRecord {
        listen: vec![endpoint(VIP.into(), Protocol::Udp, "53".parse_ports())],
        address: RS2.into(),
        segment: "back".to_owned(),
        weight_override: None,
    });
    let connection = ConnectionRecord {
        real_server: 0,
        endpoint: 0,
        client: CLIENT.into(),
        client_port: 1,
        virtual_port: 80,
        state: ConnectionState::Established,
        proven: true,
        remaining_ms: 1000,
        template: None,
    };
    let template = ConnectionRecord {
        client: [198, 51, 100, 0].into(),
        client_port: 0,
        state: ConnectionState::Template,
        ..connection
    };
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let good = [
        connection,
        ConnectionRecord { client_port: 2, real_server: 1, ..connection },
        ConnectionRecord { client_port: 3, template: Some(0), ..connection },
        ConnectionRecord {
            virtual_port: 53,
            state: ConnectionState::Udp,
            real_server: 2,
            ..connection
        },
        ConnectionRecord { client_port: 4, remaining_ms: u64::MAX, ..connection },
        ConnectionRecord { client: [198, 51, 101, 0].into(), ..template },
    ];
    let bad = [
        ConnectionRecord { real_server: 3, ..connection },
        ConnectionRecord { real_server: u32::MAX, ..connection },
        ConnectionRecord { endpoint: 1, ..connection },
        ConnectionRecord { client: v6, ..connection },
        ConnectionRecord { virtual_port: 81, ..connection },
        ConnectionRecord { state: ConnectionState::Udp, ..connection },
        ConnectionRecord { real_server: 2, virtual_port: 53, ..connection },
        ConnectionRecord { template: Some(1), ..connection },
        ConnectionRecord { template: Some(u32::MAX), ..connection },
        // Placed by the template of another real server.
        ConnectionRecord { template: Some(0), real_server: 1, ..connection },
        // There twice.
        template,
        ConnectionRecord { client: v6, ..template },
        ConnectionRecord { client_port: 9, client: [198, 51, 102, 0].into(), ..template },
        ConnectionRecord { template: Some(0), client: [198, 51, 102, 0].into(), ..template },
    ];
    let unmeant = [
        ConnectionRecord { client: [198, 51, 102, 7].into(), ..template },
        ConnectionRecord { client: [198, 51, 102, 0].into(), virtual_port: 81, ..template },
        // DNS is not persistent.
        ConnectionRecord { real_server: 2, virtual_port: 53, ..template },
    ];
    let rows = good
        .iter()
        .map(|record| (record, Dropped::default()))
        .chain(bad.iter().map(|record| (record, dropped(|dropped| dropped.invalid = 1))))
        .chain(unmeant.iter().map(|record| (record, dropped(|dropped| dropped.unconfigured = 1))));
    for (record, expected) in rows {
        let records = [web_server(11), web_server(12), dns_server.clone()]
            .into_iter()
            .chain([template, *record].map(Record::Connection))
            .collect::<Vec<_>>();
        let (mut next, imported) = restarted(&persistent(), &records, Duration::ZERO);
        assert_eq!(imported.dropped, expected, "{record:?}");
        let taken = u32::from(expected == Dropped::default());
        assert_eq!(imported.connections + imported.templates, 1 + taken, "{record:?}");
        assert!(next.connections().iter().all(|of| of.expires_seconds <= 900), "{record:?}");
    }
    // The same connection twice.
    let twice = [web_server(11), Record::Connection(connection), Record::Connection(connection)];
    let (_, imported) = restarted(&persistent(), &twice, Duration::ZERO);
    assert_eq!((imported.connections, imported.dropped.invalid), (1, 1));
    // A weight that no one can set.
    for (weight, overrides) in [(65_535, 1), (65_536, 0)] {
        let Record::RealServer(server) = web_server(11) else { unreachable!() };
        let weight_override = Some(WeightOverride { weight, configured: 4 });
        let record = Record::RealServer(RealServerRecord { weight_override, ..server });
        let (_, imported) = restarted(&persistent(), &[record], Duration::ZERO);
        assert_eq!((imported.overrides, imported.dropped.overrides), (overrides, 1 - overrides));
    }
}

fn endpoint(vip: IpAddr, protocol: Protocol, ports: Ports) -> Endpoint {
    Endpoint { vip, protocol, ports }
}

trait ParsePorts {
    fn parse_ports(&self) -> Ports;
}

impl ParsePorts for str {
    /// The ports of a configuration that says so.
    fn parse_ports(&self) -> Ports {
        let toml = web().replace("ports = 80", &format!("ports = {self}"));
        snapshot(&toml).services[0].first().ports.clone()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Segment { network: u8, port: u16, flags: &'static str },
    Datagram { port: u16 },
    Weight { real_server: &'static str, weight: u32 },
    Answer { rs2_answers: bool },
    Pass { milliseconds: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec!["S", "S", "A", "A", "FA", "R"]);
    let real_server = prop::sample::select(vec!["rs1", "rs2", "rs3"]);
    prop_oneof![
        10 => (0u8..4, 1u16..6, flags)
            .prop_map(|(network, port, flags)| Step::Segment { network, port, flags }),
        2 => (1u16..6).prop_map(|port| Step::Datagram { port }),
        1 => (real_server, 0u32..9)
            .prop_map(|(real_server, weight)| Step::Weight { real_server, weight }),
        1 => any::<bool>().prop_map(|rs2_answers| Step::Answer { rs2_answers }),
        3 => (0u64..200_000).prop_map(|milliseconds| Step::Pass { milliseconds }),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        (0u8..3).prop_map(|last| IpAddr::from([10, 0, 0, 11 + last])),
        Just(IpAddr::from(VIP)),
    ];
    let segment = prop::sample::select(vec!["back".to_owned(), "front".into(), "none".into()]);
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let ports = prop::sample::select(vec!["80".parse_ports(), "53".parse_ports(), Ports::Any]);
    let weight_override = prop::option::of((any::<u32>(), 0u32..5))
        .prop_map(|of| of.map(|(weight, configured)| WeightOverride { weight, configured }));
    let state = prop::sample::select(vec![
        ConnectionState::Established,
        ConnectionState::SynRecv,
        ConnectionState::Close,
        ConnectionState::Udp,
        ConnectionState::Template,
    ]);
    let client = prop_oneof![
        3 => (0u8..4).prop_map(|network| IpAddr::from([198, 51, network, 0])),
        1 => address.clone(),
    ];
    let port = prop_oneof![Just(0u16), Just(80), Just(53), 0u16..4, any::<u16>()];
    let template = (prop::option::of(0u32..8), any::<bool>());
    let remaining = prop_oneof![0u64..3000, any::<u64>()];
    prop_oneof![
        2 => (address.clone(), protocol, ports, address.clone(), segment.clone(), weight_override)
            .prop_map(|(vip, protocol, ports, address, segment, weight_override)| {
                Record::RealServer(RealServerRecord {
                    listen: vec![endpoint(vip, protocol, ports)],
                    address,
                    segment,
                    weight_override,
                })
            }),
        1 => (segment, address, any::<[u8; 6]>()).prop_map(|(segment, address, mac)| {
            Record::Neighbor(NeighborRecord { segment, address, mac: MacAddr(mac) })
        }),
        8 => (0u32..12, client, port.clone(), port, state, remaining, template).prop_map(
            |(real_server, client, client_port, virtual_port, state, remaining_ms, (template, proven))| {
                Record::Connection(ConnectionRecord {
                    real_server, endpoint: real_server as u16 / 9, client, client_port, virtual_port, state, proven, remaining_ms, template })
            }
        ),
    ]
}

/// rs2's MAC is found by asking.
fn property_toml() -> String {
    let unresolved = persistent().replace("mac = \"52:54:00:00:00:12\"\n", "");
    format!("[router]\nconnections_max = 16\n{unresolved}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_taken_up_is_left_again(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut world = World::new(&property_toml());
        for step in steps {
            match step {
                Step::Segment { network, port, flags } => {
                    world.tell("front", &from(network, port, flags));
                }
                Step::Datagram { port } => {
                    world.tell("front", &udp(port, 53, b"?"));
                }
                Step::Weight { real_server, weight } => set_weight(&mut world, real_server, weight),
                Step::Answer { rs2_answers } => {
                    let (mac, address) = if rs2_answers { (RS2_MAC, RS2) } else { (RS3_MAC, RS3) };
                    world.offer("back", &arp_reply(mac, address, BACK_MAC, BACK_DIP));
                }
                Step::Pass { milliseconds } => world.advance(Duration::from_millis(milliseconds)),
            }
        }
        let left = exported(&world);
        let (next, imported) = restarted(&property_toml(), &left, Duration::ZERO);
        prop_assert_eq!(imported.dropped, Dropped::default());
        prop_assert_eq!(exported(&next), left);
    }

    #[test]
    fn nonsense_breaks_nothing(
        records in prop::collection::vec(any_record(), 0..60),
        down in 0u64..2000,
    ) {
        let down = Duration::from_millis(down);
        let (mut next, imported) = restarted(&property_toml(), &records, down);
        let status = next.status();
        prop_assert!(status.connections.current <= 16);
        prop_assert_eq!(status.connections.current, imported.connections + imported.templates);
        let Dropped { expired, unconfigured, no_room, invalid, .. } = imported.dropped;
        prop_assert_eq!(
            connections_of(&records).len() as u32,
            imported.connections + imported.templates + expired + unconfigured + no_room + invalid
        );
        let servers = status.services.iter().flat_map(|service| &service.real_servers);
        let sum: u32 = servers.map(|of| of.active + of.inactive).sum();
        prop_assert_eq!(sum, imported.connections);
        // And what is there now is sound: it can be left and taken up again, and ends in time.
        let left = exported(&next);
        let (again, imported) = restarted(&property_toml(), &left, Duration::ZERO);
        prop_assert_eq!(imported.dropped, Dropped::default());
        prop_assert_eq!(exported(&again), left);
        next.advance(SECOND * 2000);
        prop_assert_eq!(next.status().connections.current, 0);
        let servers = next.status().services;
        let sum: u32 =
            servers.iter().flat_map(|of| &of.real_servers).map(|of| of.active + of.inactive).sum();
        prop_assert_eq!(sum, 0);
    }
}
