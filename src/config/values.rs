//! Reading one value: addresses, names, durations, choices.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use toml::de::DeValue;

use super::diagnostics::{Mistake, quoted};
use super::durations::parse_duration;
use super::section::{Value, nearest};
use super::snapshot::{
    AttachKind, Defend, OffloadMode, OnRemoval, Protocol, Role, SchedulerKind, Unmatched, Uplink,
};
use crate::wire::MacAddr;
use crate::wire::vlan::TagKind;

/// Names of routers, services and real servers: they fill columns and lines of logs.
pub(super) const NAME_BYTES_MAX: usize = 128;

/// Names of segments: they become names of files (`replay --out-dir`).
pub(super) const SEGMENT_NAME_BYTES_MAX: usize = 64;

/// IFNAMSIZ of linux/if.h, less the NUL.
pub(super) const DEVICE_NAME_BYTES_MAX: usize = 15;

/// `sun_path` of unix(7) has 108 bytes, the NUL included.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// No timeout or interval is longer than 31 days.
pub const DURATION_MAX: Duration = Duration::from_secs(31 * 86_400);

/// A name for people: any printable text.
pub(super) fn name(value: Value<'_>) -> Result<Arc<str>, Mistake> {
    let text = value.string("expected a name in quotation marks")?;
    let expected = format!("expected 1 to {NAME_BYTES_MAX} bytes of printable text");
    if text.is_empty() {
        return Err(value.mistake("is empty").expected(expected).help("remove it for the default"));
    }
    if text.len() > NAME_BYTES_MAX {
        let what = format!("is {} bytes long", text.len());
        return Err(value.mistake(what).expected(expected).help("shorten it"));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(value
            .mistake(format_args!("has a control character or outer space: {}", quoted(text)))
            .expected(expected)
            .help("remove it"));
    }
    Ok(text.into())
}

/// What is wrong with the name of a segment, if anything.
pub(super) fn segment_name_fault(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=SEGMENT_NAME_BYTES_MAX).contains(&text.len());
    let fine = fits && text.bytes().all(plain) && !text.starts_with('.');
    (!fine).then(|| format!("{} cannot be the name of a segment", quoted(text)))
}

/// The name of a network device, as Linux would accept it (`dev_valid_name`); `%` is refused too,
/// because a TAP's name with `%d` in it is a pattern.
pub(super) fn device(value: Value<'_>) -> Result<Arc<str>, Mistake> {
    let text = value.string("expected the name of a device in quotation marks")?;
    let expected = format!("expected 1 to {DEVICE_NAME_BYTES_MAX} bytes");
    if text.is_empty() {
        return Err(value.mistake("is empty").expected(expected).help("name the device"));
    }
    if text.len() > DEVICE_NAME_BYTES_MAX {
        return Err(value
            .mistake(format_args!("is {} bytes long: {}", text.len(), quoted(text)))
            .expected(expected)
            .help("Linux allows no longer name for a device: shorten it"));
    }
    let bad = |char: char| !char.is_ascii_graphic() || matches!(char, '/' | ':' | '%');
    if text.contains(bad) || matches!(text, "." | "..") {
        return Err(value
            .mistake(format_args!("is not a name of a device: {}", quoted(text)))
            .expected("expected letters, digits, - _ .")
            .help("spaces, `/`, `:` and `%` cannot be part of it"));
    }
    Ok(text.into())
}

/// A network card: its name, or its MAC address.
pub(super) fn uplink(value: Value<'_>) -> Result<Uplink, Mistake> {
    let text = value.string("expected the name or MAC address of a card in quotation marks")?;
    // No device has a name with a colon.
    if text.contains(':') { mac(value).map(Uplink::Mac) } else { device(value).map(Uplink::Name) }
}

/// Where the control socket is.
pub(super) fn socket_path(value: Value<'_>) -> Result<PathBuf, Mistake> {
    unix_socket(value, "remove it for the default, /run/vipr.sock").map(PathBuf::from)
}

/// Where machines and a segment meet.
pub(super) fn segment_socket(value: Value<'_>) -> Result<Arc<str>, Mistake> {
    unix_socket(value, "name a socket, as in \"/run/vipr/front.sock\"").map(Arc::from)
}

fn unix_socket<'d>(value: Value<'d>, help: &str) -> Result<&'d str, Mistake> {
    let text = value.string("expected a path in quotation marks")?;
    let expected = format!("expected 1 to {SOCKET_PATH_BYTES_MAX} bytes");
    if text.is_empty() || text.contains('\0') {
        return Err(value
            .mistake(format_args!("is not a path: {}", quoted(text)))
            .expected(expected)
            .help(help));
    }
    if text.len() > SOCKET_PATH_BYTES_MAX {
        return Err(value
            .mistake(format_args!("is {} bytes long", text.len()))
            .expected(expected)
            .help("Unix sockets allow no longer path: shorten it"));
    }
    Ok(text)
}

/// Where a file is.
pub(super) fn file_path(value: Value<'_>) -> Result<PathBuf, Mistake> {
    let text = value.string("expected a path in quotation marks")?;
    if text.is_empty() || text.contains('\0') {
        return Err(value
            .mistake(format_args!("is not a path: {}", quoted(text)))
            .expected("expected the path of a file, as in \"/var/lib/vipr/state\""));
    }
    Ok(text.into())
}

/// An address and an L4 port to listen on.
pub(super) fn socket_address(value: Value<'_>) -> Result<SocketAddr, Mistake> {
    let expected = "expected an address and a port, as in \"127.0.0.1:9469\"";
    let text = value.string(expected)?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err(value.mistake("has port 0").expected(expected).help("choose a port, as in :9469"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(value
            .mistake(format_args!("is not an address and a port: {}", quoted(text)))
            .expected(expected)
            .help("IPv6 addresses go into brackets: \"[::1]:9469\"; names are not looked up")),
    }
}

/// A station's MAC address.
pub(super) fn mac(value: Value<'_>) -> Result<MacAddr, Mistake> {
    let expected = "expected six pairs of hexadecimal digits, as in \"02:00:00:00:01:01\"";
    let text = value.string(expected)?;
    let Ok(mac) = text.parse::<MacAddr>() else {
        return Err(value
            .mistake(format_args!("is not a MAC address: {}", quoted(text)))
            .expected(expected)
            .help("separate the pairs by colons, or all by hyphens"));
    };
    if mac.is_multicast() {
        return Err(value
            .mistake(format_args!("is a group address: {mac}"))
            .expected("expected a station's address: the first byte is even")
            .help("write the MAC address of one card, as `ip link` shows it"));
    }
    if mac == MacAddr::ZERO {
        return Err(value
            .mistake(format_args!("is zero: {mac}"))
            .expected("expected a station's address")
            .help("remove the key if the address is not known"));
    }
    Ok(mac)
}

/// A literal address that a host can have.
pub(super) fn host_address(value: Value<'_>) -> Result<IpAddr, Mistake> {
    let text = value.string(EXPECTED_ADDRESS)?;
    host_address_of(value, text)
}

const EXPECTED_ADDRESS: &str = "expected an address, as in \"192.0.2.10\" or \"2001:db8::10\"";

/// The same out of a part of the value.
pub(super) fn host_address_of(value: Value<'_>, text: &str) -> Result<IpAddr, Mistake> {
    let expected = EXPECTED_ADDRESS;
    let Ok(address) = text.parse::<IpAddr>() else {
        let help = if text.contains('/') {
            "write it without a prefix length"
        } else if text.parse::<SocketAddr>().is_ok() {
            "the port belongs in the service's `ports`"
        } else if text.contains('%') {
            "write it without a zone; a real server's `segment` says where it is"
        } else {
            "addresses are literal: names are not looked up"
        };
        let what = format!("is not an address: {}", quoted(text));
        return Err(value.mistake(what).expected(expected).help(help));
    };
    match host_fault(address) {
        Some((what, help)) => Err(value
            .mistake(format_args!("is {what}: {address}"))
            .expected("expected the address of one host")
            .help(help)),
        None => Ok(address),
    }
}

/// The director's own address on a segment, with its prefix.
pub(super) fn own_address(value: Value<'_>) -> Result<IpNet, Mistake> {
    let expected = "expected an address with its prefix length, as in \"192.0.2.2/24\"";
    let text = value.string(expected)?;
    let Ok(net) = text.parse::<IpNet>() else {
        let help = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => "add the segment's prefix length, for instance /24",
            Ok(IpAddr::V6(_)) => "add the segment's prefix length, for instance /64",
            Err(_) => "addresses are literal: names are not looked up",
        };
        let what = format!("is not an address with its prefix length: {}", quoted(text));
        return Err(value.mistake(what).expected(expected).help(help));
    };
    let host = "expected the director's own address, not its network's";
    if let Some((what, help)) = host_fault(net.addr()) {
        return Err(value.mistake(format_args!("is {what}: {net}")).expected(host).help(help));
    }
    match reserved_in(&net, net.addr()) {
        Some(what) => Err(value
            .mistake(format_args!("is {what}: {net}"))
            .expected(host)
            .help("write an address out of the network that nothing else has")),
        None => Ok(net),
    }
}

/// Why no host can have this address, and what to do about it.
fn host_fault(address: IpAddr) -> Option<(&'static str, &'static str)> {
    let write_own = "write the address that clients or the director reach it by";
    if address.is_unspecified() {
        Some(("the unspecified address", write_own))
    } else if address.is_multicast() {
        Some(("a multicast address", "balancing multicast is not possible"))
    } else if address.is_loopback() {
        Some(("a loopback address", write_own))
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some(("the broadcast address", write_own))
    } else if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        Some(("an IPv4-mapped address", "write the IPv4 address itself, as in \"192.0.2.10\""))
    } else {
        None
    }
}

/// What `address` means in `net` if it is no host's there: the network itself (RFC 1122, section
/// 3.2.1.3; in IPv6 the routers' anycast address, RFC 4291, section 2.6.1), or its broadcast
/// address. Networks of one or two addresses have neither (RFC 3021, RFC 6164).
pub(super) fn reserved_in(net: &IpNet, address: IpAddr) -> Option<&'static str> {
    if net.max_prefix_len() - net.prefix_len() < 2 || !net.contains(&address) {
        None
    } else if address == net.network() {
        Some("the address of the network")
    } else if address.is_ipv4() && address == net.broadcast() {
        Some("the broadcast address of the network")
    } else {
        None
    }
}

/// A time: a whole number of seconds, or a text as in `"5m"`. Zero only where `zero` allows it.
pub(super) fn duration(value: Value<'_>, zero: bool) -> Result<Duration, Mistake> {
    let expected = "expected seconds, or a time as in \"5m\", \"1h30m\", \"250ms\"";
    let duration = match value.value {
        DeValue::String(text) => parse_duration(text).ok_or_else(|| {
            value
                .mistake(format_args!("is not a time: {}", quoted(text)))
                .expected(expected)
                .help("units are d, h, m, s and ms, the longest first, without spaces")
        })?,
        DeValue::Integer(integer) => {
            let seconds = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
            seconds.map(Duration::from_secs).ok_or_else(|| {
                value.mistake(format_args!("is out of range: {integer}")).expected(expected)
            })?
        }
        _ => return Err(value.wrong_kind(expected)),
    };
    if duration > DURATION_MAX {
        let what = "is longer than 31 days";
        return Err(value.mistake(what).expected("expected at most \"31d\"").help("shorten it"));
    }
    if duration.is_zero() && !zero {
        return Err(value
            .mistake("is zero")
            .expected("expected a time longer than zero")
            .help("remove it for the default"));
    }
    Ok(duration)
}

/// `role`.
pub(super) fn role(value: Value<'_>) -> Result<Role, Mistake> {
    choice(value, &[("vip", Role::Vip), ("backend", Role::Backend), ("both", Role::Both)])
}

/// `defend`.
pub(super) fn defend(value: Value<'_>) -> Result<Defend, Mistake> {
    choice(value, &Defend::ALL.map(|defend| (defend.name(), defend)))
}

/// `attach`.
pub(super) fn attach(value: Value<'_>) -> Result<AttachKind, Mistake> {
    choice(value, &AttachKind::ALL.map(|kind| (kind.name(), kind)))
}

/// `offload`.
pub(super) fn offload(value: Value<'_>) -> Result<OffloadMode, Mistake> {
    choice(value, &[("auto", OffloadMode::Auto), ("off", OffloadMode::Off)])
}

/// `unmatched`.
pub(super) fn unmatched(value: Value<'_>) -> Result<Unmatched, Mistake> {
    choice(value, &[("reject", Unmatched::Reject), ("drop", Unmatched::Drop)])
}

/// `on_removal`.
pub(super) fn on_removal(value: Value<'_>) -> Result<OnRemoval, Mistake> {
    choice(value, &[("drain", OnRemoval::Drain), ("reset", OnRemoval::Reset)])
}

/// `protocol` of a VLAN.
pub(super) fn tag_kind(value: Value<'_>) -> Result<TagKind, Mistake> {
    let kinds = [TagKind::Customer, TagKind::Service];
    choice(value, &kinds.map(|kind| (kind.name(), kind)))
}

/// `protocol`.
pub(super) fn protocol(value: Value<'_>) -> Result<Protocol, Mistake> {
    choice(value, &PROTOCOLS)
}

/// The same out of a part of the value.
pub(super) fn protocol_of(value: Value<'_>, text: &str) -> Result<Protocol, Mistake> {
    choice_of(value, text, &PROTOCOLS)
}

const PROTOCOLS: [(&str, Protocol); 3] =
    [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];

/// `scheduler`.
pub(super) fn scheduler(value: Value<'_>) -> Result<SchedulerKind, Mistake> {
    choice(value, &SchedulerKind::ALL.map(|kind| (kind.name(), kind)))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    value: Value<'_>,
    choices: &[(&'static str, T)],
) -> Result<T, Mistake> {
    let text = value.string(&one_of(choices))?;
    choice_of(value, text, choices)
}

fn one_of<T>(choices: &[(&'static str, T)]) -> String {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    format!("expected one of: {}", names.join(", "))
}

fn choice_of<T: Copy>(
    value: Value<'_>,
    text: &str,
    choices: &[(&'static str, T)],
) -> Result<T, Mistake> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let expected = one_of(choices);
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let help = match nearest(text, &names) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("write one of: {}", names.join(", ")),
    };
    Err(value.mistake(format_args!("cannot be {}", quoted(text))).expected(expected).help(help))
}
