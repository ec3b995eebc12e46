//! A real server at run time: what it weighs, whether it is there, and whether it has room.

use core::net::IpAddr;
use std::sync::Arc;

use super::SegmentId;
use super::arena::Id;
use super::checks::CheckId;
use super::counters::Traffic;
use super::instant::Instant;
use super::neighbors::NeighborId;
use super::rates::RateEstimator;
use super::scheduler::Candidate;
use super::services::ServiceId;
use crate::config::snapshot::RealServer;
use crate::wire::MacAddr;

pub type DestinationId = Id<Destination>;

/// A real server of one service, at run time.
#[derive(Debug)]
pub struct Destination {
    pub(super) name: Arc<str>,
    pub(super) service: ServiceId,
    /// Where it stands among its service's destinations; `None` while draining.
    pub(super) position: Option<u32>,
    /// It is its service's sorry server, and has no position.
    pub(super) is_sorry: bool,
    pub(super) address: IpAddr,
    pub(super) segment: SegmentId,
    pub(super) neighbor: NeighborId,
    /// The weight in the configuration.
    pub(super) configured_weight: u32,
    /// A weight set by hand, which goes before the configured one.
    pub(super) weight_override: Option<u32>,
    /// The weight in force; while that is 0, the last one that was not.
    pub(super) last_weight: u32,
    pub(super) upper_threshold: u32,
    pub(super) lower_threshold: u32,
    /// Its MAC, and its other cards', where they are configured.
    pub(super) mac: Option<MacAddr>,
    pub(super) vip_macs: Vec<MacAddr>,
    /// Removed in a way that ends its connections: they are on their way out of the table.
    pub(super) cut: bool,
    pub(super) overloaded: bool,
    /// Whether its neighbor may be given new connections.
    pub(super) reachable: bool,
    /// What its check says; without one it is [`Health::Up`].
    pub(super) health: Health,
    pub(super) check: Option<CheckId>,
    /// SYNs that came again while no connection to it made progress.
    pub(super) unanswered_syns: u32,
    /// When a connection to it last made progress.
    pub(super) progressed: Instant,
    pub(super) active: u32,
    pub(super) inactive: u32,
    /// Persistence templates that point at it.
    pub(super) templates: u32,
    pub(super) traffic: Traffic,
    pub(super) rates: RateEstimator,
    /// When a person was last told that it sends frames back.
    pub(super) loop_told: Option<Instant>,
}

/// What a real server's check says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Health {
    #[default]
    Up,
    /// Down, and as if its weight were 0: persistent clients stay.
    Inhibited,
    /// Down, and as if it were not there for new connections.
    Removed,
}

/// A real server crossed one of its thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threshold {
    Overloaded,
    Relieved,
}

impl Destination {
    /// Connections of any kind.
    pub(super) fn connections(&self) -> u32 {
        self.active + self.inactive
    }

    /// Whether the configuration has it, be it as a sorry server.
    pub(super) fn is_configured(&self) -> bool {
        self.position.is_some() || self.is_sorry
    }

    /// What it counts for towards a quorum: its weight, while it is up. An overloaded one is up.
    pub(super) fn live_weight(&self) -> u64 {
        if self.is_alive() { u64::from(self.weight()) } else { 0 }
    }

    /// The weight in force.
    pub(super) fn weight(&self) -> u32 {
        self.weight_override.unwrap_or(self.configured_weight)
    }

    /// Whether it is there for clients at all: its neighbor answers, and its check does not say
    /// otherwise. One that is inhibited is there for those who are its clients already.
    pub(super) fn is_available(&self) -> bool {
        self.reachable && self.health != Health::Removed
    }

    /// Whether it is available and healthy.
    pub(super) fn is_alive(&self) -> bool {
        self.reachable && self.health == Health::Up
    }

    /// What the scheduler sees of it.
    pub(super) fn candidate(&self) -> Candidate {
        Candidate {
            weight: self.weight(),
            available: self.is_alive() && !self.overloaded,
            active: self.active,
            inactive: self.inactive,
        }
    }

    /// Takes over what the configuration may change; whether that concerns its neighbor. A weight
    /// set by hand stays until the configuration gives the real server another one.
    pub(super) fn configure(&mut self, config: &RealServer) -> bool {
        let same_name = Arc::ptr_eq(&self.name, &config.name) || self.name == config.name;
        let differs = !same_name || self.mac != config.mac || self.vip_macs != config.vip_macs;
        if differs {
            self.name = Arc::clone(&config.name);
            self.mac = config.mac;
            self.vip_macs.clone_from(&config.vip_macs);
        }
        if self.configured_weight != config.weight {
            self.weight_override = None;
        }
        self.configured_weight = config.weight;
        if self.position.is_none() {
            // It starts anew.
            self.last_weight = config.weight;
        }
        self.note_weight();
        // Who is given more room has room, as in IPVS, whatever the lower threshold says.
        if config.upper_threshold == 0 || config.upper_threshold > self.upper_threshold {
            self.overloaded = false;
        }
        self.upper_threshold = config.upper_threshold;
        self.lower_threshold = config.lower_threshold;
        // One that drained has a say about its neighbor again.
        differs || self.position.is_none()
    }

    pub(super) fn note_weight(&mut self) {
        if self.weight() > 0 {
            self.last_weight = self.weight();
        }
    }

    pub(super) fn count(&mut self, active: bool) -> &mut u32 {
        if active { &mut self.active } else { &mut self.inactive }
    }

    /// IPVS's hysteresis: overloaded from the upper threshold on, until below the lower one, or
    /// below three quarters of the upper one if there is no lower.
    pub(super) fn check_thresholds(&mut self) -> Option<Threshold> {
        let connections = u64::from(self.connections());
        let (upper, lower) = (u64::from(self.upper_threshold), u64::from(self.lower_threshold));
        if upper > 0 && connections >= upper && !self.overloaded {
            self.overloaded = true;
            return Some(Threshold::Overloaded);
        }
        let relieved =
            upper == 0 || if lower > 0 { connections < lower } else { connections * 4 < upper * 3 };
        if self.overloaded && relieved {
            self.overloaded = false;
            return Some(Threshold::Relieved);
        }
        None
    }
}
