//! One service is brought up to its configuration: real servers that remain keep their
//! connections and counts, new ones start, and those that are gone drain.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::destination::{Destination, DestinationId, Health};
use super::neighbors::{Neighbor, NeighborId};
use super::scheduler::Scheduler;
use super::services::{Service, ServiceId};
use super::{Director, Instant, SegmentId};
use crate::config::snapshot::{self, OnRemoval, RealServer};

/// A real server's natural key: where it is reached and its address there.
type RealServerKey = (SegmentId, IpAddr);

/// What was done in a step.
#[derive(Default)]
pub(super) struct Step {
    /// In units of [`super::Limits::reload_step`], but for the neighbors.
    pub work: usize,
    /// Neighbors whose real servers changed what they say; each is to be refreshed.
    pub touched: Vec<NeighborId>,
}

/// What things cost with nothing in the caches, in those units.
const KNOWN_REAL_SERVER: usize = 10;
const OTHER_REAL_SERVER: usize = 50;
const NEIGHBOR: usize = 100;

impl Step {
    /// What the step has cost, and what it will.
    pub fn cost(&self) -> usize {
        self.work + self.touched.len() * NEIGHBOR
    }
}

impl Director {
    /// The service that is configured so, entered if need be.
    pub(super) fn enter_service(&mut self, config: &Arc<snapshot::Service>) -> ServiceId {
        if let Some(&id) = self.services.by_key.get(&config.listen) {
            return id;
        }
        let seed = self.services.seed_of(&config.listen);
        let id = self.services.services.insert(Service::new(config, seed));
        self.services.by_key.insert(Arc::clone(&config.listen), id);
        id
    }

    /// Brings a service up to its configuration; whether it was not configured before.
    pub(super) fn update_service(
        &mut self,
        now: Instant,
        id: ServiceId,
        config: &Arc<snapshot::Service>,
        step: &mut Step,
    ) -> bool {
        let seed = self.services.seed_of(&config.listen);
        let Some(service) = self.services.services.get_mut(id) else { return false };
        let came = !core::mem::replace(&mut service.configured, true);
        let before = core::mem::replace(&mut service.config, Arc::clone(config));
        if !Scheduler::suits(&before, config) {
            service.scheduler = Scheduler::new(config, seed);
        }
        self.part_with_sorry_server(id, config);
        self.update_real_servers(now, id, &before.real_servers, &config.real_servers, step);
        if let Some(sorry_server) = &config.sorry_server {
            self.set_sorry_server(id, sorry_server, step);
        }
        self.update_checks(now, id, config);
        if came && let Some(service) = self.services.services.get_mut(id) {
            // Coming back while old connections drain is a new start.
            service.quorate = false;
        }
        came
    }

    /// Puts a sorry server that is no longer that among those that drain. If it is now one of the
    /// real servers, it will be found there.
    fn part_with_sorry_server(&mut self, id: ServiceId, config: &snapshot::Service) {
        let sorry = self.services.services.get(id).and_then(|service| service.sorry);
        let Some(sorry) = sorry else { return };
        let stays = config.sorry_server.as_ref().is_some_and(|wanted| self.is_at(sorry, wanted));
        if !stays && let Some(service) = self.services.services.get_mut(id) {
            service.sorry = None;
            service.draining.push(sorry);
        }
    }

    /// Brings the sorry server up to its configuration, be it new, one that drains, or the same.
    fn set_sorry_server(&mut self, id: ServiceId, config: &RealServer, step: &mut Step) {
        let Some(service) = self.services.services.get(id) else { return };
        let draining = || {
            let mut draining = service.draining.iter().copied();
            draining.find(|&id| {
                let cut = self.services.destinations.get(id).is_none_or(|found| found.cut);
                !cut && self.is_at(id, config)
            })
        };
        let sorry = match service.sorry.or_else(draining) {
            Some(known) => {
                step.touched.extend(self.services.configure(known, config));
                known
            }
            None => {
                // Validation lets no real server through whose segment is not there.
                let Some(segment) = self.segments.find(&config.segment) else { return };
                self.new_destination(id, segment, config, step)
            }
        };
        if let Some(destination) = self.services.destinations.get_mut(sorry) {
            destination.is_sorry = true;
        }
        if let Some(service) = self.services.services.get_mut(id) {
            service.draining.retain(|&draining| draining != sorry);
            service.sorry = Some(sorry);
        }
    }

    /// Brings the checks of a service's real servers up to its configuration.
    fn update_checks(&mut self, now: Instant, id: ServiceId, config: &snapshot::Service) {
        let Some(service) = self.services.services.get(id) else { return };
        for destination in service.destinations.clone() {
            self.configure_check(now, destination, config.check.as_ref());
        }
    }

    /// Brings a service's real servers up to its configuration. Those at the head and at the tail
    /// of the list that are as they were cost a comparison of two pointers each.
    fn update_real_servers(
        &mut self,
        now: Instant,
        id: ServiceId,
        before: &[Arc<RealServer>],
        after: &[Arc<RealServer>],
        step: &mut Step,
    ) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        step.work += KNOWN_REAL_SERVER * after.len();
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
                step.touched.extend(self.services.configure(destinations[at], &after[at_after]));
            }
        }
        let known: Vec<DestinationId> =
            destinations[head..end].iter().copied().chain(draining).collect();
        let (between, gone) = self.match_by_key(id, known, &after[head..end_after], step);
        destinations.splice(head..end, between);
        if let Some(service) = self.services.services.get_mut(id) {
            service.destinations = destinations;
        }
        self.services.rebuild_candidates(id, head);
        self.drain(now, id, gone, step);
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
        step: &mut Step,
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
                    step.touched.extend(self.services.configure(known, config));
                    if let Some(destination) = self.services.destinations.get_mut(known) {
                        destination.is_sorry = false;
                    }
                    known
                }
                None => self.new_destination(id, segment, config, step),
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
        step: &mut Step,
    ) -> DestinationId {
        step.work += OTHER_REAL_SERVER;
        let neighbor = self.neighbors.enter(segment, config.address, &config.name);
        if config.address.is_ipv6() {
            let on = self.segments.get_mut(segment);
            self.groups_stale |= on.is_some_and(|segment| segment.follow_neighbor());
        }
        let reachable = self.neighbors.get(neighbor).is_some_and(Neighbor::is_usable);
        let id = self.services.destinations.insert(Destination {
            name: config.name.clone(),
            service,
            position: None,
            is_sorry: false,
            address: config.address,
            segment,
            neighbor,
            configured_weight: config.weight,
            weight_override: None,
            last_weight: config.weight,
            upper_threshold: config.upper_threshold,
            lower_threshold: config.lower_threshold,
            mac: config.mac,
            vip_macs: config.vip_macs.clone(),
            cut: false,
            overloaded: false,
            reachable,
            health: Health::default(),
            check: None,
            unanswered_syns: 0,
            progressed: Instant::ZERO,
            active: 0,
            inactive: 0,
            templates: 0,
            traffic: Default::default(),
            rates: Default::default(),
            loop_told: None,
        });
        self.add_neighbor_user(neighbor, id);
        let names_macs = self.services.destinations.get(id).is_some_and(Destination::names_macs);
        if names_macs || !self.is_settled(neighbor) {
            step.touched.push(neighbor);
        }
        id
    }

    /// Lets a service that is no longer configured finish its connections, or ends them.
    pub(super) fn retire_service(&mut self, now: Instant, id: ServiceId, step: &mut Step) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        let mut gone = core::mem::take(&mut service.destinations);
        gone.append(&mut service.draining);
        gone.extend(service.sorry.take());
        self.services.rebuild_candidates(id, 0);
        self.drain(now, id, gone, step);
        self.services.remove_service_if_gone(id);
    }

    /// Takes a real server out that is no longer configured and has no connections left.
    pub(super) fn remove_if_drained(&mut self, now: Instant, id: DestinationId) {
        if let Some(neighbor) = self.services.remove_if_drained(id) {
            self.neighbors.remove_user(neighbor, id);
            self.refresh_neighbor(now, neighbor);
        }
    }

    /// Lets real servers that a service no longer has finish their connections, or ends them, as
    /// the service wants it. Those without any leave at once.
    fn drain(&mut self, now: Instant, id: ServiceId, gone: Vec<DestinationId>, step: &mut Step) {
        let Some(service) = self.services.services.get_mut(id) else { return };
        let cut = service.config.on_removal == OnRemoval::Reset;
        let mut silenced = Vec::new();
        let mut unchecked = Vec::new();
        step.work += OTHER_REAL_SERVER * gone.len();
        for &id in &gone {
            let Some(destination) = self.services.destinations.get_mut(id) else { continue };
            // One that was draining already goes on as it was promised.
            let was_sorry = core::mem::take(&mut destination.is_sorry);
            if destination.position.take().is_some() || was_sorry {
                destination.cut = cut;
                unchecked.push(id);
                // Should it come back, then with the weight it is given.
                destination.weight_override = None;
                // If it drains, it has no say about its neighbor any more.
                silenced.push((destination.neighbor, destination.names_macs()));
            }
            if destination.connections() > 0 {
                service.draining.push(id);
                if destination.cut {
                    self.sweep = Some(0);
                }
            }
        }
        for id in unchecked {
            self.remove_check(now, id);
        }
        for id in gone {
            if let Some(neighbor) = self.services.remove_if_drained(id) {
                self.neighbors.remove_user(neighbor, id);
                silenced.push((neighbor, false));
            }
        }
        for (neighbor, named_macs) in silenced {
            if named_macs || !self.is_settled(neighbor) {
                step.touched.push(neighbor);
            }
        }
    }
}

impl Service {
    /// A service without real servers, not yet in force.
    fn new(config: &Arc<snapshot::Service>, seed: u64) -> Service {
        Service {
            config: Arc::clone(config),
            scheduler: Scheduler::new(config, seed),
            configured: false,
            destinations: Vec::new(),
            candidates: Vec::new(),
            eligible: 0,
            live_weight: 0,
            quorate: false,
            quorate_told: true,
            unsettled: false,
            sorry: None,
            draining: Vec::new(),
            traffic: Default::default(),
            rates: Default::default(),
        }
    }
}

impl Destination {
    fn key(&self) -> RealServerKey {
        (self.segment, self.address)
    }

    /// Whether it has more to say about its neighbor than a name.
    fn names_macs(&self) -> bool {
        self.mac.is_some() || !self.vip_macs.is_empty()
    }
}
