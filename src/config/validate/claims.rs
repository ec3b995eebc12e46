//! No two services claim the same VIP, protocol and port with equal precision. An exact port beats
//! a range, a range beats any: those may overlap.

use core::net::IpAddr;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::config::diagnostics::{Mistake, Mistakes, Span};
use crate::config::document::ServiceSection;
use crate::config::snapshot::{PortRange, Ports, Protocol};

/// A service's claim to some ports.
#[derive(Clone, Copy)]
struct Claim {
    ports: PortRange,
    place: Place,
}

/// Which service claims, and where: its `ports`, which unlike its VIP differ even between services
/// of one line.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    service: usize,
    span: Span,
}

/// Reports each pair of services that claim the same. What one service claims twice is said where
/// its `listen` is joined.
pub(super) fn check(services: &[ServiceSection], mistakes: &mut Mistakes) {
    let mut exact: HashMap<(IpAddr, Protocol, u16), Place> = HashMap::new();
    let mut any: HashMap<(IpAddr, Protocol), Place> = HashMap::new();
    let mut ranges: BTreeMap<(IpAddr, Protocol), Vec<Claim>> = BTreeMap::new();
    let mut reported = HashSet::new();
    let listed = services.iter().enumerate().flat_map(|(service, section)| {
        section.listen.iter().map(move |endpoint| (service, endpoint))
    });
    for (service, endpoint) in listed {
        let (Ok(vip), Ok(protocol), Ok(ports)) =
            (&endpoint.vip, &endpoint.protocol, &endpoint.ports)
        else {
            continue;
        };
        let key = (vip.value, protocol.value);
        let place = Place { service, span: ports.span };
        match &ports.value {
            Ports::Any => {
                let first = *any.entry(key).or_insert(place);
                if first.service != service {
                    report(key, "any", first.span, place.span, mistakes);
                }
            }
            Ports::Some(listed) => {
                for ports in listed {
                    if !ports.is_exact() {
                        ranges.entry(key).or_default().push(Claim { ports: *ports, place });
                        continue;
                    }
                    let first = *exact.entry((key.0, key.1, ports.first)).or_insert(place);
                    if first.service != service
                        && reported.insert((first.span.start, place.span.start))
                    {
                        report(key, &ports.first.to_string(), first.span, place.span, mistakes);
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
    claims.sort_by_key(|claim| (claim.ports, claim.place.span.start));
    let mut reported = HashSet::new();
    let mut furthest: Option<Claim> = None;
    for claim in claims {
        if let Some(reaching) = furthest
            && claim.ports.first <= reaching.ports.last
            && claim.place.service != reaching.place.service
        {
            let first = claim.ports.first;
            let last = claim.ports.last.min(reaching.ports.last);
            let shared = Ports::Some(vec![PortRange { first, last }]).to_string();
            let (here, there) = (claim.place.span, reaching.place.span);
            let (earlier, later) =
                if there.start < here.start { (there, here) } else { (here, there) };
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
