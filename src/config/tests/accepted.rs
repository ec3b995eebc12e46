//! What is accepted, and what it means.

use core::net::IpAddr;
use core::time::Duration;
use std::path::Path;

use super::{BASE, accepted, edited};
use crate::config::snapshot::{
    Announce, Attach, AttachKind, OffloadMode, Persistence, PortRange, Ports, Protocol, Role,
    SchedulerKind, SchedulerOptions, Timeouts, Unmatched,
};
use crate::wire::vlan::{TagKind, Vlan};

fn service_with(line: &str) -> std::sync::Arc<crate::config::snapshot::Service> {
    accepted(&edited(&[(15, line)])).services.remove(0)
}

#[test]
fn what_is_left_out_has_its_default() {
    let snapshot = accepted(&edited(&[(12, ""), (18, "")]));
    let router = &snapshot.router;
    assert_eq!(&*router.name, "vipr");
    assert_eq!(router.control_socket, Path::new("/run/vipr.sock"));
    assert_eq!(router.metrics, None);
    assert_eq!(router.connections_max, 1_048_576);
    assert_eq!(router.unmatched, Unmatched::Reject);
    assert_eq!(snapshot.announce, Announce::default());
    assert_eq!(snapshot.timeouts, Timeouts::default());

    let [front, back] = &snapshot.segments[..] else { panic!("{snapshot:#?}") };
    assert_eq!((&*front.name, front.role, &**front.device()), ("front", Role::Vip, "vipr-front"));
    assert_eq!((&*back.name, back.role, &**back.device()), ("back", Role::Backend, "vipr-back"));
    assert_eq!((front.bridge(), front.mtu), (None, None));
    assert_ne!(front.mac, back.mac);

    let [service] = &snapshot.services[..] else { panic!("{snapshot:#?}") };
    assert_eq!(&*service.name, "192.0.2.10:80/tcp");
    assert_eq!(service.scheduler, SchedulerKind::Wlc);
    assert_eq!((service.persistence, service.one_packet), (None, false));

    let [real_server] = &service.real_servers[..] else { panic!("{snapshot:#?}") };
    assert_eq!(&*real_server.name, "10.0.0.11");
    assert_eq!((real_server.mac, &real_server.vip_macs[..]), (None, &[][..]));
    assert_eq!(&*real_server.segment, "back");
    assert_eq!(
        (real_server.weight, real_server.upper_threshold, real_server.lower_threshold),
        (1, 0, 0)
    );
}

#[test]
fn a_segment_is_attached_by_a_tap_or_to_an_interface() {
    let front = |lines: &str| accepted(&edited(&[(3, lines)])).segments.remove(0);
    let tap = front("tap = \"t\"");
    assert_eq!((tap.attach.kind(), tap.offload), (AttachKind::Tap, OffloadMode::Auto));
    assert_eq!(front("attach = \"tap\"\ntap = \"t\""), tap);
    let packet = front("attach = \"packet\"\ninterface = \"eth0\"\noffload = \"off\"");
    assert_eq!(packet.attach, Attach::Packet { interface: "eth0".into() });
    assert_eq!((&**packet.device(), packet.bridge()), ("eth0", None));
    assert_eq!(packet.offload, OffloadMode::Off);
    let xdp = front("attach = \"xdp\"\ninterface = \"eth0\"");
    assert_eq!(xdp.attach, Attach::Xdp { interface: "eth0".into() });
}

#[test]
fn a_segment_is_the_network_of_virtual_machines_by_sockets() {
    let sockets = |lines: &str| {
        let front = accepted(&edited(&[(3, lines)])).segments.remove(0);
        let Attach::Qemu { sockets } = &front.attach else { panic!("{front:?}") };
        let listen = sockets.listen().map(ToString::to_string);
        let connect: Vec<String> = sockets.connect().map(ToString::to_string).collect();
        (front.device().to_string(), listen, connect)
    };
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        sockets("attach = \"qemu\"\nsocket = \"/run/f\""),
        ("/run/f".to_owned(), Some("/run/f".to_owned()), words(&[]))
    );
    assert_eq!(
        sockets("attach = \"qemu\"\nconnect = [\"/run/1\", \"/run/2\"]"),
        ("/run/1".to_owned(), None, words(&["/run/1", "/run/2"]))
    );
    // A relative path may look like a device.
    assert_eq!(
        sockets("attach = \"qemu\"\nsocket = \"vipr-back\"\nconnect = [\"1\"]"),
        ("vipr-back".to_owned(), Some("vipr-back".to_owned()), words(&["1"]))
    );
}

#[test]
fn what_is_written_is_read() {
    let snapshot = accepted(&edited(&[
        (
            1,
            "[router]\nname = \"edge\"\ncontrol_socket = \"x.sock\"\nmetrics = \"[::1]:9469\"\n\
             connections_max = 0x100\nunmatched = \"drop\"\n\
             [announce]\ncount = 1\nrepeat = 0\nrepeat_after = 0\nrefresh = \"1m30s\"\n\
             [timeouts]\ntcp_established = 900\ntcp_close = \"250ms\"\nudp = \"1h\"\n\
             sctp_closed = \"9s\"\n[segment.front]",
        ),
        (3, "tap = \"t\"\nbridge = \"br0\"\nmac = \"02-00-00-00-01-01\"\nmtu = 65521"),
        (4, "address = [\"192.0.2.2/24\", \"2001:db8::2/64\"]"),
        (
            19,
            "address = \"10.0.0.11\"\nmac = \"52:54:00:00:00:11\"\nvip_mac = [\"52:54:00:00:00:12\"]\n\
             segment = \"back\"\nweight = 65535\nupper_threshold = 100\nlower_threshold = 100",
        ),
    ]));
    let router = &snapshot.router;
    assert_eq!(&*router.name, "edge");
    assert_eq!(router.control_socket, Path::new("x.sock"));
    assert_eq!(router.metrics.map(|at| at.to_string()).as_deref(), Some("[::1]:9469"));
    assert_eq!(router.connections_max, 256);
    assert_eq!(router.unmatched, Unmatched::Drop);
    let seconds = Duration::from_secs;
    assert_eq!(
        snapshot.announce,
        Announce { count: 1, repeat: 0, repeat_after: seconds(0), refresh: seconds(90) }
    );
    let timeouts = Timeouts {
        tcp_established: seconds(900),
        tcp_close: Duration::from_millis(250),
        udp: seconds(3600),
        sctp_closed: seconds(9),
        ..Timeouts::default()
    };
    assert_eq!(snapshot.timeouts, timeouts);

    let front = &snapshot.segments[0];
    assert_eq!(front.bridge().map(|name| &**name), Some("br0"));
    assert_eq!(front.mac.to_string(), "02:00:00:00:01:01");
    assert_eq!(front.mtu, Some(65_521));
    let addresses: Vec<String> = front.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.2/24", "2001:db8::2/64"]);

    let real_server = &snapshot.services[0].real_servers[0];
    assert_eq!(real_server.mac.map(|mac| mac.to_string()).as_deref(), Some("52:54:00:00:00:11"));
    assert_eq!(real_server.vip_macs.len(), 1);
    assert_eq!(
        (real_server.weight, real_server.upper_threshold, real_server.lower_threshold),
        (65_535, 100, 100)
    );
}

#[test]
fn ports_are_sorted_and_named_as_they_are_shown() {
    let range = |first, last| PortRange { first, last };
    for (line, ports, name) in [
        ("ports = 80", vec![range(80, 80)], "80"),
        ("ports = \"80\"", vec![range(80, 80)], "80"),
        ("ports = [443, 80]", vec![range(80, 80), range(443, 443)], "80,443"),
        ("ports = \"80, 443\"", vec![range(80, 80), range(443, 443)], "80,443"),
        ("ports = \"8000-8099\"", vec![range(8000, 8099)], "8000-8099"),
        (
            "ports = [\"8000-8099\", 80, \"90-90\"]",
            vec![range(80, 80), range(90, 90), range(8000, 8099)],
            "80,90,8000-8099",
        ),
        ("ports = [\"80-89\", \"90-99\"]", vec![range(80, 89), range(90, 99)], "80-89,90-99"),
        ("ports = \"1-65535\"", vec![range(1, 65_535)], "1-65535"),
    ] {
        let service = service_with(line);
        assert_eq!(service.first().ports, Ports::Some(ports), "{line}");
        assert_eq!(service.endpoint(), format!("192.0.2.10:{name}/tcp"));
    }
    assert_eq!(service_with("ports = \"any\"").first().ports, Ports::Any);
}

#[test]
fn a_group_is_the_same_however_it_is_written() {
    let rows = [
        "\"192.0.2.10:80/tcp\", \"192.0.2.10:443/tcp\", \"192.0.2.10:443/udp\"",
        "\"192.0.2.10:443/udp\", \"192.0.2.10:443,80/tcp\"",
        "{ vip = \"192.0.2.10\", protocol = \"udp\", ports = 443 }, \
         { vip = \"192.0.2.10\", protocol = \"tcp\", ports = [443, 80] }",
    ];
    for listen in rows {
        let text = edited(&[
            (12, &format!("listen = [{listen}]")),
            (13, "persistence = { netmask = 24 }"),
            (14, "expire_quiescent = true\nsloppy_tcp = true"),
            (15, "one_packet = true"),
        ]);
        let service = accepted(&text).services[0].clone();
        let expected = "192.0.2.10:80,443/tcp + 192.0.2.10:443/udp";
        assert_eq!(service.endpoint(), expected, "{listen}");
        assert!(service.one_packet && service.sloppy_tcp && service.expire_quiescent);
    }
    // Without a name it is called by all it listens on.
    let text = edited(&[(12, &format!("listen = [{}]", rows[1])), (13, ""), (14, ""), (15, "")]);
    assert_eq!(&*accepted(&text).services[0].name, "192.0.2.10:80,443/tcp + 192.0.2.10:443/udp");
}

#[test]
fn a_group_may_have_vips_of_both_families() {
    let listen = "listen = [\"192.0.2.10:80/tcp\", \"[2001:db8::10]:80/tcp\"]";
    let netmasks = |persistence: &str| {
        let text = edited(&[(13, listen), (14, persistence), (15, "")]);
        let service = accepted(&text).services[0].clone();
        let Persistence { netmask_v4, netmask_v6, .. } = service.persistence.unwrap();
        (netmask_v4, netmask_v6, service.netmasks().unwrap())
    };
    assert_eq!(netmasks("persistence = {}"), (32, 128, "32 /128".to_owned()));
    let both = "persistence = { netmask = 24, netmask_v6 = 56 }";
    assert_eq!(netmasks(both), (24, 56, "24 /56".to_owned()));
}

#[test]
fn a_quorum_and_a_sorry_server_are_read() {
    let plain = accepted(super::BASE).services[0].clone();
    assert_eq!((plain.quorum, plain.quorum_hysteresis, &plain.sorry_server), (1, 0, &None));
    let text = edited(&[
        (15, "ports = 80\nquorum = 3\nquorum_hysteresis = 2\nexpire_nodest = true"),
        (16, "[service.sorry_server]\nname = \"sorry\"\naddress = \"10.0.0.9\"\n"),
    ]);
    let service = accepted(&text).services[0].clone();
    assert_eq!((service.quorum, service.quorum_hysteresis), (3, 2));
    assert!(service.expire_nodest);
    let sorry = service.sorry_server.as_ref().unwrap();
    assert_eq!((&*sorry.name, &*sorry.segment, sorry.weight), ("sorry", "back", 0));
    assert_eq!(service.real_servers.len(), 1);
}

#[test]
fn persistence_has_defaults_and_the_bounds_of_its_family() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    for (vip, table, timeout, netmask) in [
        ("192.0.2.10", "{}", minutes(5), 32),
        ("192.0.2.10", "{ netmask = 1 }", minutes(5), 1),
        ("192.0.2.10", "{ timeout = \"1h\", netmask = 32 }", minutes(60), 32),
        ("192.0.2.10", "{ timeout = 60 }", minutes(1), 32),
        ("2001:db8::10", "{}", minutes(5), 128),
        ("2001:db8::10", "{ netmask = 33 }", minutes(5), 33),
    ] {
        let vip = format!("vip = \"{vip}\"");
        let line = format!("ports = 80\npersistence = {table}");
        let snapshot = accepted(&edited(&[(13, &vip), (15, &line)]));
        let (netmask_v4, netmask_v6) =
            if vip.contains('.') { (netmask, 128) } else { (32, netmask) };
        let expected = Persistence { timeout, netmask_v4, netmask_v6 };
        assert_eq!(snapshot.services[0].persistence, Some(expected));
    }
}

#[test]
fn each_scheduler_can_be_chosen() {
    for kind in SchedulerKind::ALL {
        let text = edited(&[(15, &format!("ports = 80\nscheduler = \"{}\"", kind.name()))]);
        let service = &accepted(&text).services[0];
        assert_eq!(service.scheduler, kind);
        assert_eq!(service.scheduler_options, SchedulerOptions::default());
    }
}

#[test]
fn options_of_schedulers_have_ipvs_defaults() {
    let usual = SchedulerOptions::default();
    assert_eq!((usual.table_size, usual.expiration), (4093, Duration::from_secs(86_400)));
    for (scheduler, options, expected, words) in [
        ("sh", "{}", usual, ""),
        ("sh", "{ port = true }", SchedulerOptions { port: true, ..usual }, "sh-port"),
        (
            "mh",
            "{ port = true, fallback = true, table_size = 509 }",
            SchedulerOptions { port: true, fallback: true, table_size: 509, ..usual },
            "mh-fallback mh-port 509 slots",
        ),
        ("mh", "{ fallback = false, table_size = 4093 }", usual, ""),
        (
            "lblcr",
            "{ expiration = \"1h\" }",
            SchedulerOptions { expiration: Duration::from_secs(3600), ..usual },
            "expiration 1h",
        ),
    ] {
        let lines =
            format!("ports = 80\nscheduler = \"{scheduler}\"\nscheduler_options = {options}");
        let service = &accepted(&edited(&[(15, &lines)])).services[0];
        assert_eq!(service.scheduler_options, expected, "{scheduler} {options}");
        assert_eq!(service.scheduler_options.words(service.scheduler).join(" "), words);
    }
}

/// An exact port beats a range, a range beats any; protocols and VIPs are worlds apart.
#[test]
fn claims_of_unequal_precision_may_overlap() {
    let service = |vip: &str, protocol: &str, ports: &str| {
        format!("\n[[service]]\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nports = {ports}\n")
    };
    let mut text = BASE.to_owned();
    for (vip, protocol, ports) in [
        ("192.0.2.10", "tcp", "\"any\""),
        ("192.0.2.10", "tcp", "\"1-1000\""),
        ("192.0.2.10", "tcp", "[81, \"1001-2000\"]"),
        ("192.0.2.10", "udp", "80"),
        ("192.0.2.10", "udp", "\"any\""),
        ("192.0.2.11", "tcp", "80"),
    ] {
        text += &service(vip, protocol, ports);
    }
    assert_eq!(accepted(&text).services.len(), 7);
}

#[test]
fn one_packet_is_for_datagrams() {
    let text = edited(&[(14, "protocol = \"udp\""), (15, "ports = 53\none_packet = true")]);
    let service = &accepted(&text).services[0];
    assert_eq!((service.first().protocol, service.one_packet), (Protocol::Udp, true));
    assert!(!service_with("ports = 80\none_packet = false").one_packet);
}

#[test]
fn a_segment_is_found_where_only_one_can_be_meant() {
    for (edits, segment) in [
        // The only backend, whatever its addresses.
        (vec![(19, "address = \"172.16.0.1\"")], "back"),
        (vec![(9, "")], "back"),
        // The only one whose network has the address.
        (vec![(2, "role = \"both\"")], "back"),
        (vec![(2, "role = \"both\""), (19, "address = \"192.0.2.11\"")], "front"),
        (
            vec![
                (2, "role = \"both\""),
                (9, "address = [\"2001:db8::1/64\"]"),
                (19, "address = \"2001:db8::11\""),
            ],
            "back",
        ),
        // The one that is named, whatever its network.
        (
            vec![(2, "role = \"both\""), (19, "address = \"10.0.0.11\"\nsegment = \"front\"")],
            "front",
        ),
    ] {
        let snapshot = accepted(&edited(&edits));
        assert_eq!(&*snapshot.services[0].real_servers[0].segment, segment, "{edits:?}");
    }
}

#[test]
fn addresses_of_both_families_are_accepted() {
    let text = edited(&[
        (
            4,
            "address = [\"192.0.2.2/24\", \"2001:db8::2/64\", \"198.51.100.0/31\", \"2001:db8:1::/127\"]",
        ),
        (12, ""),
        (13, "vip = \"2001:db8::10\""),
        (18, ""),
    ]);
    let service = &accepted(&text).services[0];
    assert_eq!(service.first().vip, "2001:db8::10".parse::<IpAddr>().unwrap());
    assert_eq!(&*service.name, "[2001:db8::10]:80/tcp");
    assert_eq!(&*service.real_servers[0].name, "10.0.0.11");
}

/// A real server may be in several services, and one MAC may serve several RIPs.
#[test]
fn sharing_that_is_meant_is_accepted() {
    let rs = |address: &str, mac: &str| {
        format!("\n[[service.real_server]]\naddress = \"{address}\"\nmac = \"{mac}\"\n")
    };
    let second = "\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 443\n";
    let mac = "52:54:00:00:00:11";
    let text = [BASE, &rs("10.0.0.12", mac), second, &rs("10.0.0.12", mac), &rs("10.0.0.13", mac)];
    let snapshot = accepted(&text.concat());
    assert_eq!(snapshot.services[1].real_servers.len(), 2);
}

#[test]
fn services_need_no_real_servers_and_segments_no_services() {
    let lines =
        |range: core::ops::RangeInclusive<usize>| range.map(|line| (line, "")).collect::<Vec<_>>();
    assert!(accepted(&edited(&lines(17..=19))).services[0].real_servers.is_empty());
    assert!(accepted(&edited(&lines(11..=19))).services.is_empty());
}

#[test]
fn segments_and_services_keep_the_order_of_the_file() {
    let text = "[segment.z]\nrole = \"both\"\ntap = \"z\"\n[segment.a]\nrole = \"vip\"\ntap = \"a\"\n\
                [segment.m]\nrole = \"vip\"\ntap = \"m\"\n";
    let names: Vec<_> =
        accepted(text).segments.iter().map(|segment| segment.name.to_string()).collect();
    assert_eq!(names, ["z", "a", "m"]);
}

#[test]
fn a_derived_mac_follows_the_names_only() {
    let mac = |edits: &[(usize, &str)], index: usize| accepted(&edited(edits)).segments[index].mac;
    let plain = mac(&[], 0);
    assert_eq!(plain, mac(&[(3, "tap = \"other\""), (4, ""), (6, "[segment.other]")], 0));
    assert_ne!(plain, mac(&[(1, "[segment.other]")], 0));
    assert_ne!(plain, mac(&[(1, "[router]\nname = \"edge-2\"\n[segment.front]")], 0));
    // A configured address that happens to be the derived one of another segment pushes that away.
    let line = format!("tap = \"vipr-back\"\nmac = \"{plain}\"");
    assert_ne!(plain, mac(&[(8, &line)], 0));
}

#[test]
fn equal_texts_make_equal_snapshots_and_different_ones_do_not() {
    assert_eq!(accepted(BASE), accepted(&format!("# a remark\n{BASE}")));
    assert_ne!(accepted(BASE), accepted(&edited(&[(19, "address = \"10.0.0.11\"\nweight = 2")])));
}

#[test]
fn segments_of_different_vlans_may_share_a_tap() {
    let segment = |name: &str, vlan: &str| {
        format!("[segment.{name}]\nrole = \"both\"\ntap = \"trunk\"\nbridge = \"br0\"\n{vlan}\n")
    };
    let text = [
        segment("untagged", ""),
        segment("ten", "vlan = 10"),
        segment("provider", "vlan = { id = 10, protocol = \"802.1ad\" }"),
        segment("largest", "vlan = { id = 4094 }"),
    ]
    .concat();
    let vlans: Vec<_> = accepted(&text).segments.iter().map(|segment| segment.vlan).collect();
    let vlan = |kind, id| Some(Vlan { kind, id });
    let expected = [
        None,
        vlan(TagKind::Customer, 10),
        vlan(TagKind::Service, 10),
        vlan(TagKind::Customer, 4094),
    ];
    assert_eq!(vlans, expected);
}
