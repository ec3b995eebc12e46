//! A connection: which 12 bytes change, that it stays where it is, and how it ends.

use std::time::Duration;

use vipr::director::connections::ConnectionState::{self, Template, Udp};

use crate::harness::frames::{Tcp, tcp, udp};
use crate::harness::*;

#[test]
fn only_the_two_mac_addresses_of_a_forwarded_frame_change() {
    let mut world = World::new(&web());
    world.take_sent();
    let mut request = tcp(40_000, "SA");
    request.payload = b"GET / HTTP/1.0\r\n\r\n".to_vec();
    for frame in [tcp(40_000, "S").bytes(), tcp(40_000, "A").bytes(), request.bytes()] {
        let mut expected = frame.clone();
        expected[..6].copy_from_slice(&RS1_MAC.0);
        expected[6..12].copy_from_slice(&BACK_MAC.0);
        assert_eq!(world.tell("front", &frame), "forwarded rs1");
        assert_eq!(world.take_one("back"), expected);
    }
}

#[test]
fn padding_travels_along() {
    let mut world = World::new(&web());
    world.take_sent();
    let mut frame = tcp(40_000, "S").bytes();
    frame.resize(60, 0xee);
    assert_eq!(world.tell("front", &frame), "forwarded rs1");
    assert_eq!(world.take_one("back")[12..], frame[12..]);
}

#[test]
fn a_flow_stays_on_its_real_server_while_others_go_round() {
    let mut world = World::new(&web());
    assert_eq!(world.tell("front", &tcp(40_000, "S").bytes()), "forwarded rs1");
    for port in 41_000..41_100 {
        world.tell("front", &tcp(port, "S").bytes());
        assert_eq!(world.tell("front", &tcp(40_000, "A").bytes()), "forwarded rs1");
    }
}

#[test]
fn states_and_counts_follow_the_clients_half() {
    let mut world = World::new(&web());
    let rows = [
        ("S", ConnectionState::SynRecv, (1, 0), 60),
        ("A", ConnectionState::Established, (1, 0), 900),
        ("FA", ConnectionState::FinWait, (0, 1), 120),
        ("A", ConnectionState::FinWait, (0, 1), 120),
        ("RA", ConnectionState::Close, (0, 1), 10),
    ];
    for (flags, state, (active, inactive), seconds) in rows {
        assert_eq!(world.tell("front", &tcp(40_000, flags).bytes()), "forwarded rs1");
        let connections = world.connections();
        assert_eq!(connections.len(), 1);
        assert_eq!(connections[0].state, state, "after {flags}");
        assert_eq!(connections[0].expires_seconds, seconds, "after {flags}");
        let rs1 = world.status().services[0].real_servers[0].clone();
        assert_eq!((rs1.active, rs1.inactive), (active, inactive), "after {flags}");
    }
    world.advance(Duration::from_secs(11));
    assert_eq!(world.connections(), []);
    let rs1 = world.status().services[0].real_servers[0].clone();
    assert_eq!((rs1.active, rs1.inactive, rs1.traffic.connections), (0, 0, 1));
}

#[test]
fn a_deadline_binds_at_lookup_to_the_nanosecond() {
    let mut world = World::new(&web());
    world.tell("front", &tcp(40_000, "S").bytes());
    world.advance(Duration::from_secs(60) - Duration::from_nanos(1));
    assert_eq!(world.tell("front", &tcp(40_000, "S").bytes()), "forwarded rs1", "just in time");
    world.advance(Duration::from_secs(60));
    assert_eq!(world.tell("front", &tcp(40_000, "A").bytes()), "replied", "too late: a reset");
}

#[test]
fn a_syn_starts_over_where_a_connection_is_closing() {
    let rows = [("FA", "forwarded rs2"), ("R", "forwarded rs2"), ("A", "forwarded rs1")];
    for (last, expected) in rows {
        let mut world = World::new(&web());
        // Weights 4, 3, 2: rs1, rs1, rs2, …
        world.tell("front", &tcp(1, "S").bytes());
        assert_eq!(world.tell("front", &tcp(40_000, "S").bytes()), "forwarded rs1");
        world.tell("front", &tcp(40_000, "A").bytes());
        world.tell("front", &tcp(40_000, last).bytes());
        assert_eq!(world.tell("front", &tcp(40_000, "S").bytes()), expected, "after {last}");
    }
}

#[test]
fn a_syn_that_is_a_reset_starts_nothing_over() {
    let mut world = World::new(&web());
    for flags in ["S", "A", "FA", "SR"] {
        assert_eq!(world.tell("front", &tcp(1, flags).bytes()), "forwarded rs1", "{flags}");
    }
    assert_eq!(world.connections()[0].state, ConnectionState::Close);
}

#[test]
fn timeouts_are_configurable() {
    let mut world = World::new(&format!("[timeouts]\ntcp_syn_recv = 7\n{}", web()));
    world.tell("front", &tcp(40_000, "S").bytes());
    assert_eq!(world.connections()[0].expires_seconds, 7);
}

#[test]
fn udp_flows_are_connections_of_five_minutes() {
    let toml = web().replace("\"tcp\"", "\"udp\"");
    let mut world = World::new(&toml);
    assert_eq!(world.tell("front", &udp(5000, 80, b"one")), "forwarded rs1");
    assert_eq!(world.tell("front", &udp(5001, 80, b"other")), "forwarded rs1");
    assert_eq!(world.tell("front", &udp(5002, 80, b"other")), "forwarded rs2");
    assert_eq!(world.tell("front", &udp(5000, 80, b"two")), "forwarded rs1");
    let first = &world.connections()[0];
    assert_eq!((first.state, first.expires_seconds), (ConnectionState::Udp, 300));
    let rs1 = world.status().services[0].real_servers[0].clone();
    assert_eq!((rs1.active, rs1.inactive), (0, 2), "UDP is always inactive");
    world.advance(Duration::from_secs(301));
    assert_eq!(world.connections(), []);
}

#[test]
fn one_packet_scheduling_keeps_no_connection() {
    let toml = web().replace("\"tcp\"", "\"udp\"\none_packet = true");
    let mut world = World::new(&toml);
    let seen: Vec<String> = (0..9).map(|_| world.tell("front", &udp(5000, 80, b"x"))).collect();
    let expected = ["rs1", "rs1", "rs2", "rs1", "rs2", "rs3", "rs1", "rs2", "rs3"];
    assert_eq!(seen, expected.map(|name| format!("forwarded {name}")));
    assert_eq!(world.connections(), []);
    assert_eq!(world.status().services[0].traffic.connections, 9);
}

#[test]
fn when_the_table_is_full_the_oldest_half_open_connection_goes_first() {
    let toml = format!("[router]\nconnections_max = 4\n{}", web());
    let mut world = World::new(&toml);
    for port in [1, 2, 3, 4] {
        world.tell("front", &tcp(port, "S").bytes());
    }
    world.tell("front", &tcp(1, "A").bytes());
    world.tell("front", &tcp(2, "A").bytes());
    world.tell("front", &tcp(2, "FA").bytes());
    assert!(world.tell("front", &tcp(5, "S").bytes()).starts_with("forwarded"));
    let ports = |world: &mut World| {
        let mut ports: Vec<u16> = world.connections().iter().map(|c| c.client_port).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports(&mut world), [1, 2, 4, 5], "3 was the oldest half-open one");
    world.tell("front", &tcp(6, "S").bytes());
    assert_eq!(ports(&mut world), [1, 2, 5, 6]);
    for port in [5, 6] {
        world.tell("front", &tcp(port, "A").bytes());
    }
    assert!(world.tell("front", &tcp(7, "S").bytes()).starts_with("forwarded"));
    assert_eq!(ports(&mut world), [1, 5, 6, 7], "2 was closing");
    world.tell("front", &tcp(7, "A").bytes());
    let told = world.take_events();
    assert_eq!(told.iter().filter(|line| line.starts_with("connection table: full")).count(), 1);
    assert_eq!(
        world.tell("front", &tcp(8, "S").bytes()),
        "dropped connections_full",
        "established ones stay"
    );
    assert_eq!(world.status().connections.evicted, 3);
}

/// Ten flows may be kept; a flood of one-packet flows must not keep anyone else out.
#[test]
fn a_flood_of_single_datagrams_neither_keeps_others_out_nor_ends_what_goes_on() {
    let toml = format!(
        "[router]\nconnections_max = 10\n{}\n[[service]]\nvip = \"192.0.2.10\"\n\
         protocol = \"udp\"\nports = 53\n{}",
        web(),
        real_server("dns", 13, 1, "")
    );
    let mut world = World::new(&toml);
    for _ in 0..2 {
        assert_eq!(world.tell("front", &udp(1, 53, b"again and again")), "forwarded dns");
    }
    for port in 100..200 {
        assert_eq!(world.tell("front", &udp(port, 53, b"?")), "forwarded dns");
    }
    assert!(world.tell("front", &tcp(1, "S").bytes()).starts_with("forwarded"));
    assert!(world.connections().iter().any(|flow| flow.client_port == 1 && flow.state == Udp));
    assert_eq!(world.status().connections.evicted, 92);
}

#[test]
fn a_flood_of_new_clients_of_a_persistent_service_does_not_fill_the_table_with_templates() {
    let persistent = web().replace("\"wrr\"", "\"rr\"\npersistence = { timeout = \"5m\" }");
    let mut world = World::new(&format!("[router]\nconnections_max = 10\n{persistent}"));
    let from = |client: u8, flags| {
        let client = Tcp { source: [198, 51, 100, client], ..tcp(7, flags) };
        client.bytes()
    };
    for client in 0..100 {
        assert!(world.tell("front", &from(client, "S")).starts_with("forwarded"), "{client}");
    }
    let templates = |world: &mut World| {
        world.connections().iter().filter(|flow| flow.state == Template).count()
    };
    assert_eq!(templates(&mut world), 5, "one for each client there was room for");
    // Connections that prove to be real take the places of templates, but of nothing better.
    for client in 100..110 {
        assert!(world.tell("front", &from(client, "S")).starts_with("forwarded"), "{client}");
        world.tell("front", &from(client, "A"));
    }
    assert_eq!(templates(&mut world), 0);
    assert_eq!(world.tell("front", &from(110, "S")), "dropped connections_full");
}
