//! TAP ports.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tun_tap::{Iface, Mode};
use vipr::port::bridge_netfilter::{self, Cause};
use vipr::port::{Batch, Fault, OpenError, Port, Readiness, TapConfig, TapPort};
use vipr::wire::Offload;

use super::support::*;

fn open(tap: &str, bridge: Option<&str>, mtu: Option<u16>) -> Result<TapPort, OpenError> {
    TapPort::open(&TapConfig { tap, bridge, uplink: None, mtu })
}

/// The error of an opening that must fail; also checks that it is one line.
fn refused(tap: &str, bridge: Option<&str>, mtu: Option<u16>) -> OpenError {
    let before = devices();
    let Err(error) = open(tap, bridge, mtu) else { panic!("{tap} was opened") };
    let line = error.to_string();
    assert!(!line.contains('\n') && line.contains(": "), "{line}");
    assert_eq!(devices(), before, "after: {line}");
    error
}

/// Another station: a TAP of the test's own, a port of `bridge`.
fn station(name: &str, bridge: &str) -> Iface {
    let station = Iface::without_packet_info(name, Mode::Tap).unwrap();
    station.set_non_blocking().unwrap();
    run(&format!("ip link set {name} master {bridge} up"));
    station
}

namespaced! {
    fn what_is_absent_is_made_joined_brought_up_and_removed() {
        let port = open("vipr-t", Some("vipr-b"), None).unwrap();
        assert_eq!(port.name(), "vipr-t");
        assert!(is_up("vipr-t") && is_up("vipr-b"));
        assert_eq!(master("vipr-t").as_deref(), Some("vipr-b"));
        let bridge = &device("vipr-b").unwrap()["linkinfo"];
        assert_eq!(bridge["info_kind"], "bridge");
        assert_eq!(bridge["info_data"]["stp_state"], 0);
        assert_eq!(bridge["info_data"]["forward_delay"], 0);
        let tap = device("vipr-t").unwrap();
        assert_eq!(tap["linkinfo"]["info_data"]["type"], "tap");
        assert_eq!(tap["linkinfo"]["info_data"]["persist"], false);
        assert_eq!(tap["txqlen"], 4000);
        assert_eq!((disable_ipv6("vipr-t"), disable_ipv6("vipr-b")), ("1".into(), "1".into()));
        drop(port);
        assert_eq!(devices(), [""; 0]);
    }
}

namespaced! {
    fn without_a_bridge_only_the_tap_is_made_and_removed() {
        let port = open("vipr-t", None, None).unwrap();
        assert_eq!(devices(), ["vipr-t"]);
        assert_eq!(master("vipr-t"), None);
        drop(port);
        assert_eq!(devices(), [""; 0]);
    }
}

namespaced! {
    fn what_is_found_stays_as_it_was() {
        run("ip tuntap add t0 mode tap");
        run("ip link set t0 mtu 1400");
        run("ip link add b0 type bridge");
        let port = open("t0", Some("b0"), Some(1450)).unwrap();
        assert!(is_up("t0") && is_up("b0"));
        assert_eq!(master("t0").as_deref(), Some("b0"));
        assert_eq!((mtu("t0"), port.mtu().unwrap()), (1450, 1450));
        assert_eq!(device("t0").unwrap()["txqlen"], 1000);
        assert_eq!((disable_ipv6("t0"), disable_ipv6("b0")), ("0".into(), "0".into()));
        drop(port);
        assert_eq!(devices(), ["t0", "b0"]);
        assert_eq!(master("t0"), None);
        assert_eq!(mtu("t0"), 1400);
        // And it can be opened again.
        drop(open("t0", Some("b0"), None).unwrap());
    }
}

namespaced! {
    fn a_tap_found_in_its_bridge_stays_in_it() {
        run("ip tuntap add t0 mode tap");
        run("ip link add b0 type bridge");
        run("ip link set t0 master b0");
        drop(open("t0", Some("b0"), None).unwrap());
        assert_eq!(master("t0").as_deref(), Some("b0"));
        drop(open("t0", None, None).unwrap());
        assert_eq!(master("t0").as_deref(), Some("b0"), "no bridge configured: left alone");
    }
}

namespaced! {
    fn a_made_bridge_goes_with_its_last_port() {
        // Closed in the order of opening: the second did not make the bridge, yet removes it.
        let first = open("t0", Some("b0"), None).unwrap();
        let second = open("t1", Some("b0"), None).unwrap();
        drop(first);
        assert_eq!(devices(), ["b0", "t1"].map(str::to_owned));
        drop(second);
        assert_eq!(devices(), [""; 0]);
        // A port that someone else added keeps it.
        let port = open("t0", Some("b0"), None).unwrap();
        run("ip link add v0 type veth peer name v1");
        run("ip link set v0 master b0");
        drop(port);
        assert!(device("b0").is_some());
        assert_eq!(master("v0").as_deref(), Some("b0"));
        // And who clears its mark keeps it for good.
        run("ip link delete v0");
        let port = open("t0", Some("b0"), None).unwrap();
        Command::new("ip").args(["link", "set", "b0", "alias", ""]).status().unwrap();
        drop(port);
        assert_eq!(devices(), ["b0"]);
    }
}

namespaced! {
    fn a_made_bridge_with_an_address_on_it_stays_over_a_restart() {
        for (address, stays) in [("10.9.0.1/24", true), ("2001:db8::1/64", true), ("fe80::1/64", false)] {
            let port = open("t0", Some("b0"), None).unwrap();
            fs::write("/proc/sys/net/ipv6/conf/b0/disable_ipv6", "0").unwrap();
            run(&format!("ip address add {address} dev b0"));
            drop(port);
            assert_eq!(device("b0").is_some(), stays, "{address}");
            let port = open("t0", Some("b0"), None).unwrap();
            assert_eq!(master("t0").as_deref(), Some("b0"));
            if stays {
                run(&format!("ip address delete {address} dev b0"));
            }
            drop(port);
            assert_eq!(devices(), [""; 0], "{address}");
        }
    }
}

namespaced! {
    fn the_mac_of_a_bridge_is_the_same_over_a_restart() {
        run("ip link add b0 type bridge");
        run("ip link add v0 type veth peer name v1 address 52:54:00:00:00:01");
        run("ip link set v0 address f2:54:00:00:00:01 master b0 up");
        let mac = |name: &str| field(&device(name).unwrap(), "address").unwrap().to_owned();
        assert_eq!(mac("b0"), "f2:54:00:00:00:01");
        for _ in 0..3 {
            let port = open("t0", Some("b0"), None).unwrap();
            assert_eq!((mac("b0").as_str(), &mac("t0")[..3]), ("f2:54:00:00:00:01", "fe:"));
            drop(port);
            assert_eq!(mac("b0"), "f2:54:00:00:00:01");
        }
        // One that was found keeps its own.
        run("ip tuntap add t1 mode tap");
        run("ip link set t1 address 02:00:00:00:00:99");
        let _port = open("t1", None, None).unwrap();
        assert_eq!(mac("t1"), "02:00:00:00:00:99");
    }
}

namespaced! {
    fn a_bridge_left_over_from_a_killed_router_is_used_and_removed() {
        let port = open("t0", Some("b0"), None).unwrap();
        // Killed: nothing of ours runs, and the kernel removes the TAP.
        std::mem::forget(port);
        run("ip link delete t0");
        assert_eq!(devices(), ["b0"]);
        let port = open("t0", Some("b0"), None).unwrap();
        assert_eq!(master("t0").as_deref(), Some("b0"));
        drop(port);
        assert_eq!(devices(), [""; 0]);
    }
}

namespaced! {
    fn the_configured_mtu_is_set_and_an_impossible_one_refused() {
        let port = open("t0", Some("b0"), Some(9000)).unwrap();
        assert_eq!((mtu("t0"), port.mtu().unwrap()), (9000, 9000));
        run("ip link set t0 mtu 1300");
        assert_eq!(port.mtu().unwrap(), 1300, "as it is now");
        drop(port);
        assert!(matches!(refused("t0", Some("b0"), Some(60)), OpenError::Mtu { mtu: 60, .. }));
        // On a found TAP, too, a refusal leaves everything as it was.
        run("ip tuntap add t1 mode tap");
        assert!(matches!(refused("t1", Some("b0"), Some(60)), OpenError::Mtu { .. }));
        assert_eq!((master("t1"), mtu("t1")), (None, 1500));
    }
}

namespaced! {
    fn a_name_that_belongs_to_something_else_is_refused() {
        run("ip link add v0 type veth peer name v1");
        run("ip link add b0 type bridge");
        run("ip tuntap add n0 mode tun");
        run("ip tuntap add m0 mode tap multi_queue");
        let tap_of = |name| match refused(name, Some("made"), None) {
            OpenError::NotATap { found, .. } => found,
            other => panic!("{other}"),
        };
        assert_eq!(tap_of("v0"), "a device of kind veth");
        assert_eq!(tap_of("b0"), "a bridge");
        assert_eq!(tap_of("n0"), "a TUN device");
        assert_eq!(tap_of("lo"), "a network card");
        assert!(matches!(refused("m0", None, None), OpenError::TapMultiQueue { .. }));
        for (bridge, kind) in [("v0", "a device of kind veth"), ("n0", "a TUN device")] {
            match refused("t0", Some(bridge), None) {
                OpenError::NotABridge { name, found } => {
                    assert_eq!((name.as_str(), found.as_str()), (bridge, kind));
                }
                other => panic!("{other}"),
            }
        }
    }
}

namespaced! {
    fn a_tap_in_use_is_refused_and_stays_with_its_user() {
        let mut port = open("t0", Some("b0"), None).unwrap();
        let error = refused("t0", Some("b0"), None);
        assert!(matches!(error, OpenError::TapBusy { .. }), "{error}");
        let error = refused("t0", None, Some(1400));
        assert!(matches!(error, OpenError::TapBusy { .. }), "{error}");
        assert_eq!((master("t0").as_deref(), mtu("t0")), (Some("b0"), 1500));
        port.send(&frame(1, 60), Offload::default()).unwrap();
    }
}

namespaced! {
    fn a_tap_of_another_bridge_is_refused_and_stays_there() {
        run("ip tuntap add t0 mode tap");
        run("ip link add b0 type bridge");
        run("ip link set t0 master b0");
        match refused("t0", Some("b1"), None) {
            OpenError::TapElsewhere { found, bridge, .. } => {
                assert_eq!((found.as_str(), bridge.as_str()), ("b0", "b1"));
            }
            other => panic!("{other}"),
        }
        assert_eq!(master("t0").as_deref(), Some("b0"));
    }
}

namespaced! {
    fn frames_go_out_and_come_in_through_the_bridge() {
        let mut port = open("t0", Some("b0"), None).unwrap();
        let station = station("s0", "b0");
        for (mark, len) in [(1, 60), (2, 1514)] {
            let sent = frame(mark, len);
            port.send(&sent, Offload::default()).unwrap();
            let mut buffer = [0; 2000];
            let deadline = Instant::now() + Duration::from_secs(2);
            loop {
                // Other frames are the host's, of the test's own TAP.
                match station.recv(&mut buffer) {
                    Ok(len) if buffer[..len] == sent => break,
                    _ => assert!(Instant::now() < deadline, "frame {mark} did not come out"),
                }
            }
        }
        for mark in 3..6 {
            station.send(&frame(mark, 100)).unwrap();
        }
        assert_eq!(receive_marks(&mut port, 3), [3, 4, 5]);
    }
}

namespaced! {
    fn a_port_is_drained_in_bursts_and_never_blocks() {
        let mut port = open("t0", Some("b0"), None).unwrap();
        let mut batch = Batch::new(64);
        assert_eq!(port.receive(&mut batch).unwrap(), Readiness::Drained);
        assert!(batch.is_empty(), "the host sends nothing into a segment of ours");
        let station = station("s0", "b0");
        // The station's TAP is not ours: its IPv6 makes some noise, which has no mark.
        for mark in 0..100 {
            station.send(&frame(mark, 60)).unwrap();
        }
        thread::sleep(Duration::from_millis(50));
        let (mut bursts, mut marks) = (Vec::new(), Vec::new());
        loop {
            batch.clear();
            let readiness = port.receive(&mut batch).unwrap();
            bursts.push(batch.len());
            marks.extend((0..batch.len()).filter_map(|index| mark(batch.frame(index).bytes)));
            if readiness == Readiness::Drained {
                break;
            }
        }
        assert_eq!(marks, (0..100).collect::<Vec<_>>());
        assert_eq!(bursts[..5], [1, 1, 1, 1, 64], "at first no more than came before");
    }
}

namespaced! {
    fn frames_beyond_the_queue_are_lost_and_counted() {
        let mut port = open("t0", Some("b0"), None).unwrap();
        let station = station("s0", "b0");
        let before = port.queue_drops().unwrap();
        for mark in 0..5000 {
            station.send(&frame(mark, 60)).unwrap();
        }
        let lost = port.queue_drops().unwrap() - before;
        assert!((900..=1200).contains(&lost), "{lost} of 5000 lost at a queue of 4000");
        let marks = receive_marks(&mut port, 4000);
        assert!(marks.len() > 3800, "{} came", marks.len());
    }
}

namespaced! {
    fn a_device_that_is_down_loses_frames_and_comes_back() {
        let mut port = open("t0", Some("b0"), None).unwrap();
        run("ip link set t0 down");
        let error = port.send(&frame(1, 60), Offload::default()).unwrap_err();
        assert_eq!(Fault::of(&error), Fault::Drop, "{error}");
        // A bridge has a word of its own to say when a port joins: that may still be there.
        let mut batch = Batch::new(64);
        let drained = (0..64).any(|_| {
            batch.clear();
            port.receive(&mut batch).unwrap() == Readiness::Drained
        });
        assert!(drained);
        run("ip link set t0 up");
        port.send(&frame(2, 60), Offload::default()).unwrap();
    }
}

namespaced! {
    fn a_device_deleted_while_open_is_gone() {
        run("ip link add b1 type bridge");
        let mut port = open("t0", Some("b0"), None).unwrap();
        run("ip link delete t0");
        let error = port.send(&frame(1, 60), Offload::default()).unwrap_err();
        assert_eq!(Fault::of(&error), Fault::Gone, "{error}");
        let error = port.receive(&mut Batch::new(4)).unwrap_err();
        assert_eq!(Fault::of(&error), Fault::Gone, "{error}");
        assert!(port.mtu().is_err() && port.queue_drops().is_err());
        drop(port);
        assert_eq!(devices(), ["b1"], "its bridge was removed all the same");
    }
}

namespaced! {
    fn a_frame_too_short_for_ethernet_is_refused_but_the_port_lives() {
        let mut port = open("t0", None, None).unwrap();
        let error = port.send(&[0; 13], Offload::default()).unwrap_err();
        assert_eq!(Fault::of(&error), Fault::Drop, "{error}");
        port.send(&frame(1, 60), Offload::default()).unwrap();
    }
}

namespaced! {
    fn offloads_left_on_a_persistent_tap_are_cleared() {
        run("ip tuntap add t0 mode tap vnet_hdr");
        let before_us = Iface::without_packet_info("t0", Mode::Tap).unwrap();
        let offloads: libc::c_ulong = (libc::TUN_F_CSUM | libc::TUN_F_TSO4).into();
        // SAFETY: an open descriptor, and an argument that is passed by value.
        let set = unsafe { libc::ioctl(before_us.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
        assert_eq!(set, 0);
        drop(before_us);
        assert!(segments_tcp("t0"), "the trap is set");
        let _port = open("t0", None, None).unwrap();
        assert!(!segments_tcp("t0"));
    }
}

/// Whether the device wants TCP super-frames (`ETHTOOL_GTSO`, ethtool(8) -k).
fn segments_tcp(name: &str) -> bool {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_GTSO: u32 = 0x1e;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0");
    let socket = socket.or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    let mut value = [ETHTOOL_GTSO, 0];
    // SAFETY: an all-zero `ifreq` is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: `request` and the `ethtool_value` it points to live through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    value[1] != 0
}

#[test]
fn without_the_privilege_it_says_which() {
    let without = ["setpriv", "--bounding-set=-net_admin"];
    in_namespace_with(&without, "tap::without_the_privilege_it_says_which", || {
        let error = refused("t0", Some("b0"), None);
        assert!(matches!(error, OpenError::NotPermitted { .. }), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    });
}

namespaced! {
    fn without_the_driver_it_says_so() {
        run("mount -t tmpfs none /dev/net");
        let error = refused("t0", Some("b0"), None);
        assert!(matches!(error, OpenError::NoTunDriver { .. }), "{error}");
    }
}

namespaced! {
    fn a_firewall_that_eats_bridged_frames_is_noticed() {
        const SYSCTL: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if !fs::exists(SYSCTL).unwrap() {
            return skip("a_firewall_that_eats_bridged_frames_is_noticed", "no br_netfilter");
        }
        let set = |v4: &str, v6: &str| {
            fs::write(SYSCTL, v4).unwrap();
            fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", v6).unwrap();
        };
        let chains = || -> Vec<String> {
            let warnings = bridge_netfilter::check();
            warnings
                .into_iter()
                .map(|warning| match warning.cause {
                    Cause::PolicyDrop { chain } => chain,
                    Cause::PolicyUnknown { error } => panic!("{error}"),
                })
                .collect()
        };
        // Each: what makes the firewall, what is found with both settings on, what undoes it.
        let rows: &[(&str, &[&str], &str)] = &[
            ("iptables-nft -P FORWARD DROP", &["ip filter FORWARD"], "nft flush ruleset"),
            ("iptables-nft -P FORWARD ACCEPT", &[], "nft flush ruleset"),
            ("iptables-nft -P INPUT DROP", &[], "nft flush ruleset"),
            ("ip6tables-nft -P FORWARD DROP", &["ip6 filter FORWARD"], "nft flush ruleset"),
            (
                "nft add table inet f; add chain inet f c { type filter hook forward priority 0; \
                 policy drop; }",
                &["inet f c", "inet f c"],
                "nft flush ruleset",
            ),
            (
                "iptables-legacy -P FORWARD DROP",
                &["ip filter FORWARD (iptables-legacy)"],
                "iptables-legacy -P FORWARD ACCEPT",
            ),
            ("iptables-legacy -A FORWARD -j DROP", &[], "iptables-legacy -F"),
            (
                "ip6tables-legacy -P FORWARD DROP",
                &["ip6 filter FORWARD (iptables-legacy)"],
                "ip6tables-legacy -P FORWARD ACCEPT",
            ),
        ];
        set("1", "1");
        assert_eq!(chains(), [""; 0], "no firewall, no warning");
        for (command, expected, undo) in rows {
            let program = command.split(' ').next().unwrap();
            if Command::new(program).arg("--version").output().is_err() {
                skip("a_firewall_that_eats_bridged_frames_is_noticed", command);
                continue;
            }
            run(command);
            assert_eq!(chains(), *expected, "{command}");
            set("0", "0");
            assert_eq!(chains(), [""; 0], "{command}, but bridged frames do not pass it");
            set("1", "1");
            run(undo);
            assert_eq!(chains(), [""; 0], "{command}, undone by {undo}");
        }
    }
}
