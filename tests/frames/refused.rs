//! Frames that are nobody's business or not right: dropped, each for its own reason.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{NetSlice, TransportSlice};
use vipr::director::{Action, DropReason};
use vipr::wire::{Frame, MacAddr, Offload};

use crate::harness::frames::{Tcp, ipv4, tcp, udp};
use crate::harness::{frames6, *};

/// Recomputes the IPv4 header checksum of a frame that was tampered with.
fn with_ip_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new()
        .add_slice(&frame[14..34])
        .ones_complement()
        .to_ne_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame
}

fn tampered(at: usize, value: u8) -> Vec<u8> {
    let mut frame = tcp(40_000, "S").bytes();
    frame[at] = value;
    frame
}

#[test]
fn every_reason_for_a_drop_on_the_vip_segment() {
    let mut world = World::new(&web());
    world.take_sent();
    let syn = || tcp(40_000, "S");
    let mac = |last| MacAddr([0x52, 0x54, 0, 0, 0, last]);
    let rows = [
        (vec![], "frame_too_short"),
        (vec![0; 13], "frame_too_short"),
        (Tcp { source_mac: FRONT_MAC, ..syn() }.bytes(), "own_frame"),
        (Tcp { source_mac: BACK_MAC, ..syn() }.bytes(), "own_frame"),
        (Tcp { source_mac: MacAddr::ZERO, ..syn() }.bytes(), "bad_source_mac"),
        (Tcp { source_mac: MacAddr::BROADCAST, ..syn() }.bytes(), "bad_source_mac"),
        (Tcp { destination_mac: mac(0x77), ..syn() }.bytes(), "foreign_mac"),
        (Tcp { destination_mac: MacAddr::BROADCAST, ..syn() }.bytes(), "group_mac"),
        (tampered(12, 0x88), "ether_type_unsupported"),
        ([&syn().bytes()[..12], &[0x81, 0, 0, 5, 8, 0], &[0; 40]].concat(), "vlan_tag"),
        ([&syn().bytes()[..12], &[0x86, 0xdd], &[0x60; 60]].concat(), "ipv6_header"),
        (syn().bytes()[..33].to_vec(), "ipv4_header"),
        (tampered(14, 0x65), "ipv4_header"),
        (tampered(14, 0x44), "ipv4_header"),
        (with_ip_checksum(tampered(16, 0xff)), "ipv4_header"),
        (tampered(22, 99), "ipv4_checksum"),
        (with_ip_checksum(tampered(17, 30)), "transport_header"),
        (tampered(46, 0xf0), "transport_header"),
        (Tcp { destination: [192, 0, 2, 11], ..syn() }.bytes(), "not_vip"),
        (Tcp { destination: FRONT_DIP, ..syn() }.bytes(), "not_vip"),
        (Tcp { destination: [255; 4], ..syn() }.bytes(), "not_vip"),
        (Tcp { source: [0; 4], ..syn() }.bytes(), "bad_source_address"),
        (Tcp { source: [0, 1, 2, 3], ..syn() }.bytes(), "bad_source_address"),
        (Tcp { source: [192, 0, 2, 0], ..syn() }.bytes(), "bad_source_address"),
        (Tcp { source: [192, 0, 2, 255], ..syn() }.bytes(), "bad_source_address"),
        (Tcp { source: [127, 0, 0, 1], ..syn() }.bytes(), "bad_source_address"),
        (Tcp { source: [224, 0, 0, 1], ..syn() }.bytes(), "bad_source_address"),
        (Tcp { source: [255; 4], ..syn() }.bytes(), "bad_source_address"),
        (Tcp { source: VIP, ..syn() }.bytes(), "bad_source_address"),
        (Tcp { source: FRONT_DIP, ..syn() }.bytes(), "bad_source_address"),
        (ipv4(47, None, &[0; 20]), "protocol_unsupported"),
        // SCTP, with a checksum that is none.
        (ipv4(132, None, &[0; 20]), "transport_checksum"),
        (ipv4(1, Some((7, 1480, false)), &[0; 20]), "fragment_unknown"),
        (ipv4(1, None, &[13, 0, 0, 0, 0, 0, 0, 0]), "icmp_unsupported"),
        (ipv4(1, None, &[3, 3, 0, 0, 0, 0, 0, 0]), "icmp_unrelated"),
    ];
    for (frame, reason) in rows {
        let known = DropReason::ALL.iter().find(|known| known.name() == reason).unwrap();
        let before = world.drops(*known);
        assert_eq!(world.tell("front", &frame), format!("dropped {reason}"), "{frame:02x?}");
        assert_eq!(world.drops(*known), before + 1, "{reason} is counted");
    }
    assert_eq!(world.take_sent(), [], "nothing was answered");
    assert_eq!(world.connections(), [], "nothing was opened");
}

#[test]
fn vip_traffic_on_a_backend_segment_is_a_loop_and_other_traffic_is_not_ours() {
    let mut world = World::new(&web());
    let to_back = |destination| Tcp { destination_mac: BACK_MAC, destination, ..tcp(1, "S") };
    assert_eq!(world.tell("back", &to_back(VIP).bytes()), "dropped vip_on_backend");
    assert_eq!(world.tell("back", &to_back(BACK_DIP).bytes()), "dropped not_vip");
    let from_rs2 = Tcp { source_mac: RS2_MAC, ..to_back(VIP) };
    assert_eq!(world.tell("back", &from_rs2.bytes()), "dropped vip_on_backend rs2");
    let told = world.take_events();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("rs2") && told[0].contains("on segment back"), "{told:?}");
}

#[test]
fn every_reason_has_a_name_of_its_own() {
    let mut names: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    let mut world = World::new(&web());
    assert_eq!(world.status().counters.drops.len(), count, "status shows each");
}

#[test]
fn a_packet_too_big_for_the_back_segment_is_cut_without_df_and_answered_with_it() {
    let toml = web().replace("tap = \"vipr-back\"", "tap = \"vipr-back\"\nmtu = 1400");
    let mut world = World::new(&toml.replace("\"tcp\"", "\"udp\""));
    let back = world.segment("back");
    world.director.set_device_mtu(back, 9000);
    world.take_sent();
    assert_eq!(world.tell("front", &udp(1, 80, &[0; 1372])), "forwarded rs1", "1400 fits");
    world.take_sent();
    let big = udp(1, 80, &[0; 1373]);
    assert_eq!(world.tell("front", &big), "replied", "etherparse sets DF");
    let answer = world.take_one("front");
    assert_eq!(answer[..12], [CLIENT_MAC.0, FRONT_MAC.0].concat());
    assert_eq!(answer[26..34], [VIP, CLIENT].concat());
    assert_eq!(answer[34..36], [3, 4]);
    assert_eq!(answer[40..42], 1400u16.to_be_bytes());
    assert_eq!(answer[42..70], big[14..42], "the packet's header and 8 bytes are quoted");
    let mut without = big.clone();
    without[20] = 0;
    let without = with_ip_checksum(without);
    assert_eq!(world.tell("front", &without), "fragmented rs1");
    assert_eq!(world.take_sent().len(), 2);

    // What the device can carry counts where nothing is configured.
    let mut unconfigured = World::new(&web().replace("\"tcp\"", "\"udp\""));
    assert_eq!(unconfigured.tell("front", &big), "forwarded rs1");
    unconfigured.director.set_device_mtu(back, 1400);
    assert_eq!(unconfigured.tell("front", &big), "replied");

    // A super-frame is no larger on the wire than its segments, which fitted where they came from.
    let offload = Offload { checksum_pending: true, segment_size: 1300, ..Offload::default() };
    let (front, mut bytes) = (world.segment("front"), big.clone());
    let mut frame = Frame { bytes: &mut bytes, offload };
    let verdict = world.director.handle_frame(world.now, front, &mut frame);
    assert!(matches!(verdict.action, Action::Forward { .. }), "{verdict:?}");
    // Two datagrams, 1300 bytes of data and 73: so they count, with a header each.
    let traffic = world.status().services[0].traffic;
    assert_eq!((traffic.packets, traffic.bytes), (2 + 2, 1400 + 1401 + 2 * 28 + 1373));
    // Segments that are too large for the wire are not, whatever else is offloaded.
    let offload = Offload { segment_size: 1373, ..offload };
    let mut bytes = big.clone();
    let mut frame = Frame { bytes: &mut bytes, offload };
    let verdict = world.director.handle_frame(world.now, front, &mut frame);
    assert!(matches!(verdict.action, Action::Reply), "{verdict:?}");
}

/// A checksum that a card was to complete is quoted as it came (nobody looks at it), and all that
/// is the answer's own is complete.
#[test]
fn a_packet_too_big_whose_checksum_is_pending_gets_a_whole_answer() {
    let small = |toml: &str| {
        let toml = toml.replace("tap = \"vipr-back\"", "tap = \"vipr-back\"\nmtu = 1400");
        World::new(&toml)
    };
    let data = [0x5a; 1400];
    let four = Tcp { payload: data.to_vec(), ..tcp(9, "S") }.bytes();
    let six = frames6::from_client6().tcp(9, 80, "S", &data);
    for (mut world, packet) in [(small(&web()), four), (small(&frames6::web6()), six)] {
        world.take_sent();
        let is_ipv4 = packet[12..14] == [0x08, 0x00];
        let transport = if is_ipv4 { 34 } else { 54 };
        let mut bytes = packet.clone();
        // As Linux leaves it: over the pseudo-header only.
        bytes[transport + 16..transport + 18].copy_from_slice(&[0x12, 0x34]);
        let before = bytes.clone();
        let offload = Offload {
            checksum_pending: true,
            checksum_start: transport as u16,
            checksum_offset: 16,
            ..Offload::default()
        };
        let front = world.segment("front");
        let mut frame = Frame { bytes: &mut bytes, offload };
        let verdict = world.director.handle_frame(world.now, front, &mut frame);
        world.drain();
        assert!(matches!(verdict.action, Action::Reply), "{verdict:?}");
        assert_eq!(bytes, before, "what is not forwarded stays");
        let answer = world.take_one("front");
        assert_eq!(answer[..12], [CLIENT_MAC.0, FRONT_MAC.0].concat());
        let sliced = etherparse::SlicedPacket::from_ethernet(&answer).expect("whole");
        let quote_max = if is_ipv4 { 576 - 28 } else { 1280 - 48 };
        let quote = &before[14..14 + quote_max];
        let (from, to, kind) = match (sliced.net.unwrap(), sliced.transport.unwrap()) {
            (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                let checksum = icmp.icmp_type().calc_checksum(icmp.payload());
                assert_eq!(icmp.checksum(), checksum);
                assert_eq!(icmp.payload(), quote);
                assert_eq!(icmp.bytes5to8(), [0, 0, 5, 0x78]);
                (header.source.into(), header.destination.into(), icmp.type_u8())
            }
            (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                let header = ip.header();
                let (from, to) = (header.source_addr(), header.destination_addr());
                assert!(icmp.is_checksum_valid(from.octets(), to.octets()));
                assert_eq!(icmp.payload(), quote);
                assert_eq!(icmp.bytes5to8(), [0, 0, 5, 0x78]);
                (IpAddr::from(from), IpAddr::from(to), icmp.type_u8())
            }
            other => panic!("{other:?}"),
        };
        let expected: (IpAddr, IpAddr, u8) = if is_ipv4 {
            (Ipv4Addr::from(VIP).into(), Ipv4Addr::from(CLIENT).into(), 3)
        } else {
            (frames6::VIP6.into(), frames6::CLIENT6.into(), 2)
        };
        assert_eq!((from, to, kind), expected);
        assert_eq!(world.connections().len(), 1, "it was scheduled: the next one may fit");
    }
}
