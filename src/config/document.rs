//! The document as a person writes it: every table with its keys, each value read by itself.
//!
//! What one value can get wrong is reported here; what values get wrong together, in
//! [`super::validate`]. A value that is missing or wrong is a [`Reported`](super::diagnostics)
//! in its place, so that the checks can go on with the others.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::attach::Attachment;
use super::checks::{CHECK, CheckSection};
use super::diagnostics::{Mistake, Mistakes, Read, Span, quoted};
use super::section::{At, List, Schema, Section, Value};
use super::snapshot::{
    Announce, Defend, MH_TABLE_SIZES, OffloadMode, OnRemoval, Ports, Protocol, Role, SchedulerKind,
    Timeouts, Unmatched,
};
use super::{ports, values};
use crate::wire::MacAddr;
use crate::wire::vlan::{TagKind, VLAN_MAX, Vlan};

/// Entries of the connection table: 16 Mi of at most 128 bytes are 2 GiB.
pub const CONNECTIONS_MAX_MAX: u32 = 1 << 24;
/// IPVS's largest weight.
pub const WEIGHT_MAX: u32 = 65_535;
/// RFC 791: every module must be able to forward 68 bytes.
pub const MTU_MIN: u16 = 68;
/// The largest MTU Linux gives a TAP: 65,535 less the Ethernet header.
pub const MTU_MAX: u16 = 65_521;
/// The director's own addresses on one segment.
pub const ADDRESSES_MAX: usize = 256;
/// Further cards of one real server.
pub const VIP_MACS_MAX: usize = 64;
/// Elements of `listen`.
pub const LISTEN_MAX: usize = 64;

const ROOT: Schema = Schema {
    header: "the file",
    keys: &["router", "announce", "segment", "timeouts", "service"],
    is_root: true,
};
/// How old a state file may be unless the configuration says otherwise: longer than any restart
/// takes, shorter than most clients wait.
const STATE_MAX_AGE_DEFAULT: Duration = Duration::from_secs(120);

const ROUTER: Schema = Schema {
    header: "[router]",
    keys: &[
        "name",
        "control_socket",
        "metrics",
        "connections_max",
        "unmatched",
        "state",
        "state_max_age",
    ],
    is_root: false,
};
const ANNOUNCE: Schema = Schema {
    header: "[announce]",
    keys: &["count", "repeat", "repeat_after", "refresh"],
    is_root: false,
};
const TIMEOUTS: Schema = Schema { header: "[timeouts]", keys: &TIMEOUT_KEYS, is_root: false };
const SEGMENT: Schema = Schema {
    header: "[segment.NAME]",
    keys: &[
        "role",
        "attach",
        "tap",
        "bridge",
        "uplink",
        "interface",
        "socket",
        "connect",
        "vlan",
        "offload",
        "mac",
        "mtu",
        "address",
        "defend",
        "arp_guard",
    ],
    is_root: false,
};
const VLAN: Schema = Schema { header: "vlan", keys: &["id", "protocol"], is_root: false };
const SERVICE: Schema = Schema {
    header: "[[service]]",
    keys: &[
        "name",
        "vip",
        "protocol",
        "ports",
        "listen",
        "scheduler",
        "scheduler_options",
        "persistence",
        "one_packet",
        "sloppy_tcp",
        "sloppy_sctp",
        "expire_quiescent",
        "expire_nodest",
        "quorum",
        "quorum_hysteresis",
        "on_removal",
        "syn_rescue",
        "check",
        "sorry_server",
        "real_server",
    ],
    is_root: false,
};
const LISTEN: Schema =
    Schema { header: "listen", keys: &["vip", "protocol", "ports"], is_root: false };
const PERSISTENCE: Schema =
    Schema { header: "persistence", keys: &["timeout", "netmask", "netmask_v6"], is_root: false };
const SORRY_SERVER: Schema = Schema {
    header: "[service.sorry_server]",
    keys: &["name", "address", "mac", "vip_mac", "segment"],
    is_root: false,
};
const SCHEDULER_OPTIONS: Schema = Schema {
    header: "scheduler_options",
    keys: &["port", "fallback", "table_size", "expiration"],
    is_root: false,
};
const REAL_SERVER: Schema = Schema {
    header: "[[service.real_server]]",
    keys: &[
        "name",
        "address",
        "mac",
        "vip_mac",
        "segment",
        "weight",
        "upper_threshold",
        "lower_threshold",
    ],
    is_root: false,
};

/// Every kind of table there is, for finding out where a misplaced key belongs.
pub(super) const SCHEMAS: [&Schema; 13] = [
    &ROOT,
    &ROUTER,
    &ANNOUNCE,
    &TIMEOUTS,
    &SEGMENT,
    &VLAN,
    &SERVICE,
    &LISTEN,
    &PERSISTENCE,
    &SCHEDULER_OPTIONS,
    &CHECK,
    &SORRY_SERVER,
    &REAL_SERVER,
];

/// A document, every value read by itself.
#[derive(Debug)]
pub(super) struct Document {
    pub router: RouterSection,
    pub announce: Read<Announce>,
    pub timeouts: Read<Timeouts>,
    pub segments: Vec<SegmentSection>,
    pub services: Vec<ServiceSection>,
    /// Whether [`Self::segments`] has all of them.
    pub segments_complete: Read<()>,
    /// Whether every other table could be taken for one.
    pub complete: Read<()>,
}

/// `[router]`, with its defaults.
#[derive(Debug)]
pub(super) struct RouterSection {
    pub name: Read<Arc<str>>,
    pub control_socket: Read<PathBuf>,
    pub metrics: Read<Option<SocketAddr>>,
    pub connections_max: Read<u32>,
    pub unmatched: Read<Unmatched>,
    pub state: Read<Option<PathBuf>>,
    pub state_max_age: Read<Duration>,
}

/// `[segment.NAME]`.
#[derive(Debug)]
pub(super) struct SegmentSection {
    pub name: At<Arc<str>>,
    pub role: Read<At<Role>>,
    pub attachment: Attachment,
    pub vlan: Read<Option<At<Vlan>>>,
    pub offload: Read<OffloadMode>,
    pub mac: Read<Option<At<MacAddr>>>,
    pub mtu: Read<Option<At<u16>>>,
    pub addresses: List<IpNet>,
    pub defend: Read<Option<At<Defend>>>,
    pub arp_guard: Read<Option<At<bool>>>,
}

/// `[[service]]`.
#[derive(Debug)]
pub(super) struct ServiceSection {
    pub header: Span,
    pub name: Read<Option<At<Arc<str>>>>,
    pub listen: Vec<EndpointSection>,
    /// Whether [`Self::listen`] has all of them.
    pub listen_complete: Read<()>,
    pub scheduler: Read<Option<At<SchedulerKind>>>,
    pub scheduler_options: Read<Option<SchedulerOptionsSection>>,
    pub persistence: Read<Option<PersistenceSection>>,
    pub one_packet: Read<Option<At<bool>>>,
    pub sloppy_tcp: Read<Option<At<bool>>>,
    pub sloppy_sctp: Read<Option<At<bool>>>,
    pub expire_quiescent: Read<Option<At<bool>>>,
    pub expire_nodest: Read<bool>,
    pub quorum: Read<Option<At<u32>>>,
    pub quorum_hysteresis: Read<Option<At<u32>>>,
    pub on_removal: Read<OnRemoval>,
    pub syn_rescue: Read<Option<At<bool>>>,
    pub check: Read<Option<CheckSection>>,
    pub real_servers: Vec<RealServerSection>,
    pub sorry_server: Option<RealServerSection>,
    /// Whether every real server could be taken for a table.
    pub complete: Read<()>,
}

/// An element of `listen`, or the same keys in the service itself.
#[derive(Debug)]
pub(super) struct EndpointSection {
    pub vip: Read<At<IpAddr>>,
    pub protocol: Read<At<Protocol>>,
    pub ports: Read<At<Ports>>,
}

/// `persistence = { … }`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PersistenceSection {
    pub timeout: Read<Duration>,
    pub netmask: Read<Option<At<u32>>>,
    pub netmask_v6: Read<Option<At<u32>>>,
}

/// `scheduler_options = { … }`.
#[derive(Clone, Copy, Debug)]
pub(super) struct SchedulerOptionsSection {
    pub port: Read<Option<At<bool>>>,
    pub fallback: Read<Option<At<bool>>>,
    pub table_size: Read<Option<At<u32>>>,
    pub expiration: Read<Option<At<Duration>>>,
}

/// `[[service.real_server]]`.
#[derive(Debug)]
pub(super) struct RealServerSection {
    pub header: Span,
    pub name: Read<Option<At<Arc<str>>>>,
    pub address: Read<At<IpAddr>>,
    pub mac: Read<Option<At<MacAddr>>>,
    pub vip_macs: List<MacAddr>,
    pub segment: Read<Option<At<Arc<str>>>>,
    pub weight: Read<u32>,
    pub upper_threshold: Read<u32>,
    pub lower_threshold: Read<Option<At<u32>>>,
}

impl Document {
    /// Reads the whole document.
    pub fn read(table: &DeTable<'_>, mistakes: &mut Mistakes) -> Document {
        let root = Section::of(table, Span::default(), &ROOT, None, mistakes);
        let mut complete = Ok(());
        let mut single = |key, schema, mistakes: &mut Mistakes| {
            let value = root.table.get(key)?;
            let section = Section::open(value, schema, None, mistakes);
            complete = complete.and(section.map(|_| ()));
            section.ok()
        };
        let router = single("router", &ROUTER, mistakes);
        let announce = single("announce", &ANNOUNCE, mistakes);
        let timeouts = single("timeouts", &TIMEOUTS, mistakes);

        let (segments, segments_complete) = read_segments(&root, mistakes);
        let services = root.tables("service", &SERVICE, mistakes);
        Document {
            router: RouterSection::read(router, mistakes),
            announce: read_announce(announce, mistakes),
            timeouts: read_timeouts(timeouts, mistakes),
            segments,
            services: services
                .items
                .iter()
                .map(|section| ServiceSection::read(&section.value, mistakes))
                .collect(),
            segments_complete,
            complete: complete.and(services.complete),
        }
    }
}

impl RouterSection {
    fn read(section: Option<Section<'_>>, mistakes: &mut Mistakes) -> RouterSection {
        let empty = DeTable::new();
        let section = section
            .unwrap_or_else(|| Section::of(&empty, Span::default(), &ROUTER, None, mistakes));
        let connections = |value: Value<'_>| value.number(1..=CONNECTIONS_MAX_MAX);
        RouterSection {
            name: section.defaulted("name", "vipr".into(), mistakes, values::name),
            control_socket: section.defaulted(
                "control_socket",
                "/run/vipr.sock".into(),
                mistakes,
                values::socket_path,
            ),
            metrics: section
                .optional("metrics", mistakes, values::socket_address)
                .map(|at| at.map(|at| at.value)),
            connections_max: section.defaulted("connections_max", 1 << 20, mistakes, connections),
            unmatched: section.defaulted(
                "unmatched",
                Unmatched::default(),
                mistakes,
                values::unmatched,
            ),
            state: section
                .optional("state", mistakes, values::file_path)
                .map(|at| at.map(|at| at.value)),
            state_max_age: section.defaulted(
                "state_max_age",
                STATE_MAX_AGE_DEFAULT,
                mistakes,
                |value| values::duration(value, false),
            ),
        }
    }
}

fn read_announce(section: Option<Section<'_>>, mistakes: &mut Mistakes) -> Read<Announce> {
    let default = Announce::default();
    let Some(section) = section else { return Ok(default) };
    let count = section.defaulted("count", default.count, mistakes, byte);
    let repeat = section.defaulted("repeat", default.repeat, mistakes, byte);
    let interval = |value: Value<'_>| values::duration(value, true);
    let repeat_after = section.defaulted("repeat_after", default.repeat_after, mistakes, interval);
    let refresh = section.defaulted("refresh", default.refresh, mistakes, interval);
    Ok(Announce { count: count?, repeat: repeat?, repeat_after: repeat_after?, refresh: refresh? })
}

/// A whole number that fits into a byte.
fn byte(value: Value<'_>) -> Result<u8, Mistake> {
    let number = value.number(0..=u32::from(u8::MAX))?;
    u8::try_from(number).map_err(|_| value.wrong_kind("expected a whole number from 0 to 255"))
}

/// The keys of `[timeouts]` and what they set, in one place.
macro_rules! timeouts {
    ($($key:ident)*) => {
        const TIMEOUT_KEYS: [&str; [$(stringify!($key)),*].len()] = [$(stringify!($key)),*];

        fn read_timeouts(
            section: Option<Section<'_>>,
            mistakes: &mut Mistakes,
        ) -> Read<Timeouts> {
            let default = Timeouts::default();
            let Some(section) = section else { return Ok(default) };
            let timeout = |value: Value<'_>| values::duration(value, false);
            $(let $key = section.defaulted(stringify!($key), default.$key, mistakes, timeout);)*
            Ok(Timeouts { $($key: $key?),* })
        }
    };
}

timeouts! {
    tcp_none tcp_established tcp_syn_sent tcp_syn_recv tcp_fin_wait tcp_time_wait tcp_close
    tcp_close_wait tcp_last_ack tcp_listen tcp_synack
    udp
    sctp_none sctp_init1 sctp_init sctp_cookie_sent sctp_cookie_replied sctp_cookie_wait
    sctp_cookie sctp_cookie_echoed sctp_established sctp_shutdown_sent sctp_shutdown_received
    sctp_shutdown_ack_sent sctp_rejected sctp_closed
}

/// The segments in the order of the file; the table itself is in the order of the alphabet.
fn read_segments(root: &Section<'_>, mistakes: &mut Mistakes) -> (Vec<SegmentSection>, Read<()>) {
    let Some(value) = root.value("segment") else { return (Vec::new(), Ok(())) };
    let help = "each has a name in its header, as in [segment.front]";
    let DeValue::Table(table) = value.value else {
        let mistake = value.wrong_kind("expected the table of a segment").help(help);
        return (Vec::new(), Err(mistakes.report(mistake)));
    };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut segments = Vec::with_capacity(entries.len());
    let mut complete = Ok(());
    for (name, value) in entries {
        let (text, span) = (name.get_ref(), Span::from(name.span()));
        if SEGMENT.keys.contains(&text.as_ref()) && !value.get_ref().is_table() {
            let mistake = Mistake::new(span, format!("`{text}` in a segment without a name"));
            let mistake = mistake.expected("expected [segment.NAME] above this").help(help);
            complete = Err(mistakes.report(mistake));
            continue;
        }
        if let Some(fault) = values::segment_name_fault(text) {
            let max = values::SEGMENT_NAME_BYTES_MAX;
            complete = Err(mistakes.report(
                Mistake::new(span, fault)
                    .expected(format!("expected 1 to {max} letters, digits, - _ ."))
                    .help("files of captured frames are named after segments: rename it"),
            ));
        }
        match Section::open(value, &SEGMENT, Some(text), mistakes) {
            Ok(section) => {
                let name = At { value: text.as_ref().into(), span };
                segments.push(SegmentSection::read(name, &section, mistakes));
            }
            Err(reported) => complete = Err(reported),
        }
    }
    (segments, complete)
}

impl SegmentSection {
    fn read(name: At<Arc<str>>, section: &Section<'_>, mistakes: &mut Mistakes) -> SegmentSection {
        let mtu = |value: Value<'_>| {
            let number = value.number(u32::from(MTU_MIN)..=u32::from(MTU_MAX))?;
            u16::try_from(number).map_err(|_| value.wrong_kind("expected a whole number"))
        };
        SegmentSection {
            role: section.required("role", "role = \"vip\"", mistakes, values::role),
            attachment: Attachment::read(section, mistakes),
            vlan: read_vlan(section, mistakes),
            offload: section.defaulted(
                "offload",
                OffloadMode::default(),
                mistakes,
                values::offload,
            ),
            mac: section.optional("mac", mistakes, values::mac),
            mtu: section.optional("mtu", mistakes, mtu),
            addresses: section.list("address", ADDRESSES_MAX, mistakes, values::own_address),
            defend: section.optional("defend", mistakes, values::defend),
            arp_guard: section.optional("arp_guard", mistakes, |value| value.boolean()),
            name,
        }
    }
}

/// `vlan = 10`, or `vlan = { id = 10, protocol = "802.1ad" }`.
fn read_vlan(segment: &Section<'_>, mistakes: &mut Mistakes) -> Read<Option<At<Vlan>>> {
    let Some(value) = segment.table.get("vlan") else { return Ok(None) };
    let span = value.span().into();
    let id = |value: Value<'_>| {
        let id = value.number(1..=u32::from(VLAN_MAX))?;
        u16::try_from(id).map_err(|_| value.wrong_kind("expected a whole number"))
    };
    if !value.get_ref().is_table() {
        let value = Value { key: "vlan", value: value.get_ref(), span };
        let id = id(value).map_err(|mistake| {
            mistakes.report(mistake.help("or write vlan = { id = 10, protocol = \"802.1ad\" }"))
        })?;
        return Ok(Some(At { value: Vlan { kind: TagKind::default(), id }, span }));
    }
    let section = Section::open(value, &VLAN, None, mistakes)?;
    let id = section.required("id", "id = 10", mistakes, id);
    let kind = section.defaulted("protocol", TagKind::default(), mistakes, values::tag_kind);
    Ok(Some(At { value: Vlan { kind: kind?, id: id?.value }, span }))
}

impl ServiceSection {
    fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> ServiceSection {
        let real_servers = section.tables("real_server", &REAL_SERVER, mistakes);
        let flag = |value: Value<'_>| value.boolean();
        let weights = |value: Value<'_>| value.number(1..=u32::MAX);
        let (listen, listen_complete) = read_listen(section, mistakes);
        let mut complete = real_servers.complete;
        let sorry_server = section.table.get("sorry_server").and_then(|value| {
            if !value.get_ref().is_table() {
                let span = value.span().into();
                let value = Value { key: "sorry_server", value: value.get_ref(), span };
                let mistake = value
                    .wrong_kind("expected a table with an `address`")
                    .help("write the settings under the header [service.sorry_server]");
                complete = Err(mistakes.report(mistake));
                return None;
            }
            let sorry_server = Section::open(value, &SORRY_SERVER, None, mistakes);
            complete = complete.and(sorry_server.map(|_| ()));
            sorry_server.ok().map(|section| RealServerSection::read_sorry(&section, mistakes))
        });
        ServiceSection {
            header: section.span,
            name: section.optional("name", mistakes, values::name),
            listen,
            listen_complete,
            scheduler: section.optional("scheduler", mistakes, values::scheduler),
            scheduler_options: read_scheduler_options(section, mistakes),
            persistence: read_persistence(section, mistakes),
            one_packet: section.optional("one_packet", mistakes, flag),
            sloppy_tcp: section.optional("sloppy_tcp", mistakes, flag),
            sloppy_sctp: section.optional("sloppy_sctp", mistakes, flag),
            expire_quiescent: section.optional("expire_quiescent", mistakes, flag),
            expire_nodest: section.defaulted("expire_nodest", false, mistakes, flag),
            quorum: section.optional("quorum", mistakes, weights),
            quorum_hysteresis: section
                .optional("quorum_hysteresis", mistakes, |value| value.number(0..=u32::MAX - 1)),
            on_removal: section.defaulted(
                "on_removal",
                OnRemoval::default(),
                mistakes,
                values::on_removal,
            ),
            syn_rescue: section.optional("syn_rescue", mistakes, |value| value.boolean()),
            check: CheckSection::read(section, mistakes),
            real_servers: real_servers
                .items
                .iter()
                .map(|section| RealServerSection::read(&section.value, mistakes))
                .collect(),
            sorry_server,
            complete,
        }
    }

    /// Its real servers, the sorry server behind them.
    pub fn servers(&self) -> impl Iterator<Item = &RealServerSection> {
        self.real_servers.iter().chain(&self.sorry_server)
    }
}

/// The keys that `listen` takes the place of.
const ENDPOINT_KEYS: [&str; 3] = ["vip", "protocol", "ports"];

/// What a service listens on, and whether that is all of it.
fn read_listen(service: &Section<'_>, mistakes: &mut Mistakes) -> (Vec<EndpointSection>, Read<()>) {
    let Some(value) = service.value("listen") else {
        return (vec![EndpointSection::read(service, mistakes)], Ok(()));
    };
    let mut complete = Ok(());
    for key in ENDPOINT_KEYS {
        if let Some(beside) = service.value(key) {
            let mistake = Mistake::new(beside.span, format!("`{key}` beside `listen`"))
                .expected("expected it in the elements of `listen`")
                .related(value.span, "the list")
                .help("remove it, or remove `listen`");
            complete = Err(mistakes.report(mistake));
        }
    }
    const EXAMPLE: &str = "{ vip = \"192.0.2.10\", protocol = \"tcp\", ports = [80, 443] }";
    let DeValue::Array(array) = value.value else {
        let mistake = value.wrong_kind("expected an array").help(format!("write [{EXAMPLE}]"));
        return (Vec::new(), Err(mistakes.report(mistake)));
    };
    if array.is_empty() || array.len() > LISTEN_MAX {
        let what = format!("has {} elements", array.len());
        let mistake = value.mistake(what).expected(format!("expected 1 to {LISTEN_MAX}"));
        let help = format!("each is a VIP with ports, as in {EXAMPLE}");
        return (Vec::new(), Err(mistakes.report(mistake.help(help))));
    }
    let mut listen = Vec::with_capacity(array.len());
    for element in array.iter() {
        let span = element.span().into();
        let value = Value { key: "listen", value: element.get_ref(), span };
        match value.value {
            DeValue::Table(_) => match Section::open(element, &LISTEN, None, mistakes) {
                Ok(section) => listen.push(EndpointSection::read(&section, mistakes)),
                Err(reported) => complete = Err(reported),
            },
            DeValue::String(text) => match EndpointSection::read_text(value, text, mistakes) {
                Ok(endpoint) => listen.push(endpoint),
                Err(reported) => complete = Err(reported),
            },
            _ => {
                let expected = format!("expected {EXAMPLE}, or \"192.0.2.10:80,443/tcp\"");
                complete = Err(mistakes.report(value.wrong_kind(&expected)));
            }
        }
    }
    (listen, complete)
}

impl EndpointSection {
    fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> EndpointSection {
        let address = "vip = \"192.0.2.10\"";
        let transport = "protocol = \"tcp\"";
        EndpointSection {
            vip: section.required("vip", address, mistakes, values::host_address),
            protocol: section.required("protocol", transport, mistakes, values::protocol),
            ports: match section.value("ports") {
                Some(value) => ports::ports(value, mistakes),
                None => Err(section.missing("ports", "ports = 80", mistakes)),
            },
        }
    }

    /// Reads `192.0.2.10:80,443/tcp`, as services without a name are called.
    fn read_text(value: Value<'_>, text: &str, mistakes: &mut Mistakes) -> Read<EndpointSection> {
        let parts = text.rsplit_once('/').and_then(|(place, protocol)| {
            let (vip, ports) = match place.strip_prefix('[') {
                Some(place) => place.split_once("]:")?,
                None => place.split_once(':')?,
            };
            (!ports.contains(':')).then_some((vip, ports, protocol))
        });
        let Some((vip, ports, protocol)) = parts else {
            let what = format!("is not a VIP with ports and a protocol: {}", quoted(text));
            let mistake = value.mistake(what).expected("expected \"192.0.2.10:80,443/tcp\"");
            return Err(mistakes.report(mistake.help("IPv6 addresses go into brackets")));
        };
        let span = value.span;
        let vip = values::host_address_of(value, vip);
        let protocol = values::protocol_of(value, protocol);
        Ok(EndpointSection {
            vip: vip.map(|value| At { value, span }).map_err(|m| mistakes.report(m)),
            protocol: protocol.map(|value| At { value, span }).map_err(|m| mistakes.report(m)),
            ports: ports::text_ports(value, ports, mistakes),
        })
    }
}

/// IPVS's default persistence.
const PERSISTENCE_TIMEOUT: Duration = Duration::from_secs(300);

fn read_persistence(
    service: &Section<'_>,
    mistakes: &mut Mistakes,
) -> Read<Option<PersistenceSection>> {
    let Some(value) = service.table.get("persistence") else { return Ok(None) };
    if !value.get_ref().is_table() {
        let value = Value { key: "persistence", value: value.get_ref(), span: value.span().into() };
        let example = "{ timeout = \"5m\", netmask = 24 }";
        return Err(mistakes.report(
            value
                .wrong_kind(&format!("expected {example}"))
                .help(format!("write persistence = {example}; each of them has a default")),
        ));
    }
    let section = Section::open(value, &PERSISTENCE, None, mistakes)?;
    Ok(Some(PersistenceSection {
        timeout: section.defaulted("timeout", PERSISTENCE_TIMEOUT, mistakes, |value| {
            let timeout = values::duration(value, true)?;
            if timeout.is_zero() {
                return Err(value
                    .mistake("of a persistence is zero")
                    .expected("expected a time longer than zero")
                    .help("remove `persistence` if clients need not stay with a real server"));
            }
            Ok(timeout)
        }),
        netmask: section.optional("netmask", mistakes, |value| value.number(1..=128)),
        netmask_v6: section.optional("netmask_v6", mistakes, |value| value.number(1..=128)),
    }))
}

fn read_scheduler_options(
    service: &Section<'_>,
    mistakes: &mut Mistakes,
) -> Read<Option<SchedulerOptionsSection>> {
    let Some(value) = service.table.get("scheduler_options") else { return Ok(None) };
    if !value.get_ref().is_table() {
        let (key, span) = ("scheduler_options", value.span().into());
        let value = Value { key, value: value.get_ref(), span };
        let example = "{ fallback = true }";
        return Err(mistakes.report(
            value
                .wrong_kind(&format!("expected a table, as in {example}"))
                .help("sh has port and fallback; mh also table_size; lblc and lblcr expiration"),
        ));
    }
    let section = Section::open(value, &SCHEDULER_OPTIONS, None, mistakes)?;
    let table_size = |value: Value<'_>| {
        let size = value.number(0..=u32::MAX)?;
        if MH_TABLE_SIZES.contains(&size) {
            return Ok(size);
        }
        let sizes = MH_TABLE_SIZES.map(|size| size.to_string()).join(", ");
        Err(value
            .mistake(format_args!("cannot be {size}"))
            .expected(format!("expected one of: {sizes}"))
            .help("a hundred slots for each real server spread clients within a few per cent"))
    };
    Ok(Some(SchedulerOptionsSection {
        port: section.optional("port", mistakes, |value| value.boolean()),
        fallback: section.optional("fallback", mistakes, |value| value.boolean()),
        table_size: section.optional("table_size", mistakes, table_size),
        expiration: section
            .optional("expiration", mistakes, |value| values::duration(value, false)),
    }))
}

impl RealServerSection {
    /// A sorry server has neither weight nor thresholds.
    fn read_sorry(section: &Section<'_>, mistakes: &mut Mistakes) -> RealServerSection {
        RealServerSection {
            header: section.span,
            name: section.optional("name", mistakes, values::name),
            address: section.required(
                "address",
                "address = \"10.0.0.99\"",
                mistakes,
                values::host_address,
            ),
            mac: section.optional("mac", mistakes, values::mac),
            vip_macs: section.list("vip_mac", VIP_MACS_MAX, mistakes, values::mac),
            segment: section.optional("segment", mistakes, segment_of),
            weight: Ok(0),
            upper_threshold: Ok(0),
            lower_threshold: Ok(None),
        }
    }

    fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> RealServerSection {
        let threshold = |value: Value<'_>| value.number(0..=CONNECTIONS_MAX_MAX);
        RealServerSection {
            header: section.span,
            name: section.optional("name", mistakes, values::name),
            address: section.required(
                "address",
                "address = \"10.0.0.11\"",
                mistakes,
                values::host_address,
            ),
            mac: section.optional("mac", mistakes, values::mac),
            vip_macs: section.list("vip_mac", VIP_MACS_MAX, mistakes, values::mac),
            segment: section.optional("segment", mistakes, segment_of),
            weight: section.defaulted("weight", 1, mistakes, |value| value.number(0..=WEIGHT_MAX)),
            upper_threshold: section.defaulted("upper_threshold", 0, mistakes, threshold),
            lower_threshold: section.optional("lower_threshold", mistakes, threshold),
        }
    }
}

/// The name of the segment a real server is on.
fn segment_of(value: Value<'_>) -> Result<Arc<str>, Mistake> {
    value.string("expected the name of a segment, as in \"back\"").map(Arc::from)
}
