//! Reading `[service.check]`: its keys, each by itself, and which kinds have them.

use core::time::Duration;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::check::{
    CheckKind, DNS_RCODES, DnsCheck, DnsRecord, HttpCheck, HttpsCheck, OnFailure, StatusRange,
    Trust, UdpCheck, WITHOUT_HTTPS,
};
use super::diagnostics::{Mistake, Mistakes, Read, quoted};
use super::section::{At, Schema, Section, Value};
use super::values;

/// Bytes of a path, a host name, a text to look for, a datagram.
const TEXT_BYTES_MAX: usize = 1024;
/// Arguments of a command, the command itself included.
const ARGUMENTS_MAX: usize = 64;
/// Attempts after the first, and checks in a row.
const COUNT_MAX: u32 = 100;

pub(super) const CHECK: Schema = Schema {
    header: "[service.check]",
    keys: &[
        "kind",
        "port",
        "interval",
        "timeout",
        "retries",
        "delay_before_retry",
        "fall",
        "rise",
        "warmup",
        "on_failure",
        "server_name",
        "verify",
        "ca",
        "method",
        "path",
        "host",
        "status",
        "body",
        "send",
        "expect",
        "query",
        "record",
        "rcode",
        "command",
    ],
    is_root: false,
};

/// Keys that only some kinds have.
const KEYS_OF_KINDS: &[(&str, &[&str])] = &[
    ("port", &["tcp", "tls", "http", "https", "udp", "dns"]),
    ("server_name", &["tls", "https"]),
    ("verify", &["https"]),
    ("ca", &["https"]),
    ("method", &["http", "https"]),
    ("path", &["http", "https"]),
    ("host", &["http", "https"]),
    ("status", &["http", "https"]),
    ("body", &["http", "https"]),
    ("send", &["udp"]),
    ("expect", &["udp"]),
    ("query", &["dns"]),
    ("record", &["dns"]),
    ("rcode", &["dns"]),
    ("command", &["exec"]),
];

/// `[service.check]`, every key read by itself.
#[derive(Debug)]
pub(super) struct CheckSection {
    /// The kind with its own keys; `host` is empty where it is not configured.
    pub kind: Read<At<CheckKind>>,
    pub port: Read<Option<At<u16>>>,
    pub interval: Read<Duration>,
    pub timeout: Read<Duration>,
    pub retries: Read<Option<u32>>,
    pub delay_before_retry: Read<Option<Duration>>,
    pub fall: Read<u32>,
    pub rise: Read<u32>,
    pub warmup: Read<Option<Duration>>,
    pub on_failure: Read<OnFailure>,
}

/// keepalived's is a minute, for which clients would meet a dead real server.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// keepalived's `connect_timeout`.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

impl CheckSection {
    /// The check of a service, if it has one.
    pub fn read(service: &Section<'_>, mistakes: &mut Mistakes) -> Read<Option<CheckSection>> {
        let Some(value) = service.table.get("check") else { return Ok(None) };
        if !value.get_ref().is_table() {
            let span = value.span().into();
            let value = Value { key: "check", value: value.get_ref(), span };
            let mistake = value
                .wrong_kind("expected the table [service.check]")
                .help("write the settings under the header [service.check]");
            return Err(mistakes.report(mistake));
        }
        let section = Section::open(value, &CHECK, None, mistakes)?;
        let count = |value: Value<'_>| value.number(1..=COUNT_MAX);
        let duration = |value: Value<'_>| values::duration(value, false);
        let some = |read: Read<Option<At<u32>>>| read.map(|at| at.map(|at| at.value));
        Ok(Some(CheckSection {
            kind: read_kind(&section, mistakes),
            port: section.optional("port", mistakes, |value| {
                let number = value.number(1..=u32::from(u16::MAX))?;
                u16::try_from(number).map_err(|_| value.wrong_kind("expected a port"))
            }),
            interval: section.defaulted("interval", INTERVAL_DEFAULT, mistakes, duration),
            timeout: section.defaulted("timeout", TIMEOUT_DEFAULT, mistakes, duration),
            retries: some(
                section.optional("retries", mistakes, |value| value.number(0..=COUNT_MAX)),
            ),
            delay_before_retry: section
                .optional("delay_before_retry", mistakes, |value| values::duration(value, true))
                .map(|at| at.map(|at| at.value)),
            fall: section.defaulted("fall", 1, mistakes, count),
            rise: section.defaulted("rise", 1, mistakes, count),
            warmup: section
                .optional("warmup", mistakes, |value| values::duration(value, true))
                .map(|at| at.map(|at| at.value)),
            on_failure: section.defaulted("on_failure", OnFailure::default(), mistakes, |value| {
                let choices = [("remove", OnFailure::Remove), ("inhibit", OnFailure::Inhibit)];
                values::choice(value, &choices)
            }),
        }))
    }
}

fn read_kind(section: &Section<'_>, mistakes: &mut Mistakes) -> Read<At<CheckKind>> {
    const KINDS: [&str; 9] = ["arp", "icmp", "tcp", "tls", "http", "https", "udp", "dns", "exec"];
    let example = "kind = \"http\"";
    let kind = section.required("kind", example, mistakes, |value| {
        let kind = values::choice(value, &KINDS.map(|kind| (kind, kind)))?;
        match kind == "https" && !cfg!(feature = "https") {
            true => Err(value
                .mistake(format_args!("cannot be \"https\": {WITHOUT_HTTPS}"))
                .expected("expected another kind, or a vipr built with the feature https")
                .help("tls sees whether a TLS server answers")),
            false => Ok(kind),
        }
    })?;
    let stray = check_keys(section.table, kind, mistakes);
    let read = match kind.value {
        "arp" => Ok(CheckKind::Arp),
        "icmp" => Ok(CheckKind::Icmp),
        "tcp" => Ok(CheckKind::Tcp),
        "tls" => section
            .optional("server_name", mistakes, host_name)
            .map(|at| CheckKind::Tls(at.map(|at| at.value))),
        "http" => read_http(section, mistakes).map(CheckKind::Http),
        "https" => read_https(section, mistakes).map(CheckKind::Https),
        "udp" => read_udp(section, mistakes).map(CheckKind::Udp),
        "dns" => read_dns(section, mistakes).map(CheckKind::Dns),
        _ => read_command(section, mistakes).map(CheckKind::Exec),
    };
    stray.and(read).map(|value| At { value, span: kind.span })
}

/// Reports keys of other kinds.
fn check_keys(table: &DeTable<'_>, kind: At<&str>, mistakes: &mut Mistakes) -> Read<()> {
    let mut complete = Ok(());
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        let Some((_, kinds)) = KEYS_OF_KINDS.iter().find(|(of_some, _)| *of_some == name) else {
            continue;
        };
        if !kinds.contains(&kind.value) {
            let mistake =
                Mistake::new(key.span(), format!("`{name}` on a check of kind {}", kind.value))
                    .expected(format!("expected it only with kind = {}", quoted_list(kinds)))
                    .related(kind.span, "the kind")
                    .help("remove it, or change the kind");
            complete = Err(mistakes.report(mistake));
        }
    }
    complete
}

fn quoted_list(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")
}

/// What a certificate can be for: no address (RFC 6066, 3).
fn host_name(value: Value<'_>) -> Result<Arc<str>, Mistake> {
    let expected = "expected a host name, as in \"www.example.org\"";
    let text = value.string(expected)?;
    match is_host_name(text) {
        true => Ok(text.into()),
        false => Err(value
            .mistake(format_args!("is not a host name: {}", quoted(text)))
            .expected(expected)
            .help("without it none is asked for")),
    }
}

/// Labels of letters, digits and hyphens, and not an address.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= 253 && text.split('.').all(is_label) && text.parse::<core::net::IpAddr>().is_err()
}

fn read_http(section: &Section<'_>, mistakes: &mut Mistakes) -> Read<HttpCheck> {
    let method = section.defaulted("method", "GET".into(), mistakes, |value| {
        let text = value.string("expected a method, as in \"GET\"")?;
        let fine = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase());
        match fine {
            true => Ok(text.into()),
            false => Err(value
                .mistake(format_args!("is not a method: {}", quoted(text)))
                .expected("expected capital letters, as in \"GET\" or \"HEAD\"")),
        }
    });
    let path = section.defaulted("path", "/".into(), mistakes, |value| {
        let text = visible(value, "a path, as in \"/health\"")?;
        match text.starts_with('/') {
            true => Ok(text.into()),
            false => Err(value
                .mistake(format_args!("does not begin with a slash: {}", quoted(text)))
                .expected("expected a path, as in \"/health\"")),
        }
    });
    let host = section.defaulted("host", "".into(), mistakes, |value| {
        visible(value, "a host name, as in \"www.example.org\"").map(Arc::from)
    });
    let status = read_status(section, mistakes);
    let body = section.optional("body", mistakes, |value| {
        let text = value.string("expected a text that the body has in it")?;
        bounded(value, text.len())?;
        Ok(text.into())
    });
    let body = body.map(|at| at.map(|at| at.value));
    Ok(HttpCheck { method: method?, path: path?, host: host?, status: status?, body: body? })
}

fn read_https(section: &Section<'_>, mistakes: &mut Mistakes) -> Read<HttpsCheck> {
    let http = read_http(section, mistakes);
    let server_name = section.optional("server_name", mistakes, host_name);
    let verify = section.optional("verify", mistakes, |value| value.boolean());
    let ca = section.optional("ca", mistakes, |value| {
        let text = value.string("expected the path of a file with certificates")?;
        bounded(value, text.len())?;
        match text.starts_with('/') && !text.contains('\0') {
            true => Ok(Arc::<str>::from(text)),
            false => Err(value
                .mistake(format_args!("is not the path of a file: {}", quoted(text)))
                .expected("expected for instance \"/etc/ssl/certs/ca-certificates.crt\"")),
        }
    });
    let (verify, ca) = (verify?, ca?);
    let trust = match (verify, ca) {
        (Some(At { value: true, span }), None) => {
            let mistake = Mistake::new(span, "`verify` without `ca`")
                .expected("expected the file of those who may have signed the certificate")
                .help("for instance: ca = \"/etc/ssl/certs/ca-certificates.crt\"");
            return Err(mistakes.report(mistake));
        }
        (Some(At { value: false, span }), Some(ca)) => {
            let mistake = Mistake::new(span, "`verify = false` with a `ca`")
                .expected("expected one or the other: with a `ca` certificates are verified")
                .related(ca.span, "the certificates")
                .help("remove one of them");
            return Err(mistakes.report(mistake));
        }
        (_, ca) => ca.map(|at| Trust { path: at.value, pem: "".into() }),
    };
    Ok(HttpsCheck { http: http?, server_name: server_name?.map(|at| at.value), trust })
}

/// `200`, `"200-399"`, or a list of such.
fn read_status(section: &Section<'_>, mistakes: &mut Mistakes) -> Read<Vec<StatusRange>> {
    let success = StatusRange { first: 200, last: 299 };
    let Some(value) = section.value("status") else { return Ok(vec![success]) };
    if !value.value.is_array() {
        let range = read_status_range(value).map_err(|mistake| mistakes.report(mistake))?;
        return Ok(vec![range]);
    }
    let list = section.list("status", 64, mistakes, read_status_range);
    list.complete?;
    if list.items.is_empty() {
        let mistake = value.mistake("is empty").expected("expected 200, \"200-399\" or a list");
        return Err(mistakes.report(mistake));
    }
    Ok(list.items.into_iter().map(|at| at.value).collect())
}

fn read_status_range(value: Value<'_>) -> Result<StatusRange, Mistake> {
    let expected = "expected a status from 100 to 599, or a range as in \"200-399\"";
    let bad = || value.mistake("is no status").expected(expected);
    let range = match value.value {
        DeValue::Integer(_) => {
            let status = value.number(100..=599)?;
            let status = u16::try_from(status).map_err(|_| bad())?;
            StatusRange { first: status, last: status }
        }
        DeValue::String(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let number = |text: &str| text.trim().parse::<u16>().map_err(|_| bad());
            StatusRange { first: number(first)?, last: number(last)? }
        }
        _ => return Err(value.wrong_kind(expected)),
    };
    let fine = 100 <= range.first && range.first <= range.last && range.last <= 599;
    if fine { Ok(range) } else { Err(bad()) }
}

fn read_udp(section: &Section<'_>, mistakes: &mut Mistakes) -> Read<UdpCheck> {
    let send = section.required("send", "send = \"ping\"", mistakes, bytes);
    let expect = section.optional("expect", mistakes, bytes);
    Ok(UdpCheck { send: send?.value, expect: expect?.map(|at| at.value) })
}

/// A text, or with `hex:` before them pairs of digits.
fn bytes(value: Value<'_>) -> Result<Arc<[u8]>, Mistake> {
    let text = value.string("expected a text, or bytes as in \"hex:00ff\"")?;
    bounded(value, text.len())?;
    let Some(digits) = text.strip_prefix("hex:") else { return Ok(text.as_bytes().into()) };
    let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b' ').collect();
    let pair = |pair: &[u8]| {
        let text = core::str::from_utf8(pair).ok()?;
        text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(text, 16).ok())?
    };
    let read: Option<Vec<u8>> =
        if digits.len().is_multiple_of(2) { digits.chunks(2).map(pair).collect() } else { None };
    read.map(Arc::from).ok_or_else(|| {
        value
            .mistake("is not written in pairs of hexadecimal digits")
            .expected("expected for instance \"hex:00ff17\"")
    })
}

fn read_dns(section: &Section<'_>, mistakes: &mut Mistakes) -> Read<DnsCheck> {
    let name = section.required("query", "query = \"example.org\"", mistakes, domain_name);
    let record = section.defaulted("record", DnsRecord::A, mistakes, |value| {
        let choices: Vec<_> = DnsRecord::ALL.iter().map(|kind| (kind.name(), *kind)).collect();
        values::choice(value, &choices)
    });
    let rcode = section.defaulted("rcode", 0, mistakes, |value| values::choice(value, &DNS_RCODES));
    Ok(DnsCheck { name: name?.value, record: record?, rcode: rcode? })
}

/// RFC 1035, 2.3.4: labels of at most 63 bytes, 253 in all.
fn domain_name(value: Value<'_>) -> Result<Arc<str>, Mistake> {
    let expected = "expected a domain name, as in \"example.org\", or \".\"";
    let text = value.string(expected)?;
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let fine = name.len() <= 253 && (text == "." || name.split('.').all(is_label));
    match fine {
        true => Ok(name.into()),
        false => Err(value
            .mistake(format_args!("is not a domain name: {}", quoted(text)))
            .expected(expected)),
    }
}

fn read_command(section: &Section<'_>, mistakes: &mut Mistakes) -> Read<Vec<Arc<str>>> {
    let example = "command = [\"/usr/local/bin/check\", \"--fast\"]";
    let Some(value) = section.value("command") else {
        return Err(section.missing("command", example, mistakes));
    };
    let list = section.list("command", ARGUMENTS_MAX, mistakes, |value| {
        let text = value.string("expected a word of the command")?;
        bounded(value, text.len())?;
        match text.contains('\0') {
            true => Err(value.mistake("has a NUL in it").expected("expected text")),
            false => Ok(Arc::<str>::from(text)),
        }
    });
    list.complete?;
    let words: Vec<Arc<str>> = list.items.into_iter().map(|at| at.value).collect();
    match words.first() {
        Some(program) if program.starts_with('/') => Ok(words),
        _ => Err(mistakes.report(
            value
                .mistake("does not begin with the path of a program")
                .expected(format!("expected for instance {example}"))
                .help("no shell is involved; for one: [\"/bin/sh\", \"-c\", \"…\"]"),
        )),
    }
}

/// A text without spaces and control characters: it becomes part of a line of a protocol.
fn visible<'d>(value: Value<'d>, what: &str) -> Result<&'d str, Mistake> {
    let text = value.string(&format!("expected {what}"))?;
    bounded(value, text.len())?;
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text),
        false => Err(value
            .mistake(format_args!(
                "has a space or a strange character, or is empty: {}",
                quoted(text)
            ))
            .expected(format!("expected {what}"))
            .help("percent-encode what must be in it")),
    }
}

fn bounded(value: Value<'_>, len: usize) -> Result<(), Mistake> {
    match len <= TEXT_BYTES_MAX {
        true => Ok(()),
        false => Err(value
            .mistake(format_args!("is {len} bytes long"))
            .expected(format!("expected at most {TEXT_BYTES_MAX}"))),
    }
}
