//! The validated configuration, as the core reads it. Immutable; a reload makes a new one.
//!
//! Whoever holds a `Snapshot` may rely on what validation promises:
//! names are unique and not empty; every real server's segment exists and has a backend role;
//! MAC addresses are stations' (neither groups nor zero); no VIP is a RIP or a DIP; no two
//! services claim the same VIP, protocol and port with equal precision.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::check::{Check, CheckKind, HttpsCheck, Trust};

mod segment;
mod service;

pub use self::segment::{Attach, AttachKind, Defend, OffloadMode, Role, Segment, Sockets, Uplink};
pub use self::service::{
    Endpoint, MH_TABLE_SIZES, OnRemoval, Persistence, PortRange, Ports, Protocol, RealServer,
    SchedulerKind, SchedulerOptions, Service, endpoints,
};

/// Everything the TOML file says, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub router: Router,
    pub announce: Announce,
    pub timeouts: Timeouts,
    /// In the order of the file.
    pub segments: Vec<Segment>,
    /// In the order of the file.
    pub services: Vec<Arc<Service>>,
}

impl Snapshot {
    /// Makes this snapshot and an earlier one share the services and real servers they have in
    /// common, so that who compares them can tell at a glance.
    pub fn share(&mut self, earlier: &Snapshot) {
        let known: HashMap<&[Endpoint], &Arc<Service>> =
            earlier.services.iter().map(|service| (&*service.listen, service)).collect();
        for service in &mut self.services {
            let Some(&same) = known.get(&*service.listen) else { continue };
            if same == service {
                *service = Arc::clone(same);
            } else if let Some(service) = Arc::get_mut(service) {
                service.share(same);
            }
        }
    }

    /// Whether its text names files, so that the same text may mean something else later.
    pub fn names_files(&self) -> bool {
        let trusts = |check: &Check| {
            matches!(&check.kind, CheckKind::Https(HttpsCheck { trust: Some(_), .. }))
        };
        self.services.iter().any(|service| service.check.as_deref().is_some_and(trusts))
    }

    /// Takes in the files that it names, each once, as `read` gives their text. A snapshot that is to
    /// be run needs this.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn take_in_files(
        &mut self,
        mut read: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        let mut known: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        for service in &mut self.services {
            let Some(check) = &service.check else { continue };
            let CheckKind::Https(HttpsCheck { trust: Some(Trust { path, .. }), .. }) = &check.kind
            else {
                continue;
            };
            let path = Arc::clone(path);
            let text = match known.get(&path) {
                Some(text) => Arc::clone(text),
                None => read(&path)
                    .map_err(|error| format!("service {}: ca {path}: {error}", service.name))?
                    .into(),
            };
            let check = Arc::make_mut(service).check.as_mut().map(Arc::make_mut);
            if let Some(CheckKind::Https(HttpsCheck { trust: Some(trust), .. })) =
                check.map(|check| &mut check.kind)
            {
                trust.pem = Arc::clone(&text);
            }
            known.insert(path, text);
        }
        Ok(())
    }
}

/// `[router]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    pub name: Arc<str>,
    pub control_socket: PathBuf,
    /// Where Prometheus text is served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The capacity of the connection table.
    pub connections_max: u32,
    pub unmatched: Unmatched,
    /// Where a clean stop leaves the connections for the next start, if anywhere.
    pub state: Option<PathBuf>,
    /// A start takes up connections that were left at most this long ago.
    pub state_max_age: Duration,
}

/// What VIP traffic gets that belongs to no service and no connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// TCP RST, ICMP port unreachable.
    #[default]
    Reject,
    /// Nothing.
    Drop,
}

/// `[announce]`: how a VIP makes itself known (gratuitous ARP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Announcements at once when a VIP comes up.
    pub count: u8,
    /// Announcements in the second burst.
    pub repeat: u8,
    /// From the first burst to the second.
    pub repeat_after: Duration,
    /// One announcement a VIP segment this often, so that no bridge forgets the director's MAC.
    /// Zero: never.
    pub refresh: Duration,
}

impl Default for Announce {
    /// keepalived's 5 + 5 after 5 s. A bridge forgets a silent station after 300 s, so 60 s.
    fn default() -> Announce {
        Announce {
            count: 5,
            repeat: 5,
            repeat_after: Duration::from_secs(5),
            refresh: Duration::from_secs(60),
        }
    }
}

/// `[timeouts]`: how long an idle connection is kept, by state. Defaults are IPVS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp_none: Duration,
    pub tcp_established: Duration,
    pub tcp_syn_sent: Duration,
    pub tcp_syn_recv: Duration,
    pub tcp_fin_wait: Duration,
    pub tcp_time_wait: Duration,
    pub tcp_close: Duration,
    pub tcp_close_wait: Duration,
    pub tcp_last_ack: Duration,
    pub tcp_listen: Duration,
    pub tcp_synack: Duration,
    pub udp: Duration,
    pub sctp_none: Duration,
    pub sctp_init1: Duration,
    pub sctp_init: Duration,
    pub sctp_cookie_sent: Duration,
    pub sctp_cookie_replied: Duration,
    pub sctp_cookie_wait: Duration,
    pub sctp_cookie: Duration,
    pub sctp_cookie_echoed: Duration,
    pub sctp_established: Duration,
    pub sctp_shutdown_sent: Duration,
    pub sctp_shutdown_received: Duration,
    pub sctp_shutdown_ack_sent: Duration,
    pub sctp_rejected: Duration,
    pub sctp_closed: Duration,
}

impl Timeouts {
    /// Each timeout with its key in the configuration.
    pub fn by_name(&self) -> [(&'static str, Duration); 26] {
        [
            ("tcp_none", self.tcp_none),
            ("tcp_established", self.tcp_established),
            ("tcp_syn_sent", self.tcp_syn_sent),
            ("tcp_syn_recv", self.tcp_syn_recv),
            ("tcp_fin_wait", self.tcp_fin_wait),
            ("tcp_time_wait", self.tcp_time_wait),
            ("tcp_close", self.tcp_close),
            ("tcp_close_wait", self.tcp_close_wait),
            ("tcp_last_ack", self.tcp_last_ack),
            ("tcp_listen", self.tcp_listen),
            ("tcp_synack", self.tcp_synack),
            ("udp", self.udp),
            ("sctp_none", self.sctp_none),
            ("sctp_init1", self.sctp_init1),
            ("sctp_init", self.sctp_init),
            ("sctp_cookie_sent", self.sctp_cookie_sent),
            ("sctp_cookie_replied", self.sctp_cookie_replied),
            ("sctp_cookie_wait", self.sctp_cookie_wait),
            ("sctp_cookie", self.sctp_cookie),
            ("sctp_cookie_echoed", self.sctp_cookie_echoed),
            ("sctp_established", self.sctp_established),
            ("sctp_shutdown_sent", self.sctp_shutdown_sent),
            ("sctp_shutdown_received", self.sctp_shutdown_received),
            ("sctp_shutdown_ack_sent", self.sctp_shutdown_ack_sent),
            ("sctp_rejected", self.sctp_rejected),
            ("sctp_closed", self.sctp_closed),
        ]
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let seconds = Duration::from_secs;
        Timeouts {
            tcp_none: seconds(2),
            tcp_established: seconds(900),
            tcp_syn_sent: seconds(120),
            tcp_syn_recv: seconds(60),
            tcp_fin_wait: seconds(120),
            tcp_time_wait: seconds(120),
            tcp_close: seconds(10),
            tcp_close_wait: seconds(60),
            tcp_last_ack: seconds(30),
            tcp_listen: seconds(120),
            tcp_synack: seconds(120),
            udp: seconds(300),
            sctp_none: seconds(2),
            sctp_init1: seconds(4),
            sctp_init: seconds(61),
            sctp_cookie_sent: seconds(61),
            sctp_cookie_replied: seconds(61),
            sctp_cookie_wait: seconds(61),
            sctp_cookie: seconds(61),
            sctp_cookie_echoed: seconds(61),
            sctp_established: seconds(900),
            sctp_shutdown_sent: seconds(61),
            sctp_shutdown_received: seconds(61),
            sctp_shutdown_ack_sent: seconds(61),
            sctp_rejected: seconds(4),
            sctp_closed: seconds(61),
        }
    }
}
