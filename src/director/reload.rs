//! A new configuration is taken into force: reconciliation by natural key.
//!
//! Segments go by name, services by VIP, protocol and ports, real servers by address and
//! segment. What is in both configurations keeps its connections, counts and neighbor state
//! whatever else changed; what is new starts; what is gone takes no new connections and leaves
//! with its last one.
//!
//! The work is proportional to what changed: services that two snapshots share
//! ([`Snapshot::share`]) are passed over at the cost of comparing two pointers. A large change is
//! made in steps, between which frames are handled: service by service those that remain, then at
//! one blow which services and VIPs there are, then those that are gone.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::reconcile::Step;
use super::services::ServiceId;
use super::{DestinationId, Director, Instant, SegmentId};
use crate::config::{Snapshot, snapshot};
use crate::wire::MacAddr;

/// What a new configuration means for the one who owns the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Segments whose port is to be opened.
    pub segments_added: Vec<SegmentId>,
    /// Segments whose port is to be closed.
    pub segments_removed: Vec<SegmentId>,
}

/// Where a VIP is announced, and with which MAC.
pub(super) type Announced = BTreeSet<(IpAddr, SegmentId, MacAddr)>;

/// A configuration that is on its way into force.
#[derive(Debug)]
pub(super) struct Transition {
    next: Arc<Snapshot>,
    stage: Stage,
    /// Services of `next` that are entered already, and how many were looked at for that.
    order: Vec<ServiceId>,
    position: usize,
    /// Whether one of them is new.
    came: bool,
    /// Services whose schedulers have something to build.
    building: Vec<ServiceId>,
    /// Whether all VIPs are to be gone through, whatever becomes of the services.
    announce: bool,
}

#[derive(Debug)]
enum Stage {
    /// The services of the new configuration are brought up to it.
    Update,
    /// They all are: now they are those that there are.
    Switch,
    /// These are no longer configured.
    Retire(Vec<ServiceId>),
}

/// What things cost with nothing in the caches, in units of [`super::Limits::reload_step`].
const UNCHANGED_SERVICE: usize = 3;
const CHANGED_SERVICE: usize = 100;
const SWITCHED_SERVICE: usize = 50;

impl Director {
    /// Takes a new configuration into force. The capacity of the connection table stays what it
    /// was at the start.
    pub fn apply(&mut self, now: Instant, next: Arc<Snapshot>) -> ReloadReport {
        let report = self.begin_apply(now, next);
        while self.continue_apply(now) {}
        report
    }

    /// The same in steps, so that frames need not wait for all of it: to be followed by
    /// [`Self::continue_apply`] until there is no more to do. In between, each service is as it was
    /// or as it is to be, and the VIPs there are change in one step.
    ///
    /// A change of segments is made in a single step: ports are opened and closed by it.
    pub fn begin_apply(&mut self, now: Instant, next: Arc<Snapshot>) -> ReloadReport {
        // An earlier one is finished first.
        while self.continue_apply(now) {}
        let before = core::mem::replace(&mut self.snapshot, Arc::clone(&next));
        self.generation += 1;
        let first = self.generation == 1;
        let segments_differ = first || before.segments != next.segments;
        let report =
            if segments_differ { self.reconcile_segments(&next) } else { ReloadReport::default() };
        self.transition = Some(Transition {
            stage: Stage::Update,
            order: Vec::with_capacity(next.services.len()),
            position: 0,
            came: false,
            building: Vec::new(),
            announce: segments_differ || before.announce != next.announce,
            next,
        });
        while self.continue_apply(now) && segments_differ {}
        report
    }

    /// Whether a [`Self::begin_apply`] is to be continued.
    pub fn is_applying(&self) -> bool {
        self.transition.is_some()
    }

    /// Makes the next step of a [`Self::begin_apply`]; whether there is another one.
    pub fn continue_apply(&mut self, now: Instant) -> bool {
        let Some(mut transition) = self.transition.take() else { return false };
        let next = Arc::clone(&transition.next);
        let mut step = Step::default();
        let more = loop {
            if !self.transit(now, &next, &mut transition, &mut step) {
                break false;
            }
            if step.cost() >= self.reload_step {
                break true;
            }
        };
        step.touched.sort_unstable();
        step.touched.dedup();
        for neighbor in step.touched {
            self.refresh_neighbor(now, neighbor);
        }
        if self.groups_stale {
            self.follow_groups(now);
        }
        self.services.settle_quorums();
        if more {
            self.transition = Some(transition);
        }
        more
    }

    /// Does the next small thing; whether there was any.
    fn transit(
        &mut self,
        now: Instant,
        next: &Snapshot,
        transition: &mut Transition,
        step: &mut Step,
    ) -> bool {
        if let Some(&id) = transition.building.last() {
            self.build(id, transition, step);
            return true;
        }
        match &mut transition.stage {
            Stage::Update => match next.services.get(transition.position) {
                Some(config) => {
                    self.update(now, config, transition, step);
                    transition.position += 1;
                }
                None => {
                    transition.stage = Stage::Switch;
                    step.work += transition.position * SWITCHED_SERVICE;
                }
            },
            Stage::Switch => transition.stage = Stage::Retire(self.switch(now, transition)),
            Stage::Retire(services) => match services.pop() {
                Some(id) => {
                    step.work += CHANGED_SERVICE;
                    self.retire_service(now, id, step);
                }
                None => return false,
            },
        }
        true
    }

    /// Brings the next service up to its configuration.
    fn update(
        &mut self,
        now: Instant,
        config: &Arc<snapshot::Service>,
        transition: &mut Transition,
        step: &mut Step,
    ) {
        if let Some(same) = self.unchanged(transition.position, config) {
            step.work += UNCHANGED_SERVICE;
            transition.order.push(same);
            return;
        }
        step.work += CHANGED_SERVICE;
        let id = self.enter_service(config);
        transition.came |= self.update_service(now, id, config, step);
        transition.order.push(id);
        transition.building.push(id);
    }

    /// Lets a service's scheduler build on, as long as a step may take.
    fn build(&mut self, id: ServiceId, transition: &mut Transition, step: &mut Step) {
        let mut budget = self.reload_step.saturating_sub(step.cost()).max(1);
        let before = budget;
        if !self.services.build(id, &mut budget) {
            transition.building.pop();
        }
        step.work += before - budget;
    }

    /// Sets a weight by hand. What a scheduler has to build for that is left to
    /// [`Self::continue_apply`].
    pub(super) fn set_override(&mut self, id: DestinationId, weight: Option<u32>) {
        let Some(service) = self.services.set_override(id, weight) else { return };
        let finished = || Transition {
            next: Arc::clone(&self.snapshot),
            stage: Stage::Retire(Vec::new()),
            order: Vec::new(),
            position: 0,
            came: false,
            building: Vec::new(),
            announce: false,
        };
        self.transition.get_or_insert_with(finished).building.push(service);
    }

    /// Makes the services of the transition those that there are; the ones that went.
    fn switch(&mut self, now: Instant, transition: &mut Transition) -> Vec<ServiceId> {
        let order = core::mem::take(&mut transition.order);
        let mut went = core::mem::replace(&mut self.services.order, order);
        if went == self.services.order {
            went.clear();
        } else {
            let stays: BTreeSet<ServiceId> = self.services.order.iter().copied().collect();
            went.retain(|id| !stays.contains(id));
        }
        for &id in &went {
            if let Some(service) = self.services.services.get_mut(id) {
                service.configured = false;
            }
        }
        let differ = transition.came || !went.is_empty();
        if differ {
            self.services.rebuild_lookup();
        }
        if differ || transition.announce {
            self.announce_news(now);
        }
        went
    }

    /// The service at this position of the configuration, if it is the same as before.
    fn unchanged(&self, position: usize, config: &Arc<snapshot::Service>) -> Option<ServiceId> {
        let &id = self.services.order.get(position)?;
        let service = self.services.services.get(id)?;
        (Arc::ptr_eq(&service.config, config) || service.config == *config).then_some(id)
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
        let mut news = false;
        for &(vip, segment, _) in announced.difference(&self.announced) {
            self.announcer.vip_up(now, vip, segment, &announce);
            news = true;
        }
        self.announced = announced;
        let segments: Vec<SegmentId> = vip_segments.into_iter().map(|(id, _)| id).collect();
        self.announcer.refresh(now, &segments, &announce);
        self.guard_anew(now, &segments, news);
        self.groups_stale = true;
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
        self.segments.link_trunks(&next.segments);
        for (_, segment) in self.segments.iter() {
            self.stations.add_own(segment.mac);
        }
        ReloadReport {
            segments_added: after.difference(&before).copied().collect(),
            segments_removed: removed,
        }
    }
}
