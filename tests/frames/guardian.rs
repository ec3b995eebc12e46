//! Other claimants of a VIP: found by asking, named, told; stations they misled are put right, and
//! the connections that went to them go on.

use std::time::Duration;

use etherparse::ArpOperation;
use vipr::wire::MacAddr;

use crate::harness::frames::{arp, arp_reply, arp_request, tcp};
use crate::harness::frames6::{
    CLIENT6, FRONT_DIP6, VIP6, advertisement, from_client6, solicitation, web6,
};
use crate::harness::*;

const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 9, 9]);
const NOBODY: [u8; 4] = [0, 0, 0, 0];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// `web()` with this line in its front segment.
fn web_with(line: &str) -> String {
    let role = "role = \"vip\"\n";
    web().replacen(role, &format!("{role}{line}\n"), 1)
}

/// A director whose first announcements and questions are over.
fn settled(toml: &str) -> World {
    let mut world = World::new(toml);
    world.advance(Duration::from_secs(6));
    world.take_sent();
    world
}

/// rs1's card on the VIP segment answers the director for the VIP.
fn leak(world: &mut World, mac: MacAddr) {
    let reply = arp_reply(mac, VIP, FRONT_MAC, FRONT_DIP);
    assert_eq!(world.tell("front", &reply), "consumed");
}

fn question() -> Vec<u8> {
    arp_request(FRONT_MAC, FRONT_DIP, VIP)
}

/// Who has the VIP, told to one station.
fn told(to: MacAddr) -> Vec<u8> {
    arp(ArpOperation::REQUEST, to, (FRONT_MAC, VIP), (MacAddr::ZERO, VIP))
}

/// The milliseconds at which a frame is sent, within this time.
fn times(world: &mut World, frame: &[u8], within: Duration) -> Vec<u64> {
    let (start, end) = (world.now, world.now + within);
    let mut seen = Vec::new();
    while world.now < end {
        world.advance(ms(1));
        let count = world.take_sent().iter().filter(|sent| sent.bytes == frame).count();
        let at = world.now.since(start).as_millis() as u64;
        seen.extend(std::iter::repeat_n(at, count));
    }
    seen
}

#[test]
fn it_asks_for_its_own_vips_soon_and_then_twice_a_minute() {
    let mut world = World::new(&web());
    let seen = times(&mut world, &question(), Duration::from_secs(61));
    assert_eq!(seen, [500, 30_500, 60_500]);
}

#[test]
fn without_an_address_of_its_own_it_asks_by_a_probe() {
    let toml = web().replacen("address = [\"192.0.2.2/24\"]\n", "", 1);
    let mut world = World::new(&toml);
    let probe = arp_request(FRONT_MAC, NOBODY, VIP);
    assert_eq!(times(&mut world, &probe, Duration::from_secs(1)), [500]);
}

#[test]
fn it_asks_again_when_a_real_server_comes_up() {
    let toml = web().replacen("mac = \"52:54:00:00:00:11\"\n", "", 1);
    let mut world = settled(&toml);
    let start = world.now;
    assert_eq!(world.tell("back", &arp_request(RS1_MAC, RS1, BACK_DIP)), "replied");
    assert_eq!(times(&mut world, &question(), Duration::from_secs(2)), [500], "{start:?}");
}

#[test]
fn who_answers_is_named_at_once_and_again_when_it_is_over() {
    let mut world = settled(&web());
    leak(&mut world, RS1_FRONT_MAC);
    let events = world.take_events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].starts_with("real server rs1: claims VIP 192.0.2.10 on segment front"));
    assert!(events[0].contains("arp_ignore=1"));
    assert_eq!(world.status().conflicts.len(), 1);

    // It is asked each five seconds, and answers twice.
    for _ in 0..2 {
        assert_eq!(times(&mut world, &question(), Duration::from_secs(5)), [5000]);
        leak(&mut world, RS1_FRONT_MAC);
    }
    assert_eq!(world.status().conflicts[0].count, 3);
    world.advance(Duration::from_millis(19_999));
    assert_eq!((world.status().conflicts.len(), world.take_events()), (1, vec![]));
    world.advance(ms(1));
    assert_eq!(world.status().conflicts, []);
    let events = world.take_events();
    assert_eq!(
        events,
        ["real server rs1: no longer claims VIP 192.0.2.10 on segment front from \
          52:54:00:00:01:11; 3 claims in all"]
    );
}

#[test]
fn a_stranger_is_asked_for_the_real_servers_addresses_and_named_by_his_answer() {
    let mut world = settled(&web());
    leak(&mut world, STRANGER);
    let asked =
        |rip| arp(ArpOperation::REQUEST, STRANGER, (FRONT_MAC, FRONT_DIP), (MacAddr::ZERO, rip));
    let sent: Vec<Vec<u8>> = world.take_sent().into_iter().map(|sent| sent.bytes).collect();
    assert_eq!(sent, [asked(RS1), asked(RS2), asked(RS3)], "he alone");
    assert_eq!(world.take_events(), [] as [&str; 0], "not yet");
    // A leaking Linux answers for every address it has.
    assert_eq!(world.tell("front", &arp_reply(STRANGER, RS2, FRONT_MAC, FRONT_DIP)), "consumed");
    assert!(world.take_events()[0].starts_with("real server rs2: claims VIP"));
    assert_eq!(world.status().conflicts[0].real_server.as_deref(), Some("rs2"));
    world.advance(Duration::from_secs(1));
    assert_eq!(world.take_events(), [] as [&str; 0], "once");

    // One that stays silent is no real server.
    let mut world = settled(&web());
    leak(&mut world, STRANGER);
    world.advance(ms(300));
    assert!(world.take_events()[0].ends_with("which is no real server"));
}

#[test]
fn whoever_asks_while_somebody_claims_the_vip_is_told_by_unicast_until_it_is_right() {
    let mut world = settled(&web());
    let request = arp_request(CLIENT_MAC, CLIENT, VIP);
    assert_eq!(world.tell("front", &request), "replied");
    let frame = told(CLIENT_MAC);
    assert_eq!(times(&mut world, &frame, Duration::from_secs(2)), [] as [u64; 0], "no claimant");

    // Those who asked before are told as soon as somebody claims it.
    leak(&mut world, RS1_FRONT_MAC);
    assert_eq!(times(&mut world, &frame, Duration::from_secs(2)), [2, 10, 40, 200, 800, 1700]);
    leak(&mut world, RS1_FRONT_MAC);
    assert_eq!(times(&mut world, &frame, Duration::from_secs(2)), [600, 1500], "nothing new");
    // All heard it.
    assert_eq!(world.tell("front", &arp_request(RS1_FRONT_MAC, VIP, [192, 0, 2, 77])), "consumed");
    assert_eq!(times(&mut world, &frame, Duration::from_secs(2)), [2, 10, 40, 200, 800, 1700]);
    assert_eq!(world.tell("front", &request), "replied");
    assert_eq!(times(&mut world, &frame, Duration::from_secs(2)), [2, 10, 40, 200, 800, 1700]);
    // A probe is from one who has no address yet, and no use for the VIP's.
    assert_eq!(world.tell("front", &arp_request(STRANGER, NOBODY, VIP)), "replied");
    assert_eq!(times(&mut world, &told(STRANGER), Duration::from_secs(2)), [] as [u64; 0]);
    assert_eq!(world.status().guardian.repaired, 22);
}

#[test]
fn a_defence_that_is_off_only_finds_out_and_one_that_announces_does_not_repair() {
    for (line, announces) in [("defend = \"off\"", false), ("defend = \"announce\"", true)] {
        let mut world = settled(&web_with(line));
        world.tell("front", &arp_request(CLIENT_MAC, CLIENT, VIP));
        leak(&mut world, RS1_FRONT_MAC);
        world.take_sent();
        world.advance(Duration::from_secs(2));
        let sent: Vec<Vec<u8>> = world.take_sent().into_iter().map(|sent| sent.bytes).collect();
        let announcement = arp_request(FRONT_MAC, VIP, VIP);
        assert_eq!(sent, vec![announcement; usize::from(announces)], "{line}");
        assert_eq!(world.status().conflicts.len(), 1, "{line}");
        assert_eq!(world.tell("front", &tcp(4000, "A").bytes()), "replied", "a reset");
    }
}

/// As [`web`] has it.
const RS1_VIP_MAC: &str = "vip_mac = [\"52:54:00:00:01:11\"]";

#[test]
fn a_connection_that_went_to_the_claimant_goes_on_there() {
    let mut world = settled(&web());
    world.tell("front", &arp_request(CLIENT_MAC, CLIENT, VIP));
    let segment = tcp(4000, "A").bytes();
    assert_eq!(world.tell("front", &segment), "replied", "without a claimant it is reset");
    leak(&mut world, RS1_FRONT_MAC);
    assert_eq!(world.tell("front", &segment), "forwarded rs1");
    assert_eq!(world.tell("front", &tcp(4000, "PA").bytes()), "forwarded rs1");
    let connections = world.connections();
    assert_eq!((connections.len(), &*connections[0].real_server), (1, "rs1"));
    assert_eq!(world.status().guardian.adopted, 1);

    // Not of a station that never asked, nor to what is no service, nor one that begins now.
    let mut other = tcp(4001, "A");
    other.source_mac = STRANGER;
    assert_eq!(world.tell("front", &other.bytes()), "replied");
    let mut no_service = tcp(4002, "A");
    no_service.destination_port = 81;
    assert_eq!(world.tell("front", &no_service.bytes()), "replied");
    world.advance(ms(50));
    for (port, chosen) in [(4003, "rs1"), (4004, "rs1"), (4007, "rs2")] {
        let told = world.tell("front", &tcp(port, "S").bytes());
        assert_eq!(told, format!("forwarded {chosen}"), "as scheduled");
    }

    // The claim may be over by the time an idle connection goes on.
    world.advance(Duration::from_secs(60));
    assert_eq!(world.status().conflicts, []);
    assert_eq!(world.tell("front", &tcp(4005, "A").bytes()), "forwarded rs1");

    // With two of them the right one is not known.
    let second = MacAddr([0x52, 0x54, 0, 0, 1, 0x12]);
    leak(&mut world, second);
    assert_eq!(world.tell("front", &tcp(4006, "A").bytes()), "replied");
    assert_eq!(world.status().guardian.unknowable, 1);
    assert_eq!(world.tell("front", &segment), "forwarded rs1", "what is adopted stays so");
}

/// With weights 4, 3 and 2, that of the claimant the smallest.
#[test]
fn while_it_is_open_whom_a_client_believes_its_connections_go_to_the_claimant() {
    let base = web().replace(RS1_VIP_MAC, "").replace(
        "mac = \"52:54:00:00:00:13\"",
        &format!("mac = \"52:54:00:00:00:13\"\n{RS1_VIP_MAC}"),
    );
    let ask = |world: &mut World| world.tell("front", &arp_request(CLIENT_MAC, CLIENT, VIP));
    let open = |world: &mut World, ports: core::ops::Range<u16>| -> Vec<String> {
        ports.map(|port| world.tell("front", &tcp(port, "S").bytes())).collect()
    };
    let all = |name: &str| vec![format!("forwarded {name}"); 9];
    let mut world = settled(&base);
    ask(&mut world);
    assert_ne!(open(&mut world, 1000..1009), all("rs3"), "nobody claims it yet");
    leak(&mut world, RS1_FRONT_MAC);
    ask(&mut world);
    assert_eq!(open(&mut world, 1100..1109), all("rs3"));
    assert_eq!(world.tell("front", &tcp(1100, "A").bytes()), "forwarded rs3");
    assert_eq!(world.status().guardian.contested, 9);
    let mut other = tcp(1200, "S");
    other.source_mac = STRANGER;
    let told: Vec<_> = (0..9).map(|_| world.tell("front", &other.bytes())).collect();
    assert_ne!(told, all("rs3"), "it did not ask");
    // It is settled.
    world.advance(ms(50));
    assert_ne!(open(&mut world, 1300..1309), all("rs3"));
    // One that takes no new connections gets none.
    let reload = |world: &mut World, weight: &str| {
        let next = base.replace("segment = \"back\"\nweight = 2", weight);
        world.director.apply(world.now, snapshot(&next));
        world.advance(Duration::ZERO);
        ask(world);
    };
    reload(&mut world, "segment = \"back\"\nweight = 0");
    let told = open(&mut world, 1400..1409);
    assert!(!told.contains(&"forwarded rs3".to_owned()), "{told:?}");
    // Two of them: nobody knows.
    reload(&mut world, "segment = \"back\"\nweight = 1");
    assert_eq!(open(&mut world, 1500..1509), all("rs3"));
    leak(&mut world, MacAddr([0x52, 0x54, 0, 0, 1, 0x12]));
    ask(&mut world);
    assert_ne!(open(&mut world, 1600..1609), all("rs3"));
    assert_eq!(world.status().guardian.contested, 18);
}

#[test]
fn a_connection_to_one_that_is_no_real_server_of_the_service_is_not_adopted() {
    let mut world = settled(&web());
    world.tell("front", &arp_request(CLIENT_MAC, CLIENT, VIP));
    leak(&mut world, STRANGER);
    assert_eq!(world.tell("front", &tcp(4000, "A").bytes()), "replied");
    assert_eq!(world.status().guardian.adopted, 0);
}

#[test]
fn a_reload_changes_the_defence_and_forgets_claims_to_what_is_gone() {
    let mut world = settled(&web());
    world.tell("front", &arp_request(CLIENT_MAC, CLIENT, VIP));
    leak(&mut world, RS1_FRONT_MAC);
    assert_eq!(world.status().segments[0].defend, Some(vipr::config::snapshot::Defend::Repair));
    world.advance(Duration::ZERO);
    world.director.apply(world.now, snapshot(&web_with("defend = \"off\"")));
    world.take_sent();
    world.advance(Duration::from_secs(2));
    assert_eq!(world.take_sent(), [], "nobody is told any more");
    assert_eq!(world.status().conflicts.len(), 1, "but it is still known");
    assert_eq!(world.status().guardian.stations, 0);
    world.director.apply(world.now, snapshot(&web().replace("192.0.2.10", "192.0.2.20")));
    assert_eq!(world.status().conflicts, []);
}

#[test]
fn a_flood_of_claims_and_questions_makes_the_director_send_no_more_than_it_may() {
    let mut world = settled(&web());
    for number in 0..=255 {
        let mac = MacAddr([0x52, 0x54, 0, 0, 7, number]);
        world.tell("front", &arp_request(mac, [192, 0, 2, number], [192, 0, 2, 10]));
    }
    world.take_sent();
    let start = world.now;
    while world.now < start + Duration::from_secs(10) {
        assert_eq!(world.tell("front", &arp_request(STRANGER, VIP, VIP)), "consumed");
        world.advance(ms(1));
    }
    let sent = world.take_sent().len();
    assert!((2000..=10_300).contains(&sent), "1,000 a second and 200 at once: {sent}");
    assert!(world.status().guardian.repairs_refused > 0);
}

#[test]
fn all_of_it_holds_for_ipv6() {
    let mut world = World::new(&web6());
    let question = solicitation(FRONT_MAC, FRONT_DIP6, VIP6);
    assert_eq!(times(&mut world, &question, Duration::from_secs(6)), [500]);
    // A client asks, and somebody else answers, whom the director hears when it asks itself.
    let client_asks = solicitation(CLIENT_MAC, CLIENT6, VIP6);
    assert_eq!(world.tell("front", &client_asks), "replied");
    world.take_sent();
    let segment = from_client6().tcp(40_000, 80, "A", b"");
    assert_eq!(world.tell("front", &segment), "replied", "a reset");
    let leak = advertisement((RS1_FRONT_MAC, FRONT_MAC), FRONT_DIP6, 0x60, VIP6);
    assert_eq!(world.tell("front", &leak), "consumed");
    // He is asked for the real servers' addresses, and has one.
    let rip = "2001:db8:0:2::11".parse().unwrap();
    let answer = advertisement((RS1_FRONT_MAC, FRONT_MAC), FRONT_DIP6, 0x60, rip);
    assert_eq!(world.tell("front", &answer), "consumed");
    let events = world.take_events();
    assert!(events[0].starts_with("real server six1: claims VIP 2001:db8:0:1::10"), "{events:?}");
    assert!(events[0].ends_with("on lo there, not on that card"), "{events:?}");
    // The client is told by unicast, with the override flag.
    let told = advertisement((FRONT_MAC, CLIENT_MAC), CLIENT6, 0x20, VIP6);
    assert_eq!(times(&mut world, &told, Duration::from_secs(1)), [2, 10, 40, 200, 800]);
    assert_eq!(world.tell("front", &segment), "forwarded six1", "adopted");
}
