//! Ports on an interface of the host by XDP sockets, at one end of a veth pair. The other end is a
//! station, by a packet socket.

use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use vipr::port::{Batch, Fault, OpenError, PacketConfig, PacketPort, Port, Readiness, XdpPort};
use vipr::wire::{MacAddr, Offload, finish};

use super::packet::{DIRECTOR, STATION, receive_all, send, super_frame, to, wait_until_running};
use super::support::*;

fn open(interface: &str, mac: MacAddr, mtu: Option<u16>) -> Result<XdpPort, OpenError> {
    XdpPort::open(&PacketConfig { interface, mac, mtu })
}

/// A cable: the director's end and the station's; nothing where the kernel cannot.
fn cable(test: &str) -> Option<(XdpPort, PacketPort)> {
    run("ip link add v0 type veth peer name v1");
    run("ip link set v1 up");
    let port = match open("v0", DIRECTOR, None) {
        Ok(port) => port,
        Err(error @ OpenError::NoXdp { .. }) => {
            skip(test, &error.to_string());
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let config = PacketConfig { interface: "v1", mac: STATION, mtu: None };
    let station = PacketPort::open(&config).unwrap();
    wait_until_running(&port);
    wait_until_running(&station);
    Some((port, station))
}

fn has_program(interface: &str) -> bool {
    device(interface).unwrap().get("xdp").is_some()
}

namespaced! {
    fn frames_for_the_director_come_in_and_its_own_go_out() {
        let Some((mut port, mut station)) = cable("xdp") else { return };
        let (short, long) = (frame(1, 60), frame(2, 1514));
        send(&mut station, [short.clone(), long.clone()]);
        let received: Vec<Vec<u8>> = receive_all(&mut port).into_iter().map(|(b, _)| b).collect();
        assert!(received.contains(&short) && received.contains(&long), "{received:x?}");
        assert_eq!(received.iter().filter(|bytes| **bytes == short).count(), 1, "once");
        let sent = [to(STATION, frame(3, 100)), to(STATION, frame(4, 1514))];
        send(&mut port, sent.clone());
        let received: Vec<Vec<u8>> =
            receive_all(&mut station).into_iter().map(|(bytes, _)| bytes).collect();
        assert!(sent.iter().all(|sent| received.contains(sent)), "{received:x?}");
    }
}

namespaced! {
    fn what_host_and_director_both_need_comes_to_both() {
        let Some((mut port, mut station)) = cable("xdp") else { return };
        let arp = |mut frame: Vec<u8>| {
            frame[12..14].copy_from_slice(&[8, 6]);
            frame
        };
        send(&mut station, [
            to(MacAddr([0xff; 6]), arp(frame(3, 60))),
            frame(4, 60),
            to(MacAddr([2, 0, 0, 0, 0, 9]), frame(5, 60)),
        ]);
        let marks: Vec<u8> = receive_all(&mut port)
            .iter()
            .filter(|(bytes, _)| bytes[6..12] == STATION.0)
            .map(|(bytes, _)| bytes[17])
            .collect();
        assert!(marks.contains(&3) && marks.contains(&4) && marks.len() == 2, "{marks:?}");
    }
}

namespaced! {
    fn bursts_go_round_the_rings() {
        let Some((mut port, mut station)) = cable("xdp") else { return };
        receive_all(&mut port);
        for round in 0..4 {
            send(&mut station, (0..3000).map(|mark| frame(mark, 60)));
            let marks = receive_marks(&mut port, 3000);
            assert_eq!(marks, (0..3000).collect::<Vec<_>>(), "round {round}");
            // And the other way; more than the ring has slots.
            send(&mut port, (0..3000).map(|mark| to(STATION, frame(mark, 60))));
            let marks = receive_marks(&mut station, 3000);
            assert_eq!(marks, (0..3000).collect::<Vec<_>>(), "round {round}");
        }
    }
}

namespaced! {
    fn frames_beyond_the_ring_are_lost_and_counted() {
        let Some((mut port, mut station)) = cable("xdp") else { return };
        send(&mut station, (0..6000).map(|mark| frame(mark, 60)));
        thread::sleep(Duration::from_millis(100));
        let missed = port.condition().unwrap().missed;
        assert!((1800..=2000).contains(&missed), "{missed} of 6000 at a ring of 4096");
        assert_eq!(receive_marks(&mut port, 4000)[..3], [0, 1, 2]);
    }
}

namespaced! {
    fn what_is_no_frame_of_a_wire_passes_all_the_same() {
        let Some((mut port, mut station)) = cable("xdp") else { return };
        // A super-frame is too long for a slot.
        let (large, offload) = super_frame(40_000);
        station.send(&large, offload).unwrap();
        station.flush().unwrap();
        let received = receive_all(&mut port);
        let (bytes, seen) = received.iter().max_by_key(|(bytes, _)| bytes.len()).unwrap();
        assert!(*bytes == large, "{} bytes came", bytes.len());
        assert_eq!(Offload { headers_len: offload.headers_len, ..*seen }, offload);
        let mut back = large.clone();
        back[..6].copy_from_slice(&STATION.0);
        port.send(&back, offload).unwrap();
        port.flush().unwrap();
        assert!(receive_all(&mut station).iter().any(|(bytes, _)| *bytes == back));
        // A checksum that a local sender left to its card.
        run("ip address add 10.9.0.1/24 dev v1");
        run("ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:0b dev v1");
        UdpSocket::bind("10.9.0.1:0").unwrap().send_to(b"hello", "10.9.0.2:53").unwrap();
        let received = receive_all(&mut port);
        let (bytes, offload) =
            received.iter().find(|(bytes, _)| bytes[12..14] == [8, 0]).expect("the datagram");
        assert!(offload.checksum_pending);
        assert!(finish::complete_checksum(&mut bytes.clone(), offload).is_ok());
    }
}

namespaced! {
    fn the_program_goes_with_the_port_and_nobody_elses_is_touched() {
        let Some((port, _station)) = cable("xdp") else { return };
        assert!(has_program("v0") && !has_program("v1"));
        match open("v0", MacAddr([2, 0, 0, 0, 0, 7]), None) {
            Err(OpenError::XdpBusy { .. }) => {}
            other => panic!("{:?}", other.map(|_| ())),
        }
        assert!(has_program("v0"));
        drop(port);
        assert!(!has_program("v0"));
        drop(open("v0", DIRECTOR, None).unwrap());
        assert!(!has_program("v0"));
    }
}

namespaced! {
    fn an_interface_deleted_while_open_is_gone() {
        let Some((mut port, _station)) = cable("xdp") else { return };
        run("ip link delete v0");
        let mut batch = Batch::new(4);
        let error = loop {
            batch.clear();
            match port.receive(&mut batch) {
                Ok(Readiness::More) => {}
                Ok(Readiness::Drained) => panic!("nobody said so"),
                Err(error) => break error,
            }
        };
        assert_eq!(Fault::of(&error), Fault::Gone, "{error}");
        let _ = port.send(&frame(1, 60), Offload::default());
        assert!(port.flush().unwrap_err().frames >= 1);
    }
}

#[test]
fn a_memory_lock_limit_too_small_is_named_with_what_is_needed() {
    // Without the capability that lifts the limit.
    let limited = ["prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock"];
    let test = "xdp::a_memory_lock_limit_too_small_is_named_with_what_is_needed";
    if !Command::new("prlimit").arg("--version").output().is_ok_and(|o| o.status.success()) {
        return skip(test, "no prlimit(1)");
    }
    in_namespace_with(&limited, test, || {
        run("ip link add v0 type veth peer name v1");
        match open("v0", DIRECTOR, None) {
            Err(error @ OpenError::MemoryLock { limit: 64, .. }) => {
                assert!(error.to_string().contains("LimitMEMLOCK"), "{error}");
            }
            Err(OpenError::NoXdp { error, .. }) => skip("xdp", &error.to_string()),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it was opened"),
        }
    });
}
