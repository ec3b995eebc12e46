//! Good frames and good configurations: what fuzzing starts from and damages.

use etherparse::ArpOperation;
use vipr::wire::MacAddr;

use crate::harness::frames::{
    FrameBuilder, arp, arp_reply, arp_request, from_client, icmp_error, ip_payload, ping, tcp, udp,
};
use crate::harness::frames6::{
    ALL_NODES, BACK_DIP6, CLIENT6, FRONT_DIP6, NOBODY, RS1_6, RS2_6, VIP6, advertisement,
    from_client6, segments6, solicitation,
};
use crate::harness::{
    BACK_DIP, BACK_MAC, CLIENT, CLIENT_MAC, FRONT_MAC, RS1, RS1_MAC, RS2, RS2_MAC, SEGMENTS, VIP,
};

/// A configuration with everything that decides about frames, and variations of it.
pub fn configurations() -> Vec<String> {
    let router = "[router]\nconnections_max = 8\n";
    let service = |name: &str, protocol: &str, ports: &str, more: &str| {
        let real_server = |last: u8, mac: &str, weight: u8| {
            format!(
                "[[service.real_server]]\nname = \"rs{last}\"\naddress = \"10.0.0.1{last}\"\n\
                 {mac}\nweight = {weight}\n"
            )
        };
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"192.0.2.10\"\nprotocol = \"{protocol}\"\n\
             ports = {ports}\n{more}\n{}{}",
            real_server(1, "mac = \"52:54:00:00:00:11\"", 2),
            real_server(2, "", 1)
        )
    };
    let full = [
        service("s0", "tcp", "80", "scheduler = \"wrr\""),
        service("s1", "tcp", "[81, \"8000-8099\"]", "persistence = { timeout = \"1m\" }"),
        service("s2", "udp", "53", "scheduler = \"sh\""),
        service("s3", "udp", "54", "one_packet = true\non_removal = \"reset\""),
    ];
    let with = |services: &[String]| format!("{router}{SEGMENTS}{}", services.concat());
    let one_armed = SEGMENTS.replacen("\"vip\"", "\"both\"", 1);
    vec![
        with(&full),
        with(&full[..1]),
        with(&[full[2].replace("weight = 2", "weight = 0"), full[3].clone()]),
        format!(
            "{router}unmatched = \"drop\"\n{one_armed}{}",
            full[1].replace("weight", "segment = \"back\"\nweight",)
        ),
        with(&[]),
        format!("{router}{}{}", segments6(), of_both_families()),
        with(&[service(
            "s0",
            "tcp",
            "\"any\"",
            "scheduler = \"lblcr\"\nquorum = 3\nexpire_quiescent = true\nexpire_nodest = true\n\
             persistence = { timeout = \"1m\", netmask = 16 }\n[service.sorry_server]\n\
             name = \"rs3\"\naddress = \"10.0.0.13\"\n",
        )]),
    ]
}

/// One service that listens on both families and all protocols, for IPv6 real servers.
fn of_both_families() -> String {
    let listen: Vec<String> = ["192.0.2.10:80/tcp", "192.0.2.10:53/udp", "192.0.2.10:3868/sctp"]
        .iter()
        .flat_map(|endpoint| {
            [endpoint.to_string(), endpoint.replace("192.0.2.10", "[2001:db8:0:1::10]")]
        })
        .map(|endpoint| format!("\"{endpoint}\""))
        .collect();
    let real_server = |name: &str, address: core::net::Ipv6Addr| {
        format!("[[service.real_server]]\nname = \"{name}\"\naddress = \"{address}\"\n")
    };
    format!(
        "[[service]]\nname = \"s0\"\nlisten = [{}]\nscheduler = \"mh\"\n{}{}",
        listen.join(", "),
        real_server("rs1", RS1_6),
        real_server("rs2", RS2_6)
    )
}

/// Frames of every kind that the director tells apart.
pub fn all() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for port in [40_000, 40_001] {
        for flags in ["S", "A", "PA", "FA", "R", "SA", ""] {
            all.push(tcp(port, flags).bytes());
        }
        all.push(udp(port, 53, b"query"));
        all.push(udp(port, 54, b"query"));
    }
    for destination_port in [81, 8000, 9] {
        let mut other = tcp(40_000, "S");
        other.destination_port = destination_port;
        all.push(other.bytes());
    }
    all.push(ping(VIP, b"hello"));
    let reply = FrameBuilder::new((RS1_MAC, VIP), (CLIENT_MAC, CLIENT)).tcp(80, 40_000, "A", &[]);
    for (kind, code) in [(3, 4), (11, 0), (5, 0)] {
        all.push(icmp_error(kind, code, [0, 0, 5, 0], &ip_payload_with_header(&reply)[..28]));
    }
    for (offset, more) in [(0, true), (3, true), (6, false)] {
        all.push(
            from_client().fragment(9, offset, more).raw(17, ip_payload(&udp(5, 53, &[0; 16]))),
        );
    }
    all.push(arp_request(CLIENT_MAC, CLIENT, VIP));
    all.push(arp_request(CLIENT_MAC, [0, 0, 0, 0], VIP));
    all.push(arp_request(RS2_MAC, RS2, BACK_DIP));
    all.push(arp_reply(RS2_MAC, RS2, BACK_MAC, BACK_DIP));
    all.push(arp_reply(RS1_MAC, VIP, CLIENT_MAC, CLIENT));
    let gratuitous = (MacAddr::BROADCAST, VIP);
    all.push(arp(ArpOperation::REQUEST, MacAddr::BROADCAST, (RS1_MAC, VIP), gratuitous));
    // What a real server sends back, and what it sends as a client.
    all.push(FrameBuilder::new((RS1_MAC, CLIENT), (BACK_MAC, VIP)).tcp(40_000, 80, "S", &[]));
    all.push(FrameBuilder::new((RS1_MAC, RS1), (FRONT_MAC, VIP)).tcp(40_000, 80, "S", &[]));
    all.push(from_client().raw(132, &[0x9c, 0x40, 0x0f, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4]));
    all.extend(of_ipv6());
    for ether_type in [0x86dd, 0x8100, 0x88cc] {
        all.push(from_client().other(ether_type));
    }
    all
}

/// The same in IPv6, with its discovery and its fragments.
fn of_ipv6() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for port in [40_000, 40_001] {
        for flags in ["S", "A", "FA", "R"] {
            all.push(from_client6().tcp(port, 80, flags, b""));
        }
        all.push(from_client6().udp(port, 53, b"query"));
    }
    all.push(from_client6().icmp(128, 0, [0, 1, 0, 2], b"hello"));
    let reply = from_client6().tcp(80, 40_000, "A", b"");
    for kind in 1..=4 {
        all.push(from_client6().icmp(kind, 0, [0, 0, 5, 0], &reply[14..]));
    }
    let datagram = from_client6().datagram(40_000, 53, &[0; 32]);
    all.push(from_client6().fragment(17, 9, 0, true, &datagram[..16]));
    all.push(from_client6().fragment(17, 9, 16, false, &datagram[16..]));
    all.push(from_client6().raw(0, &[6, 0, 5, 2, 0, 0, 1, 0]));
    let behind_a_route = [&[6, 0, 4, 1, 0, 0, 0, 0], &from_client6().tcp(1, 80, "S", b"")[54..]];
    all.push(from_client6().raw(43, &behind_a_route.concat()));
    for target in [VIP6, FRONT_DIP6] {
        all.push(solicitation(CLIENT_MAC, CLIENT6, target));
        all.push(solicitation(CLIENT_MAC, NOBODY, target));
    }
    all.push(solicitation(RS1_MAC, RS1_6, BACK_DIP6));
    all.push(advertisement((RS1_MAC, BACK_MAC), BACK_DIP6, 0x60, RS1_6));
    all.push(advertisement((RS2_MAC, BACK_MAC), BACK_DIP6, 0x60, RS2_6));
    all.push(advertisement((RS1_MAC, FRONT_MAC), ALL_NODES, 0x20, VIP6));
    all
}

/// An IPv4 packet out of its frame.
fn ip_payload_with_header(frame: &[u8]) -> &[u8] {
    &frame[14..]
}
