//! Ports on an interface of the host: packet sockets, at one end of a veth pair. The other end is a
//! station.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use vipr::port::{Batch, Condition, Fault, OpenError, PacketConfig, PacketPort, Port, Readiness};
use vipr::wire::offload::Segmentation;
use vipr::wire::vlan::Tag;
use vipr::wire::{MacAddr, Offload};

use super::support::*;

/// To whom the frames of [`frame`] go.
pub const DIRECTOR: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x0b]);
pub const STATION: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x0a]);

fn open(interface: &str, mac: MacAddr) -> PacketPort {
    let config = PacketConfig { interface, mac, mtu: None };
    PacketPort::open(&config).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(interface: &str, mac: MacAddr, mtu: Option<u16>) -> OpenError {
    let Err(error) = PacketPort::open(&PacketConfig { interface, mac, mtu }) else {
        panic!("{interface} was opened");
    };
    let line = error.to_string();
    assert!(!line.contains('\n') && line.starts_with("interface "), "{line}");
    error
}

/// A cable: the director's end and the station's.
fn cable() -> (PacketPort, PacketPort) {
    run("ip link add v0 type veth peer name v1");
    run("ip link set v1 up");
    let ends = (open("v0", DIRECTOR), open("v1", STATION));
    wait_until_running(&ends.0);
    wait_until_running(&ends.1);
    ends
}

/// The kernel takes a moment to use a cable that was put in.
pub fn wait_until_running(port: &impl Port) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !port.condition().unwrap().running {
        assert!(Instant::now() < deadline, "the cable is of no use");
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn send(port: &mut impl Port, frames: impl IntoIterator<Item = Vec<u8>>) {
    for frame in frames {
        port.send(&frame, Offload::default()).unwrap();
    }
    port.flush().unwrap();
}

/// Everything that arrives within a moment, in order.
pub fn receive_all(port: &mut impl Port) -> Vec<(Vec<u8>, Offload)> {
    let mut batch = Batch::new(64);
    let mut frames = Vec::new();
    let mut until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        batch.clear();
        port.receive(&mut batch).unwrap();
        if batch.is_empty() {
            thread::sleep(Duration::from_millis(1));
        } else {
            until = Instant::now() + Duration::from_millis(50);
        }
        for index in 0..batch.len() {
            let frame = batch.frame(index);
            frames.push((frame.bytes.to_vec(), frame.offload));
        }
    }
    frames
}

pub fn to(mac: MacAddr, mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac.0);
    frame
}

namespaced! {
    fn frames_for_the_director_come_in_and_its_own_go_out() {
        let (mut port, mut station) = cable();
        let (short, long) = (frame(1, 60), frame(2, 1514));
        send(&mut station, [short.clone(), long.clone()]);
        let received: Vec<Vec<u8>> = receive_all(&mut port).into_iter().map(|(b, _)| b).collect();
        assert!(received.contains(&short) && received.contains(&long), "{received:x?}");
        // The other way, and nothing of it is heard where it was sent.
        let sent = to(STATION, frame(3, 100));
        send(&mut port, [sent.clone()]);
        assert!(receive_all(&mut station).iter().any(|(bytes, _)| *bytes == sent));
        assert!(receive_all(&mut port).iter().all(|(bytes, _)| *bytes != sent));
    }
}

namespaced! {
    fn frames_for_others_are_left_to_them() {
        let (mut port, mut station) = cable();
        let arp = |mut frame: Vec<u8>| {
            frame[12..14].copy_from_slice(&[8, 6]);
            frame
        };
        let all = MacAddr([0xff; 6]);
        send(&mut station, [
            to(MacAddr([2, 0, 0, 0, 0, 9]), frame(1, 60)),
            to(all, frame(2, 60)),
            to(all, arp(frame(3, 60))),
            frame(4, 60),
        ]);
        let marks: Vec<u8> = receive_all(&mut port)
            .iter()
            .filter(|(bytes, _)| bytes[6..12] == STATION.0)
            .map(|(bytes, _)| bytes[17])
            .collect();
        assert_eq!(marks, [3, 4]);
    }
}

namespaced! {
    fn a_port_is_drained_in_bursts_and_never_blocks() {
        let (mut port, mut station) = cable();
        receive_all(&mut port);
        send(&mut station, (0..100).map(|mark| frame(mark, 60)));
        thread::sleep(Duration::from_millis(50));
        let mut batch = Batch::new(64);
        assert_eq!(port.receive(&mut batch).unwrap(), Readiness::More);
        let mut marks: Vec<_> =
            (0..64).filter_map(|index| mark(batch.frame(index).bytes)).collect();
        batch.clear();
        assert_eq!(port.receive(&mut batch).unwrap(), Readiness::Drained);
        marks.extend((0..batch.len()).filter_map(|index| mark(batch.frame(index).bytes)));
        assert_eq!(marks, (0..100).collect::<Vec<_>>());
        // And the ring goes round.
        for round in 0..3 {
            send(&mut station, (0..3000).map(|mark| frame(mark, 60)));
            assert_eq!(receive_marks(&mut port, 3000).len(), 3000, "round {round}");
        }
    }
}

namespaced! {
    fn frames_beyond_the_ring_are_lost_and_counted() {
        let (mut port, mut station) = cable();
        send(&mut station, (0..5000).map(|mark| frame(mark, 60)));
        thread::sleep(Duration::from_millis(100));
        let Condition { running, missed } = port.condition().unwrap();
        assert!(running && (850..=1200).contains(&missed), "{missed} of 5000 at a ring of 4107");
        assert_eq!(receive_marks(&mut port, 4000)[..3], [0, 1, 2]);
        assert_eq!(port.condition().unwrap().missed, missed, "asking does not forget them");
    }
}

/// A TCP segment over IPv4 with so many bytes of payload; its checksum is up to the card.
pub fn super_frame(payload: usize) -> (Vec<u8>, Offload) {
    let mut bytes = frame(0, 14 + 20 + 20 + payload);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..34]
        .copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    let len = (40 + payload) as u16;
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    // A bridge's firewall would not let a wrong one pass.
    let words = bytes[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = !((sum >> 16) + (sum & 0xffff)) as u16;
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[34..54]
        .copy_from_slice(&[0, 7, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 16, 0, 0, 0, 0, 0]);
    let offload = Offload {
        checksum_pending: true,
        segmentation: Segmentation::Tcp4,
        segment_size: 1448,
        headers_len: 54,
        checksum_start: 34,
        checksum_offset: 16,
        ..Offload::default()
    };
    (bytes, offload)
}

namespaced! {
    fn super_frames_pass_whole_and_in_their_turn() {
        let (mut port, mut station) = cable();
        let (large, offload) = super_frame(40_000);
        for mark in 1..=3 {
            station.send(&frame(mark, 60), Offload::default()).unwrap();
            station.send(&large, offload).unwrap();
        }
        station.flush().unwrap();
        let received: Vec<_> =
            receive_all(&mut port).into_iter().filter(|(bytes, _)| bytes[6..12] == STATION.0).collect();
        assert_eq!(received.len(), 6);
        for pair in received.chunks(2) {
            assert!(mark(&pair[0].0).is_some() && pair[0].1.is_plain());
            assert!(pair[1].0 == large, "{} bytes came", pair[1].0.len());
            assert_eq!(pair[1].1, offload);
        }
    }
}

namespaced! {
    fn a_checksum_left_to_the_card_is_known_to_be_missing() {
        let (mut port, _station) = cable();
        run("ip address add 10.9.0.1/24 dev v1");
        run("ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:0b dev v1");
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"hello", "10.9.0.2:53").unwrap();
        let received = receive_all(&mut port);
        let (_, offload) =
            received.iter().find(|(bytes, _)| bytes[12..14] == [8, 0]).expect("the datagram");
        let expected =
            Offload { checksum_pending: true, checksum_start: 34, checksum_offset: 6, ..*offload };
        assert_eq!(*offload, expected);
    }
}

namespaced! {
    fn a_vlan_tag_is_in_its_place() {
        let (mut port, mut station) = cable();
        let untagged = frame(7, 100);
        let tagged = [&untagged[..12], &[0x81, 0, 0x20, 5], &untagged[12..]].concat();
        send(&mut station, [tagged]);
        let received = receive_all(&mut port);
        // The batch takes it out of the frame and keeps it beside.
        let found = received.iter().find(|(bytes, _)| *bytes == untagged);
        let (_, offload) = found.unwrap_or_else(|| panic!("{received:x?}"));
        assert_eq!(offload.tag.and_then(Tag::vlan).map(|vlan| vlan.id), Some(5));
    }
}

namespaced! {
    fn an_interface_that_is_down_loses_frames_and_comes_back() {
        let (mut port, mut station) = cable();
        run("ip link set v0 down");
        port.send(&frame(1, 60), Offload::default()).unwrap();
        port.send(&frame(1, 60), Offload::default()).unwrap();
        let lost = port.flush().unwrap_err();
        assert_eq!((lost.frames, Fault::of(&lost.error)), (2, Fault::Drop), "{}", lost.error);
        assert_eq!(port.receive(&mut Batch::new(4)).unwrap(), Readiness::Drained);
        assert!(!port.condition().unwrap().running);
        run("ip link set v0 up");
        wait_until_running(&port);
        wait_until_running(&station);
        send(&mut station, [frame(2, 60)]);
        assert_eq!(receive_marks(&mut port, 1), [2]);
        send(&mut port, (3..100).map(|mark| to(STATION, frame(mark, 60))));
        assert_eq!(receive_marks(&mut station, 97), (3..100).collect::<Vec<_>>());
    }
}

/// A checksum that is to be where there is no frame any more: the kernel sends no such frame.
fn beyond_the_frame(frame: &[u8]) -> Offload {
    let end = frame.len() as u16;
    Offload { checksum_pending: true, checksum_start: end, ..Offload::default() }
}

namespaced! {
    fn a_frame_that_the_kernel_refuses_is_lost_alone() {
        let (mut port, mut station) = cable();
        // Where in its burst it is, first and last as well, and several of them.
        for refused in [vec![0], vec![20], vec![49], vec![0, 1, 2, 30, 48, 49]] {
            for mark in 0..50 {
                let frame = to(STATION, frame(mark, 60));
                let offload = match refused.contains(&mark) {
                    true => beyond_the_frame(&frame),
                    false => Offload::default(),
                };
                port.send(&frame, offload).unwrap();
            }
            let lost = port.flush().unwrap_err();
            assert_eq!(lost.frames, refused.len() as u64, "{refused:?}: {}", lost.error);
            let expected: Vec<u32> = (0..50).filter(|mark| !refused.contains(mark)).collect();
            assert_eq!(receive_marks(&mut station, expected.len()), expected, "{refused:?}");
        }
    }
}

namespaced! {
    fn a_queue_that_does_not_take_them_loses_frames_and_they_are_counted() {
        let (mut port, mut station) = cable();
        let burst = || (0..60).map(|mark| to(STATION, frame(mark, 1000)));
        // One goes on at once, some wait; for the others there is no room.
        run("tc qdisc add dev v0 root tbf rate 8kbit burst 1540 limit 10000");
        for frame in burst() {
            port.send(&frame, Offload::default()).unwrap();
        }
        let lost = port.flush().unwrap_err();
        assert!((45..60).contains(&lost.frames), "{}: {}", lost.frames, lost.error);
        assert_eq!(Fault::of(&lost.error), Fault::Drop, "{}", lost.error);
        run("tc qdisc delete dev v0 root");
        receive_all(&mut station);
        // Of those that were lost nothing goes along with others.
        send(&mut port, [to(STATION, frame(60, 60))]);
        let marks: Vec<_> =
            receive_all(&mut station).iter().filter_map(|(bytes, _)| mark(bytes)).collect();
        assert_eq!(marks, [60]);
        send(&mut port, burst());
        assert_eq!(receive_marks(&mut station, 60), (0..60).collect::<Vec<_>>());
    }
}

namespaced! {
    fn a_frame_over_the_mtu_is_lost_alone() {
        let (mut port, mut station) = cable();
        // Both ends, or the port's own; whether the port has had time to notice it.
        for (other_end, noticed) in [(1280, false), (1280, true), (1500, true)] {
            run("ip link set v0 mtu 1280");
            run(&format!("ip link set v1 mtu {other_end}"));
            if noticed {
                port.condition().unwrap();
            }
            let mut lost = 0;
            for mark in 0..50 {
                let len = if mark == 1 { 1514 } else { 60 };
                let sent = port.send(&to(STATION, frame(mark, len)), Offload::default());
                lost += u64::from(sent.is_err());
            }
            lost += port.flush().map_or_else(|lost| lost.frames, |()| 0);
            assert_eq!(lost, 1, "{other_end} {noticed}");
            assert_eq!(receive_marks(&mut station, 49).len(), 49, "{other_end} {noticed}");
            run("ip link set v0 mtu 1500");
            port.condition().unwrap();
        }
    }
}

namespaced! {
    fn frames_of_every_length_leave_in_order() {
        let (mut port, mut station) = cable();
        run("ip link set v0 mtu 9000");
        run("ip link set v1 mtu 9000");
        port.condition().unwrap();
        let mut sent = Vec::new();
        // By slots and beside them, around all of the ring.
        for round in 0..100 {
            for (at, len) in [18, 60, 1514, 2033, 2034, 2035, 2038, 2039, 2048, 1600].iter().enumerate() {
                let tagged = |mut bytes: Vec<u8>| {
                    bytes.splice(12..12, [0x81, 0, 0, 5]);
                    bytes
                };
                let plain = to(STATION, frame(10 * round + at as u32, *len));
                sent.push(plain.clone());
                let bytes = if round % 2 == 0 { plain } else { tagged(plain) };
                port.send(&bytes, Offload::default()).unwrap();
            }
            if round % 10 == 9 {
                port.flush().unwrap();
            }
        }
        let received = receive_all(&mut station).into_iter().map(|(bytes, _)| bytes);
        let received: Vec<_> = received.filter(|bytes| mark(bytes).is_some()).collect();
        assert!(received == sent, "{} of {}", received.len(), sent.len());
        // No frame at all.
        port.send(&[2; 13], Offload::default()).unwrap();
        assert_eq!(port.flush().unwrap_err().frames, 1);
    }
}

namespaced! {
    fn what_is_left_to_the_card_is_left_to_it_in_a_slot_too() {
        let (mut port, mut station) = cable();
        let (whole, offload) = super_frame(1500);
        let (whole, small) = (to(STATION, whole), Offload { segment_size: 700, ..offload });
        let (one, _) = super_frame(100);
        let one = to(STATION, one);
        let pending =
            Offload { segmentation: Segmentation::None, segment_size: 0, headers_len: 0, ..offload };
        port.send(&whole, small).unwrap();
        port.send(&one, pending).unwrap();
        port.flush().unwrap();
        let received = receive_all(&mut station);
        let found = |bytes: &[u8]| received.iter().find(|(got, _)| got == bytes).map(|(_, o)| *o);
        let got = found(&whole).unwrap_or_else(|| panic!("{received:x?}"));
        assert_eq!((got.segment_size, got.checksum_pending), (700, true));
        let got = found(&one).unwrap_or_else(|| panic!("{received:x?}"));
        assert_eq!((got.segment_size, got.checksum_pending, got.checksum_start), (0, true, 34));
    }
}

namespaced! {
    fn more_frames_may_wait_in_the_queues_than_there_are_slots() {
        let (mut port, mut station) = cable();
        run("tc qdisc add dev v0 root tbf rate 8kbit burst 1540 limit 10m");
        send(&mut port, (0..4000).map(|mark| to(STATION, frame(mark, 60))));
        for mark in 4000..4010 {
            port.send(&to(STATION, frame(mark, 60)), Offload::default()).unwrap();
        }
        // The slots become free between a frame's coming and its going.
        run("tc qdisc change dev v0 root tbf rate 10gbit burst 10m limit 10m");
        let mut marks = receive_marks(&mut station, 4000);
        port.flush().unwrap();
        marks.extend(receive_marks(&mut station, 4010 - marks.len()));
        assert_eq!(marks, (0..4010).collect::<Vec<_>>());
        // Its timer may send on another processor than we do, which keeps no order.
        run("tc qdisc delete dev v0 root");
        for round in 0..3 {
            send(&mut port, (0..3000).map(|mark| to(STATION, frame(mark, 60))));
            let marks = receive_marks(&mut station, 3000);
            assert_eq!(marks, (0..3000).collect::<Vec<_>>(), "round {round}");
        }
    }
}

namespaced! {
    fn an_interface_deleted_while_open_is_gone() {
        let (mut port, _station) = cable();
        run("ip link delete v0");
        let error = port.receive(&mut Batch::new(4)).unwrap_err();
        assert_eq!(Fault::of(&error), Fault::Gone, "{error}");
        assert!(port.mtu().is_err() && port.condition().is_err());
        port.send(&frame(1, 60), Offload::default()).unwrap();
        assert_eq!(port.flush().unwrap_err().frames, 1);
    }
}

namespaced! {
    fn what_was_changed_on_the_interface_ends_with_the_port() {
        run("ip link add v0 type veth peer name v1");
        run("ip link set v0 mtu 9000");
        let counts = || {
            let device = device("v0").unwrap();
            (device["promiscuity"].clone(), device["allmulti"].clone())
        };
        let before = counts();
        let port = open("v0", DIRECTOR);
        assert!(is_up("v0"));
        assert_eq!((port.mtu().unwrap(), mtu("v0")), (9000, 9000));
        assert_ne!(counts(), before);
        drop(port);
        assert_eq!(counts(), before);
        // Nobody else is shut out meanwhile.
        let _ports = [open("v0", DIRECTOR), open("v0", STATION)];
    }
}

namespaced! {
    fn an_interface_that_does_not_do_is_refused() {
        run("ip link add v0 type veth peer name v1");
        run("ip link set v0 address 02:00:00:00:00:0b");
        run("ip link add b0 type bridge");
        run("ip link set v1 master b0");
        assert!(matches!(refused("e9", DIRECTOR, None), OpenError::NoInterface { .. }));
        assert!(matches!(refused("lo", DIRECTOR, None), OpenError::NotEthernet { .. }));
        assert!(matches!(refused("e%d", DIRECTOR, None), OpenError::BadName { .. }));
        assert!(matches!(refused("v0", DIRECTOR, None), OpenError::MacOfHost { .. }));
        match refused("v0", STATION, Some(1501)) {
            OpenError::InterfaceMtu { device, mtu, .. } => assert_eq!((device, mtu), (1500, 1501)),
            other => panic!("{other}"),
        }
        match refused("v1", STATION, None) {
            OpenError::InterfaceEnslaved { master, .. } => assert_eq!(master, "b0"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn without_the_privilege_it_says_which() {
    let without = ["setpriv", "--bounding-set=-net_raw"];
    in_namespace_with(&without, "packet::without_the_privilege_it_says_which", || {
        run("ip link add v0 type veth peer name v1");
        let error = refused("v0", DIRECTOR, None);
        assert!(matches!(error, OpenError::RawForbidden { .. }), "{error}");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    });
}
