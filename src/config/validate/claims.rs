//! No two services claim the same VIP, protocol and port with equal precision. An exact port beats
//! a range, a range beats any: those may overlap.

use core::net::IpAddr;
use std::collections::{BTreeMap, HashSet};

use super::Seen;
use crate::config::diagnostics::{Mistake, Mistakes, Span};
use crate::config::document::ServiceSection;
use crate::config::snapshot::{PortRange, Ports, Protocol};

/// A service's claim to some ports.
#[derive(Clone, Copy)]
struct Claim {
    ports: PortRange,
    /// The `ports` of the service: unlike its VIP, they differ even between services of one line.
    span: Span,
}

/// Reports each pair of services that claim the same.
pub(super) fn check(services: &[ServiceSection], mistakes: &mut Mistakes) {
    let mut exact = Seen::new();
    let mut any = Seen::new();
    let mut ranges: BTreeMap<(IpAddr, Protocol), Vec<Claim>> = BTreeMap::new();
    let mut reported = HashSet::new();
    for service in services {
        let (Ok(vip), Ok(protocol), Ok(ports)) = (&service.vip, &service.protocol, &service.ports)
        else {
            continue;
        };
        let key = (vip.value, protocol.value);
        let span = ports.span;
        match &ports.value {
            Ports::Any => {
                if let Some(first) = any.note(key, span) {
                    report(key, "any", first, span, mistakes);
                }
            }
            Ports::Some(listed) => {
                for ports in listed {
                    if !ports.is_exact() {
                        ranges.entry(key).or_default().push(Claim { ports: *ports, span });
                    } else if let Some(first) = exact.note((key, ports.first), span)
                        && reported.insert((first.start, span.start))
                    {
                        report(key, &ports.first.to_string(), first, span, mistakes);
                    }
                }
            }
        }
    }
    for (key, claims) in ranges {
        check_ranges(key, claims, mistakes);
    }
}

/// Sweeps over the ranges in the order of their first port, comparing each with the one that
/// reaches furthest so far.
fn check_ranges(key: (IpAddr, Protocol), mut claims: Vec<Claim>, mistakes: &mut Mistakes) {
    claims.sort_by_key(|claim| (claim.ports, claim.span.start));
    let mut reported = HashSet::new();
    let mut furthest: Option<Claim> = None;
    for claim in claims {
        if let Some(reaching) = furthest
            && claim.ports.first <= reaching.ports.last
            && claim.span != reaching.span
        {
            let first = claim.ports.first;
            let last = claim.ports.last.min(reaching.ports.last);
            let shared = Ports::Some(vec![PortRange { first, last }]).to_string();
            let (earlier, later) = if reaching.span.start < claim.span.start {
                (reaching.span, claim.span)
            } else {
                (claim.span, reaching.span)
            };
            if reported.insert((earlier.start, later.start)) {
                report(key, &shared, earlier, later, mistakes);
            }
        }
        if furthest.is_none_or(|reaching| claim.ports.last > reaching.ports.last) {
            furthest = Some(claim);
        }
    }
}

fn report(
    (vip, protocol): (IpAddr, Protocol),
    ports: &str,
    earlier: Span,
    later: Span,
    mistakes: &mut Mistakes,
) {
    let what = if ports == "any" { "all ports".to_owned() } else { format!("port {ports}") };
    let message = format!("two services claim {what} of {vip} for {protocol}");
    let mistake = Mistake::new(later, message)
        .expected("claimed here too")
        .related(earlier, "first claimed here")
        .help("remove one; only an exact port beats a range, and a range beats \"any\"");
    mistakes.report(mistake);
}
