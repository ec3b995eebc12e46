//! The guards of this host's bridges: one for each TAP with a segment that has `arp_guard`. Segments
//! that are VLANs of one TAP have one guard together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Snapshot;
use crate::director::Instant;
use crate::director::report::ArpGuardReport;
use crate::port::arp_guard::{ArpGuard, GuardError};

/// How often it is looked whether devices came or went. A new port is guarded before it is known.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// From a guard that could not be made to the next try.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A TAP and its bridge.
type Place = (Arc<str>, Arc<str>);

/// Guards by the name of their TAP.
#[derive(Default)]
pub(super) struct Guards {
    by_tap: BTreeMap<Arc<str>, Slot>,
    /// When they are looked after next; never without any.
    next: Option<Instant>,
}

struct Slot {
    bridge: Arc<str>,
    /// The segments that asked for it, of which the first names it in the log.
    segments: Vec<Arc<str>>,
    state: State,
}

enum State {
    On(Box<ArpGuard>),
    Off { error: String, retry_at: Instant },
}

impl Guards {
    /// Makes the guards those that a configuration asks for, with its VIPs. The bridges are there.
    pub fn reconcile(&mut self, now: Instant, snapshot: &Snapshot) {
        let mut wanted: BTreeMap<Place, Vec<Arc<str>>> = BTreeMap::new();
        for segment in snapshot.segments.iter().filter(|segment| segment.arp_guard) {
            if let Some(bridge) = segment.bridge() {
                let tap_and_bridge = (Arc::clone(segment.device()), Arc::clone(bridge));
                let segments = wanted.entry(tap_and_bridge).or_default();
                segments.push(Arc::clone(&segment.name));
            }
        }
        self.by_tap.retain(|tap, slot| {
            let segments = wanted.remove(&(Arc::clone(tap), Arc::clone(&slot.bridge)));
            if segments.is_none() {
                log::info!("segment {}: bridge {} is no longer guarded", slot.name(), slot.bridge);
            }
            let stays = segments.is_some();
            slot.segments = segments.unwrap_or_default();
            stays
        });
        for ((tap, bridge), segments) in wanted {
            let state = make(now, &segments[0], &tap, &bridge, snapshot);
            self.by_tap.insert(tap, Slot { bridge, segments, state });
        }
        for slot in self.by_tap.values_mut() {
            slot.set_vips(now, snapshot);
        }
        self.next = (!self.by_tap.is_empty()).then_some(now + REFRESH_INTERVAL);
    }

    /// Follows the devices, and tries again what did not succeed.
    pub fn handle_timeout(&mut self, now: Instant, snapshot: &Snapshot) {
        for (tap, slot) in &mut self.by_tap {
            let name = Arc::clone(slot.name());
            match &mut slot.state {
                State::On(guard) => {
                    if let Err(error) = guard.refresh() {
                        slot.state = failed(now, &name, &error);
                    }
                }
                State::Off { error, retry_at } if *retry_at <= now => {
                    let before = core::mem::take(error);
                    match guarded(tap, &slot.bridge, snapshot) {
                        Ok(guard) => {
                            log::info!("segment {name}: bridge {} is guarded now", slot.bridge);
                            slot.state = State::On(Box::new(guard));
                        }
                        Err(error) => {
                            // Said once, as long as it stays the same.
                            let text = error.to_string();
                            if text != before {
                                log::error!("segment {name}: {text}");
                            }
                            slot.state = State::Off { error: text, retry_at: now + RETRY_AFTER };
                        }
                    }
                }
                State::Off { .. } => {}
            }
        }
        self.next = (!self.by_tap.is_empty()).then_some(now + REFRESH_INTERVAL);
    }

    /// When [`Self::handle_timeout`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// How the guard of a segment is doing; `None` if it is to have none.
    pub fn report(&self, segment: &str) -> Option<ArpGuardReport> {
        let mut slots = self.by_tap.values();
        let slot = slots.find(|slot| slot.segments.iter().any(|name| **name == *segment))?;
        Some(match &slot.state {
            State::On(guard) => match guard.blocked() {
                Ok(blocked) => ArpGuardReport { active: true, error: None, blocked },
                Err(error) => {
                    let error = Some(format!("its table cannot be read: {error}"));
                    ArpGuardReport { active: false, error, blocked: 0 }
                }
            },
            State::Off { error, .. } => {
                ArpGuardReport { active: false, error: Some(error.clone()), blocked: 0 }
            }
        })
    }
}

impl Slot {
    fn name(&self) -> &Arc<str> {
        &self.segments[0]
    }

    fn set_vips(&mut self, now: Instant, snapshot: &Snapshot) {
        if let State::On(guard) = &mut self.state
            && let Err(error) = set_vips(guard, snapshot)
        {
            self.state = failed(now, &self.segments[0], &error);
        }
    }
}

fn make(now: Instant, segment: &str, tap: &str, bridge: &str, snapshot: &Snapshot) -> State {
    match guarded(tap, bridge, snapshot) {
        Ok(guard) => {
            log::info!("segment {segment}: bridge {bridge} lets nobody else claim a VIP");
            State::On(Box::new(guard))
        }
        Err(error) => failed(now, segment, &error),
    }
}

fn failed(now: Instant, name: &str, error: &GuardError) -> State {
    log::error!("segment {name}: {error}");
    State::Off { error: error.to_string(), retry_at: now + RETRY_AFTER }
}

fn guarded(tap: &str, bridge: &str, snapshot: &Snapshot) -> Result<ArpGuard, GuardError> {
    let mut guard = ArpGuard::new(tap, bridge)?;
    set_vips(&mut guard, snapshot)?;
    Ok(guard)
}

fn set_vips(guard: &mut ArpGuard, snapshot: &Snapshot) -> Result<(), GuardError> {
    let (mut vips4, mut vips6) = (Vec::new(), Vec::new());
    for endpoint in snapshot.services.iter().flat_map(|service| service.listen.iter()) {
        match endpoint.vip {
            IpAddr::V4(vip) => vips4.push(vip),
            IpAddr::V6(vip) => vips6.push(vip),
        }
    }
    vips4.sort_unstable();
    vips4.dedup();
    vips6.sort_unstable();
    vips6.dedup();
    guard.set_vips(&vips4, &vips6)
}
