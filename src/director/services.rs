//! Virtual services and their real servers at run time, and how a packet finds its service.
//!
//! Keeps three things in step: what a real server's connections count, whether it may be given
//! more, and what its service's scheduler sees of it.

use core::hash::BuildHasher;
use core::net::IpAddr;
use std::collections::VecDeque;
use std::sync::Arc;

use super::arena::{Arena, Id};
use super::checks::CheckId;
use super::counters::Traffic;
use super::destination::{Destination, DestinationId, Health, Threshold};
use super::keyed::{HashKey, KeyedMap};
use super::neighbors::NeighborId;
use super::rates::RateEstimator;
use super::scheduler::{Candidate, Member, PickKey, Scheduler};
use crate::config::snapshot::{self, Endpoint, Ports, Protocol, RealServer};

pub type ServiceId = Id<Service>;

/// What a service goes by across reloads.
pub(super) type ServiceKey = Arc<[Endpoint]>;

/// A virtual service at run time.
#[derive(Debug)]
pub struct Service {
    /// As configured now, or last.
    pub(super) config: Arc<snapshot::Service>,
    pub(super) scheduler: Scheduler,
    /// False once the configuration has dropped it; it stays while connections remain.
    pub(super) configured: bool,
    /// Configured real servers, in the order of the configuration.
    pub(super) destinations: Vec<DestinationId>,
    /// What the scheduler sees of `destinations`, by position.
    pub(super) candidates: Vec<Candidate>,
    /// How many of them can take a connection.
    pub(super) eligible: u32,
    /// The weights of those that are up, together.
    pub(super) live_weight: u64,
    /// Whether that is enough, by the configured quorum; and what a person was told last. One that
    /// has it from the start needs no telling.
    pub(super) quorate: bool,
    pub(super) quorate_told: bool,
    /// Whether that is to be found out anew.
    pub(super) unsettled: bool,
    /// Who gets new connections when they cannot be placed, or there is no quorum.
    pub(super) sorry: Option<DestinationId>,
    /// Real servers no longer configured whose connections finish.
    pub(super) draining: Vec<DestinationId>,
    pub(super) traffic: Traffic,
    pub(super) rates: RateEstimator,
}

/// All services and real servers.
pub(super) struct Services {
    pub services: Arena<Service>,
    pub destinations: Arena<Destination>,
    /// Configured services, in the order of the configuration.
    pub order: Vec<ServiceId>,
    /// All of them, by natural key.
    pub by_key: KeyedMap<ServiceKey, ServiceId>,
    vips: KeyedMap<IpAddr, Vip>,
    by_port: KeyedMap<(IpAddr, Protocol), PortTable>,
    /// Services whose quorum is to be found out anew, each once.
    unsettled: Vec<ServiceId>,
    /// Services that gained their quorum, or lost it, and nobody was told yet.
    quorum_news: VecDeque<(ServiceId, bool)>,
    hash_key: HashKey,
}

/// News of quorums that wait to be told at a time; services beyond that change in silence.
const QUORUM_NEWS_MAX: usize = 1024;

/// A virtual address and its services.
#[derive(Debug, Default)]
pub(super) struct Vip {
    /// Announced, and open to new connections. False once only old connections remain.
    pub configured: bool,
    pub services: Vec<ServiceId>,
}

/// The services of one VIP and protocol: an exact port beats a range beats any.
#[derive(Debug)]
struct PortTable {
    exact: KeyedMap<u16, ServiceId>,
    /// Sorted, without overlaps.
    ranges: Vec<(u16, u16, ServiceId)>,
    any: Option<ServiceId>,
}

impl Services {
    pub fn new(hash_key: HashKey) -> Services {
        Services {
            services: Arena::default(),
            destinations: Arena::default(),
            order: Vec::new(),
            by_key: hash_key.map(),
            vips: hash_key.map(),
            by_port: hash_key.map(),
            unsettled: Vec::new(),
            quorum_news: VecDeque::new(),
            hash_key,
        }
    }

    /// Where the random numbers of a service's scheduler begin.
    pub fn seed_of(&self, key: &ServiceKey) -> u64 {
        self.hash_key.hash_one(key)
    }

    /// The service that new traffic to this address and port belongs to.
    pub fn find(&self, vip: IpAddr, protocol: Protocol, port: u16) -> Option<ServiceId> {
        let table = self.by_port.get(&(vip, protocol))?;
        if let Some(&service) = table.exact.get(&port) {
            return Some(service);
        }
        let after = table.ranges.partition_point(|&(first, _, _)| first <= port);
        if let Some(&(_, last, service)) = after.checked_sub(1).and_then(|i| table.ranges.get(i))
            && port <= last
        {
            return Some(service);
        }
        table.any
    }

    /// The VIP with this address: configured, or with connections left.
    pub fn vip(&self, address: IpAddr) -> Option<&Vip> {
        self.vips.get(&address)
    }

    /// Configured VIPs, in ascending order.
    pub fn configured_vips(&self) -> Vec<IpAddr> {
        let configured = self.vips.iter().filter(|(_, vip)| vip.configured);
        let mut vips: Vec<IpAddr> = configured.map(|(&address, _)| address).collect();
        vips.sort_unstable();
        vips
    }

    /// Whether this is a VIP one of whose services can take a connection.
    pub fn is_vip_up(&self, address: IpAddr) -> bool {
        self.vip(address).is_some_and(|vip| {
            let mut services = vip.services.iter().filter_map(|&id| self.services.get(id));
            services.any(|service| service.configured && service.is_up())
        })
    }

    /// Chooses a real server for a new connection; the sorry server if none can take it.
    pub fn schedule(&mut self, id: ServiceId, key: &PickKey) -> Option<DestinationId> {
        let service = self.services.get_mut(id)?;
        match service.scheduler.pick(&service.candidates, key) {
            Some(chosen) => service.destinations.get(chosen).copied(),
            None => self.sorry_server(id),
        }
    }

    /// The same, but not this real server.
    pub fn schedule_except(
        &mut self,
        id: ServiceId,
        not: DestinationId,
        key: &PickKey,
    ) -> Option<DestinationId> {
        let position = self.destinations.get(not)?.position? as usize;
        let available = self.services.get(id)?.candidates.get(position)?.available;
        self.set_available(id, position, false);
        let chosen = self.schedule(id, key);
        self.set_available(id, position, available);
        chosen
    }

    fn set_available(&mut self, id: ServiceId, position: usize, available: bool) {
        if let Some(service) = self.services.get_mut(id)
            && let Some(candidate) = service.candidates.get_mut(position)
        {
            candidate.available = available;
            service.scheduler.candidate_changed(position, &service.candidates);
        }
    }

    /// The sorry server, if there is one and it answers.
    pub fn sorry_server(&self, id: ServiceId) -> Option<DestinationId> {
        let sorry = self.services.get(id)?.sorry?;
        self.destinations.get(sorry)?.reachable.then_some(sorry)
    }

    /// The sorry server, if all new connections go there for want of a quorum. Without a sorry
    /// server, what real servers are left go on (as with keepalived).
    pub fn diverted_to(&self, id: ServiceId) -> Option<DestinationId> {
        if self.services.get(id)?.quorate { None } else { self.sorry_server(id) }
    }

    /// The next service that gained its quorum, or lost it.
    pub fn next_quorum_news(&mut self) -> Option<(ServiceId, bool)> {
        self.settle_quorums();
        self.quorum_news.pop_front()
    }

    /// Counts what is handed to a real server: a packet, or those that a super-frame stands for.
    #[inline]
    pub fn count_packets(&mut self, id: DestinationId, packets: u32, bytes: u64) {
        let packets = u64::from(packets);
        let Some(destination) = self.destinations.get_mut(id) else { return };
        destination.traffic.packets += packets;
        destination.traffic.bytes += bytes;
        if let Some(service) = self.services.get_mut(destination.service) {
            service.traffic.packets += packets;
            service.traffic.bytes += bytes;
        }
    }

    /// Counts a scheduling decision.
    pub fn count_connection(&mut self, id: DestinationId) {
        let Some(destination) = self.destinations.get_mut(id) else { return };
        destination.traffic.connections += 1;
        if let Some(service) = self.services.get_mut(destination.service) {
            service.traffic.connections += 1;
        }
    }

    /// A persistence template that points at a real server is there now, or has gone. One may
    /// outlive its real server.
    pub fn count_template(&mut self, id: DestinationId, is_there: bool) {
        if let Some(destination) = self.destinations.get_mut(id) {
            let templates = &mut destination.templates;
            *templates = if is_there { *templates + 1 } else { templates.saturating_sub(1) };
        }
    }

    /// A connection to a real server is there now.
    pub fn opened(&mut self, id: DestinationId, active: bool) -> Option<Threshold> {
        self.change(id, |destination| *destination.count(active) += 1)
    }

    /// A connection to a real server is gone.
    pub fn closed(&mut self, id: DestinationId, active: bool) -> Option<Threshold> {
        self.change(id, |destination| {
            let count = destination.count(active);
            *count = count.saturating_sub(1);
        })
    }

    /// A connection became active, or inactive.
    pub fn shifted(&mut self, id: DestinationId, now_active: bool) -> Option<Threshold> {
        self.change(id, |destination| {
            let from = destination.count(!now_active);
            *from = from.saturating_sub(1);
            *destination.count(now_active) += 1;
        })
    }

    /// A real server's neighbor became usable, or ceased to be.
    pub fn set_reachable(&mut self, id: DestinationId, reachable: bool) {
        self.change(id, |destination| destination.reachable = reachable);
    }

    /// A real server's check says something else than before.
    pub fn set_health(&mut self, id: DestinationId, health: Health) {
        let known = self.destinations.get(id).map(|destination| destination.health);
        if known.is_some_and(|known| known != health) {
            self.change(id, |destination| destination.health = health);
        }
    }

    pub fn set_check(&mut self, id: DestinationId, check: Option<CheckId>) {
        if let Some(destination) = self.destinations.get_mut(id) {
            destination.check = check;
        }
    }

    /// Sets a weight by hand, or goes back to the configured one. The service, if its scheduler
    /// has something to build now.
    #[must_use]
    pub fn set_override(&mut self, id: DestinationId, weight: Option<u32>) -> Option<ServiceId> {
        self.change(id, |destination| {
            let configured = destination.configured_weight;
            destination.weight_override = weight.filter(|weight| *weight != configured);
            destination.note_weight();
        });
        let id = self.destinations.get(id)?.service;
        let service = self.services.get_mut(id)?;
        let members = members(&self.destinations, &service.destinations);
        service.scheduler.candidates_changed(&service.candidates, &members);
        service.scheduler.is_building().then_some(id)
    }

    /// Lets a service's scheduler build on; whether there is more to build.
    pub fn build(&mut self, id: ServiceId, budget: &mut usize) -> bool {
        self.services.get_mut(id).is_some_and(|service| {
            service.scheduler.build(budget);
            service.scheduler.is_building()
        })
    }

    /// The real server that a person means: the service by name or `VIP:port/protocol`, the real
    /// server by name or address. With `any` also one that is no longer configured.
    ///
    /// # Errors
    /// A line that says what there is instead.
    pub fn find_by_name(
        &self,
        service: &str,
        real_server: &str,
        any: bool,
    ) -> Result<(DestinationId, &Destination), String> {
        let configured = self.order.iter().filter_map(|&id| self.services.get(id));
        let former = self.services.iter().map(|(_, service)| service);
        let former = former.filter(|service| any && !service.configured);
        let services: Vec<&Service> = configured.chain(former).collect();
        let found = services
            .iter()
            .find(|known| &*known.config.name == service)
            .or_else(|| services.iter().find(|known| known.config.endpoint() == service))
            .or_else(|| services.iter().find(|known| known.listens_on(service)))
            .ok_or_else(|| {
                let names = services.iter().map(|service| &*service.config.name);
                format!("no service {service}: {}", there_is(names))
            })?;
        let former = if any { found.draining.as_slice() } else { &[] };
        let destinations: Vec<(DestinationId, &Destination)> = found
            .destinations
            .iter()
            .chain(former)
            .filter_map(|&id| Some((id, self.destinations.get(id)?)))
            .collect();
        if let Some(named) = destinations.iter().find(|(_, known)| &*known.name == real_server) {
            return Ok(*named);
        }
        let address: Option<IpAddr> = real_server.parse().ok();
        let mut addressed = destinations.iter().filter(|(_, known)| Some(known.address) == address);
        match (addressed.next(), addressed.next()) {
            (Some(only), None) => Ok(*only),
            (Some((_, one)), Some((_, other))) => Err(format!(
                "service {service}: {real_server} is {} and {}, on two segments: say which",
                one.name, other.name
            )),
            (None, _) => {
                let names = destinations.iter().map(|(_, known)| &*known.name);
                Err(format!("service {service}: no real server {real_server}: {}", there_is(names)))
            }
        }
    }

    /// Takes a draining real server without connections out, and with the last one its service;
    /// the neighbor it used.
    pub fn remove_if_drained(&mut self, id: DestinationId) -> Option<NeighborId> {
        let destination = self.destinations.get(id)?;
        if destination.is_configured() || destination.connections() > 0 {
            return None;
        }
        let (service_id, neighbor) = (destination.service, destination.neighbor);
        self.destinations.remove(id);
        if let Some(service) = self.services.get_mut(service_id) {
            service.draining.retain(|&draining| draining != id);
            self.remove_service_if_gone(service_id);
        }
        Some(neighbor)
    }

    /// Takes a service out that is neither configured nor has connections.
    pub fn remove_service_if_gone(&mut self, id: ServiceId) {
        let Some(service) = self.services.get(id) else { return };
        if service.configured || !service.draining.is_empty() {
            return;
        }
        let Some(service) = self.services.remove(id) else { return };
        self.by_key.remove(&service.config.listen);
        for Endpoint { vip, .. } in &*service.config.listen {
            if let Some(entry) = self.vips.get_mut(vip) {
                entry.services.retain(|&service| service != id);
                if entry.services.is_empty() {
                    self.vips.remove(vip);
                }
            }
        }
    }

    /// Makes the look-up tables anew from the services there are.
    pub fn rebuild_lookup(&mut self) {
        self.vips.clear();
        self.by_port.clear();
        for (id, service) in self.services.iter() {
            for endpoint in &*service.config.listen {
                let vip = self.vips.entry(endpoint.vip).or_default();
                vip.configured |= service.configured;
                // The endpoints of one VIP are neighbours: they are sorted.
                if vip.services.last() != Some(&id) {
                    vip.services.push(id);
                }
            }
        }
        let listed = self.order.iter().filter_map(|&id| Some((id, self.services.get(id)?)));
        let listed =
            listed.flat_map(|(id, service)| service.config.listen.iter().map(move |end| (id, end)));
        for (id, Endpoint { vip, protocol, ports }) in listed {
            let table = self.by_port.entry((*vip, *protocol)).or_insert_with(|| PortTable {
                exact: self.hash_key.map(),
                ranges: Vec::new(),
                any: None,
            });
            match ports {
                Ports::Any => table.any = Some(id),
                Ports::Some(ranges) => {
                    for range in ranges {
                        if range.is_exact() {
                            table.exact.insert(range.first, id);
                        } else {
                            table.ranges.push((range.first, range.last, id));
                        }
                    }
                }
            }
        }
        for table in self.by_port.values_mut() {
            table.ranges.sort_unstable();
        }
    }

    /// Takes over what the configuration may change about a real server; its neighbor, if that is
    /// concerned.
    pub fn configure(&mut self, id: DestinationId, config: &RealServer) -> Option<NeighborId> {
        let mut concerned = None;
        self.change(id, |destination| {
            concerned = destination.configure(config).then_some(destination.neighbor);
        });
        concerned
    }

    /// Makes what a service's scheduler sees anew from its real servers, from this position on.
    /// To be followed by [`Self::build`].
    pub fn rebuild_candidates(&mut self, id: ServiceId, from: usize) {
        let Some(service) = self.services.get_mut(id) else { return };
        service.candidates.truncate(from);
        for (position, &destination) in service.destinations.iter().enumerate().skip(from) {
            if let Some(destination) = self.destinations.get_mut(destination) {
                destination.position = Some(position as u32);
                service.candidates.push(destination.candidate());
            }
        }
        let eligible = service.candidates.iter().filter(|candidate| candidate.is_eligible());
        service.eligible = eligible.count() as u32;
        let members = members(&self.destinations, &service.destinations);
        service.scheduler.candidates_changed(&service.candidates, &members);
        let known = service.destinations.iter().filter_map(|&id| self.destinations.get(id));
        service.live_weight = known.map(Destination::live_weight).sum();
        self.unsettle_quorum(id);
    }

    /// Finds out which services gained their quorum or lost it, by keepalived's rule: one that has
    /// it loses it below quorum − hysteresis, and one that has not gains it from quorum +
    /// hysteresis on. To be called before anyone goes by it: in between, sums come and go.
    #[inline]
    pub fn settle_quorums(&mut self) {
        if !self.unsettled.is_empty() {
            self.settle();
        }
    }

    #[cold]
    fn settle(&mut self) {
        for id in core::mem::take(&mut self.unsettled) {
            let Some(service) = self.services.get_mut(id) else { continue };
            service.unsettled = false;
            if !service.configured {
                continue;
            }
            service.quorate =
                if service.quorate { !service.loses_quorum() } else { service.gains_quorum() };
            if service.quorate != service.quorate_told && self.quorum_news.len() < QUORUM_NEWS_MAX {
                service.quorate_told = service.quorate;
                self.quorum_news.push_back((id, service.quorate));
            }
        }
    }

    /// The live weight of a service changed, or what it is held against.
    pub fn unsettle_quorum(&mut self, id: ServiceId) {
        if let Some(service) = self.services.get_mut(id)
            && !core::mem::replace(&mut service.unsettled, true)
        {
            self.unsettled.push(id);
        }
    }

    /// Changes a real server and keeps its service's view of it, and its overload, in step.
    fn change(
        &mut self,
        id: DestinationId,
        change: impl FnOnce(&mut Destination),
    ) -> Option<Threshold> {
        let destination = self.destinations.get_mut(id)?;
        let live_before = destination.live_weight();
        change(destination);
        let crossed = destination.check_thresholds();
        if let Some(position) = destination.position
            && let Some(service) = self.services.get_mut(destination.service)
            && let Some(candidate) = service.candidates.get_mut(position as usize)
        {
            service.eligible -= u32::from(candidate.is_eligible());
            *candidate = destination.candidate();
            service.eligible += u32::from(candidate.is_eligible());
            service.scheduler.candidate_changed(position as usize, &service.candidates);
            let live = destination.live_weight();
            if live != live_before {
                service.live_weight = (service.live_weight + live).saturating_sub(live_before);
                let service = destination.service;
                self.unsettle_quorum(service);
            }
        }
        crossed
    }
}

/// What a scheduler knows its candidates by.
fn members(all: &Arena<Destination>, of_service: &[DestinationId]) -> Vec<Member> {
    let found = of_service.iter().filter_map(|&id| Some((id, all.get(id)?)));
    found
        .map(|(id, found)| Member { id, address: found.address, last_weight: found.last_weight })
        .collect()
}

/// `there is web, dns`: the first few of what could have been meant.
fn there_is<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN_MAX: usize = 10;
    let more = if names.len() > SHOWN_MAX { ", …" } else { "" };
    let shown = names.take(SHOWN_MAX).collect::<Vec<_>>().join(", ");
    if shown.is_empty() { "there is none".to_owned() } else { format!("there is {shown}{more}") }
}

impl Service {
    /// Whether it has its quorum, and a real server can take a connection.
    pub(super) fn is_up(&self) -> bool {
        self.quorate && self.eligible > 0
    }

    fn gains_quorum(&self) -> bool {
        let snapshot::Service { quorum, quorum_hysteresis, .. } = *self.config;
        self.live_weight >= u64::from(quorum) + u64::from(quorum_hysteresis)
    }

    fn loses_quorum(&self) -> bool {
        let snapshot::Service { quorum, quorum_hysteresis, .. } = *self.config;
        self.live_weight < u64::from(quorum.saturating_sub(quorum_hysteresis).max(1))
    }

    /// Whether this is one of the endpoints of a group, as it is shown.
    fn listens_on(&self, endpoint: &str) -> bool {
        self.config.listen.iter().any(|known| known.to_string() == endpoint)
    }
}
