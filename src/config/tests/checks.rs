//! `[service.check]`: what is accepted, what it means, and every mistake in it.

use core::time::Duration;
use std::sync::Arc;

use super::{accepted, edited, listed, refused};
use crate::config::check::{Check, CheckKind, DnsRecord, HttpCheck, OnFailure, StatusRange};

/// The base with these lines in its service's check.
fn with(keys: &str) -> String {
    edited(&[(16, &format!("[service.check]\n{keys}"))])
}

fn check(keys: &str) -> Arc<Check> {
    accepted(&with(keys)).services[0].check.clone().expect("it has one")
}

#[test]
fn defaults_are_keepalived_s_where_they_make_sense() {
    let seconds = Duration::from_secs;
    for (kind, retries, delay) in [
        ("kind = \"tcp\"", 1, 1),
        ("kind = \"http\"", 1, 3),
        ("kind = \"dns\"\nquery = \"example.org\"", 3, 1),
        ("kind = \"exec\"\ncommand = [\"/bin/true\"]", 1, 1),
    ] {
        let check = check(kind);
        assert_eq!((check.interval, check.timeout), (seconds(10), seconds(5)));
        assert_eq!((check.retries, check.delay_before_retry), (retries, seconds(delay)), "{kind}");
        assert_eq!((check.fall, check.rise, check.warmup), (1, 1, seconds(10)));
        assert_eq!(check.on_failure, OnFailure::Remove);
    }
    assert!(accepted(&edited(&[])).services[0].check.is_none());
}

#[test]
fn what_is_written_is_read() {
    let all = "kind = \"http\"\nport = 8443\ninterval = \"500ms\"\ntimeout = 2\nretries = 0\n\
               delay_before_retry = 0\nfall = 3\nrise = 2\nwarmup = 0\non_failure = \"inhibit\"\n\
               method = \"HEAD\"\npath = \"/a?b\"\nhost = \"w.example:8443\"\n\
               status = [200, \"300-399\"]\nbody = \"well\"";
    let check = check(all);
    assert_eq!((check.port, check.interval), (8443, Duration::from_millis(500)));
    assert_eq!((check.fall, check.rise, check.retries), (3, 2, 0));
    assert_eq!((check.warmup, check.on_failure), (Duration::ZERO, OnFailure::Inhibit));
    let (one, range) =
        (StatusRange { first: 200, last: 200 }, StatusRange { first: 300, last: 399 });
    let http = HttpCheck {
        method: "HEAD".into(),
        path: "/a?b".into(),
        host: "w.example:8443".into(),
        status: vec![one, range],
        body: Some("well".into()),
    };
    assert_eq!(check.kind, CheckKind::Http(http));
}

#[test]
fn what_is_left_out_is_called_after_the_service() {
    let host = |keys: &str| match &check(keys).kind {
        CheckKind::Http(http) => http.host.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(host("kind = \"http\""), "192.0.2.10");
    assert_eq!(host("kind = \"http\"\nport = 8080"), "192.0.2.10:8080");
    assert_eq!(check("kind = \"tcp\"").port, 80);
    assert_eq!(check("kind = \"icmp\"").port, 0);
    let dns =
        check("kind = \"dns\"\nquery = \"example.org.\"\nrecord = \"MX\"\nrcode = \"REFUSED\"");
    let CheckKind::Dns(dns) = &dns.kind else { panic!("{dns:?}") };
    assert_eq!((&*dns.name, dns.record, dns.rcode), ("example.org", DnsRecord::Mx, 5));
    let udp = check("kind = \"udp\"\nsend = \"hex:00 ff\"\nexpect = \"ok\"");
    let CheckKind::Udp(udp) = &udp.kind else { panic!("{udp:?}") };
    assert_eq!((&*udp.send, udp.expect.as_deref()), (&[0, 255][..], Some(&b"ok"[..])));
}

#[test]
fn https_has_a_name_and_a_trust() {
    type Row<'r> = (&'r str, (&'r str, Option<&'r str>, Option<&'r str>));
    let rows: &[Row<'_>] = &[
        ("", ("192.0.2.10:80", None, None)),
        ("port = 443", ("192.0.2.10", None, None)),
        ("port = 443\nhost = \"a.example\"", ("a.example", Some("a.example"), None)),
        ("host = \"a.example:80\"", ("a.example:80", Some("a.example"), None)),
        ("port = 443\nserver_name = \"b.example\"", ("b.example", Some("b.example"), None)),
        ("server_name = \"b.example\"", ("b.example:80", Some("b.example"), None)),
        (
            "host = \"a.example\"\nserver_name = \"b.example\"\nca = \"/ca.pem\"",
            ("a.example", Some("b.example"), Some("/ca.pem")),
        ),
        ("verify = false", ("192.0.2.10:80", None, None)),
        ("verify = true\nca = \"/ca.pem\"", ("192.0.2.10:80", None, Some("/ca.pem"))),
    ];
    for (keys, expected) in rows {
        let check = check(&format!("kind = \"https\"\n{keys}"));
        assert_eq!(check.delay_before_retry, Duration::from_secs(3), "as http");
        let CheckKind::Https(https) = &check.kind else { panic!("{check:?}") };
        let trust = https.trust.as_ref().map(|trust| &*trust.path);
        assert_eq!((&*https.http.host, https.server_name.as_deref(), trust), *expected, "{keys}");
    }
}

#[test]
fn a_file_that_is_named_twice_is_read_once_and_its_absence_is_told() {
    let mut snapshot = accepted(&with("kind = \"https\"\nca = \"/ca.pem\""));
    assert!(snapshot.names_files());
    let second = Arc::clone(&snapshot.services[0]);
    snapshot.services.push(second);
    let mut read = Vec::new();
    let result = snapshot.take_in_files(|path| {
        read.push(path.to_owned());
        Ok("certificates".to_owned())
    });
    assert_eq!((result, read), (Ok(()), vec!["/ca.pem".to_owned()]));
    for service in &snapshot.services {
        let Some(CheckKind::Https(https)) = service.check.as_ref().map(|check| &check.kind) else {
            panic!("{service:?}")
        };
        assert_eq!(https.trust.as_ref().map(|trust| &*trust.pem), Some("certificates"));
    }
    let result = snapshot.take_in_files(|_| Err("not there".to_owned()));
    assert_eq!(result, Err("service web: ca /ca.pem: not there".to_owned()));
    assert!(!accepted(&with("kind = \"http\"")).names_files());
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let rows: &[(&str, &str)] = &[
        ("", "16:1: [service.check] without `kind`"),
        ("kind = \"ping\"", "17:8: `kind` cannot be \"ping\""),
        ("kind = \"tcp\"\npath = \"/\"", "18:1: `path` on a check of kind tcp"),
        ("kind = \"arp\"\nport = 80", "18:1: `port` on a check of kind arp"),
        ("kind = \"tcp\"\nport = 0", "18:8: `port` is out of range: 0"),
        ("kind = \"tcp\"\ninterval = 0", "18:12: `interval` is zero"),
        ("kind = \"tcp\"\nfall = 0", "18:8: `fall` is out of range: 0"),
        ("kind = \"tcp\"\nretries = 101", "18:11: `retries` is out of range: 101"),
        ("kind = \"tcp\"\nretry = 1", "18:1: unknown key `retry` in [service.check]"),
        ("kind = \"http\"\nmethod = \"get\"", "18:10: `method` is not a method: \"get\""),
        ("kind = \"http\"\npath = \"x\"", "18:8: `path` does not begin with a slash: \"x\""),
        (
            "kind = \"http\"\nhost = \"a b\"",
            "18:8: `host` has a space or a strange character, or is empty: \"a b\"",
        ),
        ("kind = \"http\"\nstatus = 99", "18:10: `status` is out of range: 99"),
        ("kind = \"http\"\nstatus = \"300-200\"", "18:10: `status` is no status"),
        ("kind = \"http\"\nstatus = []", "18:10: `status` is empty"),
        ("kind = \"http\"\nverify = true", "18:1: `verify` on a check of kind http"),
        ("kind = \"https\"\nverify = true", "18:10: `verify` without `ca`"),
        ("kind = \"https\"\nca = \"ca.pem\"", "18:6: `ca` is not the path of a file: \"ca.pem\""),
        (
            "kind = \"https\"\nca = \"/ca.pem\"\nverify = false",
            "19:10: `verify = false` with a `ca`",
        ),
        (
            "kind = \"https\"\nserver_name = \"a b\"",
            "18:15: `server_name` is not a host name: \"a b\"",
        ),
        (
            "kind = \"tls\"\nserver_name = \"192.0.2.10\"",
            "18:15: `server_name` is not a host name: \"192.0.2.10\"",
        ),
        ("kind = \"udp\"", "16:1: [service.check] without `send`"),
        (
            "kind = \"udp\"\nsend = \"hex:0\"",
            "18:8: `send` is not written in pairs of hexadecimal digits",
        ),
        ("kind = \"dns\"", "16:1: [service.check] without `query`"),
        ("kind = \"dns\"\nquery = \"a..b\"", "18:9: `query` is not a domain name: \"a..b\""),
        ("kind = \"dns\"\nquery = \"a\"\nrcode = \"OK\"", "19:9: `rcode` cannot be \"OK\""),
        ("kind = \"exec\"", "16:1: [service.check] without `command`"),
        (
            "kind = \"exec\"\ncommand = [\"true\"]",
            "18:11: `command` does not begin with the path of a program",
        ),
    ];
    for (keys, expected) in rows {
        let diagnostics = refused(&with(keys));
        assert_eq!(listed(&diagnostics), [*expected], "\n{keys}\n\n{diagnostics}\n");
    }
}

#[test]
fn a_check_has_an_address_to_ask_from_and_a_port_to_ask() {
    let without_address = |keys: &str| with(keys).replace("address = [\"10.0.0.1/24\"]", "");
    let diagnostics = refused(&without_address("kind = \"tcp\""));
    assert_eq!(listed(&diagnostics), ["17:8: a check of kind tcp on segment `back`"]);
    accepted(&without_address("kind = \"arp\""));
    accepted(&without_address("kind = \"exec\"\ncommand = [\"/bin/true\"]"));

    let any_port = |keys: &str| with(keys).replace("ports = 80", "ports = \"any\"");
    let diagnostics = refused(&any_port("kind = \"tcp\""));
    assert_eq!(listed(&diagnostics), ["17:8: a check without `port`"]);
    accepted(&any_port("kind = \"tcp\"\nport = 22"));
    accepted(&any_port("kind = \"icmp\""));
}

#[test]
fn only_tcp_can_be_rescued() {
    let text = edited(&[(15, "ports = 80\nsyn_rescue = true")]);
    assert!(accepted(&text).services[0].syn_rescue);
    let diagnostics = refused(&text.replace("\"tcp\"", "\"udp\""));
    assert_eq!(listed(&diagnostics), ["16:14: `syn_rescue` on a udp service"]);
}
