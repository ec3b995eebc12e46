//! What one configuration changes about another, in words: one line a difference, subject first.
//!
//! Things are the same by their natural keys, as the core reconciles them: segments by name,
//! services by all they listen on (VIPs, protocols, ports), real servers by address and segment.

use core::fmt::{Debug, Display};
use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Snapshot;
use super::check::Check;
use super::durations::format_duration;
use super::snapshot::{
    Announce, Attach, AttachKind, RealServer, Router, Segment, Service, Sockets, Timeouts,
};

/// Every difference; empty if the two are equal.
pub fn diff(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut changes = Changes { subject: String::new(), lines: Vec::new() };
    changes.router(&before.router, &after.router);
    changes.announce(&before.announce, &after.announce);
    changes.timeouts(&before.timeouts, &after.timeouts);
    changes.segments(&before.segments, &after.segments);
    changes.services(&before.services, &after.services);
    changes.lines
}

/// What of `wanted` a router that was started with `started` takes up only at its next start: one
/// line each.
pub fn pending(started: &Router, wanted: &Router) -> Vec<String> {
    let (from, to) = (started.connections_max, wanted.connections_max);
    // The table is made once: a million connections are not moved between two frames.
    let line = format!("router: connections_max {from} → {to} takes effect at the next start");
    (from != to).then_some(line).into_iter().collect()
}

struct Changes {
    /// What the lines are about at the moment.
    subject: String,
    lines: Vec<String>,
}

impl Changes {
    fn router(&mut self, before: &Router, after: &Router) {
        self.about("router");
        self.value("name", &before.name, &after.name);
        let socket = |router: &Router| router.control_socket.display().to_string();
        self.value("control_socket", &socket(before), &socket(after));
        self.option("metrics", before.metrics.as_ref(), after.metrics.as_ref());
        self.lines.extend(pending(before, after));
        self.word("unmatched", &before.unmatched, &after.unmatched);
        let state = |router: &Router| router.state.as_ref().map(|path| path.display().to_string());
        self.option("state", state(before).as_ref(), state(after).as_ref());
        self.duration("state_max_age", before.state_max_age, after.state_max_age);
    }

    fn announce(&mut self, before: &Announce, after: &Announce) {
        self.about("announce");
        self.value("count", &before.count, &after.count);
        self.value("repeat", &before.repeat, &after.repeat);
        self.duration("repeat_after", before.repeat_after, after.repeat_after);
        self.duration("refresh", before.refresh, after.refresh);
    }

    fn timeouts(&mut self, before: &Timeouts, after: &Timeouts) {
        self.about("timeouts");
        for ((name, before), (_, after)) in before.by_name().into_iter().zip(after.by_name()) {
            self.duration(name, before, after);
        }
    }

    fn segments(&mut self, before: &[Segment], after: &[Segment]) {
        let known: BTreeMap<&str, &Segment> =
            before.iter().map(|segment| (&*segment.name, segment)).collect();
        let kept: BTreeSet<&str> = after.iter().map(|segment| &*segment.name).collect();
        for segment in before.iter().filter(|old| !kept.contains(&*old.name)) {
            self.lines.push(format!("segment {}: removed", segment.name));
        }
        for segment in after {
            self.about(format!("segment {}", segment.name));
            let Some(old) = known.get(&*segment.name) else {
                let role = format!("{:?}", segment.role).to_lowercase();
                let (kind, device) = (segment.attach.kind().name(), segment.device());
                self.say(format!("added (role {role}, {kind} {device})"));
                continue;
            };
            self.word("role", &old.role, &segment.role);
            let kinds = (old.attach.kind(), segment.attach.kind());
            self.word("attach", &kinds.0, &kinds.1);
            match (sockets(old), sockets(segment)) {
                (Some(old), Some(new)) => {
                    self.option("socket", old.listen(), new.listen());
                    let list = |of: &Sockets| of.connect().cloned().collect::<Vec<_>>();
                    self.list("connect", &list(old), &list(new));
                }
                _ => {
                    let key = match kinds.1 {
                        AttachKind::Tap => "tap",
                        AttachKind::Packet | AttachKind::Xdp => "interface",
                        AttachKind::Qemu => "socket",
                    };
                    self.value(key, old.device(), segment.device());
                }
            }
            self.option("bridge", old.bridge(), segment.bridge());
            self.option("uplink", old.uplink(), segment.uplink());
            self.word("offload", &old.offload, &segment.offload);
            self.option("vlan", old.vlan.as_ref(), segment.vlan.as_ref());
            self.value("mac", &old.mac, &segment.mac);
            self.option("mtu", old.mtu.as_ref(), segment.mtu.as_ref());
            self.list("address", &old.addresses, &segment.addresses);
            self.word("defend", &old.defend, &segment.defend);
            self.value("arp_guard", &old.arp_guard, &segment.arp_guard);
        }
    }

    fn services(&mut self, before: &[Arc<Service>], after: &[Arc<Service>]) {
        let key = |service: &Service| Arc::clone(&service.listen);
        let mut known: BTreeMap<_, &Arc<Service>> =
            before.iter().map(|service| (key(service), service)).collect();
        let kept: Vec<Option<&Arc<Service>>> =
            after.iter().map(|service| known.remove(&key(service))).collect();
        for service in before.iter().filter(|service| known.contains_key(&key(service))) {
            self.lines.push(format!("service {}: removed", service.name));
        }
        for (service, old) in after.iter().zip(kept) {
            self.about(format!("service {}", service.name));
            match old {
                Some(old) if Arc::ptr_eq(old, service) => {}
                Some(old) => self.service(old, service),
                None => self.say(format!(
                    "added ({}, scheduler {}, {} real servers)",
                    service.endpoint(),
                    service.scheduler.name(),
                    service.real_servers.len()
                )),
            }
        }
    }

    fn service(&mut self, before: &Service, after: &Service) {
        self.value("name", &before.name, &after.name);
        self.value("scheduler", &before.scheduler.name(), &after.scheduler.name());
        let options = |service: &Service| {
            let words = service.scheduler_options.words(service.scheduler);
            (!words.is_empty()).then(|| words.join(", "))
        };
        self.option("scheduler_options", options(before).as_ref(), options(after).as_ref());
        let persistence = |service: &Service| {
            let persistence = service.persistence?;
            let timeout = format_duration(persistence.timeout);
            Some(format!("{timeout}/{}", service.netmasks().unwrap_or_default()))
        };
        self.option("persistence", persistence(before).as_ref(), persistence(after).as_ref());
        self.value("one_packet", &before.one_packet, &after.one_packet);
        self.value("sloppy_tcp", &before.sloppy_tcp, &after.sloppy_tcp);
        self.value("sloppy_sctp", &before.sloppy_sctp, &after.sloppy_sctp);
        self.value("expire_quiescent", &before.expire_quiescent, &after.expire_quiescent);
        self.value("expire_nodest", &before.expire_nodest, &after.expire_nodest);
        self.value("quorum", &before.quorum, &after.quorum);
        self.value("quorum_hysteresis", &before.quorum_hysteresis, &after.quorum_hysteresis);
        self.sorry_server(before, after);
        self.word("on_removal", &before.on_removal, &after.on_removal);
        self.value("syn_rescue", &before.syn_rescue, &after.syn_rescue);
        self.check(before.check.as_deref(), after.check.as_deref());
        let key = |server: &Arc<RealServer>| -> (IpAddr, _) {
            (server.address, Arc::clone(&server.segment))
        };
        let mut known: BTreeMap<_, &Arc<RealServer>> =
            before.real_servers.iter().map(|server| (key(server), server)).collect();
        let there: BTreeSet<_> = after.real_servers.iter().map(&key).collect();
        let kept_before = before.real_servers.iter().map(&key).filter(|k| there.contains(k));
        let kept_after = after.real_servers.iter().map(&key).filter(|k| known.contains_key(k));
        let reordered = !kept_before.eq(kept_after);
        for server in &after.real_servers {
            match known.remove(&key(server)) {
                Some(old) => self.real_server(&after.name, old, server),
                None => self.say(format!(
                    "real server {} added ({}, weight {})",
                    server.name, server.address, server.weight
                )),
            }
        }
        for server in before.real_servers.iter().filter(|server| known.contains_key(&key(server))) {
            self.say(format!("real server {} removed", server.name));
        }
        if reordered {
            self.say("real servers in another order");
        }
    }

    fn check(&mut self, before: Option<&Check>, after: Option<&Check>) {
        let (Some(before), Some(after)) = (before, after) else {
            return self.option("check", before, after);
        };
        let outer = core::mem::take(&mut self.subject);
        self.subject = format!("{outer}: check");
        self.value("kind", &before.kind.name(), &after.kind.name());
        self.value("port", &before.port, &after.port);
        self.duration("interval", before.interval, after.interval);
        self.duration("timeout", before.timeout, after.timeout);
        self.value("retries", &before.retries, &after.retries);
        let (delay_before, delay) = (before.delay_before_retry, after.delay_before_retry);
        self.duration("delay_before_retry", delay_before, delay);
        self.value("fall", &before.fall, &after.fall);
        self.value("rise", &before.rise, &after.rise);
        self.duration("warmup", before.warmup, after.warmup);
        self.word("on_failure", &before.on_failure, &after.on_failure);
        if before.kind.name() == after.kind.name() && before.kind != after.kind {
            // What is sent and expected may be long, and none of a log's business.
            self.lines.push(format!("{} asks or expects something else", self.subject));
        }
        self.subject = outer;
    }

    fn sorry_server(&mut self, before: &Service, after: &Service) {
        match (&before.sorry_server, &after.sorry_server) {
            (Some(old), Some(new)) if old.key() == new.key() => {
                self.server("sorry server", &after.name, old, new);
            }
            (None, None) => {}
            (old, new) => {
                let name = |server: &Option<Arc<RealServer>>| {
                    server.as_ref().map(|server| format!("{} ({})", server.name, server.address))
                };
                self.option("sorry server", name(old).as_ref(), name(new).as_ref());
            }
        }
    }

    fn real_server(&mut self, service: &str, before: &RealServer, after: &RealServer) {
        self.server("real server", service, before, after);
    }

    fn server(&mut self, kind: &str, service: &str, before: &RealServer, after: &RealServer) {
        let outer = core::mem::take(&mut self.subject);
        self.about(format!("service {service}: {kind} {}", after.name));
        self.value("name", &before.name, &after.name);
        self.option("mac", before.mac.as_ref(), after.mac.as_ref());
        self.list("vip_mac", &before.vip_macs, &after.vip_macs);
        self.value("weight", &before.weight, &after.weight);
        self.value("upper_threshold", &before.upper_threshold, &after.upper_threshold);
        self.value("lower_threshold", &before.lower_threshold, &after.lower_threshold);
        self.subject = outer;
    }

    fn about(&mut self, subject: impl Into<String>) {
        self.subject = subject.into();
    }

    fn say(&mut self, what: impl Display) {
        // A real server's line goes on where its service's begins.
        self.lines.push(format!("{}: {what}", self.subject));
    }

    fn value<T: PartialEq + Display>(&mut self, name: &str, before: &T, after: &T) {
        if before != after {
            let separator = if self.subject.contains(": ") { " " } else { ": " };
            self.lines.push(format!("{}{separator}{name} {before} → {after}", self.subject));
        }
    }

    fn word<T: PartialEq + Debug>(&mut self, name: &str, before: &T, after: &T) {
        let word = |value: &T| format!("{value:?}").to_lowercase();
        self.value(name, &word(before), &word(after));
    }

    fn duration(&mut self, name: &str, before: Duration, after: Duration) {
        self.value(name, &format_duration(before), &format_duration(after));
    }

    fn option<T: PartialEq + Display>(
        &mut self,
        name: &str,
        before: Option<&T>,
        after: Option<&T>,
    ) {
        let text = |value: Option<&T>| value.map_or_else(|| "none".to_owned(), T::to_string);
        self.value(name, &text(before), &text(after));
    }

    fn list<T: PartialEq + Display>(&mut self, name: &str, before: &[T], after: &[T]) {
        let text = |list: &[T]| {
            let items: Vec<String> = list.iter().map(T::to_string).collect();
            if items.is_empty() { "none".to_owned() } else { items.join(", ") }
        };
        self.value(name, &text(before), &text(after));
    }
}

fn sockets(segment: &Segment) -> Option<&Sockets> {
    match &segment.attach {
        Attach::Qemu { sockets } => Some(sockets),
        Attach::Tap { .. } | Attach::Packet { .. } | Attach::Xdp { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
[segment.front]
role = "vip"
tap = "vipr-front"

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
segment = "back"
weight = 1

[[service.real_server]]
name = "rs2"
address = "10.0.0.12"
segment = "back"
weight = 1
"#;

    fn parse(toml: &str) -> Snapshot {
        crate::config::parse(toml, "test.toml").unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// What replacing one text in the base by another is reported as.
    fn after(edits: &[(&str, &str)]) -> Vec<String> {
        let mut edited = BASE.to_owned();
        for (from, to) in edits {
            assert!(edited.contains(from), "{from}");
            edited = edited.replacen(from, to, 1);
        }
        diff(&parse(BASE), &parse(&edited))
    }

    #[test]
    fn equal_configurations_differ_in_nothing() {
        assert_eq!(after(&[]), [] as [&str; 0]);
        assert_eq!(after(&[("weight = 1", "weight = 1 # a comment")]), [] as [&str; 0]);
    }

    #[test]
    fn every_kind_of_change_has_its_line() {
        let server = "\n[[service.real_server]]\nname = \"rs2\"\naddress = \"10.0.0.12\"\nsegment = \"back\"\nweight = 1\n";
        let third = server.replace("rs2", "rs3").replace("12", "13");
        let rows: &[(&str, &str, &[&str])] = &[
            ("weight = 1", "weight = 3", &["service web: real server rs1 weight 1 → 3"]),
            ("\"rs1\"", "\"one\"", &["service web: real server one name rs1 → one"]),
            (
                "weight = 1",
                "mac = \"52:54:00:00:00:11\"",
                &["service web: real server rs1 mac none → 52:54:00:00:00:11"],
            ),
            (server, "", &["service web: real server rs2 removed"]),
            (
                server,
                &format!("{server}{third}"),
                &["service web: real server rs3 added (10.0.0.13, weight 1)"],
            ),
            ("wrr", "rr", &["service web: scheduler wrr → rr"]),
            (
                "scheduler",
                "syn_rescue = true\ncheck = { kind = \"http\" }\nscheduler",
                &[
                    "service web: syn_rescue false → true",
                    "service web: check none → http every 10s",
                ],
            ),
            (
                "scheduler",
                "persistence = { timeout = \"5m\", netmask = 24 }\nscheduler",
                &["service web: persistence none → 5m/24"],
            ),
            (
                "ports = 80",
                "ports = 81",
                &[
                    "service web: removed",
                    "service web: added (192.0.2.10:81/tcp, scheduler wrr, 2 real servers)",
                ],
            ),
            ("vipr-back", "vipr-b", &["segment back: tap vipr-back → vipr-b"]),
            (
                "role = \"backend\"",
                "role = \"both\"\nmtu = 1400",
                &["segment back: role backend → both", "segment back: mtu none → 1400"],
            ),
            (
                "tap = \"vipr-front\"",
                "tap = \"vipr-front\"\nbridge = \"br0\"\ndefend = \"announce\"\narp_guard = true",
                &[
                    "segment front: bridge none → br0",
                    "segment front: defend repair → announce",
                    "segment front: arp_guard false → true",
                ],
            ),
            (
                "[segment.front]",
                "[segment.third]\nrole = \"vip\"\ntap = \"t3\"\n[segment.front]",
                &["segment third: added (role vip, tap t3)"],
            ),
            (
                "[segment.front]",
                "[router]\nunmatched = \"drop\"\nmetrics = \"127.0.0.1:9469\"\n[segment.front]",
                &["router: metrics none → 127.0.0.1:9469", "router: unmatched reject → drop"],
            ),
            (
                "[segment.front]",
                "[timeouts]\nudp = 7\n[announce]\ncount = 1\n[segment.front]",
                &["announce: count 5 → 1", "timeouts: udp 5m → 7s"],
            ),
            (
                "[segment.front]",
                "[router]\nconnections_max = 4096\n[segment.front]",
                &["router: connections_max 1048576 → 4096 takes effect at the next start"],
            ),
        ];
        for (from, to, expected) in rows {
            assert_eq!(after(&[(from, to)]), *expected, "{from:?} → {to:?}");
        }
    }

    #[test]
    fn every_key_of_a_check_has_its_line() {
        let with = |check: &str| {
            parse(&BASE.replace("scheduler", &format!("check = {{ {check} }}\nscheduler")))
        };
        let before = with("kind = \"http\"");
        let after = with(
            "kind = \"http\", port = 81, interval = 2, timeout = 1, retries = 0, \
             delay_before_retry = 0, fall = 2, rise = 3, warmup = 0, on_failure = \"inhibit\", \
             path = \"/x\"",
        );
        assert_eq!(
            diff(&before, &after),
            [
                "service web: check port 80 → 81",
                "service web: check interval 10s → 2s",
                "service web: check timeout 5s → 1s",
                "service web: check retries 1 → 0",
                "service web: check delay_before_retry 3s → 0s",
                "service web: check fall 1 → 2",
                "service web: check rise 1 → 3",
                "service web: check warmup 10s → 0s",
                "service web: check on_failure remove → inhibit",
                "service web: check asks or expects something else",
            ]
        );
        assert_eq!(diff(&before, &with("kind = \"tcp\""))[0], "service web: check kind http → tcp");
    }

    #[test]
    fn the_order_of_real_servers_counts_because_schedulers_go_by_it() {
        let swap = [
            ("\"rs1\"", "\"x\""),
            ("\"rs2\"", "\"rs1\""),
            ("\"x\"", "\"rs2\""),
            ("10.0.0.11", "x"),
            ("10.0.0.12", "10.0.0.11"),
            ("\"x\"", "\"10.0.0.12\""),
        ];
        assert_eq!(after(&swap), ["service web: real servers in another order"]);
    }
}
