//! What is compared: services and what is done to them.

use super::trace::Family;

/// A service (or several alike on VIPs of their own) and a trace for it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub scheduler: &'static str,
    /// `scheduler_options`, and the same as ipvsadm's `-b`.
    pub options: Option<(&'static str, &'static str)>,
    pub vips: u8,
    /// Of the real servers at the start.
    pub weights: Vec<u32>,
    pub changes: Changes,
    /// Seconds and prefix length.
    pub persistence: Option<(u32, u8)>,
    pub udp: bool,
    pub family: Family,
    /// Connections end as soon as they are open, but for one of so many: many are inactive.
    pub brief: Option<u64>,
    /// Real servers have thresholds, and all of them come to the upper one.
    pub limits: Limits,
    /// From time to time, closing connections are given the time to expire.
    pub pauses: bool,
    /// Whether clients use the port of a connection that has ended again.
    ///
    /// The kernel chooses for the new connection while the old one still counts, and removes it
    /// up to a tick later. So ports are not used again where inactive connections count.
    pub reuse: bool,
    pub packets: usize,
    pub seed: u64,
}

impl Scenario {
    /// The upper threshold of a real server; 0 for none.
    pub fn upper_threshold(&self, server: u8) -> u32 {
        if self.limits == Limits::None { 0 } else { 60 + 20 * u32::from(server) }
    }

    /// The lower threshold of a real server; 0 for none.
    pub fn lower_threshold(&self, server: u8) -> u32 {
        if self.limits == Limits::UpperAndLower { 20 + 15 * u32::from(server) } else { 0 }
    }
}

/// Which thresholds real servers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    None,
    /// Clear again below three quarters of it.
    Upper,
    UpperAndLower,
}

/// What changes on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Weights, 0 among them.
    Weights,
    /// Real servers go, with what becomes of their connections as of `expire_nodest_conn` and
    /// `on_removal = "reset"`, and others come.
    Members,
}

pub fn all() -> Vec<Scenario> {
    let scenario = |name, scheduler, weights: &[u32]| Scenario {
        name,
        scheduler,
        options: None,
        vips: 1,
        weights: weights.to_vec(),
        changes: Changes::Weights,
        persistence: None,
        udp: false,
        family: Family::V4,
        brief: None,
        limits: Limits::None,
        pauses: false,
        reuse: true,
        packets: 5_000,
        seed: 1,
    };
    let members = |scenario: Scenario| Scenario { changes: Changes::Members, seed: 2, ..scenario };
    let by_inactive = |scenario: Scenario| Scenario { reuse: false, ..scenario };
    let brief = |scenario: Scenario| Scenario { brief: Some(30), ..by_inactive(scenario) };
    let limited = |scenario: Scenario| Scenario { limits: Limits::Upper, ..by_inactive(scenario) };
    // So many stay open that in the end some do not come below their threshold any more.
    let relaxing = |limits, open, scenario: Scenario| Scenario {
        limits,
        pauses: true,
        brief: Some(open),
        ..by_inactive(scenario)
    };
    let v6 = |scenario: Scenario| Scenario { family: Family::V6, ..scenario };
    let with = |toml, flags, scenario: Scenario| Scenario {
        options: Some((toml, flags)),
        seed: 3,
        ..scenario
    };
    let mixed = [4, 3, 2, 1, 7, 0];
    let even = [1; 6];
    vec![
        scenario("rr", "rr", &mixed),
        members(scenario("rr-members", "rr", &even)),
        Scenario { udp: true, ..scenario("rr-udp", "rr", &mixed) },
        scenario("wrr", "wrr", &mixed),
        members(scenario("wrr-members", "wrr", &mixed)),
        Scenario { persistence: Some((300, 24)), ..scenario("wrr-persistent", "wrr", &mixed) },
        by_inactive(scenario("lc", "lc", &mixed)),
        members(by_inactive(scenario("lc-members", "lc", &even))),
        by_inactive(scenario("wlc", "wlc", &mixed)),
        members(by_inactive(scenario("wlc-members", "wlc", &mixed))),
        Scenario {
            persistence: Some((300, 28)),
            ..by_inactive(scenario("wlc-persistent", "wlc", &mixed))
        },
        brief(scenario("lc-brief", "lc", &[1, 1, 1])),
        brief(scenario("wlc-brief", "wlc", &[4, 3, 2])),
        limited(scenario("rr-limits", "rr", &even)),
        limited(scenario("wrr-limits", "wrr", &mixed)),
        limited(scenario("wlc-limits", "wlc", &mixed)),
        with("{ fallback = true }", "sh-fallback", {
            limited(scenario("sh-limits", "sh", &mixed))
        }),
        with("{ fallback = true }", "mh-fallback", {
            limited(scenario("mh-limits", "mh", &mixed))
        }),
        scenario("sed", "sed", &mixed),
        members(scenario("sed-members", "sed", &mixed)),
        scenario("nq", "nq", &[20, 30, 50, 10, 70, 0]),
        members(scenario("nq-members", "nq", &mixed)),
        scenario("sh", "sh", &mixed),
        members(scenario("sh-members", "sh", &mixed)),
        with("{ port = true, fallback = true }", "sh-port,sh-fallback", {
            scenario("sh-port-fallback", "sh", &mixed)
        }),
        Scenario { vips: 12, ..scenario("dh", "dh", &mixed) },
        members(Scenario { vips: 12, ..scenario("dh-members", "dh", &even) }),
        scenario("mh", "mh", &mixed),
        members(scenario("mh-members", "mh", &[10, 300, 20, 4000, 100, 0])),
        with("{ port = true, fallback = true }", "mh-port,mh-fallback", {
            scenario("mh-port-fallback", "mh", &mixed)
        }),
        scenario("fo", "fo", &[4, 9, 2, 9, 7, 0]),
        members(scenario("fo-members", "fo", &[4, 9, 2, 9, 7, 0])),
        scenario("ovf", "ovf", &[40, 90, 200, 90, 70, 0]),
        members(scenario("ovf-members", "ovf", &[40, 90, 200, 90, 70, 0])),
        by_inactive(scenario("lblc", "lblc", &[40, 90, 200, 30, 70, 0])),
        members(by_inactive(scenario("lblc-members", "lblc", &mixed))),
        by_inactive(scenario("lblcr", "lblcr", &[40, 90, 200, 30, 70, 0])),
        members(by_inactive(scenario("lblcr-members", "lblcr", &mixed))),
        relaxing(Limits::Upper, 2, scenario("rr-relaxing", "rr", &[1, 1, 1])),
        relaxing(Limits::UpperAndLower, 4, scenario("rr-lower", "rr", &[1, 1, 1])),
        relaxing(Limits::UpperAndLower, 4, scenario("wlc-lower", "wlc", &[3, 2, 4])),
        v6(scenario("rr-v6", "rr", &mixed)),
        Scenario { udp: true, ..v6(scenario("rr-udp-v6", "rr", &mixed)) },
        v6(scenario("wrr-v6", "wrr", &mixed)),
        Scenario {
            persistence: Some((300, 64)),
            ..v6(scenario("wrr-persistent-v6", "wrr", &mixed))
        },
        v6(by_inactive(scenario("lc-v6", "lc", &mixed))),
        v6(scenario("sh-v6", "sh", &mixed)),
        v6(members(scenario("sh-members-v6", "sh", &mixed))),
        with("{ port = true, fallback = true }", "sh-port,sh-fallback", {
            v6(scenario("sh-port-fallback-v6", "sh", &mixed))
        }),
        Scenario { vips: 12, ..v6(scenario("dh-v6", "dh", &mixed)) },
        v6(scenario("mh-v6", "mh", &mixed)),
        v6(members(scenario("mh-members-v6", "mh", &[10, 300, 20, 4000, 100, 0]))),
        with("{ port = true, fallback = true }", "mh-port,mh-fallback", {
            v6(scenario("mh-port-fallback-v6", "mh", &mixed))
        }),
        v6(by_inactive(scenario("lblc-v6", "lblc", &[40, 90, 200, 30, 70, 0]))),
    ]
}
