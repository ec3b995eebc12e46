//! A new configuration: what stays, what goes, what is announced.

use std::collections::BTreeSet;
use std::time::Duration;

use vipr::director::report::{RealServerState, ServiceReport};
use vipr::director::{Command, Limits, Response};

use crate::harness::frames::{Tcp, arp_reply, arp_request, tcp, udp};
use crate::harness::*;

fn apply(world: &mut World, toml: &str) {
    world.director.apply(world.now, snapshot(toml));
    world.advance(Duration::ZERO);
}

#[test]
fn connections_to_a_real_server_that_remains_are_untouched() {
    let mut world = World::new(&web());
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    world.tell("front", &tcp(1, "A").bytes());
    let before = world.connections();
    let changed = web()
        .replace("weight = 4", "weight = 1")
        .replace("wrr", "wlc")
        .replace("\"rs1\"", "\"renamed\"")
        .replace("name = \"web\"", "name = \"shop\"");
    apply(&mut world, &changed);
    let after = world.connections();
    assert_eq!(after.len(), 1);
    assert_eq!(before[0].expires_seconds, after[0].expires_seconds);
    assert_eq!((after[0].service.as_str(), after[0].real_server.as_str()), ("shop", "renamed"));
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded renamed");
    let service = world.status().services[0].clone();
    assert_eq!((service.traffic.connections, service.traffic.packets), (1, 3));
    assert_eq!(world.director.generation(), 2);
}

#[test]
fn a_removed_real_server_drains_and_is_gone_with_its_last_connection() {
    let mut world = World::new(&web());
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    let without =
        web().replace(&real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]"), "");
    apply(&mut world, &without);
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded rs1");
    for port in 2..10 {
        assert_ne!(world.tell("front", &tcp(port, "S").bytes()), "forwarded rs1");
    }
    let servers = world.status().services[0].real_servers.clone();
    assert_eq!(servers.len(), 3);
    assert_eq!((servers[2].name.as_str(), servers[2].state), ("rs1", RealServerState::Draining));
    world.tell("front", &tcp(1, "R").bytes());
    world.advance(Duration::from_secs(11));
    assert_eq!(world.status().services[0].real_servers.len(), 2);

    // Back again while it drained: it is the same one, with its connections.
    let mut world = World::new(&web());
    world.tell("front", &tcp(1, "S").bytes());
    apply(&mut world, &without);
    apply(&mut world, &web());
    let rs1 = world.status().services[0].real_servers[0].clone();
    assert_eq!((rs1.name.as_str(), rs1.active, rs1.state), ("rs1", 1, RealServerState::Up));
}

#[test]
fn a_removed_service_finishes_its_connections_and_its_vip_fades() {
    let mut world = World::new(&web());
    world.tell("front", &tcp(1, "S").bytes());
    world.tell("front", &tcp(1, "A").bytes());
    apply(&mut world, SEGMENTS);
    world.take_sent();
    assert_eq!(world.tell("front", &tcp(1, "A").bytes()), "forwarded rs1");
    assert_eq!(world.tell("front", &tcp(2, "S").bytes()), "dropped not_vip");
    let broadcast = arp_request(CLIENT_MAC, CLIENT, VIP);
    let mut unicast = broadcast.clone();
    unicast[..6].copy_from_slice(&FRONT_MAC.0);
    assert_eq!(world.tell("front", &broadcast), "dropped arp_not_ours");
    assert_eq!(world.tell("front", &unicast), "replied");
    assert!(!world.status().services[0].configured);
    world.advance(Duration::from_secs(901));
    assert_eq!(world.status().services, []);
    assert_eq!(world.tell("front", &unicast), "dropped arp_not_ours");
    let refreshes = world.take_sent().iter().filter(|sent| sent.bytes[..6] == [0xff; 6]).count();
    assert_eq!(refreshes, 0, "a VIP that went is not announced");
}

#[test]
fn an_added_vip_is_announced_and_the_old_one_is_not_again() {
    let mut world = World::new(&web());
    world.advance(Duration::from_secs(10));
    world.take_sent();
    let more = format!(
        "{}\n[[service]]\nvip = \"192.0.2.20\"\nprotocol = \"udp\"\nports = 53\n{}",
        web(),
        real_server("dns1", 11, 1, "")
    );
    apply(&mut world, &more);
    let announcement = arp_request(FRONT_MAC, [192, 0, 2, 20], [192, 0, 2, 20]);
    let five = vec![Sent { segment: "front".into(), bytes: announcement }; 5];
    assert_eq!(world.take_sent(), five);
    // And served at once.
    let mut query = udp(5000, 53, b"?");
    query[33] = 20;
    query[24..26].fill(0);
    query[40..42].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&query[14..34]);
    query[24..26].copy_from_slice(&sum.ones_complement().to_ne_bytes());
    assert_eq!(world.tell("front", &query), "forwarded dns1");
}

#[test]
fn segments_come_and_go_by_name() {
    let mut world = World::new(&web());
    let report = world.director.apply(world.now, snapshot(&web()));
    assert_eq!((report.segments_added, report.segments_removed), (vec![], vec![]));
    let third = "\n[segment.third]\nrole = \"backend\"\ntap = \"vipr-third\"\n";
    let front = world.segment("front");
    let report = world.director.apply(world.now, snapshot(&format!("{}{third}", web())));
    assert_eq!(report.segments_added, [world.segment("third")]);
    let third = world.segment("third");
    let report = world.director.apply(world.now, snapshot(&web()));
    assert_eq!((report.segments_added, report.segments_removed), (vec![], vec![third]));
    assert_eq!(world.segment("front"), front, "the others keep their ids");
    let mut frame = tcp(1, "S").bytes();
    let verdict =
        world.director.handle_frame(world.now, third, &mut vipr::wire::Frame::plain(&mut frame));
    assert_eq!(
        verdict.action,
        vipr::director::Action::Drop(vipr::director::DropReason::SegmentGone)
    );
}

fn weight(world: &mut World, service: &str, real_server: &str, weight: Option<u32>) -> Response {
    let (service, real_server) = (service.to_owned(), real_server.to_owned());
    world.director.handle_command(world.now, Command::Weight { service, real_server, weight })
}

#[test]
fn a_weight_set_by_hand_stays_until_the_configuration_gives_another() {
    let mut world = World::new(&web());
    for (service, real_server) in [("web", "rs1"), ("192.0.2.10:80/tcp", "10.0.0.11")] {
        let done = weight(&mut world, service, real_server, Some(0));
        assert!(matches!(done, Response::Done(_)), "{done:?}");
    }
    let of_rs1 = |world: &mut World| {
        let rs1 = world.status().services[0].real_servers[0].clone();
        (rs1.weight, rs1.configured_weight, rs1.state)
    };
    assert_eq!(of_rs1(&mut world), (0, 4, RealServerState::Quiesced));
    for port in 1..10 {
        assert_ne!(world.tell("front", &tcp(port, "S").bytes()), "forwarded rs1");
    }
    apply(&mut world, &web().replace("weight = 3", "weight = 9"));
    assert_eq!(of_rs1(&mut world), (0, 4, RealServerState::Quiesced), "rs1 was not touched");
    apply(&mut world, &web().replace("weight = 4", "weight = 5"));
    assert_eq!(of_rs1(&mut world), (5, 5, RealServerState::Up));

    weight(&mut world, "web", "rs1", Some(7));
    assert_eq!(of_rs1(&mut world), (7, 5, RealServerState::Up));
    // The configured weight by hand is none set by hand: it follows the configuration.
    let done = weight(&mut world, "192.0.2.10:80/tcp", "10.0.0.11", Some(5));
    let said = "service web: real server rs1 weight 7 → 5 (as configured), 0 connections";
    assert_eq!(done, Response::Done(said.to_owned()));
    weight(&mut world, "web", "rs1", Some(7));
    weight(&mut world, "web", "rs1", None);
    assert_eq!(of_rs1(&mut world), (5, 5, RealServerState::Up));
}

#[test]
fn an_order_about_something_unknown_says_what_there_is() {
    let mut world = World::new(&web());
    let refused = |response| match response {
        Response::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    let why = refused(weight(&mut world, "wbe", "rs1", Some(0)));
    assert_eq!(why, "no service wbe: there is web");
    let why = refused(weight(&mut world, "web", "rs9", Some(0)));
    assert_eq!(why, "service web: no real server rs9: there is rs1, rs2, rs3");
    let why = refused(weight(&mut world, "web", "rs1", Some(65_536)));
    assert_eq!(why, "weight 65536: the largest is 65535");
    assert_eq!(world.status().services[0].real_servers[0].weight, 4);
}

#[test]
fn an_address_on_two_segments_is_not_guessed_at() {
    let third = "\n[segment.third]\nrole = \"backend\"\ntap = \"vipr-third\"\n";
    let twin = "\n[[service.real_server]]\nname = \"twin\"\naddress = \"10.0.0.11\"\n\
                segment = \"third\"\nmac = \"52:54:00:00:00:77\"\n";
    let mut world = World::new(&format!("{}{third}", web()).replacen(
        "\n[[service.real_server]]",
        &format!("{twin}\n[[service.real_server]]"),
        1,
    ));
    let Response::Refused(why) = weight(&mut world, "web", "10.0.0.11", Some(0)) else { panic!() };
    assert!(why.contains("twin and rs1"), "{why}");
    assert!(matches!(weight(&mut world, "web", "twin", Some(0)), Response::Done(_)));
}

#[test]
fn a_weight_set_by_hand_does_not_outlast_the_real_server() {
    let without =
        web().replace(&real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]"), "");
    let mut world = World::new(&web());
    world.tell("front", &tcp(1, "S").bytes());
    weight(&mut world, "web", "rs1", Some(0));
    apply(&mut world, &without);
    apply(&mut world, &web());
    let rs1 = world.status().services[0].real_servers[0].clone();
    assert_eq!((rs1.name.as_str(), rs1.active, rs1.weight), ("rs1", 1, 4));
}

#[test]
fn a_real_server_is_shown_by_itself_until_its_last_connection_is_gone() {
    let without =
        web().replace(&real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]"), "");
    let mut world = World::new(&web());
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs1");
    let of_rs1 = |world: &mut World| {
        let (service, real_server) = ("web".to_owned(), "10.0.0.11".to_owned());
        let command = Command::RealServer { service, real_server };
        match world.director.handle_command(world.now, command) {
            Response::RealServer(report) => Ok((report.state, report.active + report.inactive)),
            Response::Refused(why) => Err(why),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of_rs1(&mut world), Ok((RealServerState::Up, 1)));
    apply(&mut world, &without);
    assert_eq!(of_rs1(&mut world), Ok((RealServerState::Draining, 1)));
    apply(&mut world, SEGMENTS);
    assert_eq!(of_rs1(&mut world), Ok((RealServerState::Draining, 1)), "its service went too");
    world.advance(Duration::from_secs(61));
    assert_eq!(of_rs1(&mut world), Err("no service web: there is none".to_owned()));
}

#[test]
fn on_removal_reset_ends_connections_at_once() {
    let reset = web().replace("scheduler = \"wrr\"", "scheduler = \"wrr\"\non_removal = \"reset\"");
    let without =
        reset.replace(&real_server("rs1", 11, 4, "vip_mac = [\"52:54:00:00:01:11\"]"), "");
    let mut world = World::new(&reset);
    for port in [1, 2] {
        assert_eq!(world.tell("front", &tcp(port, "S").bytes()), "forwarded rs1");
        world.tell("front", &tcp(port, "A").bytes());
    }
    assert_eq!(world.tell("front", &tcp(3, "S").bytes()), "forwarded rs2");
    world.director.apply(world.now, snapshot(&without));
    // Before the table has been swept: the state does not show.
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs2", "scheduled afresh");
    assert_eq!(world.tell("front", &tcp(2, "A").bytes()), "replied", "a reset");
    world.advance(Duration::ZERO);
    let servers = world.status().services[0].real_servers.clone();
    assert_eq!(servers.len(), 2, "nothing is left of rs1");
    assert_eq!(world.connections().len(), 2);
    assert_eq!(world.tell("front", &tcp(3, "A").bytes()), "forwarded rs2", "others stay");

    // Without traffic the sweep alone ends them.
    let mut world = World::new(&reset);
    world.tell("front", &tcp(1, "S").bytes());
    apply(&mut world, &without);
    assert_eq!(world.connections(), []);
    assert_eq!(world.status().services[0].real_servers.len(), 2);
}

/// Services by the last octet of their VIP, each with its real servers' last octets and weights.
type Services<'a> = &'a [(u8, &'a [(u8, u32)])];

fn services(services: Services<'_>) -> String {
    let mut text = SEGMENTS.to_owned();
    for (vip, real_servers) in services {
        text += &format!(
            "[[service]]\nname = \"s{vip}\"\nvip = \"192.0.2.{vip}\"\nprotocol = \"tcp\"\n\
             ports = 80\nscheduler = \"rr\"\n"
        );
        for (last, weight) in *real_servers {
            text += &real_server(&format!("rs{last}"), *last, *weight, "");
        }
    }
    text
}

/// The services as a person sees them: `s10: rs11 1 Up, rs12 3 Up`.
fn listed(world: &mut World) -> Vec<String> {
    let line = |service: ServiceReport| {
        let servers = service.real_servers.iter();
        let servers: Vec<String> = servers
            .map(|found| format!("{} {} {:?}", found.name, found.weight, found.state))
            .collect();
        format!("{}: {}", service.name, servers.join(", "))
    };
    world.status().services.into_iter().map(line).collect()
}

#[test]
fn whatever_changes_in_a_list_the_new_one_is_in_force_and_survivors_keep_their_counts() {
    const BEFORE: &[(u8, u32)] = &[(11, 1), (12, 1), (13, 1), (14, 1), (15, 1)];
    let rows: [&[(u8, u32)]; 12] = [
        BEFORE,
        &[(11, 1), (12, 7), (13, 1), (14, 1), (15, 9)],
        // At the head, in the midst, at the tail: less, more, others.
        &[(12, 1), (13, 1), (14, 1), (15, 1)],
        &[(11, 1), (12, 1), (14, 1), (15, 1)],
        &[(11, 1), (12, 1), (13, 1), (14, 1)],
        &[(20, 1), (11, 1), (12, 1), (13, 1), (14, 1), (15, 1)],
        &[(11, 1), (12, 1), (20, 1), (13, 1), (14, 1), (15, 1)],
        &[(11, 1), (12, 1), (13, 1), (14, 1), (15, 1), (20, 1)],
        &[(11, 1), (20, 1), (21, 1), (14, 2), (15, 1)],
        // In another order, few of it and none of it.
        &[(15, 1), (14, 1), (13, 1), (12, 1), (11, 1)],
        &[(13, 1)],
        &[],
    ];
    for after in rows {
        let mut world = World::new(&services(&[(10, BEFORE)]));
        for port in 0..5 {
            world.tell("front", &tcp(port + 1, "S").bytes());
        }
        apply(&mut world, &services(&[(10, after)]));
        let is_after = |last: u8| after.iter().any(|&(kept, _)| kept == last);
        let name = |&(last, _): &(u8, u32)| format!("rs{last}");
        let gone = BEFORE.iter().filter(|(last, _)| !is_after(*last)).map(name);
        let expected: Vec<String> = after.iter().map(name).chain(gone).collect();
        let service = world.status().services[0].clone();
        let names: Vec<&str> = service.real_servers.iter().map(|found| &*found.name).collect();
        assert_eq!(names, expected, "{after:?}");
        for (found, (last, weight)) in service.real_servers.iter().zip(after) {
            let survived = u64::from(BEFORE.iter().any(|(known, _)| known == last));
            assert_eq!((found.weight, found.traffic.connections), (*weight, survived), "{after:?}");
        }
        // The scheduler sees this list and no other.
        let picked: BTreeSet<String> =
            (0..6).map(|port| world.tell("front", &tcp(port + 100, "S").bytes())).collect();
        let listed = after.iter().map(|server| format!("forwarded {}", name(server)));
        let nobody = after.is_empty().then(|| "replied".to_owned());
        assert_eq!(picked, listed.chain(nobody).collect(), "{after:?}");
    }
}

#[test]
fn between_the_steps_of_a_reload_every_service_is_whole() {
    let before: Services<'_> = &[(10, &[(11, 1), (12, 1)]), (20, &[(13, 1)]), (30, &[(11, 1)])];
    let rows: [Services<'_>; 5] = [
        before,
        // All real servers are others.
        &[(10, &[(14, 1)]), (20, &[(15, 1)]), (30, &[(16, 1)])],
        // A service goes, and one comes.
        &[(10, &[(11, 2), (12, 1)]), (30, &[(11, 1)]), (40, &[(13, 1)])],
        &[(30, &[(11, 1)]), (20, &[(13, 1)]), (10, &[(12, 1), (11, 1)])],
        &[(10, &[(12, 1)])],
    ];
    let segment =
        |vip, port, flags| Tcp { destination: [192, 0, 2, vip], ..tcp(port, flags) }.bytes();
    let servers = |vip: u8, of: Services<'_>| -> Vec<String> {
        let service = of.iter().find(|(found, _)| *found == vip);
        let servers = service.map_or(&[][..], |(_, servers)| servers);
        servers.iter().map(|(last, _)| format!("forwarded rs{last}")).collect()
    };
    for after in rows {
        let limits = Limits { reload_step: 1, ..Limits::default() };
        let mut world = World::with_limits(&services(before), limits);
        let flows = [(10, 1), (10, 2), (20, 1), (30, 1)]
            .map(|(vip, port)| (vip, port, world.tell("front", &segment(vip, port, "S"))));
        world.director.begin_apply(world.now, snapshot(&services(after)));
        let (mut steps, mut next_port) = (0, 1000);
        loop {
            for (vip, port, server) in &flows {
                assert_eq!(&world.tell("front", &segment(*vip, *port, "A")), server, "{after:?}");
            }
            for (vip, _) in before.iter().filter(|(vip, _)| after.iter().any(|(a, _)| a == vip)) {
                next_port += 1;
                let told = world.tell("front", &segment(*vip, next_port, "S"));
                let both = [servers(*vip, before), servers(*vip, after)].concat();
                assert!(both.contains(&told), "step {steps} to {after:?}: {vip}: {told}");
            }
            steps += 1;
            if !world.director.continue_apply(world.now) {
                break;
            }
        }
        assert!(steps > after.len() && !world.director.is_applying());
        // Once connections are gone, all is as if it had come at one blow.
        world.advance(Duration::from_secs(2000));
        let mut other = World::new(&services(before));
        apply(&mut other, &services(after));
        other.advance(Duration::from_secs(2000));
        assert_eq!(listed(&mut world), listed(&mut other), "{after:?}");
    }
}

#[test]
fn a_reload_during_another_finishes_that_first() {
    let limits = Limits { reload_step: 1, ..Limits::default() };
    let mut world = World::with_limits(&services(&[(10, &[(11, 1)])]), limits);
    let passing: Services<'_> = &[(20, &[(12, 1)]), (30, &[(13, 1)])];
    world.director.begin_apply(world.now, snapshot(&services(passing)));
    assert!(world.director.is_applying());
    apply(&mut world, &services(&[(10, &[(14, 5)])]));
    assert_eq!(listed(&mut world), ["s10: rs14 5 Up"]);
    assert_eq!(world.director.generation(), 3);
    assert_eq!(world.tell("front", &tcp(1, "S").bytes()), "forwarded rs14");
}

#[test]
fn a_machine_is_known_by_the_name_and_macs_of_those_that_are_configured_on_it() {
    // Services by VIP, on one machine.
    let text = |services: &[(u8, &str, &str)]| {
        let mut text = SEGMENTS.to_owned();
        for (vip, name, more) in services {
            text += &format!(
                "[[service]]\nvip = \"192.0.2.{vip}\"\nprotocol = \"tcp\"\nports = 80\n\
                 scheduler = \"rr\"\n[[service.real_server]]\nname = \"{name}\"\n\
                 address = \"10.0.0.11\"\nsegment = \"back\"\n{more}\n"
            );
        }
        text
    };
    let one = (10, "one", "");
    let mut world = World::new(&text(&[one]));
    let told = |world: &mut World| world.tell("front", &tcp(1, "S").bytes());
    assert_eq!(told(&mut world), "held one");
    // Its MAC is named by one that comes, and the frame goes there.
    let mac = "mac = \"52:54:00:00:00:11\"\nvip_mac = [\"52:54:00:00:01:11\"]";
    world.take_sent();
    apply(&mut world, &text(&[one, (20, "two", mac)]));
    assert!(world.take_sent().iter().any(|sent| sent.bytes[..6] == RS1_MAC.0));
    let looping = Tcp { source_mac: RS1_FRONT_MAC, ..tcp(2, "S") }.bytes();
    assert!(world.tell("front", &looping).starts_with("dropped loop"));
    // It goes again, and so does what it named.
    apply(&mut world, &text(&[one]));
    assert_eq!(told(&mut world), "held one");
    assert_eq!(world.tell("front", &looping), "held one");
    // One that names nothing changes nothing; nor does its going.
    apply(&mut world, &text(&[one, (20, "two", "")]));
    assert_eq!(told(&mut world), "held one");
    apply(&mut world, &text(&[one]));
    assert_eq!(told(&mut world), "held one");
    // The log goes by the first that is left.
    apply(&mut world, &text(&[one, (20, "two", "")]));
    apply(&mut world, &text(&[(20, "two", "")]));
    world.take_events();
    world.tell("back", &arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP));
    assert!(world.take_events().concat().contains("two"));
}

#[test]
fn expire_nodest_holds_from_the_reload_on_that_brings_it() {
    let plain = web().replacen("mac = \"52:54:00:00:00:11\"\n", "", 1).replace("\"wrr\"", "\"rr\"");
    let expiring = plain.replace("\"rr\"", "\"rr\"\nexpire_nodest = true");
    let mut world = World::new(&plain);
    world.offer("back", &arp_reply(RS1_MAC, RS1, BACK_MAC, BACK_DIP));
    // Three connections each; of rs1 those that go on when it is gone.
    for port in 1..=9 {
        world.tell("front", &tcp(port, "S").bytes());
        world.tell("front", &tcp(port, "A").bytes());
    }
    let of_rs1: Vec<u16> = world
        .connections()
        .iter()
        .filter(|connection| connection.real_server == "rs1")
        .map(|connection| connection.client_port)
        .collect();
    let [first, second, third] = of_rs1[..] else { panic!("{of_rs1:?}") };
    for _ in 0..300 {
        if world.status().services[0].real_servers[0].state == RealServerState::Down {
            break;
        }
        world.tell("front", &tcp(first, "A").bytes());
        world.advance(Duration::from_secs(1));
    }
    assert_eq!(world.tell("front", &tcp(first, "A").bytes()), "forwarded rs1");
    apply(&mut world, &expiring);
    assert_eq!(world.connections().len(), 9, "each goes with its next packet");
    assert_eq!(world.tell("front", &tcp(first, "A").bytes()), "replied", "a reset");
    assert_eq!(world.connections().len(), 8);
    let again = world.tell("front", &tcp(second, "S").bytes());
    assert!(["forwarded rs2", "forwarded rs3"].contains(&&*again), "{again}: scheduled anew");
    apply(&mut world, &plain);
    assert_eq!(world.tell("front", &tcp(third, "A").bytes()), "forwarded rs1", "no longer");
}

#[test]
fn a_real_server_that_is_given_more_room_has_room_at_once() {
    let limited = |upper: u32, lower: u32| {
        let thresholds =
            format!("weight = 4\nupper_threshold = {upper}\nlower_threshold = {lower}");
        web().replace("weight = 4", &thresholds).replace("\"wrr\"", "\"fo\"")
    };
    let mut world = World::new(&limited(2, 1));
    let mut port = 0;
    let mut open = |world: &mut World| {
        port += 1;
        world.tell("front", &tcp(port, "S").bytes())
    };
    assert_eq!([(); 3].map(|()| open(&mut world)), ["rs1", "rs1", "rs2"].map(forwarded));
    let state = |world: &mut World| world.status().services[0].real_servers[0].state;
    assert_eq!(state(&mut world), RealServerState::Overloaded);
    // The lower threshold alone has no say here: two connections are not below it.
    apply(&mut world, &limited(4, 1));
    assert_eq!([(); 3].map(|()| open(&mut world)), ["rs1", "rs1", "rs2"].map(forwarded));
    // As much room as before is none, less is none either, and without a threshold there is.
    for toml in [limited(4, 2), limited(3, 2)] {
        apply(&mut world, &toml);
        assert_eq!(state(&mut world), RealServerState::Overloaded);
    }
    apply(&mut world, &limited(0, 0));
    assert_eq!(open(&mut world), forwarded("rs1"));
}

fn forwarded(name: &str) -> String {
    format!("forwarded {name}")
}
