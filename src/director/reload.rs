//! A new configuration is taken into force: reconciliation by natural key.
//!
//! Segments go by name, services by VIP, protocol and ports, real servers by address and
//! segment. What is in both configurations keeps its connections, counts and neighbor state
//! whatever else changed; what is new starts; what is gone takes no new connections and leaves
//! with its last one.
//!
//! The work is proportional to what changed: services that two snapshots share
//! ([`Snapshot::share`]) are passed over at the cost of comparing two pointers.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::neighbors::NeighborId;
use super::scheduler::Scheduler;
use super::services::{Destination, DestinationId, Service, ServiceId};
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
pub(super) type Announced = BTreeSet<(IpAddr, SegmentId, MacAddr)>;

impl Director {
    /// Takes a new configuration into force. The capacity of the connection table stays what it
    /// was at the start.
    pub fn apply(&mut self, now: Instant, next: Arc<Snapshot>) -> ReloadReport {
        let before = core::mem::replace(&mut self.snapshot, Arc::clone(&next));
        self.generation += 1;
        let first = self.generation == 1;
        let segments_differ = first || before.segments != next.segments;
        let report =
            if segments_differ { self.reconcile_segments(&next) } else { ReloadReport::default() };
        let services_differ = self.reconcile_services(now, &next);
        if services_differ {
            self.services.rebuild_lookup();
        }
        if segments_differ || services_differ || before.announce != next.announce {
            self.announce_news(now);
        }
        report
    }

    /// Takes a real server out that is no longer configured and has no connections left.
    pub(super) fn remove_if_drained(&mut self, now: Instant, id: DestinationId) {
        if let Some(neighbor) = self.services.remove_if_drained(id) {
            self.neighbors.remove_user(neighbor, id);
            self.refresh_neighbor(now, neighbor);
        }
    }

    /// Announces what was not announced before in this way, and stops announcing what is gone.
    fn announce_news(&mut self, now: Instant) {
        let vips = self.services.configured_vips();
        let vip_segments: Vec<(SegmentId, MacAddr)> = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.role.has_vips())
            .map(|(id, segment)| (id, segment.mac))
            .collect();
        let announced: Announced = vip_segments
            .iter()
            .flat_map(|&(segment, mac)| vips.iter().map(move |&vip| (vip, segment, mac)))
            .collect();
        let still: BTreeSet<(IpAddr, SegmentId)> =
            announced.iter().map(|&(vip, segment, _)| (vip, segment)).collect();
        self.announcer.retain(|vip, segment| still.contains(&(vip, segment)));
        let announce = self.snapshot.announce;
        for &(vip, segment, _) in announced.difference(&self.announced) {
            self.announcer.vip_up(now, vip, segment, &announce);
        }
        self.announced = announced;
        let segments: Vec<SegmentId> = vip_segments.into_iter().map(|(id, _)| id).collect();
        self.announcer.refresh(now, &segments, &announce);
    }

    fn reconcile_segments(&mut self, next: &Snapshot) -> ReloadReport {
        for (_, segment) in self.segments.iter() {
            self.stations.remove_own(segment.mac);
        }
        let before: BTreeSet<SegmentId> = self.segments.iter().map(|(id, _)| id).collect();
        let after: BTreeSet<SegmentId> =
            next.segments.iter().map(|segment| self.segments.configure(segment)).collect();
        let removed: Vec<SegmentId> = before.difference(&after).copied().collect();
        for &id in &removed {
            self.segments.retire(id);
        }
        for (_, segment) in self.segments.iter() {
            self.stations.add_own(segment.mac);
        }
        ReloadReport {
            segments_added: after.difference(&before).copied().collect(),
            segments_removed: removed,
        }
    }

    /// Whether services came or went.
    fn reconcile_services(&mut self, now: Instant, next: &Snapshot) -> bool {
        let mut came = false;
        let mut touched = Vec::new();
        let mut order = Vec::with_capacity(next.services.len());
        for (position, config) in next.services.iter().enumerate() {
            if let Some(same) = self.unchanged(position, config) {
                order.push(same);
                continue;
            }
            let key = (config.vip, config.protocol, config.ports.clone());
            let id = match self.services.by_key.get(&key) {
                Some(&id) => id,
                None => {
                    // Validation lets no scheduler through that is not built.
                    let Some(service) = Service::new(config) else { continue };
                    let id = self.services.services.insert(service);
                    self.services.by_key.insert(key, id);
                    id
                }
            };
            came |= self.update_service(now, id, config, &mut touched);
            order.push(id);
        }
        let before = core::mem::replace(&mut self.services.order, order);
        let went = before != self.services.order && self.retire_services(now, &before);
        touched.sort_unstable();
        touched.dedup();
        for neighbor in touched {
            self.refresh_neighbor(now, neighbor);
        }
        came || went
    }

    /// The service at this position of the configuration, if it is the same as before.
    fn unchanged(&self, position: usize, config: &Arc<snapshot::Service>) -> Option<ServiceId> {
        let &id = self.services.order.get(position)?;
        let service = self.services.services.get(id)?;
        (Arc::ptr_eq(&service.config, config) || service.config == *config).then_some(id)
    }

    /// Brings a service up to its configuration; whether it was not configured before.
    fn update_service(
        &mut self,
        now: Instant,
        id: ServiceId,
        config: &Arc<snapshot::Service>,
        touched: &mut Vec<NeighborId>,
    ) -> bool {
        let Some(service) = self.services.services.get_mut(id) else { return false };
        let came = !service.configured;
        service.configured = true;
        service.config = Arc::clone(config);
        if service.scheduler.kind() != config.scheduler
            && let Some(scheduler) = Scheduler::new(config.scheduler)
        {
            service.scheduler = scheduler;
        }
        let before = core::mem::take(&mut service.destinations);
        let draining = core::mem::take(&mut service.draining);
        if draining.is_empty() && self.is_same_set(&before, &config.real_servers) {
            for (&destination, real_server) in before.iter().zip(&config.real_servers) {
                self.update_destination(destination, real_server, touched);
            }
            self.drain(now, id, before, Vec::new());
            return came;
        }
        // One whose connections were ended is not taken back with them: it starts anew.
        let is_cut = |&id: &DestinationId| {
            self.services.destinations.get(id).is_some_and(|destination| destination.cut)
        };
        let (cut, draining): (Vec<_>, Vec<_>) = draining.into_iter().partition(is_cut);
        let mut known: BTreeMap<RealServerKey, DestinationId> = before
            .into_iter()
            .chain(draining)
            .filter_map(|id| Some((self.services.destinations.get(id)?.key(), id)))
            .collect();
        let mut destinations = Vec::with_capacity(config.real_servers.len());
        for real_server in &config.real_servers {
            // Validation lets no real server through whose segment is not there.
            let Some(segment) = self.segments.find(&real_server.segment) else { continue };
            let destination = match known.remove(&(segment, real_server.address)) {
                Some(known) => known,
                None => self.new_destination(id, segment, real_server, touched),
            };
            self.update_destination(destination, real_server, touched);
            destinations.push(destination);
        }
        let gone: Vec<DestinationId> = known.into_values().chain(cut).collect();
        self.drain(now, id, destinations, gone);
        came
    }

    /// Whether these are the real servers of a configuration, one by one.
    fn is_same_set(&self, destinations: &[DestinationId], configured: &[RealServer]) -> bool {
        destinations.len() == configured.len()
            && destinations.iter().zip(configured).all(|(&id, real_server)| {
                self.services.destinations.get(id).is_some_and(|found| {
                    found.address == real_server.address
                        && self.segments.name(found.segment) == Some(&real_server.segment)
                })
            })
    }

    fn new_destination(
        &mut self,
        service: ServiceId,
        segment: SegmentId,
        config: &RealServer,
        touched: &mut Vec<NeighborId>,
    ) -> DestinationId {
        let neighbor = self.neighbors.enter(segment, config.address, &config.name);
        let id = self.services.destinations.insert(Destination {
            name: config.name.clone(),
            service,
            position: None,
            address: config.address,
            segment,
            neighbor,
            configured_weight: config.weight,
            weight_override: None,
            upper_threshold: 0,
            lower_threshold: 0,
            mac: config.mac,
            vip_macs: config.vip_macs.clone(),
            cut: false,
            overloaded: false,
            reachable: false,
            active: 0,
            inactive: 0,
            traffic: Default::default(),
            rates: Default::default(),
            loop_told: None,
        });
        self.add_neighbor_user(neighbor, id);
        touched.push(neighbor);
        id
    }

    fn update_destination(
        &mut self,
        id: DestinationId,
        config: &RealServer,
        touched: &mut Vec<NeighborId>,
    ) {
        if let Some(destination) = self.services.destinations.get_mut(id)
            && destination.update(config)
        {
            touched.push(destination.neighbor);
        }
    }

    /// Lets the services of the configuration before that are not in this one finish their
    /// connections; whether there are any.
    fn retire_services(&mut self, now: Instant, before: &[ServiceId]) -> bool {
        let configured: BTreeSet<ServiceId> = self.services.order.iter().copied().collect();
        let mut went = false;
        for &id in before.iter().filter(|id| !configured.contains(id)) {
            let Some(service) = self.services.services.get_mut(id) else { continue };
            went = true;
            service.configured = false;
            let mut gone = core::mem::take(&mut service.destinations);
            gone.append(&mut service.draining);
            self.drain(now, id, Vec::new(), gone);
            self.services.remove_service_if_gone(id);
        }
        went
    }

    /// Sets a service's real servers, and lets those that are gone finish their connections, or
    /// ends them, as the service wants it.
    fn drain(
        &mut self,
        now: Instant,
        id: ServiceId,
        destinations: Vec<DestinationId>,
        gone: Vec<DestinationId>,
    ) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        service.destinations = destinations;
        service.draining.clone_from(&gone);
        let cut = service.config.on_removal == OnRemoval::Reset;
        self.services.rebuild_candidates(id);
        for id in gone {
            let mut neighbor = None;
            if let Some(destination) = self.services.destinations.get_mut(id) {
                neighbor = destination.position.map(|_| destination.neighbor);
                // One that was draining already goes on as it was promised.
                destination.cut |= cut && destination.position.is_some();
                destination.position = None;
                if destination.cut && destination.connections() > 0 {
                    self.sweep = Some(0);
                }
            }
            self.remove_if_drained(now, id);
            // If it drains, it has no say any more.
            if let Some(neighbor) = neighbor {
                self.refresh_neighbor(now, neighbor);
            }
        }
    }
}

impl Service {
    /// A service without real servers, not yet in force; `None` if its scheduler is not built.
    fn new(config: &Arc<snapshot::Service>) -> Option<Service> {
        Some(Service {
            config: Arc::clone(config),
            scheduler: Scheduler::new(config.scheduler)?,
            configured: false,
            destinations: Vec::new(),
            candidates: Vec::new(),
            eligible: 0,
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

    /// Takes over what the configuration may change; whether that concerns its neighbor. A
    /// weight set by hand stays until the configuration gives the real server another one.
    fn update(&mut self, config: &RealServer) -> bool {
        let concerns_neighbor =
            (&self.name, self.mac, &self.vip_macs) != (&config.name, config.mac, &config.vip_macs);
        if concerns_neighbor {
            self.name = config.name.clone();
            self.mac = config.mac;
            self.vip_macs.clone_from(&config.vip_macs);
        }
        if self.configured_weight != config.weight {
            self.weight_override = None;
        }
        self.configured_weight = config.weight;
        self.upper_threshold = config.upper_threshold;
        self.lower_threshold = config.lower_threshold;
        self.check_thresholds();
        concerns_neighbor
    }
}
