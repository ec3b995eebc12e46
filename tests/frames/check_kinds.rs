//! Checks against real servers with a whole TCP stack: HTTP, and HTTPS with its certificates, over
//! IPv4 and IPv6.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vipr::config;
use vipr::director::{Director, Limits};

use crate::harness::frames6::web6;
use crate::harness::servers::{RealServer, Service, serve, tls};
use crate::harness::*;

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well";
/// Within the time of all certificates but the one that has expired: in 2026.
const TODAY: Duration = Duration::from_secs(1_780_000_000);
const STEP: Duration = Duration::from_millis(900);

/// The service of a configuration with a check, and with the files that the check names.
fn world(toml: &str, check: &str, today: Option<Duration>) -> World {
    let toml = format!(
        "{toml}\n[service.check]\ninterval = \"1s\"\ntimeout = \"500ms\"\nretries = 0\nwarmup = 0\n\
         {check}\n"
    );
    let parsed = config::parse(&toml, "test.toml");
    let mut snapshot = parsed.unwrap_or_else(|wrong| panic!("{wrong}"));
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/https");
    let read = |path: &str| {
        std::fs::read_to_string(data.join(path.trim_start_matches('/')))
            .map_err(|error| error.to_string())
    };
    snapshot.take_in_files(read).expect("it is there");
    let now = vipr::director::Instant::from_nanos(1_000_000_000);
    let mut director = Director::new(now, Arc::new(snapshot), Limits::default(), 7);
    if let Some(today) = today {
        director.set_time_of_day(now, today);
    }
    let mut world = World { director, now, sent: Vec::new(), events: Vec::new() };
    world.advance(Duration::ZERO);
    world
}

fn vip(of: &str) -> IpAddr {
    of.parse().expect("an address")
}

/// What became of the first check of the first real server, and its requests.
fn checked(world: &mut World, address: &str, port: u16, service: Service) -> (String, Vec<String>) {
    let mut servers = [RealServer::new(RS1_MAC, vip(address), port, service)];
    serve(world, STEP, &mut servers);
    let report = world.status().services[0].real_servers[0].check.clone().expect("it is checked");
    let last = report.last.expect("there was one");
    let [server] = servers;
    (last.reason.unwrap_or_else(|| "passed".into()), server.requests)
}

#[test]
fn https_passes_if_the_answer_and_the_certificate_will_do() {
    let verified = "server_name = \"www.lab.test\"\nca = \"/authority.pem\"";
    type Row<'r> = (&'r str, &'r str, Option<Duration>, &'r str);
    let rows: &[Row<'_>] = &[
        ("right", verified, Some(TODAY), "passed"),
        // Whom it is asked for is by default the VIP itself, which the right one names, too.
        ("right", "ca = \"/authority.pem\"", Some(TODAY), "passed"),
        ("right", "host = \"www.lab.test\"\nca = \"/authority.pem\"", Some(TODAY), "passed"),
        ("right", "", Some(TODAY), "passed"),
        ("other", verified, Some(TODAY), "its certificate is for another name"),
        ("other", "ca = \"/authority.pem\"", Some(TODAY), "its certificate is for another name"),
        ("other", "server_name = \"www.lab.test\"", Some(TODAY), "passed"),
        ("expired", verified, Some(TODAY), "its certificate has expired"),
        ("expired", "verify = false", Some(TODAY), "passed"),
        // It was good then.
        ("expired", verified, Some(Duration::from_secs(1_590_000_000)), "passed"),
        ("right", verified, None, "its certificate is not valid yet"),
        (
            "right",
            "server_name = \"www.lab.test\"\nca = \"/other.pem\"",
            Some(TODAY),
            "its certificate is not signed by anyone in `ca`",
        ),
        ("right", "body = \"ill\"", Some(TODAY), "the answer lacks the text expected"),
        ("right", "status = 204", Some(TODAY), "HTTP 200"),
    ];
    for (certificate, keys, today, expected) in rows {
        let toml = web().replace("ports = 80", "ports = 443");
        let mut world = world(&toml, &format!("kind = \"https\"\n{keys}"), *today);
        let service = Service::Https(tls(certificate), GOOD);
        let (result, requests) = checked(&mut world, "192.0.2.10", 443, service);
        assert_eq!(result, *expected, "{certificate}: {keys}");
        // A stranger is told nothing.
        assert_eq!(requests.is_empty(), result.starts_with("its certificate"), "{requests:?}");
    }
}

#[test]
fn https_asks_as_a_client_would() {
    let toml = web().replace("ports = 80", "ports = 8443");
    let keys = "kind = \"https\"\npath = \"/health\"\nserver_name = \"www.lab.test\"";
    let mut world = world(&toml, keys, Some(TODAY));
    let service = Service::Https(tls("right"), GOOD);
    let (_, requests) = checked(&mut world, "192.0.2.10", 8443, service);
    let expected = "GET /health HTTP/1.1\r\nHost: www.lab.test:8443\r\n";
    assert!(requests[0].starts_with(expected), "{requests:?}");
    let request = requests[0].to_ascii_lowercase();
    assert!(request.contains("\r\nconnection: close\r\n"), "{request}");
}

#[test]
fn what_is_no_tls_server_is_named() {
    for (service, expected) in [
        (Service::Http("HTTP/1.1 400 Bad Request\r\n\r\n"), "the answer is not TLS"),
        (Service::Silent, "connected, then no answer"),
    ] {
        let toml = web().replace("ports = 80", "ports = 443");
        let mut world = world(&toml, "kind = \"https\"", Some(TODAY));
        let speaks = matches!(service, Service::Http(_));
        let mut servers = [RealServer::new(RS1_MAC, vip("192.0.2.10"), 443, service)];
        servers[0].answers_anything = speaks;
        serve(&mut world, STEP, &mut servers);
        let report = world.status().services[0].real_servers[0].check.clone().unwrap();
        assert_eq!(report.last.unwrap().reason.as_deref(), Some(expected));
    }
}

#[test]
fn a_check_of_every_tcp_kind_passes_over_both_families_and_fails_with_the_service() {
    for (toml, address) in [(web(), "192.0.2.10"), (web6(), "2001:db8:0:1::10")] {
        let secure = "kind = \"https\"\nca = \"/authority.pem\"";
        for check in ["kind = \"tcp\"", "kind = \"http\"", secure, "kind = \"icmp\""] {
            let service = match check == secure {
                true => Service::Https(tls("right"), GOOD),
                false => Service::Http(GOOD),
            };
            let mut world = world(&toml, check, Some(TODAY));
            let mut servers = [RealServer::new(RS1_MAC, vip(address), 80, service)];
            let healthy = |world: &mut World| {
                world.status().services[0].real_servers[0].check.clone().unwrap().healthy
            };
            serve(&mut world, Duration::from_secs(3), &mut servers);
            assert!(healthy(&mut world), "{address}: {check}");
            // From the director's own address, of which real servers know the way back to.
            let expected = if vip(address).is_ipv4() { "10.0.0.1" } else { "2001:db8:0:2::1" };
            assert_eq!(servers[0].askers, [vip(expected)].into(), "{check}");
            world.take_events();
            servers[0].up = false;
            serve(&mut world, Duration::from_secs(2), &mut servers);
            assert!(!healthy(&mut world), "{address}: {check}");
            let events = world.take_events();
            let down = "down (1 failed check: no answer)";
            assert!(events.iter().any(|event| event.contains(down)), "{address}: {events:?}");
            servers[0].up = true;
            serve(&mut world, Duration::from_secs(2), &mut servers);
            assert!(healthy(&mut world), "{address}: {check}");
        }
    }
}
