//! Which segment a real server is on.

use core::net::IpAddr;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::diagnostics::{Mistake, Mistakes, Read, ticked};
use crate::config::document::{Document, RealServerSection, SegmentSection};
use crate::config::section::{At, nearest};

/// More segments than this are not listed in a diagnostic.
const SEGMENTS_SHOWN_MAX: usize = 8;

/// The segments as far as they matter for finding real servers.
pub(super) struct Placement<'d> {
    by_name: HashMap<&'d str, &'d SegmentSection>,
    /// Segments that may hold real servers, in the order of the file.
    backends: Vec<&'d SegmentSection>,
    /// The networks of those, as indices into them.
    networks: HashMap<IpNet, BTreeSet<usize>>,
    prefix_lengths: BTreeSet<u8>,
    /// Whether every segment has a place here: without that, a name not found proves nothing.
    names_complete: Read<()>,
    /// Whether their roles and networks are known, too.
    complete: Read<()>,
}

impl<'d> Placement<'d> {
    pub fn new(document: &'d Document) -> Placement<'d> {
        let segments = &document.segments;
        let names_complete = document.segments_complete;
        let complete = segments.iter().fold(names_complete, |complete, segment| {
            complete.and(segment.role.map(|_| ())).and(segment.addresses.complete)
        });
        let mut placement = Placement {
            by_name: segments.iter().map(|segment| (&*segment.name.value, segment)).collect(),
            backends: segments.iter().filter(|segment| may_hold_real_servers(segment)).collect(),
            networks: HashMap::new(),
            prefix_lengths: BTreeSet::new(),
            names_complete,
            complete,
        };
        for (index, segment) in placement.backends.iter().enumerate() {
            for address in &segment.addresses.items {
                let network = address.value.trunc();
                placement.networks.entry(network).or_default().insert(index);
                placement.prefix_lengths.insert(network.prefix_len());
            }
        }
        placement
    }

    /// The segment of a real server: the one it names, the only one there is, or the only one
    /// whose network has its address.
    pub fn place(
        &self,
        real_server: &RealServerSection,
        mistakes: &mut Mistakes,
    ) -> Read<Arc<str>> {
        if let Some(named) = real_server.segment.clone()? {
            return self.named(&named, mistakes);
        }
        self.complete?;
        if let [only] = self.backends[..] {
            return Ok(only.name.value.clone());
        }
        let At { value: address, span } = real_server.address?;
        let covering = self.covering(address);
        if covering.len() == 1
            && let Some(index) = covering.first()
        {
            return Ok(self.backends[*index].name.value.clone());
        }
        let mistake = if self.backends.is_empty() {
            Mistake::structural(span, format!("real server {address} is on no segment"))
                .expected("no segment has role = \"backend\" or \"both\"")
                .help("give the segment it is on one of these roles")
        } else {
            let networks = if covering.is_empty() { "none" } else { "several" };
            Mistake::structural(span, format!("real server {address} may be on several segments"))
                .expected(format!("{networks} of their networks has this address"))
                .help(format!("add segment = \"…\", one of: {}", self.backend_names()))
        };
        Err(mistakes.report(mistake))
    }

    fn named(&self, named: &At<Arc<str>>, mistakes: &mut Mistakes) -> Read<Arc<str>> {
        let name = &named.value;
        let Some(segment) = self.by_name.get(&**name) else {
            self.names_complete?;
            let names: Vec<&str> = self.backends.iter().map(|s| &*s.name.value).collect();
            let mistake = Mistake::structural(named.span, format!("no segment {}", ticked(name)))
                .expected(format!("expected one of: {}", self.backend_names()));
            return Err(mistakes.report(match nearest(name, &names) {
                Some(near) => mistake.help(format!("did you mean \"{near}\"?")),
                None => mistake.help(format!("add [segment.{name}], or name one that exists")),
            }));
        };
        if may_hold_real_servers(segment) {
            return Ok(segment.name.value.clone());
        }
        let role = segment.role?;
        let message = format!("segment `{name}` cannot hold real servers");
        Err(mistakes.report(
            Mistake::new(named.span, message)
                .expected("expected a segment with role \"backend\" or \"both\"")
                .related(role.span, "its role")
                .help("change its role to \"both\" if clients and real servers share it"),
        ))
    }

    /// The backends whose networks have this address.
    fn covering(&self, address: IpAddr) -> BTreeSet<usize> {
        let network = |length: &u8| IpNet::new(address, *length).ok().map(|net| net.trunc());
        let networks = self.prefix_lengths.iter().filter_map(network);
        networks.filter_map(|network| self.networks.get(&network)).flatten().copied().collect()
    }

    fn backend_names(&self) -> String {
        let names = self.backends.iter().map(|segment| &*segment.name.value);
        let mut shown: Vec<&str> = names.take(SEGMENTS_SHOWN_MAX).collect();
        if self.backends.len() > SEGMENTS_SHOWN_MAX {
            shown.push("…");
        }
        shown.join(", ")
    }
}

fn may_hold_real_servers(segment: &SegmentSection) -> bool {
    segment.role.is_ok_and(|role| role.value.has_real_servers())
}
