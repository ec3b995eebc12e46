//! `[service.check]` as validated: how a service's real servers are examined, and how often.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use super::durations::format_duration;
use super::snapshot::Protocol;

/// Said of checks of kind `https` in a build that has none.
pub const WITHOUT_HTTPS: &str = "this vipr was built without https";

/// How each real server of a service is checked. Times and counts are keepalived's by meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub kind: CheckKind,
    /// The VIP that is asked: of a group's, the first that the kind fits.
    pub vip: IpAddr,
    /// The L4 port to ask: the service's first, unless configured. 0 for kinds without ports.
    pub port: u16,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Further attempts before a check counts as failed.
    pub retries: u32,
    /// From a failed attempt to the next one.
    pub delay_before_retry: Duration,
    /// Checks failed in a row that take a real server out.
    pub fall: u32,
    /// Checks passed in a row that bring it back.
    pub rise: u32,
    /// The first checks of real servers are spread over this time.
    pub warmup: Duration,
    pub on_failure: OnFailure,
}

impl fmt::Display for Check {
    /// `http every 10s`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} every {}", self.kind.name(), format_duration(self.interval))
    }
}

/// What becomes of a real server whose check fails. Its connections stay in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// No new connections; persistent clients go elsewhere.
    #[default]
    Remove,
    /// keepalived's `inhibit_on_failure`: weight 0, so that persistent clients stay.
    Inhibit,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Its address answers ARP or ND.
    Arp,
    /// The VIP on it answers an echo request.
    Icmp,
    /// The handshake succeeds; then a reset.
    Tcp,
    /// A TLS server answers a ClientHello with this name in it; then a reset.
    Tls(Option<Arc<str>>),
    Http(HttpCheck),
    /// The same over TLS.
    Https(HttpsCheck),
    Udp(UdpCheck),
    Dns(DnsCheck),
    /// A command ends with status 0.
    Exec(Vec<Arc<str>>),
}

impl CheckKind {
    pub const fn name(&self) -> &'static str {
        match self {
            CheckKind::Arp => "arp",
            CheckKind::Icmp => "icmp",
            CheckKind::Tcp => "tcp",
            CheckKind::Tls(_) => "tls",
            CheckKind::Http(_) => "http",
            CheckKind::Https(_) => "https",
            CheckKind::Udp(_) => "udp",
            CheckKind::Dns(_) => "dns",
            CheckKind::Exec(_) => "exec",
        }
    }

    /// The transport it goes by, if it goes to an L4 port.
    pub const fn protocol(&self) -> Option<Protocol> {
        match self {
            CheckKind::Tcp | CheckKind::Tls(_) | CheckKind::Http(_) | CheckKind::Https(_) => {
                Some(Protocol::Tcp)
            }
            CheckKind::Udp(_) | CheckKind::Dns(_) => Some(Protocol::Udp),
            CheckKind::Arp | CheckKind::Icmp | CheckKind::Exec(_) => None,
        }
    }

    /// Whether it goes to an L4 port.
    pub const fn has_port(&self) -> bool {
        !matches!(self, CheckKind::Arp | CheckKind::Icmp | CheckKind::Exec(_))
    }
}

/// A request over HTTP/1.1, and the answer that will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub method: Arc<str>,
    pub path: Arc<str>,
    /// The `Host` field: the VIP and port unless configured.
    pub host: Arc<str>,
    /// Status codes that will do; never empty.
    pub status: Vec<StatusRange>,
    /// A text that the body must have in it.
    pub body: Option<Arc<str>>,
}

/// A request over TLS, and what is asked of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsCheck {
    pub http: HttpCheck,
    /// The server's name in the handshake and in its certificate. `None`: the VIP's address, with
    /// which no name is sent (RFC 6066, 3).
    pub server_name: Option<Arc<str>>,
    /// `None`: any certificate will do.
    pub trust: Option<Trust>,
}

/// Who may have signed a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The file that says so.
    pub path: Arc<str>,
    /// What it says, certificates in PEM; empty, and so trusting nobody, until
    /// [`Snapshot::take_in_files`](super::Snapshot::take_in_files).
    pub pem: Arc<str>,
}

/// Status codes `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

impl StatusRange {
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(formatter, "{}", self.first),
            false => write!(formatter, "{}-{}", self.first, self.last),
        }
    }
}

/// A datagram, and what must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpCheck {
    pub send: Arc<[u8]>,
    /// What the answer must have in it. `None`: any answer will do.
    pub expect: Option<Arc<[u8]>>,
}

/// A DNS question, and the response code that will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCheck {
    /// Labels separated by dots, without a dot at the end; empty for the root.
    pub name: Arc<str>,
    pub record: DnsRecord,
    /// The response code expected (RFC 1035, 4.1.1): 0 is NOERROR.
    pub rcode: u8,
}

macro_rules! dns_records {
    ($($variant:ident = $number:literal $name:literal,)+) => {
        /// A type of DNS record that can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DnsRecord {
            $($variant,)+
        }

        impl DnsRecord {
            pub const ALL: &'static [DnsRecord] = &[$(DnsRecord::$variant,)+];

            /// As in a zone file.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DnsRecord::$variant => $name,)+
                }
            }

            /// As on the wire (RFC 1035, 3.2.2; RFC 3596; RFC 2782).
            pub const fn number(self) -> u16 {
                match self {
                    $(DnsRecord::$variant => $number,)+
                }
            }
        }
    };
}

dns_records! {
    A = 1 "A",
    Ns = 2 "NS",
    Cname = 5 "CNAME",
    Soa = 6 "SOA",
    Ptr = 12 "PTR",
    Mx = 15 "MX",
    Txt = 16 "TXT",
    Aaaa = 28 "AAAA",
    Srv = 33 "SRV",
}

/// Response codes and their names (RFC 1035, 4.1.1).
pub const DNS_RCODES: [(&str, u8); 6] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
];
