//! Several VIPs and ports as one service: what firewall marks are used for.

use std::time::Duration;

use vipr::director::connections::ConnectionState::Template;

use crate::harness::frames::{FrameBuilder, Tcp, tcp, udp};
use crate::harness::*;

const OTHER_VIP: [u8; 4] = [192, 0, 2, 11];

/// HTTP and HTTPS of two VIPs and HTTP/3 as one service.
fn group(more: &str) -> String {
    format!(
        r#"{SEGMENTS}
[[service]]
name = "web"
listen = [
    "192.0.2.10:80,443/tcp",
    {{ vip = "192.0.2.10", protocol = "udp", ports = 443 }},
    {{ vip = "192.0.2.11", protocol = "tcp", ports = 80 }},
]
scheduler = "rr"
{more}
{}{}{}"#,
        real_server("rs1", 11, 1, ""),
        real_server("rs2", 12, 1, ""),
        real_server("rs3", 13, 1, ""),
    )
}

fn to(vip: [u8; 4], port: u16, source_port: u16, flags: &'static str) -> Vec<u8> {
    Tcp { destination: vip, destination_port: port, ..tcp(source_port, flags) }.bytes()
}

#[test]
fn one_scheduler_serves_all_of_a_group() {
    let mut world = World::new(&group(""));
    let frames = [
        to(VIP, 80, 1, "S"),
        to(VIP, 443, 1, "S"),
        udp(1, 443, b"quic"),
        to(OTHER_VIP, 80, 1, "S"),
        to(VIP, 80, 2, "S"),
    ];
    let picks: Vec<String> = frames.iter().map(|frame| world.tell("front", frame)).collect();
    assert_eq!(picks, ["rs1", "rs2", "rs3", "rs1", "rs2"].map(|name| format!("forwarded {name}")));
    // What it does not list is not its: a reset, a port unreachable, no VIP.
    assert_eq!(world.tell("front", &to(OTHER_VIP, 443, 1, "S")), "replied");
    assert_eq!(world.tell("front", &udp(1, 80, b"x")), "replied");
    assert_eq!(world.tell("front", &to([192, 0, 2, 12], 80, 1, "S")), "dropped not_vip");
}

#[test]
fn one_template_holds_a_client_on_all_of_a_group() {
    let mut world = World::new(&group("persistence = { timeout = \"5m\", netmask = 24 }"));
    assert_eq!(world.tell("front", &to(VIP, 80, 1, "S")), "forwarded rs1");
    for frame in [to(VIP, 443, 2, "S"), to(OTHER_VIP, 80, 3, "S"), udp(4, 443, b"quic")] {
        assert_eq!(world.tell("front", &frame), "forwarded rs1");
    }
    let neighbor = Tcp { source: [198, 51, 100, 200], ..tcp(1, "S") };
    assert_eq!(world.tell("front", &neighbor.bytes()), "forwarded rs1", "of the same /24");
    let stranger = Tcp { source: [198, 51, 101, 7], ..tcp(1, "S") };
    assert_eq!(world.tell("front", &stranger.bytes()), "forwarded rs2", "of another");
    let connections = world.connections();
    let templates: Vec<_> = connections.iter().filter(|flow| flow.state == Template).collect();
    assert_eq!(templates.len(), 2);
    assert_eq!(templates[0].client.to_string(), "198.51.100.0");
    assert_eq!((templates[0].client_port, templates[0].virtual_port), (0, 80));
    assert_eq!(templates[0].vip.to_string(), "192.0.2.10");
    assert_eq!(templates[0].real_server, "rs1");
}

#[test]
fn any_port_persistence_goes_across_ports() {
    let any = web()
        .replace("ports = 80", "ports = \"any\"\npersistence = { timeout = \"5m\" }")
        .replace("wrr", "rr");
    let mut world = World::new(&any);
    assert_eq!(world.tell("front", &to(VIP, 21, 1, "S")), "forwarded rs1");
    for (port, source) in [(20, 2), (50_000, 3), (80, 4)] {
        assert_eq!(world.tell("front", &to(VIP, port, source, "S")), "forwarded rs1", "{port}");
    }
    let template = world.connections().into_iter().find(|flow| flow.state == Template).unwrap();
    assert_eq!((template.client_port, template.virtual_port), (0, 0));
}

/// An exact port and a range that begins with it are two services; each has its own templates.
#[test]
fn services_whose_ports_begin_alike_do_not_share_templates() {
    let service = |name: &str, ports: &str, last| {
        format!(
            "\n[[service]]\nname = \"{name}\"\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\n\
             ports = {ports}\nscheduler = \"rr\"\npersistence = {{}}\n{}",
            real_server(name, last, 1, "")
        )
    };
    let toml = [SEGMENTS, &service("one", "80", 11), &service("many", "\"80-90\"", 12)].concat();
    let mut world = World::new(&toml);
    for round in 0..3 {
        assert_eq!(world.tell("front", &to(VIP, 80, 1 + round, "S")), "forwarded one");
        assert_eq!(world.tell("front", &to(VIP, 81, 1 + round, "S")), "forwarded many");
    }
    let connections = world.connections();
    let templates = connections.iter().filter(|flow| flow.state == Template).count();
    assert_eq!(templates, 2);
}

#[test]
fn a_group_keeps_its_connections_whatever_else_of_it_changes() {
    let mut world = World::new(&group("persistence = { timeout = \"5m\" }"));
    assert_eq!(world.tell("front", &to(OTHER_VIP, 80, 1, "S")), "forwarded rs1");
    // In another order, and with another scheduler: still the same service.
    let other = group("persistence = { timeout = \"5m\" }")
        .replace("\"192.0.2.10:80,443/tcp\",", "\"192.0.2.10:443/tcp\", \"192.0.2.10:80/tcp\",")
        .replace("\"rr\"", "\"wlc\"");
    world.director.apply(world.now, snapshot(&other));
    assert_eq!(world.status().services.len(), 1);
    assert_eq!(world.tell("front", &to(OTHER_VIP, 80, 1, "A")), "forwarded rs1");
    assert_eq!(world.tell("front", &to(VIP, 443, 2, "S")), "forwarded rs1", "by its template");
    // Without one of the VIPs it is another service: the old one's connections finish.
    let fewer = other.replace("{ vip = \"192.0.2.11\", protocol = \"tcp\", ports = 80 },", "");
    world.director.apply(world.now, snapshot(&fewer));
    assert_eq!(world.tell("front", &to(OTHER_VIP, 80, 1, "A")), "forwarded rs1");
    assert_eq!(world.tell("front", &to(OTHER_VIP, 80, 9, "S")), "dropped not_vip");
    let report = world.status().services;
    assert_eq!(report[0].listen, ["192.0.2.10:80,443/tcp", "192.0.2.10:443/udp"]);
    assert!(report[0].configured && !report[1].configured);
    for flags in ["FA", "R"] {
        world.tell("front", &to(OTHER_VIP, 80, 1, flags));
    }
    world.tell("front", &to(VIP, 443, 2, "R"));
    world.advance(Duration::from_secs(300));
    assert_eq!(world.status().services.len(), 1, "the old one left with its last connection");
}

#[test]
fn an_error_about_any_vip_of_a_group_reaches_its_real_server() {
    let mut world = World::new(&group(""));
    assert_eq!(world.tell("front", &to(OTHER_VIP, 80, 7, "S")), "forwarded rs1");
    let reply = FrameBuilder::new((RS1_MAC, OTHER_VIP), (CLIENT_MAC, CLIENT)).tcp(80, 7, "SA", b"");
    let error = FrameBuilder::new((CLIENT_MAC, CLIENT), (FRONT_MAC, OTHER_VIP)).icmp_error(
        3,
        4,
        [0, 0, 5, 0],
        &reply[14..],
    );
    assert_eq!(world.tell("front", &error), "forwarded rs1");
}

#[test]
fn a_client_leaves_a_quiesced_real_server_with_expire_quiescent_only() {
    for (more, expected) in [
        ("persistence = {}", "forwarded rs1"),
        ("persistence = {}\nexpire_quiescent = true", "forwarded rs2"),
    ] {
        let mut world = World::new(&group(more));
        assert_eq!(world.tell("front", &to(VIP, 80, 1, "S")), "forwarded rs1");
        let quiesced = group(more).replacen("weight = 1", "weight = 0", 1);
        world.director.apply(world.now, snapshot(&quiesced));
        assert_eq!(world.tell("front", &to(VIP, 443, 2, "S")), expected, "{more}");
        assert_eq!(world.tell("front", &to(VIP, 80, 1, "A")), "forwarded rs1", "what goes on");
        // And it stays where it went.
        assert_eq!(world.tell("front", &to(VIP, 443, 3, "S")), expected, "{more}");
    }
}

/// The key may change while the service runs.
#[test]
fn expire_quiescent_may_be_switched() {
    let persistent = group("persistence = {}");
    let mut world = World::new(&persistent);
    assert_eq!(world.tell("front", &to(VIP, 80, 1, "S")), "forwarded rs1");
    let quiesced = persistent.replacen("weight = 1", "weight = 0", 1);
    world.director.apply(world.now, snapshot(&quiesced));
    assert_eq!(world.tell("front", &to(VIP, 80, 2, "S")), "forwarded rs1");
    let expiring =
        quiesced.replace("persistence = {}", "persistence = {}\nexpire_quiescent = true");
    world.director.apply(world.now, snapshot(&expiring));
    assert_eq!(world.tell("front", &to(VIP, 80, 3, "S")), "forwarded rs2");
}
