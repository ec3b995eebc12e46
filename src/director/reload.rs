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

use super::neighbors::{Neighbor, NeighborId};
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
            came |= self.update_service(id, config, &mut touched);
            order.push(id);
        }
        let before = core::mem::replace(&mut self.services.order, order);
        let went = before != self.services.order && self.retire_services(&before, &mut touched);
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
        id: ServiceId,
        config: &Arc<snapshot::Service>,
        touched: &mut Vec<NeighborId>,
    ) -> bool {
        let Some(service) = self.services.services.get_mut(id) else { return false };
        let came = !core::mem::replace(&mut service.configured, true);
        let before = core::mem::replace(&mut service.config, Arc::clone(config));
        if service.scheduler.kind() != config.scheduler
            && let Some(scheduler) = Scheduler::new(config.scheduler)
        {
            service.scheduler = scheduler;
        }
        self.update_real_servers(id, &before.real_servers, &config.real_servers, touched);
        came
    }

    /// Brings a service's real servers up to its configuration. Those at the head and at the tail
    /// of the list that are as they were cost a comparison of two pointers each.
    fn update_real_servers(
        &mut self,
        id: ServiceId,
        before: &[Arc<RealServer>],
        after: &[Arc<RealServer>],
        touched: &mut Vec<NeighborId>,
    ) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        let mut destinations = core::mem::take(&mut service.destinations);
        let draining = core::mem::take(&mut service.draining);
        // A service that was not configured has no destinations, whatever it was configured with.
        let before = if before.len() == destinations.len() { before } else { &[] };
        let stays = |at: usize, at_after: usize| {
            let config = &after[at_after];
            Arc::ptr_eq(&before[at], config) || self.is_at(destinations[at], config)
        };
        let common = before.len().min(after.len());
        let head = (0..common).take_while(|&n| stays(n, n)).count();
        let from_end = |n: &usize| stays(before.len() - n, after.len() - n);
        let tail = (1..=common - head).take_while(from_end).count();
        let (end, end_after) = (destinations.len() - tail, after.len() - tail);

        let kept = (0..head).zip(0..head).chain((end..).zip(end_after..after.len()));
        for (at, at_after) in kept {
            if !Arc::ptr_eq(&before[at], &after[at_after]) {
                touched.extend(self.services.configure(destinations[at], &after[at_after]));
            }
        }
        let known: Vec<DestinationId> =
            destinations[head..end].iter().copied().chain(draining).collect();
        let (between, gone) = self.match_by_key(id, known, &after[head..end_after], touched);
        destinations.splice(head..end, between);
        if let Some(service) = self.services.services.get_mut(id) {
            service.destinations = destinations;
        }
        self.services.rebuild_candidates(id, head);
        self.drain(id, gone, touched);
    }

    /// Whether a real server is the one that is configured so.
    fn is_at(&self, id: DestinationId, config: &RealServer) -> bool {
        self.services.destinations.get(id).is_some_and(|found| {
            found.address == config.address
                && self.segments.name(found.segment) == Some(&config.segment)
        })
    }

    /// Finds these real servers among those a service has or had, or makes them; what became of
    /// the list, and those it no longer has.
    fn match_by_key(
        &mut self,
        id: ServiceId,
        known: Vec<DestinationId>,
        after: &[Arc<RealServer>],
        touched: &mut Vec<NeighborId>,
    ) -> (Vec<DestinationId>, Vec<DestinationId>) {
        let mut by_key: BTreeMap<RealServerKey, DestinationId> = BTreeMap::new();
        let mut gone = Vec::new();
        for id in known {
            let Some(destination) = self.services.destinations.get(id) else { continue };
            if destination.cut {
                // Its connections were ended: it is not taken back with them, it starts anew.
                gone.push(id);
            } else {
                by_key.insert(destination.key(), id);
            }
        }
        let mut list = Vec::with_capacity(after.len());
        for config in after {
            // Validation lets no real server through whose segment is not there.
            let Some(segment) = self.segments.find(&config.segment) else { continue };
            list.push(match by_key.remove(&(segment, config.address)) {
                Some(known) => {
                    touched.extend(self.services.configure(known, config));
                    known
                }
                None => self.new_destination(id, segment, config, touched),
            });
        }
        gone.extend(by_key.into_values());
        (list, gone)
    }

    fn new_destination(
        &mut self,
        service: ServiceId,
        segment: SegmentId,
        config: &RealServer,
        touched: &mut Vec<NeighborId>,
    ) -> DestinationId {
        let neighbor = self.neighbors.enter(segment, config.address, &config.name);
        let reachable = self.neighbors.get(neighbor).is_some_and(Neighbor::is_usable);
        let id = self.services.destinations.insert(Destination {
            name: config.name.clone(),
            service,
            position: None,
            address: config.address,
            segment,
            neighbor,
            configured_weight: config.weight,
            weight_override: None,
            upper_threshold: config.upper_threshold,
            lower_threshold: config.lower_threshold,
            mac: config.mac,
            vip_macs: config.vip_macs.clone(),
            cut: false,
            overloaded: false,
            reachable,
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

    /// Lets the services of the configuration before that are not in this one finish their
    /// connections; whether there are any.
    fn retire_services(&mut self, before: &[ServiceId], touched: &mut Vec<NeighborId>) -> bool {
        let configured: BTreeSet<ServiceId> = self.services.order.iter().copied().collect();
        let mut went = false;
        for &id in before.iter().filter(|id| !configured.contains(id)) {
            let Some(service) = self.services.services.get_mut(id) else { continue };
            went = true;
            service.configured = false;
            let mut gone = core::mem::take(&mut service.destinations);
            gone.append(&mut service.draining);
            self.services.rebuild_candidates(id, 0);
            self.drain(id, gone, touched);
            self.services.remove_service_if_gone(id);
        }
        went
    }

    /// Lets real servers that a service no longer has finish their connections, or ends them, as
    /// the service wants it. Those without any leave at once.
    fn drain(&mut self, id: ServiceId, gone: Vec<DestinationId>, touched: &mut Vec<NeighborId>) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        let cut = service.config.on_removal == OnRemoval::Reset;
        for &id in &gone {
            let Some(destination) = self.services.destinations.get_mut(id) else { continue };
            // Should it come back, then with the weight it is given.
            destination.weight_override = None;
            // One that was draining already goes on as it was promised.
            if destination.position.take().is_some() {
                destination.cut = cut;
                // Should it come back, then with the weight it is given.
                destination.weight_override = None;
                // If it drains, it has no say about its neighbor any more.
                touched.push(destination.neighbor);
            }
            if destination.connections() > 0 {
                service.draining.push(id);
                if destination.cut {
                    self.sweep = Some(0);
                }
            }
        }
        for id in gone {
            if let Some(neighbor) = self.services.remove_if_drained(id) {
                self.neighbors.remove_user(neighbor, id);
                touched.push(neighbor);
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
}
