//! What follows a flow: ICMP errors about it.

use std::time::Duration;

use crate::harness::frames::{FrameBuilder, Tcp, icmp_error, tcp};
use crate::harness::*;

#[test]
fn an_icmp_error_about_a_reply_reaches_its_real_server() {
    let mut world = World::new(&web());
    world.tell("front", &tcp(1, "S").bytes());
    world.tell("front", &tcp(2, "S").bytes());
    assert_eq!(world.tell("front", &tcp(40_000, "S").bytes()), "forwarded rs2");
    world.take_sent();
    // The reply that a router on the way found too big: from the VIP's port 80 to the client.
    let reply = etherparse::PacketBuilder::ipv4(VIP, CLIENT, 60).tcp(80, 40_000, 5, 6);
    let mut quoted = Vec::new();
    reply.write(&mut quoted, &[0; 1400]).unwrap();
    for kept in [28, 48, 500] {
        let error = icmp_error(3, 4, [0, 0, 0x05, 0x14], &quoted[..kept]);
        assert_eq!(world.tell("front", &error), "forwarded rs2", "{kept} bytes quoted");
        let forwarded = world.take_one("back");
        assert_eq!(forwarded[..12], [RS2_MAC.0, BACK_MAC.0].concat());
        assert_eq!(forwarded[12..], error[12..]);
    }
    let cut = icmp_error(3, 4, [0; 4], &quoted[..27]);
    assert_eq!(world.tell("front", &cut), "dropped icmp_unrelated");
    let expired = icmp_error(11, 0, [0; 4], &quoted[..28]);
    assert_eq!(world.tell("front", &expired), "forwarded rs2");
    let redirect = icmp_error(5, 1, [0; 4], &quoted[..28]);
    assert_eq!(world.tell("front", &redirect), "dropped icmp_unsupported");

    // About a flow nobody has, and about someone else's packet.
    let mut other = quoted.clone();
    other[22..24].copy_from_slice(&40_001u16.to_be_bytes());
    assert_eq!(world.tell("front", &icmp_error(3, 4, [0; 4], &other)), "dropped icmp_unrelated");
    let mut foreign = quoted.clone();
    foreign[12..16].copy_from_slice(&RS1);
    assert_eq!(world.tell("front", &icmp_error(3, 4, [0; 4], &foreign)), "dropped icmp_unrelated");

    // About a connection whose time is up, though it may still be in the table.
    world.advance(Duration::from_nanos(59_999_999_999));
    assert_eq!(world.tell("front", &expired), "forwarded rs2");
    world.advance(Duration::from_nanos(1));
    assert_eq!(world.tell("front", &expired), "dropped icmp_unrelated");
}

#[test]
fn an_icmp_error_to_one_vip_about_a_reply_from_another_is_not_relayed() {
    let other = [192, 0, 2, 20];
    let toml = format!(
        "{}\n[[service]]\nvip = \"192.0.2.20\"\nprotocol = \"tcp\"\nports = 80\n{}",
        web(),
        real_server("rs", 11, 1, "")
    );
    let mut world = World::new(&toml);
    let syn = Tcp { destination: other, ..tcp(40_000, "S") }.bytes();
    assert_eq!(world.tell("front", &syn), "forwarded rs");
    let mut quoted = Vec::new();
    let reply = etherparse::PacketBuilder::ipv4(other, CLIENT, 60).tcp(80, 40_000, 5, 6);
    reply.write(&mut quoted, &[]).unwrap();
    let to = |vip| {
        let router = (CLIENT_MAC, CLIENT);
        FrameBuilder::new(router, (FRONT_MAC, vip)).icmp_error(11, 0, [0; 4], &quoted)
    };
    assert_eq!(world.tell("front", &to(VIP)), "dropped icmp_unrelated");
    assert_eq!(world.tell("front", &to(other)), "forwarded rs");
}
