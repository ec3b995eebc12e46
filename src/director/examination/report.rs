//! What an examination found: the JSON of `vipr doctor`, and what its table is made from.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What is known so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExaminationReport {
    /// Whether more is to come.
    pub running: bool,
    pub real_servers: Vec<ExaminedReport>,
    /// Claims to VIPs by nobody that is known.
    pub strangers: Vec<Finding>,
}

/// One real server of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExaminedReport {
    pub service: String,
    pub vip: IpAddr,
    pub real_server: String,
    pub address: IpAddr,
    pub segment: String,
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub item: Item,
    pub verdict: Verdict,
    /// What was seen.
    pub text: String,
    /// What to do, a line each: commands for the real server, unless it says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remedy: Vec<String>,
}

/// What is looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// Its address is answered for, by one MAC, on its segment.
    Neighbor,
    /// It does not claim the VIP.
    Hidden,
    /// The VIP is on it.
    Vip,
    /// The service answers at the VIP.
    Service,
    /// And answers clients, who ask from elsewhere.
    Clients,
    /// It takes packets as large as its segment carries.
    Mtu,
    /// A fault would be noticed, and soon.
    Checks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Fine,
    Fault,
    /// Something else must be put right first, or it cannot be told from here.
    Untested,
}

impl Item {
    /// For a table.
    pub const fn name(self) -> &'static str {
        match self {
            Item::Neighbor => "neighbor",
            Item::Hidden => "hidden",
            Item::Vip => "VIP",
            Item::Service => "service",
            Item::Clients => "clients",
            Item::Mtu => "MTU",
            Item::Checks => "checks",
        }
    }
}
