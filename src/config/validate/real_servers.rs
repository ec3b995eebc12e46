//! Real servers within their service, and against what the rest of the file says.

use core::net::IpAddr;
use std::collections::HashMap;
use std::sync::Arc;

use super::Seen;
use super::services::OwnAddresses;
use crate::config::diagnostics::{Mistake, Mistakes, Read, Span, quoted};
use crate::config::document::{Document, RealServerSection, ServiceSection};
use crate::config::section::At;
use crate::config::snapshot::{RealServer, Segment};
use crate::wire::MacAddr;

/// What real servers are compared with.
pub(super) struct RealServers<'d> {
    own: OwnAddresses,
    vips: HashMap<IpAddr, Span>,
    /// The director's MAC addresses, and the segments they belong to.
    director_macs: HashMap<MacAddr, &'d str>,
    /// The MAC configured for a real server (RIP and segment), in whatever service.
    macs: HashMap<(IpAddr, Arc<str>), At<MacAddr>>,
}

impl<'d> RealServers<'d> {
    pub fn new(document: &Document, segments: &'d [Segment]) -> RealServers<'d> {
        let mut vips = HashMap::new();
        let listen = document.services.iter().flat_map(|service| &service.listen);
        for vip in listen.filter_map(|endpoint| endpoint.vip.ok()) {
            vips.entry(vip.value).or_insert(vip.span);
        }
        RealServers {
            own: OwnAddresses::new(document),
            vips,
            director_macs: segments.iter().map(|segment| (segment.mac, &*segment.name)).collect(),
            macs: HashMap::new(),
        }
    }

    /// Checks the real servers of a service; `places` are their segments.
    pub fn check(
        &mut self,
        service: &ServiceSection,
        places: &[Read<Arc<str>>],
        mistakes: &mut Mistakes,
    ) {
        let mut keys = Seen::new();
        let mut names = Seen::new();
        for (real_server, place) in service.servers().zip(places) {
            self.check_macs(real_server, mistakes);
            let mut is_new = true;
            if let Ok(address) = real_server.address {
                self.check_address(address, mistakes);
                if let Ok(segment) = place {
                    self.check_same_mac(real_server, address.value, segment, mistakes);
                    is_new = check_key(&mut keys, address, segment, mistakes);
                }
            }
            // A duplicate has its default name twice as well: that would be said twice.
            let is_named = matches!(real_server.name, Ok(Some(_)));
            if is_new || is_named {
                check_name(&mut names, real_server, mistakes);
            }
        }
    }

    fn check_address(&self, address: At<IpAddr>, mistakes: &mut Mistakes) {
        let At { value, span } = address;
        if let Some(vip) = self.vips.get(&value) {
            let mistake =
                Mistake::new(span, format!("real server {value} has the address of a VIP"))
                    .expected("expected the real server's own address")
                    .related(*vip, "a VIP here")
                    .help(
                        "every real server has the VIP on its loopback; this is its other address",
                    );
            mistakes.report(mistake);
        }
        self.own.check(address, "real server", mistakes);
    }

    /// No frame may be sent to the director itself.
    fn check_macs(&self, real_server: &RealServerSection, mistakes: &mut Mistakes) {
        let mac = real_server.mac.ok().flatten();
        for At { value, span } in mac.iter().chain(&real_server.vip_macs.items) {
            if let Some(segment) = self.director_macs.get(value) {
                let message = format!("{value} is the director's own MAC address");
                let mistake = Mistake::new(*span, message)
                    .expected("expected the real server's")
                    .help(format!("the director has it on segment `{segment}`: change one"));
                mistakes.report(mistake);
            }
        }
    }

    /// A real server has one MAC, however many services it is in.
    fn check_same_mac(
        &mut self,
        real_server: &RealServerSection,
        address: IpAddr,
        segment: &Arc<str>,
        mistakes: &mut Mistakes,
    ) {
        let Ok(Some(mac)) = real_server.mac else { return };
        let first = *self.macs.entry((address, segment.clone())).or_insert(mac);
        if first.value != mac.value {
            let message = format!("real server {address} has two MAC addresses");
            let mistake = Mistake::new(mac.span, message)
                .expected(format!("expected {}, as before", first.value))
                .related(first.span, "first given here")
                .help("a further card of it belongs in `vip_mac`");
            mistakes.report(mistake);
        }
    }
}

/// Reports a real server that its service has already; whether it has not.
fn check_key(
    keys: &mut Seen<(IpAddr, Arc<str>)>,
    address: At<IpAddr>,
    segment: &Arc<str>,
    mistakes: &mut Mistakes,
) -> bool {
    let At { value, span } = address;
    let Some(first) = keys.note((value, segment.clone()), span) else { return true };
    let message = format!("real server {value} is in the service twice");
    let mistake = Mistake::new(span, message)
        .expected(format!("expected one of this address on segment `{segment}`"))
        .related(first, "first listed here")
        .help("remove one; give it a larger weight for a larger share");
    mistakes.report(mistake);
    false
}

fn check_name(
    names: &mut Seen<Arc<str>>,
    real_server: &RealServerSection,
    mistakes: &mut Mistakes,
) {
    let (Ok(configured), Ok(name)) = (&real_server.name, effective_name(real_server)) else {
        return;
    };
    let address = real_server.address.map_or(real_server.header, |at| at.span);
    let span = configured.as_ref().map_or(address, |at| at.span);
    if let Some(first) = names.note(name.clone(), span) {
        let message = format!("two real servers of the service are named {}", quoted(&name));
        let mistake = Mistake::new(span, message)
            .expected("expected a name of its own")
            .related(first, "first named so here")
            .help("give each a `name`; without one, a real server is called by its address");
        mistakes.report(mistake);
    }
}

fn effective_name(section: &RealServerSection) -> Read<Arc<str>> {
    Ok(match section.name.clone()? {
        Some(name) => name.value,
        None => section.address?.value.to_string().into(),
    })
}

/// The finished real server.
pub(super) fn build_real_server(
    section: &RealServerSection,
    place: &Read<Arc<str>>,
    mistakes: &mut Mistakes,
) -> Read<Arc<RealServer>> {
    let upper_threshold = section.upper_threshold?;
    let lower_threshold = lower_threshold(section, upper_threshold, mistakes)?;
    section.vip_macs.complete?;
    Ok(Arc::new(RealServer {
        name: effective_name(section)?,
        address: section.address?.value,
        mac: section.mac?.map(|at| at.value),
        vip_macs: section.vip_macs.items.iter().map(|at| at.value).collect(),
        segment: place.clone()?,
        weight: section.weight?,
        upper_threshold,
        lower_threshold,
    }))
}

/// IPVS refuses a lower threshold above the upper one, too.
fn lower_threshold(section: &RealServerSection, upper: u32, mistakes: &mut Mistakes) -> Read<u32> {
    let Some(At { value: lower, span }) = section.lower_threshold? else { return Ok(0) };
    if lower <= upper {
        return Ok(lower);
    }
    let mistake = if upper == 0 {
        Mistake::new(span, "`lower_threshold` without `upper_threshold`")
            .expected("nothing is overloaded that has no limit")
            .help("add upper_threshold, or remove this")
    } else {
        Mistake::new(span, format!("`lower_threshold` {lower} is above `upper_threshold` {upper}"))
            .expected(format!("expected at most {upper}"))
            .help("remove it for the default, three quarters of the upper threshold")
    };
    Err(mistakes.report(mistake))
}
