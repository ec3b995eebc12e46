//! What a check says together with its service.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::check::{Check, CheckKind, HttpCheck, HttpsCheck};
use crate::config::checks::{CheckSection, is_host_name};
use crate::config::diagnostics::{Mistake, Mistakes, Read};
use crate::config::document::{Document, EndpointSection, ServiceSection};
use crate::config::section::At;
use crate::config::snapshot::Ports;

/// keepalived's number of retries, and of the DNS checker.
const RETRIES_DEFAULT: u32 = 1;
const DNS_RETRIES_DEFAULT: u32 = 3;
/// keepalived's `delay_before_retry`, and of the HTTP and SSL checkers.
const DELAY_DEFAULT: Duration = Duration::from_secs(1);
const HTTP_DELAY_DEFAULT: Duration = Duration::from_secs(3);

/// The check of a service, its defaults filled in.
pub(super) fn build(service: &ServiceSection, mistakes: &mut Mistakes) -> Read<Option<Arc<Check>>> {
    let Some(section) = service.check.as_ref().map_err(|reported| *reported)? else {
        return Ok(None);
    };
    let kind = section.kind.clone()?.value;
    let Some(endpoint) = endpoint(service, &kind) else {
        return service.listen_complete.map(|()| None);
    };
    let port = build_port(endpoint, section, mistakes);
    let vip = endpoint.vip?.value;
    let is_http = matches!(kind, CheckKind::Http(_) | CheckKind::Https(_));
    let retries =
        if matches!(kind, CheckKind::Dns(_)) { DNS_RETRIES_DEFAULT } else { RETRIES_DEFAULT };
    let delay = if is_http { HTTP_DELAY_DEFAULT } else { DELAY_DEFAULT };
    let port = port?;
    let interval = section.interval?;
    Ok(Some(Arc::new(Check {
        kind: with_names(kind, vip, port),
        vip,
        port,
        interval,
        timeout: section.timeout?,
        retries: section.retries?.unwrap_or(retries),
        delay_before_retry: section.delay_before_retry?.unwrap_or(delay),
        fall: section.fall?,
        rise: section.rise?,
        warmup: section.warmup?.unwrap_or(interval),
        on_failure: section.on_failure?,
    })))
}

/// What of a service is asked: of a group, the first that the kind fits, else the first.
fn endpoint<'s>(service: &'s ServiceSection, kind: &CheckKind) -> Option<&'s EndpointSection> {
    let fits = |endpoint: &&EndpointSection| {
        endpoint.protocol.is_ok_and(|protocol| Some(protocol.value) == kind.protocol())
    };
    service.listen.iter().find(fits).or_else(|| service.listen.first())
}

/// Real servers are asked from the director's own address on their segment.
pub(super) fn check_sources(
    document: &Document,
    service: &ServiceSection,
    places: &[Read<Arc<str>>],
    mistakes: &mut Mistakes,
) {
    let Ok(Some(section)) = &service.check else { return };
    let Ok(kind) = &section.kind else { return };
    let Some(Ok(vip)) = endpoint(service, &kind.value).map(|endpoint| endpoint.vip) else { return };
    if matches!(kind.value, CheckKind::Arp | CheckKind::Exec(_)) {
        return;
    }
    for place in places.iter().flatten() {
        let segment = document.segments.iter().find(|segment| segment.name.value == *place);
        let Some(segment) = segment else { continue };
        let family = if vip.value.is_ipv4() { "IPv4" } else { "IPv6" };
        let addresses = &segment.addresses;
        let fits = |own: &At<IpNet>| own.value.addr().is_ipv4() == vip.value.is_ipv4();
        if addresses.complete.is_ok() && !addresses.items.iter().any(fits) {
            let message = format!("a check of kind {} on segment `{place}`", kind.value.name());
            let mistake = Mistake::new(kind.span, message)
                .expected(format!(
                    "expected an {family} `address` of the director's there to ask from"
                ))
                .related(segment.name.span, "the segment")
                .help("add one, or use kind = \"arp\"");
            mistakes.report(mistake);
            return;
        }
    }
}

/// The port that is asked: the configured one, else the service's first.
fn build_port(
    endpoint: &EndpointSection,
    section: &CheckSection,
    mistakes: &mut Mistakes,
) -> Read<u16> {
    let kind = section.kind.as_ref().map_err(|reported| *reported)?;
    if let Some(port) = section.port? {
        return Ok(port.value);
    }
    if !kind.value.has_port() {
        return Ok(0);
    }
    let ports = endpoint.ports.as_ref().map_err(|reported| *reported)?;
    match &ports.value {
        Ports::Some(ranges) => Ok(ranges.first().map_or(0, |range| range.first)),
        Ports::Any => {
            let mistake = Mistake::new(kind.span, "a check without `port`")
                .expected("expected the port to ask, because the service has all of them")
                .related(ports.span, "the service's ports")
                .help("add a line such as: port = 80");
            Err(mistakes.report(mistake))
        }
    }
}

/// Fills in what is called after the service.
fn with_names(kind: CheckKind, vip: IpAddr, port: u16) -> CheckKind {
    let named = |http: HttpCheck, usual_port: u16| {
        if !http.host.is_empty() {
            return http;
        }
        let address = if vip.is_ipv6() { format!("[{vip}]") } else { vip.to_string() };
        let host = if port == usual_port { address } else { format!("{address}:{port}") };
        HttpCheck { host: host.into(), ..http }
    };
    match kind {
        CheckKind::Http(http) => CheckKind::Http(named(http, 80)),
        CheckKind::Https(https) => {
            // Whichever of both names there is stands for the other.
            let server_name = https.server_name.or_else(|| {
                let name = https.http.host.rsplit_once(':').map_or(&*https.http.host, |at| at.0);
                is_host_name(name).then(|| name.into())
            });
            let http = match &server_name {
                Some(name) if https.http.host.is_empty() => {
                    let host =
                        if port == 443 { name.to_string() } else { format!("{name}:{port}") };
                    HttpCheck { host: host.into(), ..https.http }
                }
                _ => named(https.http, 443),
            };
            CheckKind::Https(HttpsCheck { http, server_name, ..https })
        }
        other => other,
    }
}
