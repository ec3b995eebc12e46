//! Each file in `config/` is in order, and says what its comments say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vipr::config::snapshot::{
    Attach, AttachKind, Defend, OffloadMode, Ports, Protocol, Role, SchedulerKind, Snapshot,
    Timeouts,
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn read(name: &str) -> Snapshot {
    let text = fs::read_to_string(directory().join(name)).expect(name);
    vipr::config::parse(&text, name).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Names of the services, and how many real servers each has.
fn services(snapshot: &Snapshot) -> Vec<(&str, usize)> {
    let entry = |service: &vipr::config::snapshot::Service| service.real_servers.len();
    snapshot.services.iter().map(|service| (&*service.name, entry(service))).collect()
}

#[test]
fn every_file_has_a_test_here() {
    let files: BTreeSet<String> = fs::read_dir(directory())
        .expect("config/")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let tested = [
        "arp-guard.toml",
        "checks.toml",
        "consistent-hash.toml",
        "group.toml",
        "ipv6.toml",
        "minimal.toml",
        "one-arm.toml",
        "only-program.toml",
        "packet.toml",
        "qemu.toml",
        "restart.toml",
        "sctp.toml",
        "several-services.toml",
        "sorry-server.toml",
        "static-macs.toml",
        "two-segments.toml",
        "vlan.toml",
        "xdp.toml",
    ];
    assert_eq!(files, tested.map(str::to_owned).into());
}

#[test]
fn checks_are_http_https_dns_and_a_command() {
    let snapshot = read("checks.toml");
    let checks = snapshot.services.iter().map(|service| service.check.as_ref().expect("one each"));
    let kinds: Vec<&str> = checks.map(|check| check.kind.name()).collect();
    assert_eq!(kinds, ["http", "https", "dns", "exec"]);
    let web = snapshot.services[0].check.as_ref().expect("it is checked");
    assert_eq!((web.fall, web.rise, web.interval), (3, 2, Duration::from_secs(2)));
    assert!(snapshot.services[0].syn_rescue);
}

#[test]
fn arp_guard_keeps_everybody_else_on_the_bridge_from_claiming_a_vip() {
    let snapshot = read("arp-guard.toml");
    let segment = &snapshot.segments[0];
    assert_eq!((segment.role, segment.arp_guard), (Role::Both, true));
    assert_eq!(segment.defend, Defend::default());
    assert!(segment.bridge().is_some());
    assert!(!read("one-arm.toml").segments[0].arp_guard, "it is not the default");
}

#[test]
fn minimal_is_ten_lines_of_defaults() {
    let snapshot = read("minimal.toml");
    let text = fs::read_to_string(directory().join("minimal.toml")).expect("minimal.toml");
    assert_eq!(text.lines().count(), 10);
    assert_eq!(services(&snapshot), [("192.0.2.10:80/tcp", 1)]);
    assert_eq!(snapshot.services[0].scheduler, SchedulerKind::Wlc);
    assert_eq!(&*snapshot.services[0].real_servers[0].segment, "lan");
}

#[test]
fn consistent_hash_says_what_ipvsadm_would() {
    let snapshot = read("consistent-hash.toml");
    assert_eq!(services(&snapshot), [("cache", 3), ("login", 2)]);
    let words = |at: usize| {
        let service = &snapshot.services[at];
        (service.scheduler, service.scheduler_options.words(service.scheduler).join(","))
    };
    assert_eq!(words(0), (SchedulerKind::Mh, "mh-fallback,mh-port,509 slots".to_owned()));
    assert_eq!(words(1), (SchedulerKind::Sh, "sh-fallback".to_owned()));
}

#[test]
fn two_segments_separates_clients_from_real_servers() {
    let snapshot = read("two-segments.toml");
    let roles: Vec<_> = snapshot.segments.iter().map(|segment| segment.role).collect();
    assert_eq!(roles, [Role::Vip, Role::Backend]);
    assert_eq!(services(&snapshot), [("web", 3)]);
    let real_servers = &snapshot.services[0].real_servers;
    assert!(real_servers.iter().all(|real_server| &*real_server.segment == "back"));
    let weights: Vec<_> = real_servers.iter().map(|real_server| real_server.weight).collect();
    assert_eq!(weights, [4, 3, 0]);
    assert_eq!(
        (real_servers[1].upper_threshold, real_servers[1].lower_threshold),
        (20_000, 15_000)
    );
    // What it writes down are the defaults.
    assert_eq!(snapshot.announce, Default::default());
    assert_eq!(snapshot.timeouts, Timeouts::default());
    assert_eq!(snapshot.router.connections_max, read("minimal.toml").router.connections_max);
}

#[test]
fn one_arm_has_a_single_segment_for_everything() {
    let snapshot = read("one-arm.toml");
    let [lan] = &snapshot.segments[..] else { panic!("{snapshot:#?}") };
    assert_eq!(lan.role, Role::Both);
    assert_eq!(services(&snapshot), [("web", 3)]);
    let lan_has = |address| lan.addresses.iter().any(|network| network.contains(&address));
    assert!(snapshot.services[0].real_servers.iter().all(|server| lan_has(server.address)));
}

#[test]
fn restart_keeps_its_state_in_a_file() {
    let snapshot = read("restart.toml");
    assert_eq!(snapshot.router.state.as_deref(), Some(Path::new("/var/lib/vipr/state")));
    // What it writes down is the default; without a file there is no state.
    let minimal = read("minimal.toml").router;
    assert_eq!(snapshot.router.state_max_age, minimal.state_max_age);
    assert_eq!(minimal.state, None);
    assert!(snapshot.services[0].persistence.is_some());
}

#[test]
fn several_services_shows_ports_protocols_and_persistence() {
    let snapshot = read("several-services.toml");
    let expected =
        [("web", 2), ("dns", 2), ("dns-tcp", 2), ("applications", 2), ("console", 1), ("rest", 1)];
    assert_eq!(services(&snapshot), expected);
    let [web, dns, dns_tcp, applications, console, rest] = &snapshot.services[..] else {
        panic!("{snapshot:#?}")
    };
    let persistence = web.persistence.expect("the persistence of web");
    assert_eq!((persistence.timeout, persistence.netmask_v4), (Duration::from_secs(600), 24));
    assert_eq!(web.first().ports.to_string(), "80,443");
    assert_eq!((dns.first().protocol, dns.one_packet), (Protocol::Udp, true));
    assert_eq!((dns_tcp.first().protocol, dns_tcp.one_packet), (Protocol::Tcp, false));
    assert_eq!(dns.real_servers, dns_tcp.real_servers);
    // The range holds the console's port.
    let Ports::Some(ranges) = &applications.first().ports else { panic!("{applications:?}") };
    assert!(ranges.iter().any(|range| range.contains(8443)));
    assert_eq!(console.first().ports.to_string(), "8443");
    assert_eq!((&rest.first().ports, rest.first().vip), (&Ports::Any, web.first().vip));
}

#[test]
fn group_is_one_service_on_three_vips() {
    let snapshot = read("group.toml");
    assert_eq!(services(&snapshot), [("shop", 2)]);
    let shop = &snapshot.services[0];
    assert_eq!(
        shop.endpoint(),
        "192.0.2.10:80,443/tcp + 192.0.2.10:443/udp + 192.0.2.11:80,443/tcp + \
         [2001:db8:0:1::10]:80,443/tcp"
    );
    assert_eq!(shop.netmasks().as_deref(), Some("32 /64"));
    assert!(shop.expire_quiescent);
}

#[test]
fn only_program_names_its_card() {
    let snapshot = read("only-program.toml");
    let segment = &snapshot.segments[0];
    assert_eq!(segment.role, Role::Both);
    assert!(segment.bridge().is_some(), "the card and the TAP meet there");
    let uplink = segment.uplink().map(ToString::to_string);
    assert_eq!(uplink.as_deref(), Some("eth0"));
    assert_eq!(services(&snapshot), [("web", 2)]);
}

#[test]
fn vlan_is_a_trunk_of_two_segments() {
    let snapshot = read("vlan.toml");
    let segments: Vec<_> = snapshot
        .segments
        .iter()
        .map(|segment| (&**segment.device(), segment.vlan.map(|vlan| vlan.to_string())))
        .collect();
    let expected = [("vipr-trunk", Some("10".to_owned())), ("vipr-trunk", Some("20".to_owned()))];
    assert_eq!(segments, expected);
    assert_eq!(services(&snapshot), [("web", 2)]);
}

#[test]
fn sctp_writes_down_the_defaults() {
    let snapshot = read("sctp.toml");
    assert_eq!(services(&snapshot), [("diameter", 2)]);
    assert_eq!(snapshot.services[0].first().protocol, Protocol::Sctp);
    assert!(!snapshot.services[0].sloppy_sctp);
    assert_eq!(snapshot.timeouts, Timeouts::default());
}

#[test]
fn sorry_server_has_a_quorum_with_hysteresis() {
    let snapshot = read("sorry-server.toml");
    assert_eq!(services(&snapshot), [("web", 3)]);
    let web = &snapshot.services[0];
    assert_eq!((web.quorum, web.quorum_hysteresis, web.expire_nodest), (4, 1, true));
    assert_eq!(web.sorry_server.as_ref().map(|sorry| &*sorry.name), Some("back-soon"));
    // What it says of a service without these keys.
    let plain = &read("minimal.toml").services[0];
    assert_eq!((plain.quorum, plain.quorum_hysteresis), (1, 0));
    assert_eq!((plain.expire_nodest, &plain.sorry_server), (false, &None));
}

#[test]
fn packet_and_xdp_are_on_cards_of_the_host() {
    for (file, kind) in [("packet.toml", AttachKind::Packet), ("xdp.toml", AttachKind::Xdp)] {
        let snapshot = read(file);
        let attached: Vec<_> = snapshot
            .segments
            .iter()
            .map(|segment| (segment.attach.kind(), segment.device().to_string()))
            .collect();
        assert_eq!(attached, [(kind, "eth0".to_owned()), (kind, "eth1".to_owned())], "{file}");
        assert_eq!(services(&snapshot), [("web", 2)]);
        assert!(snapshot.segments.iter().all(|segment| segment.offload == OffloadMode::Auto));
    }
}

#[test]
fn qemu_is_the_network_of_machines_that_connect_and_of_some_that_listen() {
    let snapshot = read("qemu.toml");
    let sockets: Vec<_> = snapshot
        .segments
        .iter()
        .map(|segment| {
            let Attach::Qemu { sockets } = &segment.attach else { panic!("{segment:?}") };
            let connect: Vec<&str> = sockets.connect().map(|path| &**path).collect();
            (sockets.listen().map(|path| &**path), connect)
        })
        .collect();
    let front = (Some("/run/vipr/front.sock"), vec![]);
    let back = (None, vec!["/run/vms/rs1-back.sock", "/run/vms/rs2-back.sock"]);
    assert_eq!(sockets, [front, back]);
    assert_eq!(services(&snapshot), [("web", 2)]);
}

#[test]
fn static_macs_leaves_nothing_to_resolve() {
    let snapshot = read("static-macs.toml");
    let text = fs::read_to_string(directory().join("static-macs.toml")).expect("static-macs.toml");
    for segment in &snapshot.segments {
        assert!(text.contains(&format!("mac = \"{}\"", segment.mac)), "{}", segment.name);
        assert_eq!(segment.mtu, Some(1500));
    }
    let real_servers = &snapshot.services[0].real_servers;
    assert!(real_servers.iter().all(|server| server.mac.is_some() && server.vip_macs.len() == 1));
    assert_eq!(real_servers[0].mac, real_servers[2].mac);
    assert_ne!(real_servers[0].address, real_servers[2].address);
}

#[test]
fn ipv6_mixes_families() {
    let snapshot = read("ipv6.toml");
    let expected = [("[2001:db8:0:1::10]:443/tcp", 2), ("192.0.2.10:443/tcp", 2)];
    assert_eq!(services(&snapshot), expected);
    let [six, four] = &snapshot.services[..] else { panic!("{snapshot:#?}") };
    assert!(six.first().vip.is_ipv6() && four.first().vip.is_ipv4());
    assert_eq!(six.persistence.map(|persistence| persistence.netmask_v6), Some(56));
    for service in [six, four] {
        let families: Vec<_> =
            service.real_servers.iter().map(|server| server.address.is_ipv6()).collect();
        assert_eq!(families, [true, false]);
    }
}
