//! Every kind of change of a configuration, each from the same [`BASE`].

#![allow(dead_code, reason = "each test program uses a part of it")]

/// Two segments, two services with two real servers each.
pub const BASE: &str = r#"
[router]
name = "edits"

[segment.front]
role = "vip"
tap = "vipr-front"
mac = "02:00:00:00:01:01"
address = ["192.0.2.2/24"]

[segment.back]
role = "backend"
tap = "vipr-back"
address = ["10.0.0.1/24"]

[[service]]
name = "web"
vip = "192.0.2.10"
protocol = "tcp"
ports = 80
scheduler = "wrr"

[[service.real_server]]
name = "rs1"
address = "10.0.0.11"
mac = "52:54:00:00:00:11"
segment = "back"
weight = 1

[[service.real_server]]
name = "rs2"
address = "10.0.0.12"
segment = "back"
weight = 1

[[service]]
name = "dns"
vip = "192.0.2.53"
protocol = "udp"
ports = 53
scheduler = "rr"

[[service.real_server]]
name = "ns1"
address = "10.0.0.53"
segment = "back"
"#;

const SECOND: &str = r#"
[[service.real_server]]
name = "rs2"
address = "10.0.0.12"
segment = "back"
weight = 1
"#;

const DNS: &str = r#"
[[service]]
name = "dns"
vip = "192.0.2.53"
protocol = "udp"
ports = 53
scheduler = "rr"

[[service.real_server]]
name = "ns1"
address = "10.0.0.53"
segment = "back"
"#;

/// What is changed, what is replaced by what, and the differences that are told.
type Edit = (&'static str, &'static str, &'static str, &'static [&'static str]);

const EDITS: [Edit; 26] = [
    ("weight", "weight = 1", "weight = 3", &["service web: real server rs1 weight 1 → 3"]),
    ("quiesced", "weight = 1", "weight = 0", &["service web: real server rs1 weight 1 → 0"]),
    ("scheduler", "\"wrr\"", "\"wlc\"", &["service web: scheduler wrr → wlc"]),
    (
        "persistence",
        "scheduler = \"wrr\"",
        "scheduler = \"wrr\"\npersistence = { timeout = \"5m\", netmask = 24 }",
        &["service web: persistence none → 5m/24"],
    ),
    (
        "thresholds",
        "weight = 1",
        "upper_threshold = 9\nlower_threshold = 5",
        &[
            "service web: real server rs1 upper_threshold 0 → 9",
            "service web: real server rs1 lower_threshold 0 → 5",
        ],
    ),
    (
        "timeouts",
        "[segment.front]",
        "[timeouts]\ntcp_established = \"1h\"\n[segment.front]",
        &["timeouts: tcp_established 15m → 1h"],
    ),
    (
        "MAC",
        "52:54:00:00:00:11",
        "52:54:00:00:00:21",
        &["service web: real server rs1 mac 52:54:00:00:00:11 → 52:54:00:00:00:21"],
    ),
    (
        "further MAC",
        "weight = 1",
        "vip_mac = [\"52:54:00:00:01:11\"]",
        &["service web: real server rs1 vip_mac none → 52:54:00:00:01:11"],
    ),
    ("service's name", "\"web\"", "\"shop\"", &["service shop: name web → shop"]),
    ("real server's name", "\"rs1\"", "\"one\"", &["service web: real server one name rs1 → one"]),
    (
        "one packet",
        "\"rr\"",
        "\"rr\"\none_packet = true",
        &["service dns: one_packet false → true"],
    ),
    (
        "what becomes of removed ones",
        "ports = 80",
        "ports = 80\non_removal = \"reset\"",
        &["service web: on_removal drain → reset"],
    ),
    (
        "service's ports",
        "ports = 80",
        "ports = [80, 443]",
        &[
            "service web: removed",
            "service web: added (192.0.2.10:80,443/tcp, scheduler wrr, 2 real servers)",
        ],
    ),
    (
        "real server's address",
        "10.0.0.12",
        "10.0.0.22",
        &[
            "service web: real server rs2 added (10.0.0.22, weight 1)",
            "service web: real server rs2 removed",
        ],
    ),
    ("real server removed", SECOND, "", &["service web: real server rs2 removed"]),
    (
        "real server added",
        SECOND,
        concat!(
            "\n[[service.real_server]]\nname = \"rs3\"\naddress = \"10.0.0.13\"\nsegment = \"back\"\n",
            "\n[[service.real_server]]\nname = \"rs2\"\naddress = \"10.0.0.12\"\nsegment = \"back\"\n",
        ),
        &["service web: real server rs3 added (10.0.0.13, weight 1)"],
    ),
    ("service removed", DNS, "", &["service dns: removed"]),
    (
        "service added",
        DNS,
        concat!(
            "\n[[service]]\nvip = \"192.0.2.20\"\nprotocol = \"tcp\"\nports = 25\nscheduler = \"lc\"\n",
            "\n[[service]]\nname = \"dns\"\nvip = \"192.0.2.53\"\nprotocol = \"udp\"\nports = 53\n",
            "scheduler = \"rr\"\n\n[[service.real_server]]\nname = \"ns1\"\n",
            "address = \"10.0.0.53\"\nsegment = \"back\"\n",
        ),
        &["service 192.0.2.20:25/tcp: added (192.0.2.20:25/tcp, scheduler lc, 0 real servers)"],
    ),
    (
        "segment added",
        "[segment.back]",
        "[segment.third]\nrole = \"backend\"\ntap = \"vipr-third\"\n[segment.back]",
        &["segment third: added (role backend, tap vipr-third)"],
    ),
    (
        "segment renamed",
        "front",
        "outside",
        &["segment front: removed", "segment outside: added (role vip, tap vipr-front)"],
    ),
    (
        "segment's addresses",
        "[\"192.0.2.2/24\"]",
        "[\"192.0.2.2/24\", \"198.51.100.2/24\"]",
        &["segment front: address 192.0.2.2/24 → 192.0.2.2/24, 198.51.100.2/24"],
    ),
    ("TAP", "vipr-back", "vipr-b", &["segment back: tap vipr-back → vipr-b"]),
    (
        "bridge",
        "tap = \"vipr-front\"",
        "tap = \"vipr-front\"\nbridge = \"br-vip\"",
        &["segment front: bridge none → br-vip"],
    ),
    (
        "unmatched policy",
        "name = \"edits\"",
        "name = \"edits\"\nunmatched = \"drop\"",
        &["router: unmatched reject → drop"],
    ),
    (
        "limits",
        "name = \"edits\"",
        "name = \"edits\"\nconnections_max = 4096",
        &["router: connections_max 1048576 → 4096 takes effect at the next start"],
    ),
    (
        "announcements",
        "[segment.front]",
        "[announce]\ncount = 1\n[segment.front]",
        &["announce: count 5 → 1"],
    ),
];

/// A changed configuration.
pub struct Edited {
    /// In words.
    pub what: &'static str,
    pub text: String,
    /// Its differences from [`BASE`].
    pub differences: Vec<String>,
}

/// [`BASE`] with each of the changes.
pub fn edits() -> Vec<Edited> {
    let edited = |&(what, from, to, differences): &Edit| {
        assert!(BASE.contains(from), "{what}: {from:?} is not in the base");
        let differences = differences.iter().map(|line| line.to_string()).collect();
        Edited { what, text: BASE.replacen(from, to, 1), differences }
    };
    EDITS.iter().map(edited).collect()
}
