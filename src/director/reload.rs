//! A new configuration is taken into force: reconciliation by natural key.
//!
//! Segments go by name, services by VIP, protocol and ports, real servers by address and
//! segment. What is in both configurations keeps its connections, counts and neighbor state
//! whatever else changed; what is new starts; what is gone takes no new connections and leaves
//! with its last one.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::neighbors::Hop;
use super::resolution::Rip;
use super::scheduler::Scheduler;
use super::services::{Destination, DestinationId, Service, ServiceId, ServiceKey};
use super::{Director, Instant, SegmentId};
use crate::config::Snapshot;
use crate::config::snapshot::{self, OnRemoval, RealServer};
use crate::wire::MacAddr;

/// What a new configuration means for the one who owns the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Segments whose port is to be opened.
    pub segments_added: Vec<SegmentId>,
    /// Segments whose port is to be closed.
    pub segments_removed: Vec<SegmentId>,
}

/// A real server's natural key: where it is reached and its address there.
type RealServerKey = (SegmentId, IpAddr);

/// Where a VIP is announced, and with which MAC.
type Announced = BTreeSet<(IpAddr, SegmentId, MacAddr)>;

impl Director {
    /// Takes a new configuration into force. The capacity of the connection table stays what it
    /// was at the start.
    pub fn apply(&mut self, now: Instant, next: Arc<Snapshot>) -> ReloadReport {
        let announced = self.announced();
        self.snapshot = next.clone();
        self.generation += 1;
        let report = self.reconcile_segments(&next);
        self.reconcile_services(now, &next);
        self.services.rebuild_lookup();
        self.reconcile_neighbors(&next);
        self.announce_news(now, &announced);
        report
    }

    fn announced(&self) -> Announced {
        let vips = self.services.configured_vips();
        self.segments
            .iter()
            .filter(|(_, segment)| segment.role.has_vips())
            .flat_map(|(id, segment)| vips.iter().map(move |&vip| (vip, id, segment.mac)))
            .collect()
    }

    /// Announces what was not announced before in this way, and stops announcing what is gone.
    fn announce_news(&mut self, now: Instant, before: &Announced) {
        let announced = self.announced();
        let announce = self.snapshot.announce;
        let still: BTreeSet<(IpAddr, SegmentId)> =
            announced.iter().map(|&(vip, segment, _)| (vip, segment)).collect();
        self.announcer.retain(|vip, segment| still.contains(&(vip, segment)));
        for &(vip, segment, _) in announced.difference(before) {
            self.announcer.vip_up(now, vip, segment, &announce);
        }
        let vip_segments: Vec<SegmentId> = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.role.has_vips())
            .map(|(id, _)| id)
            .collect();
        self.announcer.refresh(now, &vip_segments, &announce);
    }

    fn reconcile_segments(&mut self, next: &Snapshot) -> ReloadReport {
        let before: BTreeSet<SegmentId> = self.segments.iter().map(|(id, _)| id).collect();
        let after: BTreeSet<SegmentId> =
            next.segments.iter().map(|segment| self.segments.configure(segment)).collect();
        let removed: Vec<SegmentId> = before.difference(&after).copied().collect();
        for &id in &removed {
            self.segments.retire(id);
        }
        ReloadReport {
            segments_added: after.difference(&before).copied().collect(),
            segments_removed: removed,
        }
    }

    fn reconcile_services(&mut self, now: Instant, next: &Snapshot) {
        let known: BTreeMap<ServiceKey, ServiceId> =
            self.services.services.iter().map(|(id, service)| (service.key.clone(), id)).collect();
        let macs = configured_macs(next);
        let mut order = Vec::with_capacity(next.services.len());
        for config in &next.services {
            let key = ServiceKey {
                vip: config.vip,
                protocol: config.protocol,
                ports: config.ports.clone(),
            };
            let id = match known.get(&key) {
                Some(&id) => id,
                None => match Service::new(key, config) {
                    Some(service) => self.services.services.insert(service),
                    // Validation lets no scheduler through that is not built.
                    None => continue,
                },
            };
            self.update_service(now, id, config, &macs);
            order.push(id);
        }
        let configured: BTreeSet<ServiceId> = order.iter().copied().collect();
        self.services.order = order;
        for &id in known.values().filter(|id| !configured.contains(id)) {
            self.retire_service(id);
        }
    }

    fn update_service(
        &mut self,
        now: Instant,
        id: ServiceId,
        config: &snapshot::Service,
        macs: &BTreeMap<(&str, IpAddr), MacAddr>,
    ) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        service.name = config.name.clone();
        service.persistence = config.persistence;
        service.one_packet = config.one_packet;
        service.on_removal = config.on_removal;
        service.configured = true;
        if service.scheduler.kind() != config.scheduler
            && let Some(scheduler) = Scheduler::new(config.scheduler)
        {
            service.scheduler = scheduler;
        }
        let mut before: Vec<DestinationId> = core::mem::take(&mut service.destinations);
        before.append(&mut service.draining);
        let mut known: BTreeMap<RealServerKey, DestinationId> = before
            .into_iter()
            .filter_map(|id| Some((self.services.destinations.get(id)?.key(), id)))
            .collect();
        let mut destinations = Vec::with_capacity(config.real_servers.len());
        for real_server in &config.real_servers {
            // Validation lets no real server through whose segment is not there.
            let Some(segment) = self.segments.find(&real_server.segment) else { continue };
            let mac = macs.get(&(&*real_server.segment, real_server.address)).copied();
            let address = real_server.address;
            let neighbor = self.neighbors.ensure(now, segment, address, mac, &real_server.name);
            let destination = known.remove(&(segment, address)).unwrap_or_else(|| {
                self.services.destinations.insert(Destination {
                    name: real_server.name.clone(),
                    service: id,
                    position: None,
                    address,
                    segment,
                    neighbor,
                    configured_weight: real_server.weight,
                    weight_override: None,
                    upper_threshold: 0,
                    lower_threshold: 0,
                    cut: false,
                    overloaded: false,
                    reachable: false,
                    active: 0,
                    inactive: 0,
                    traffic: Default::default(),
                    rates: Default::default(),
                    loop_told: None,
                })
            });
            if let Some(found) = self.services.destinations.get_mut(destination) {
                found.update(real_server);
            }
            destinations.push(destination);
        }
        let gone: Vec<DestinationId> = known.into_values().collect();
        self.drain(id, destinations, gone);
    }

    /// A service that is no longer configured: its connections finish.
    fn retire_service(&mut self, id: ServiceId) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        service.configured = false;
        let mut gone = core::mem::take(&mut service.destinations);
        gone.append(&mut service.draining);
        self.drain(id, Vec::new(), gone);
        self.services.remove_service_if_gone(id);
    }

    /// Sets a service's real servers, and lets those that are gone finish their connections.
    fn drain(&mut self, id: ServiceId, destinations: Vec<DestinationId>, gone: Vec<DestinationId>) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        service.destinations = destinations;
        service.draining.clone_from(&gone);
        let cut = service.on_removal == OnRemoval::Reset;
        self.services.rebuild_candidates(id);
        for id in gone {
            if let Some(destination) = self.services.destinations.get_mut(id) {
                destination.position = None;
                destination.cut |= cut;
                if destination.cut && destination.connections() > 0 {
                    self.sweep = Some(0);
                }
            }
            self.services.remove_if_drained(id);
        }
    }

    /// Who uses which neighbor, by which MACs real servers are recognised, and whether they are
    /// reachable.
    fn reconcile_neighbors(&mut self, next: &Snapshot) {
        self.neighbors.clear_users();
        let users: Vec<_> =
            self.services.destinations.iter().map(|(id, found)| (id, found.neighbor)).collect();
        for &(id, neighbor) in &users {
            self.neighbors.add_user(neighbor, id);
        }
        for neighbor in self.neighbors.remove_unused() {
            self.drop_held(neighbor);
        }
        for (id, neighbor) in users {
            let usable = self.neighbors.get(neighbor).is_some_and(|found| found.is_usable());
            self.services.set_reachable(id, usable);
        }
        self.rebuild_rips(next);
        self.rebuild_stations();
        self.release_found();
    }

    fn rebuild_rips(&mut self, next: &Snapshot) {
        let mut before: Vec<_> = self.rips.drain().collect();
        before.sort_unstable_by_key(|&(address, _)| address);
        let mut learnt = |address: IpAddr| {
            let at = before.binary_search_by_key(&address, |&(known, _)| known).ok()?;
            Some(core::mem::take(&mut before[at].1.learnt))
        };
        for (id, destination) in self.services.destinations.iter() {
            self.rips.entry(destination.address).or_insert_with(|| Rip {
                destination: id,
                configured: Vec::new(),
                learnt: learnt(destination.address).unwrap_or_default(),
            });
        }
        for real_server in next.services.iter().flat_map(|service| &service.real_servers) {
            if let Some(rip) = self.rips.get_mut(&real_server.address) {
                rip.configured.extend(&real_server.vip_macs);
            }
        }
    }

    /// Sends what was held for neighbors whose MAC a reload has told.
    fn release_found(&mut self) {
        if self.hold.is_empty() {
            return;
        }
        let found: Vec<_> = self
            .neighbors
            .iter()
            .filter_map(|(id, neighbor)| match neighbor.hop() {
                Hop::Mac(mac) => Some((id, neighbor.segment, mac)),
                Hop::Resolving | Hop::Unreachable => None,
            })
            .collect();
        for (id, segment, mac) in found {
            self.release_held(id, segment, mac);
        }
    }
}

impl Service {
    /// A service without real servers; `None` if its scheduler is not built.
    fn new(key: ServiceKey, config: &snapshot::Service) -> Option<Service> {
        Some(Service {
            name: config.name.clone(),
            key,
            scheduler: Scheduler::new(config.scheduler)?,
            persistence: None,
            one_packet: false,
            on_removal: config.on_removal,
            configured: true,
            destinations: Vec::new(),
            candidates: Vec::new(),
            draining: Vec::new(),
            traffic: Default::default(),
            rates: Default::default(),
        })
    }
}

impl Destination {
    fn key(&self) -> RealServerKey {
        (self.segment, self.address)
    }

    /// Takes over what the configuration may change. A weight set by hand stays until the
    /// configuration gives the real server another one.
    fn update(&mut self, config: &RealServer) {
        self.name = config.name.clone();
        if self.configured_weight != config.weight {
            self.weight_override = None;
        }
        self.configured_weight = config.weight;
        self.cut = false;
        self.upper_threshold = config.upper_threshold;
        self.lower_threshold = config.lower_threshold;
        self.check_thresholds();
    }
}

/// The static MAC of each real server that has one, whichever service gives it.
fn configured_macs(snapshot: &Snapshot) -> BTreeMap<(&str, IpAddr), MacAddr> {
    snapshot
        .services
        .iter()
        .flat_map(|service| &service.real_servers)
        .filter_map(|server| Some(((&*server.segment, server.address), server.mac?)))
        .collect()
}
