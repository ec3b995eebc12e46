//! Services among each other and against the segments.

use core::net::IpAddr;
use std::collections::HashMap;
use std::sync::Arc;

use super::placement::Placement;
use super::real_servers::{RealServers, build_real_server};
use super::{Seen, checks, claims, listen, options, scheduling};
use crate::config::diagnostics::{Mistake, Mistakes, Read, Span, quoted};
use crate::config::document::{Document, EndpointSection, ServiceSection};
use crate::config::section::At;
use crate::config::snapshot::{Endpoint, Protocol, Role, Segment, Service, endpoints};
use crate::config::values::reserved_in;

/// Services of one router.
pub const SERVICES_MAX: usize = 65_536;
/// Real servers of all services together.
pub const REAL_SERVERS_MAX: usize = 65_536;

/// Checks the services; `segments` are the finished ones, empty if one of them is wrong.
pub(super) fn validate(
    document: &Document,
    segments: &[Segment],
    mistakes: &mut Mistakes,
) -> Read<Vec<Service>> {
    let sections = &document.services;
    check_count(sections, mistakes)?;
    check_vip_segment(document, mistakes);
    check_vips(document, mistakes);
    claims::check(sections, mistakes);
    check_names(sections, mistakes);

    let placement = Placement::new(document);
    let mut real_servers = RealServers::new(document, segments);
    let mut slots = scheduling::Slots::default();
    let mut complete = Ok(());
    let mut services = Vec::with_capacity(sections.len());
    for section in sections {
        let places: Vec<Read<Arc<str>>> =
            section.servers().map(|real_server| placement.place(real_server, mistakes)).collect();
        real_servers.check(section, &places, mistakes);
        checks::check_sources(document, section, &places, mistakes);
        match build(section, &places, &mut slots, mistakes) {
            Ok(service) => services.push(service),
            Err(reported) => complete = Err(reported),
        }
    }
    complete.map(|()| services)
}

fn build(
    section: &ServiceSection,
    places: &[Read<Arc<str>>],
    slots: &mut scheduling::Slots,
    mistakes: &mut Mistakes,
) -> Read<Service> {
    let scheduling = scheduling::build(section, slots, mistakes);
    let listen = listen::join(section, mistakes);
    let persistence = options::persistence(section, mistakes);
    let mut switch = |key, value, protocol, why| {
        options::of_protocol(section, key, value, protocol, why, mistakes)
    };
    let why = "only datagrams can be scheduled one by one";
    let one_packet = switch("one_packet", section.one_packet, Protocol::Udp, why);
    let why = "only TCP has a segment that opens a connection";
    let sloppy_tcp = switch("sloppy_tcp", section.sloppy_tcp, Protocol::Tcp, why);
    let why = "only SCTP has an INIT";
    let sloppy_sctp = switch("sloppy_sctp", section.sloppy_sctp, Protocol::Sctp, why);
    let why = "only TCP has SYNs";
    let syn_rescue = switch("syn_rescue", section.syn_rescue, Protocol::Tcp, why);
    let check = checks::build(section, mistakes);
    let expire_quiescent = options::expire_quiescent(section, mistakes);
    let quorum = options::quorum(section, mistakes);
    let mut servers: Vec<_> = section
        .servers()
        .zip(places)
        .map(|(server, place)| build_real_server(server, place, mistakes))
        .collect();
    let sorry_server = section.sorry_server.as_ref().and_then(|_| servers.pop()).transpose();
    section.complete?;
    let (quorum, quorum_hysteresis) = quorum?;
    Ok(Service {
        name: effective_name(section)?,
        listen: listen?,
        scheduler: scheduling?.0,
        scheduler_options: scheduling?.1,
        persistence: persistence?,
        one_packet: one_packet?,
        sloppy_tcp: sloppy_tcp?,
        sloppy_sctp: sloppy_sctp?,
        expire_quiescent: expire_quiescent?,
        expire_nodest: section.expire_nodest?,
        quorum,
        quorum_hysteresis,
        sorry_server: sorry_server?,
        on_removal: section.on_removal?,
        syn_rescue: syn_rescue?,
        check: check?,
        real_servers: servers.into_iter().collect::<Read<Vec<_>>>()?,
    })
}

fn check_count(sections: &[ServiceSection], mistakes: &mut Mistakes) -> Read<()> {
    if let Some(extra) = sections.get(SERVICES_MAX) {
        let mistake = Mistake::new(extra.header, format!("{} services", sections.len()))
            .expected(format!("expected at most {SERVICES_MAX}"))
            .help("join services of one VIP: `ports` takes lists and ranges");
        return Err(mistakes.report(mistake));
    }
    let mut real_servers = sections.iter().flat_map(ServiceSection::servers);
    if let Some(extra) = real_servers.nth(REAL_SERVERS_MAX) {
        let count = REAL_SERVERS_MAX + 1 + real_servers.count();
        let mistake = Mistake::new(extra.header, format!("{count} real servers"))
            .expected(format!("expected at most {REAL_SERVERS_MAX}"))
            .help("split the configuration between several routers");
        return Err(mistakes.report(mistake));
    }
    Ok(())
}

/// Services need a segment that clients come from.
fn check_vip_segment(document: &Document, mistakes: &mut Mistakes) {
    let possible = |role: Read<At<Role>>| role.map_or(true, |role| role.value.has_vips());
    let segments = &document.segments;
    let Some(service) = document.services.first() else { return };
    if !segments.is_empty()
        && document.segments_complete.is_ok()
        && !segments.iter().any(|segment| possible(segment.role))
    {
        let mistake =
            Mistake::structural(service.header, "no segment for the VIPs of the services")
                .expected("expected a segment with role \"vip\" or \"both\"")
                .help("give the segment that clients come from one of these roles");
        mistakes.report(mistake);
    }
}

/// A VIP is neither the director's own address nor one that its networks reserve.
fn check_vips(document: &Document, mistakes: &mut Mistakes) {
    let own = OwnAddresses::new(document);
    let listen = document.services.iter().flat_map(|service| &service.listen);
    for vip in listen.filter_map(|endpoint| endpoint.vip.ok()) {
        own.check(vip, "VIP", mistakes);
    }
}

/// The director's own addresses, and the special ones of its networks.
pub(super) struct OwnAddresses {
    own: HashMap<IpAddr, Span>,
    reserved: HashMap<IpAddr, (&'static str, Span)>,
}

impl OwnAddresses {
    pub fn new(document: &Document) -> OwnAddresses {
        let mut own = HashMap::new();
        let mut reserved = HashMap::new();
        for address in document.segments.iter().flat_map(|segment| &segment.addresses.items) {
            let net = address.value;
            own.entry(net.addr()).or_insert(address.span);
            for special in [net.network(), net.broadcast()] {
                if let Some(what) = reserved_in(&net, special) {
                    reserved.entry(special).or_insert((what, address.span));
                }
            }
        }
        OwnAddresses { own, reserved }
    }

    /// Reports an address that cannot be a `what`, because the director or its network has it.
    pub fn check(&self, address: At<IpAddr>, what: &str, mistakes: &mut Mistakes) {
        let At { value, span } = address;
        if let Some(own) = self.own.get(&value) {
            let mistake =
                Mistake::new(span, format!("{what} {value} is the director's own address"))
                    .expected("expected an address of its own")
                    .related(*own, "configured for the director here")
                    .help("change one of the two");
            mistakes.report(mistake);
        } else if let Some((reserved, network)) = self.reserved.get(&value) {
            let mistake = Mistake::new(span, format!("{what} {value} is {reserved}"))
                .expected("expected the address of a host")
                .related(*network, "the network")
                .help("write an address out of the network that nothing else has");
            mistakes.report(mistake);
        }
    }
}

/// Names are unique. Two default names are equal only where the claims are, which is reported.
fn check_names(sections: &[ServiceSection], mistakes: &mut Mistakes) {
    let mut seen = Seen::new();
    let mut explicit_first: HashMap<Arc<str>, bool> = HashMap::new();
    for section in sections {
        let (Ok(configured), Ok(name)) = (&section.name, effective_name(section)) else { continue };
        let span = configured.as_ref().map_or(section.header, |at| at.span);
        let is_explicit = configured.is_some();
        let first_is_explicit = *explicit_first.entry(name.clone()).or_insert(is_explicit);
        if let Some(first) = seen.note(name.clone(), span)
            && (is_explicit || first_is_explicit)
        {
            let mistake = Mistake::new(span, format!("two services are named {}", quoted(&name)))
                .expected("expected a name of its own")
                .related(first, "first named so here")
                .help("rename one; without `name` a service is called VIP:port/protocol");
            mistakes.report(mistake);
        }
    }
}

/// The configured name, or `VIP:port/protocol`, of a group all of them.
fn effective_name(section: &ServiceSection) -> Read<Arc<str>> {
    match section.name.clone()? {
        Some(name) => Ok(name.value),
        None => {
            section.listen_complete?;
            let endpoint = |endpoint: &EndpointSection| {
                Ok(Endpoint {
                    vip: endpoint.vip?.value,
                    protocol: endpoint.protocol?.value,
                    ports: endpoint.ports.clone()?.value,
                })
            };
            let listen: Read<Vec<Endpoint>> = section.listen.iter().map(endpoint).collect();
            let mut listen = listen?;
            listen.sort_unstable();
            Ok(endpoints(&listen).into())
        }
    }
}
