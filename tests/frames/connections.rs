//! A connection: which 12 bytes change, that it stays where it is, and how it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use vipr::director::connections::ConnectionState::{self, Template, Udp};
use vipr::director::report::{ConnectionReport, RealServerState};

use crate::harness::frames::{Tcp, arp_reply, tcp, udp};
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
        let there = world.connections().iter().filter(|flow| flow.state == Template).count();
        // What real servers are told to have of them is what the table has.
        let services = world.status().services;
        let told = services.iter().flat_map(|service| &service.real_servers);
        assert_eq!(told.map(|found| found.templates as usize).sum::<usize>(), there);
        there
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

#[test]
fn sloppy_tcp_takes_up_what_it_did_not_see_begin() {
    let sloppy = web().replace("\"wrr\"", "\"wrr\"\nsloppy_tcp = true");
    let rows = [
        ("S", ConnectionState::SynRecv),
        ("A", ConnectionState::Established),
        ("PA", ConnectionState::Established),
        ("FA", ConnectionState::Close),
    ];
    for (flags, state) in rows {
        let mut strict = World::new(&web());
        let answered = if flags == "S" { "forwarded rs1" } else { "replied" };
        assert_eq!(strict.tell("front", &tcp(1, flags).bytes()), answered, "{flags}");
        let mut world = World::new(&sloppy);
        assert_eq!(world.tell("front", &tcp(1, flags).bytes()), "forwarded rs1", "{flags}");
        assert_eq!(world.connections()[0].state, state, "{flags}");
    }
    let mut world = World::new(&sloppy);
    for flags in ["R", "RA", "SR"] {
        let told = world.tell("front", &tcp(1, flags).bytes());
        assert_eq!(told, "dropped unmatched_unanswerable", "{flags}");
    }
    assert_eq!(world.connections(), []);
    // And off again while it runs.
    world.director.apply(world.now, snapshot(&web()));
    assert_eq!(world.tell("front", &tcp(2, "A").bytes()), "replied");
}

/// Nobody need be behind the source address of a single segment.
#[test]
fn a_flood_of_segments_to_a_sloppy_service_ends_no_connection() {
    let sloppy = web().replace("\"wrr\"", "\"wrr\"\nsloppy_tcp = true");
    let mut world = World::new(&format!("[router]\nconnections_max = 8\n{sloppy}"));
    for flags in ["S", "A"] {
        assert_eq!(world.tell("front", &tcp(1, flags).bytes()), "forwarded rs1");
    }
    for port in 100..200 {
        assert!(world.tell("front", &tcp(port, "A").bytes()).starts_with("forwarded"));
    }
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded rs1");
    assert!(world.connections().iter().any(|flow| flow.client_port == 1));
}

/// IPVS never reuses the port of a connection that persistence placed.
#[test]
fn a_syn_in_the_place_of_a_persistent_connection_goes_on_with_it() {
    let persistent = web().replace("\"wrr\"", "\"wrr\"\npersistence = {}");
    for (toml, scheduled) in [(web(), 2), (persistent, 1)] {
        let mut world = World::new(&toml);
        for flags in ["S", "A", "FA", "S"] {
            assert_eq!(world.tell("front", &tcp(1, flags).bytes()), "forwarded rs1");
        }
        assert_eq!(world.status().services[0].traffic.connections, scheduled);
        let flow = world.connections().into_iter().find(|flow| flow.client_port == 1).unwrap();
        assert_eq!(flow.state, ConnectionState::SynRecv);
    }
}

/// What happens to connections of a real server that is no longer there.
#[test]
fn with_expire_nodest_connections_leave_a_real_server_that_is_down() {
    let found = |more: &str| {
        let unresolved = web().replacen("mac = \"52:54:00:00:00:11\"\n", "", 1);
        unresolved.replace("\"wrr\"", &format!("\"rr\"{more}"))
    };
    let dns = "\n[[service]]\nname = \"dns\"\nvip = \"192.0.2.10\"\nprotocol = \"udp\"\n\
               ports = 53\nscheduler = \"rr\"";
    let udp_service = |more: &str| {
        let servers = format!("{}{}", real_server("rs1", 11, 1, ""), real_server("rs2", 12, 1, ""));
        let servers = servers.replacen("mac = \"52:54:00:00:00:11\"\n", "", 1);
        format!("{dns}{more}\n{servers}")
    };
    for (more, tcp_after, udp_after, syn_after) in [
        // It keeps what it has, should it only be slow to answer ARP.
        ("", "forwarded rs1", "forwarded rs1", "forwarded rs2"),
        ("\nexpire_nodest = true", "replied", "forwarded rs2", "forwarded rs2"),
    ] {
        let mut world = World::new(&format!("{}{}", found(more), udp_service(more)));
        world.offer("back", &arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP));
        for flags in ["S", "A"] {
            assert_eq!(world.tell("front", &tcp(1, flags).bytes()), "forwarded rs1");
        }
        assert_eq!(world.tell("front", &udp(1, 53, b"?")), "forwarded rs1");
        // It no longer answers ARP, while its clients go on.
        for _ in 0..300 {
            world.advance(Duration::from_secs(1));
            if world.status().services[0].real_servers[0].state == RealServerState::Down {
                break;
            }
            world.tell("front", &tcp(1, "A").bytes());
            world.tell("front", &udp(1, 53, b"?"));
        }
        assert_eq!(world.tell("front", &tcp(1, "A").bytes()), tcp_after, "{more}");
        assert_eq!(world.tell("front", &udp(1, 53, b"?")), udp_after, "{more}");
        assert_eq!(world.tell("front", &tcp(2, "S").bytes()), syn_after, "{more}");
    }
}

/// Whom a full table parts with: [`ConnectionState`] and whether it is anything but established.
fn is_kept(state: ConnectionState, packets: u32) -> bool {
    matches!(state, ConnectionState::Established | ConnectionState::Udp) && packets > 1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// What goes on is never evicted, while anything else is: whatever comes, a connection with
    /// two packets that is established goes by a packet of its own only.
    #[test]
    fn what_goes_on_is_never_evicted(
        steps in prop::collection::vec((1u16..40, 0usize..5), 1..400),
        persistent in any::<bool>(),
    ) {
        let more = if persistent { "\npersistence = {}" } else { "" };
        let toml = format!(
            "[router]\nconnections_max = 16\n{}\n[[service]]\nvip = \"192.0.2.10\"\n\
             protocol = \"udp\"\nports = 53\n{}",
            web().replace("\"wrr\"", &format!("\"wrr\"{more}")),
            real_server("dns", 13, 1, "")
        );
        let mut world = World::new(&toml);
        let mut packets = BTreeMap::new();
        for (port, kind) in steps {
            let before: Vec<_> = world.connections();
            let udp_port = kind == 4;
            let frame = match kind {
                4 => udp(port, 53, b"?"),
                kind => tcp(port, ["S", "A", "FA", "R"][kind]).bytes(),
            };
            let told = world.tell("front", &frame);
            if told.starts_with("forwarded") {
                *packets.entry((udp_port, port)).or_insert(0) += 1;
            }
            let after = world.connections();
            let lesser = |flow: &ConnectionReport| {
                let udp_flow = flow.state == Udp;
                let count = packets.get(&(udp_flow, flow.client_port)).copied().unwrap_or(0);
                !is_kept(flow.state, count)
            };
            if told == "dropped connections_full" {
                prop_assert!(before.iter().all(|flow| !lesser(flow)), "{before:?}");
            }
            let mut gone = Vec::new();
            for flow in &before {
                let own = flow.client_port == port && (flow.state == Udp) == udp_port;
                let stays = after.iter().any(|other| {
                    (other.client_port, other.virtual_port) == (flow.client_port, flow.virtual_port)
                });
                prop_assert!(stays || own || lesser(flow), "{flow:?} went for {told}");
                if !stays {
                    gone.push((flow.state == Udp, flow.client_port));
                }
            }
            for flow in gone {
                packets.remove(&flow);
            }
        }
    }
}
