//! What one service listens on, joined to a sorted list: each VIP with each protocol once.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::PORT_RANGES_MAX;
use crate::config::diagnostics::{Mistake, Mistakes, Read, Span};
use crate::config::document::ServiceSection;
use crate::config::section::At;
use crate::config::snapshot::{Endpoint, PortRange, Ports, Protocol};

/// The endpoints of a service; `listen` may name a VIP and protocol more than once, with other
/// ports each time.
pub(super) fn join(section: &ServiceSection, mistakes: &mut Mistakes) -> Read<Arc<[Endpoint]>> {
    let mut joined: BTreeMap<(IpAddr, Protocol), Vec<At<Ports>>> = BTreeMap::new();
    let mut complete = section.listen_complete;
    for endpoint in &section.listen {
        match (endpoint.vip, endpoint.protocol, endpoint.ports.clone()) {
            (Ok(vip), Ok(protocol), Ok(ports)) => {
                joined.entry((vip.value, protocol.value)).or_default().push(ports);
            }
            (vip, protocol, ports) => {
                complete = complete.and(vip.map(|_| ())).and(protocol.map(|_| ()));
                complete = complete.and(ports.map(|_| ()));
            }
        }
    }
    let mut listen = Vec::with_capacity(joined.len());
    for ((vip, protocol), ports) in joined {
        match join_ports(vip, protocol, ports, mistakes) {
            Ok(ports) => listen.push(Endpoint { vip, protocol, ports }),
            Err(reported) => complete = Err(reported),
        }
    }
    complete?;
    check_count(section, &listen, mistakes)?;
    Ok(listen.into())
}

fn join_ports(
    vip: IpAddr,
    protocol: Protocol,
    mut all: Vec<At<Ports>>,
    mistakes: &mut Mistakes,
) -> Read<Ports> {
    if all.len() == 1
        && let Some(only) = all.pop()
    {
        return Ok(only.value);
    }
    let mut twice = |what: &str, a: Span, b: Span| {
        let (earlier, later) = if a.start <= b.start { (a, b) } else { (b, a) };
        let message = format!("`listen` has {what} of {vip} for {protocol} twice");
        let mistake = Mistake::new(later, message)
            .expected("expected each port once")
            .related(earlier, "first listed here")
            .help("remove one of the two");
        mistakes.report(mistake)
    };
    if let Some(any) = all.iter().find(|ports| ports.value == Ports::Any) {
        let other = all.iter().find(|ports| ports.span != any.span).unwrap_or(any);
        return Err(twice("ports", any.span, other.span));
    }
    let mut ranges: Vec<At<PortRange>> = Vec::new();
    for At { value, span } in all {
        if let Ports::Some(listed) = value {
            ranges.extend(listed.into_iter().map(|value| At { value, span }));
        }
    }
    ranges.sort_by_key(|range| (range.value, range.span.start));
    for pair in ranges.windows(2) {
        if pair[1].value.first <= pair[0].value.last {
            let what = format!("port {}", pair[1].value.first);
            return Err(twice(&what, pair[0].span, pair[1].span));
        }
    }
    Ok(Ports::Some(ranges.into_iter().map(|range| range.value).collect()))
}

/// All of a service's ranges count together: they are its key, and a record of the state file.
fn check_count(section: &ServiceSection, listen: &[Endpoint], mistakes: &mut Mistakes) -> Read<()> {
    let ranges = |endpoint: &Endpoint| match &endpoint.ports {
        Ports::Any => 1,
        Ports::Some(ranges) => ranges.len(),
    };
    let count: usize = listen.iter().map(ranges).sum();
    if count <= PORT_RANGES_MAX {
        return Ok(());
    }
    let mistake = Mistake::new(section.header, format!("{count} ports and ranges in one service"))
        .expected(format!("expected at most {PORT_RANGES_MAX}"))
        .help("join neighbours to ranges, as in \"8000-8099\", or make several services");
    Err(mistakes.report(mistake))
}
