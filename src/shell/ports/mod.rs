//! The ports of all segments: opened, read in turn, reopened when their device went away.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::Registry;

use super::bell::Bell;
use super::link_watch::{LinkWatch, Turn};
use super::urgent::Urgent;
use crate::config::snapshot::{Attach, AttachKind, OffloadMode, Segment};
use crate::director::{Instant, SegmentId};
use crate::port::urgent::URGENT_LEN;
use crate::port::{Batch, Condition, Lost, Port, Readiness};
use crate::wire::{Offload, finish};

/// The first pause before a port is opened again.
pub const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// The pause doubles up to this.
pub const REOPEN_AFTER_MAX: Duration = Duration::from_secs(30);
/// One log line about frames a port did not take, this often at most.
const SEND_ERROR_INTERVAL: Duration = Duration::from_secs(10);

/// Why a port did not open: a line for a person.
pub type OpenError = Box<dyn Error + Send + Sync>;

/// Turns a configured segment into a port.
pub trait Opener {
    type Port: Port;

    /// Opens the port of `segment`.
    ///
    /// # Errors
    /// What is in the way, and what to do about it. Nothing is left behind.
    fn open(&mut self, segment: &Segment) -> Result<Self::Port, OpenError>;
}

/// What became of a segment's port.
pub type Opened = (SegmentId, Result<u16, OpenError>);

/// How a port is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatus {
    /// Whether it is open, and what last passed it did not fail.
    pub up: bool,
    /// Frames it did not take.
    pub send_errors: u64,
    /// Frames on their way to us that its device lost.
    pub missed: u64,
}

/// The ports, by segment, and whose turn it is.
pub struct Ports<O: Opener> {
    opener: O,
    /// By [`SegmentId::index`].
    slots: Vec<Option<Slot<O::Port>>>,
    /// The segments that share another one's device, being on other VLANs of it.
    shared: Vec<Shared>,
    /// Segments that may have frames, each once.
    ready: VecDeque<SegmentId>,
    /// Whether frames may come with work left to do.
    offload: Agreement,
    links: LinkWatch,
}

/// Whether every port takes frames with work left to do. One that does not makes all plain: a
/// frame that must be finished anyway is cheaper finished by its sender than by us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Agreement {
    /// There is no port to agree.
    #[default]
    Open,
    On,
    /// The first segment that wants frames as on a wire, and why.
    Off(String),
}

/// A segment whose frames come and go by another one's port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shared {
    id: SegmentId,
    name: Arc<str>,
    owner: SegmentId,
}

struct Slot<P> {
    id: SegmentId,
    segment: Segment,
    link: Link<P>,
    is_ready: bool,
    send_errors: u64,
    last_send_failed: bool,
    urgent: Urgent,
    /// Whether frames may go to it with work left to do.
    takes_offload: bool,
    /// No line about send errors before this.
    quiet_until: Instant,
}

enum Link<P> {
    Open { port: P, bell: Bell },
    Closed { retry_at: Instant, pause: Duration },
}

impl<O: Opener> Ports<O> {
    pub fn new(opener: O) -> Ports<O> {
        Ports {
            opener,
            slots: Vec::new(),
            shared: Vec::new(),
            ready: VecDeque::new(),
            offload: Agreement::default(),
            links: LinkWatch::new(),
        }
    }

    /// Closes and opens ports until there is one for each segment wanted. A port whose device is
    /// still the one wanted is not touched.
    ///
    /// Returns, for each port that was to be opened, the MTU of its device or why it did not
    /// open; one that did not is tried again later.
    pub fn reconcile(
        &mut self,
        registry: &Registry,
        now: Instant,
        wanted: &[(SegmentId, &Segment)],
    ) -> Vec<Opened> {
        let (wanted, shared) = self.share(wanted);
        let mut handed_on = Vec::new();
        for slot in &mut self.slots {
            let is_wanted = |slot: &Slot<O::Port>| {
                wanted
                    .iter()
                    .any(|(id, segment)| *id == slot.id && same_device(segment, &slot.segment))
            };
            if let Some(unwanted) = slot.take_if(|slot| !is_wanted(slot)) {
                // Of a trunk, another segment may be the first now.
                let mut sharing = self.shared.iter().filter(|with| with.owner == unwanted.id);
                let heir = wanted.iter().find(|(id, segment)| {
                    sharing.any(|with| with.id == *id) && same_device(segment, &unwanted.segment)
                });
                match heir {
                    Some((heir, _)) => handed_on.push((*heir, unwanted)),
                    None => {
                        self.links.forget(unwanted.id);
                        unwanted.close(registry);
                    }
                }
            }
        }
        for (heir, slot) in handed_on {
            self.hand_on(registry, heir, slot);
        }
        let mut opened = Vec::new();
        for (id, segment) in &wanted {
            match self.slot_at(*id) {
                Some(slot) => slot.segment = (*segment).clone(),
                empty => {
                    *empty = Some(Slot::closed(*id, (*segment).clone(), now));
                    opened.push((*id, self.open(registry, now, *id)));
                }
            }
        }
        let known = std::mem::replace(&mut self.shared, shared);
        self.agree_on_offload();
        self.tell_shared(&known, &mut opened);
        opened
    }

    /// Of segments on one device, one has the port, and the others share it: the one that has it
    /// already, else the first.
    fn share<'s>(
        &self,
        wanted: &[(SegmentId, &'s Segment)],
    ) -> (Vec<(SegmentId, &'s Segment)>, Vec<Shared>) {
        let mut by_device: HashMap<&str, SegmentId> = HashMap::with_capacity(wanted.len());
        let has_port = |(id, segment): &(SegmentId, &Segment)| {
            let slot = self.slots.get(id.index()).and_then(Option::as_ref);
            slot.is_some_and(|slot| same_device(segment, &slot.segment))
        };
        for (id, segment) in wanted.iter().filter(|wanted| has_port(wanted)).chain(wanted) {
            by_device.entry(segment.device()).or_insert(*id);
        }
        let mut owners: Vec<(SegmentId, &Segment)> = Vec::with_capacity(wanted.len());
        let mut shared = Vec::new();
        for &(id, segment) in wanted {
            match by_device.get(&**segment.device()) {
                Some(&owner) if owner != id => {
                    shared.push(Shared { id, name: Arc::clone(&segment.name), owner });
                }
                _ => owners.push((id, segment)),
            }
        }
        (owners, shared)
    }

    /// Gives a port to another segment of its device.
    fn hand_on(&mut self, registry: &Registry, heir: SegmentId, mut slot: Slot<O::Port>) {
        if let Link::Open { bell, .. } = &mut slot.link
            && bell.hand_on(registry, heir).is_err()
        {
            slot.close(registry);
            return;
        }
        self.links.forget(slot.id);
        (slot.id, slot.is_ready) = (heir, false);
        let place = self.slot_at(heir);
        if place.is_none() {
            *place = Some(slot);
            self.wake(heir.index());
        }
    }

    fn slot_at(&mut self, id: SegmentId) -> &mut Option<Slot<O::Port>> {
        if self.slots.len() <= id.index() {
            self.slots.resize_with(id.index() + 1, || None);
        }
        &mut self.slots[id.index()]
    }

    /// Those who share a device that was opened know its MTU, too; likewise those who are new to it.
    fn tell_shared(&self, known: &[Shared], opened: &mut Vec<Opened>) {
        for shared in &self.shared {
            let reopened = opened.iter().any(|(id, result)| *id == shared.owner && result.is_ok());
            let slot = self.slots.get(shared.owner.index()).and_then(Option::as_ref);
            let joined = !known.iter().any(|known| known.id == shared.id);
            if (reopened || joined)
                && let Some(Slot { link: Link::Open { port, .. }, .. }) = slot
                && let Ok(mtu) = port.mtu()
            {
                opened.push((shared.id, Ok(mtu)));
            }
        }
    }

    /// The segment whose port serves this one.
    #[inline]
    fn owner(&self, id: SegmentId) -> SegmentId {
        // Empty, but with VLANs.
        self.shared.iter().find(|shared| shared.id == id).map_or(id, |shared| shared.owner)
    }

    /// Opens again what is due.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Instant) -> Vec<Opened> {
        let due =
            self.slots.iter().flatten().filter(|slot| slot.retry_at().is_some_and(|at| at <= now));
        let due: Vec<SegmentId> = due.map(|slot| slot.id).collect();
        let mut opened: Vec<Opened> =
            due.into_iter().map(|id| (id, self.open(registry, now, id))).collect();
        self.look_at_links(now, &mut opened);
        self.agree_on_offload();
        self.tell_shared(&self.shared, &mut opened);
        opened
    }

    /// Says which devices were set down, or came up again. Those count as opened anew: the switch
    /// they are on may have forgotten who is there.
    fn look_at_links(&mut self, now: Instant, opened: &mut Vec<Opened>) {
        if !self.links.begin(now) {
            return;
        }
        for slot in self.slots.iter().flatten() {
            let Link::Open { port, .. } = &slot.link else {
                self.links.forget(slot.id);
                continue;
            };
            // One that is gone says so by itself.
            let Ok(Condition { running, .. }) = port.condition() else { continue };
            let (name, device) = (&slot.segment.name, slot.segment.device());
            match self.links.see(slot.id, running) {
                None => {}
                Some(Turn::Down) => log::warn!(
                    "segment {name}: {device} is down, or nothing is at the other end: no frame \
                     comes or goes; ip link set {device} up"
                ),
                Some(Turn::Up) => {
                    log::info!("segment {name}: {device} is up again");
                    if let Ok(mtu) = port.mtu() {
                        opened.push((slot.id, Ok(mtu)));
                    }
                }
            }
        }
    }

    /// Sees whether all ports that are open take frames with work left to do, and tells them.
    fn agree_on_offload(&mut self) {
        let mut agreement = Agreement::Open;
        for slot in self.slots.iter_mut().flatten() {
            let Link::Open { port, .. } = &slot.link else { continue };
            slot.takes_offload = slot.segment.offload == OffloadMode::Auto && port.takes_offload();
            if !slot.takes_offload && !matches!(agreement, Agreement::Off(_)) {
                let why = match slot.segment.offload {
                    OffloadMode::Off => "has offload = \"off\"".to_owned(),
                    OffloadMode::Auto => {
                        format!("cannot (attach = \"{}\")", slot.segment.attach.kind().name())
                    }
                };
                agreement = Agreement::Off(format!("segment {} {why}", slot.segment.name));
            } else if agreement == Agreement::Open {
                agreement = Agreement::On;
            }
        }
        for slot in self.slots.iter_mut().flatten() {
            if let Link::Open { port, .. } = &mut slot.link
                && let Err(error) = port.set_offload(agreement == Agreement::On)
            {
                log::warn!("segment {}: offload cannot be set: {error}", slot.segment.name);
            }
        }
        if agreement != self.offload {
            match &agreement {
                Agreement::Open => {}
                Agreement::On => log::info!("offload: on, between all segments"),
                Agreement::Off(why) => log::info!("offload: off for all segments: {why}"),
            }
            self.offload = agreement;
        }
    }

    /// When [`Self::handle_timeout`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retries = self.slots.iter().flatten().filter_map(Slot::retry_at);
        retries.chain([self.links.poll_timeout()]).min()
    }

    /// Has every port tell of frames that arrive from now on. Those that did not before may have
    /// some already.
    ///
    /// Whether all tell: the kernel may have no memory for it.
    pub fn listen(&mut self, registry: &Registry) -> bool {
        let mut all = true;
        self.look_at_silent(|bell, id, name| {
            bell.reconnect(registry, id, name);
            all &= bell.is_connected();
        });
        all
    }

    /// Notes that those ports may have frames that do not tell of it.
    pub fn look(&mut self, registry: &Registry) {
        self.look_at_silent(|bell, id, name| {
            if bell.note_look() {
                bell.reconnect(registry, id, name);
            }
        });
    }

    fn look_at_silent(&mut self, mut visit: impl FnMut(&mut Bell, SegmentId, &str)) {
        for slot in self.slots.iter_mut().flatten() {
            if let Link::Open { bell, .. } = &mut slot.link
                && !bell.is_connected()
            {
                visit(bell, slot.id, &slot.segment.name);
                slot.make_ready(&mut self.ready);
            }
        }
    }

    /// Notes that a port may have frames. The index is that of its segment.
    pub fn wake(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut) {
            slot.make_ready(&mut self.ready);
        }
    }

    /// How many segments may have frames.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// The segment whose turn it is to be read.
    pub fn next_ready(&mut self) -> Option<SegmentId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(slot) = self.slot_mut(id) {
                slot.is_ready = false;
                return Some(id);
            }
        }
        None
    }

    /// Fills the cleared `batch` from a segment. If there is more, the segment gets another turn
    /// after the others; if its device is gone, the port is closed and tried again later.
    pub fn receive(&mut self, registry: &Registry, now: Instant, id: SegmentId, batch: &mut Batch) {
        batch.clear();
        // A second look sees no tags: a trunk gets none.
        let is_shared = self.shared.iter().any(|shared| shared.owner == id);
        let Some(slot) = self.slot_mut(id) else { return };
        let is_trunk = is_shared || slot.segment.vlan.is_some();
        if is_trunk && slot.urgent.is_active() {
            slot.urgent = Urgent::default();
        }
        let Link::Open { port, bell } = &mut slot.link else { return };
        let result = port.receive(batch);
        // A device that gives frames is up, whatever became of the last one sent.
        slot.last_send_failed &= batch.is_empty();
        let left_some = batch.is_full() && matches!(result, Ok(Readiness::More));
        if left_some {
            bell.disconnect(registry);
        }
        if !batch.is_empty() {
            bell.note_frames();
        }
        // Only a TAP has a queue of its own that drops its tail.
        if let Attach::Tap { tap, .. } = &slot.segment.attach
            && !is_trunk
        {
            slot.urgent.note_burst(now, tap, left_some);
        }
        match result {
            Ok(Readiness::Drained) => {}
            Ok(Readiness::More) => self.wake(id.index()),
            Err(error) => self.fail(registry, now, id, &error),
        }
    }

    /// The next frame of a segment that is to be handled before those of the burst, if any. Counts
    /// down from `budget` what it reads.
    pub fn receive_urgent<'b>(
        &mut self,
        now: Instant,
        id: SegmentId,
        budget: &mut usize,
        buffer: &'b mut [u8; URGENT_LEN],
    ) -> Option<&'b mut [u8]> {
        self.slot_mut(id)?.urgent.receive(now, budget, buffer)
    }

    /// Whether a segment gives frames that are to be handled first.
    pub fn has_urgent(&mut self, id: SegmentId) -> bool {
        self.slot_mut(id).is_some_and(|slot| slot.urgent.is_active())
    }

    /// Whether a frame of a burst was handled out of turn.
    pub fn is_handled(&mut self, now: Instant, id: SegmentId, frame: &[u8]) -> bool {
        self.slot_mut(id).is_some_and(|slot| slot.urgent.is_handled(now, frame))
    }

    /// Sends one frame; what the port does not take is lost, and counted.
    #[inline]
    pub fn send(&mut self, now: Instant, id: SegmentId, bytes: &[u8], offload: Offload) {
        let id = self.owner(id);
        let Some(slot) = self.slots.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let result = match &mut slot.link {
            Link::Open { port, .. } if offload.is_plain() || slot.takes_offload => {
                port.send(bytes, offload)
            }
            Link::Open { port, .. } => send_finished(port, bytes, offload),
            Link::Closed { .. } => {
                slot.send_errors += 1;
                return;
            }
        };
        slot.last_send_failed = result.is_err();
        if let Err(error) = result {
            slot.send_failed(now, 1, &error);
        }
    }

    /// Sends what the ports kept.
    pub fn flush(&mut self, now: Instant) {
        for slot in self.slots.iter_mut().flatten() {
            if let Link::Open { port, .. } = &mut slot.link
                && let Err(Lost { frames, error }) = port.flush()
            {
                slot.last_send_failed = true;
                slot.send_failed(now, frames, &error);
            }
        }
    }

    /// How the port of the segment of this name is doing.
    pub fn status(&self, name: &str) -> Option<PortStatus> {
        let mut slots = self.slots.iter().flatten();
        let shared = self.shared.iter().find(|shared| *shared.name == *name);
        let is_meant = |slot: &&Slot<O::Port>| match shared {
            Some(shared) => slot.id == shared.owner,
            None => *slot.segment.name == *name,
        };
        slots.find(is_meant).map(|slot| {
            let condition = match &slot.link {
                Link::Open { port, .. } => port.condition().unwrap_or_default(),
                Link::Closed { .. } => Condition::default(),
            };
            PortStatus {
                up: condition.running && !slot.last_send_failed,
                send_errors: slot.send_errors,
                missed: condition.missed,
            }
        })
    }

    fn slot_mut(&mut self, id: SegmentId) -> Option<&mut Slot<O::Port>> {
        self.slots.get_mut(id.index()).and_then(Option::as_mut)
    }

    fn open(&mut self, registry: &Registry, now: Instant, id: SegmentId) -> Result<u16, OpenError> {
        let Some(slot) = self.slots.get_mut(id.index()).and_then(Option::as_mut) else {
            return Err("no such segment".into());
        };
        let result = self.opener.open(&slot.segment).and_then(|port| {
            let mtu = port.mtu()?;
            let mut bell = Bell::of(&port);
            bell.connect(registry, id)?;
            Ok((port, bell, mtu))
        });
        match result {
            Ok((port, bell, mtu)) => {
                slot.link = Link::Open { port, bell };
                slot.last_send_failed = false;
                // What arrived before the registration makes no event on every kind of device.
                self.wake(id.index());
                Ok(mtu)
            }
            Err(error) => {
                let pause = match slot.link {
                    Link::Closed { pause, .. } => pause,
                    Link::Open { .. } => REOPEN_AFTER,
                };
                let next_pause = (pause * 2).min(REOPEN_AFTER_MAX);
                slot.link = Link::Closed { retry_at: now + pause, pause: next_pause };
                Err(error)
            }
        }
    }

    fn fail(&mut self, registry: &Registry, now: Instant, id: SegmentId, error: &io::Error) {
        let Some(slot) = self.slot_mut(id) else { return };
        log::error!(
            "segment {}: its device {} is gone ({error}); trying again in {} s",
            slot.segment.name,
            slot.segment.device(),
            REOPEN_AFTER.as_secs()
        );
        let closed = Link::Closed { retry_at: now + REOPEN_AFTER, pause: REOPEN_AFTER * 2 };
        std::mem::replace(&mut slot.link, closed).close(registry);
    }
}

impl<P: Port> Slot<P> {
    fn closed(id: SegmentId, segment: Segment, now: Instant) -> Slot<P> {
        Slot {
            id,
            segment,
            link: Link::Closed { retry_at: now, pause: REOPEN_AFTER },
            is_ready: false,
            send_errors: 0,
            last_send_failed: false,
            urgent: Urgent::default(),
            takes_offload: false,
            quiet_until: Instant::ZERO,
        }
    }

    fn close(self, registry: &Registry) {
        self.link.close(registry);
    }

    /// Notes that it may have frames, and waits for its turn.
    fn make_ready(&mut self, ready: &mut VecDeque<SegmentId>) {
        if !self.is_ready {
            self.is_ready = true;
            ready.push_back(self.id);
        }
    }

    fn retry_at(&self) -> Option<Instant> {
        match self.link {
            Link::Open { .. } => None,
            Link::Closed { retry_at, .. } => Some(retry_at),
        }
    }

    #[cold]
    fn send_failed(&mut self, now: Instant, frames: u64, error: &io::Error) {
        self.send_errors += frames;
        if now >= self.quiet_until {
            self.quiet_until = now + SEND_ERROR_INTERVAL;
            log::warn!(
                "segment {}: {} does not take frames: {error} ({} lost so far)",
                self.segment.name,
                self.segment.device(),
                self.send_errors
            );
        }
    }
}

impl<P: Port> Link<P> {
    fn close(self, registry: &Registry) {
        if let Link::Open { port, mut bell } = self {
            bell.disconnect(registry);
            drop(port);
        }
    }
}

/// Finishes a frame for a port that takes it only as it would be on a wire.
#[cold]
fn send_finished(port: &mut impl Port, bytes: &[u8], offload: Offload) -> io::Result<()> {
    let mut result = Ok(());
    let finished = finish::finish(&mut bytes.to_vec(), &offload, |frame| {
        if let Err(error) = port.send(frame, Offload::default()) {
            result = Err(error);
        }
    });
    finished.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)).and(result)
}

/// Whether a port opened for one of them serves the other.
fn same_device(a: &Segment, b: &Segment) -> bool {
    // Any other port hears what is sent to the director's MAC.
    let is_tap = a.attach.kind() == AttachKind::Tap;
    let same_mac = is_tap || a.mac == b.mac;
    // A TAP is opened with or without headers for it.
    let same_offload = !is_tap || a.offload == b.offload;
    a.attach == b.attach && a.mtu == b.mtu && same_mac && same_offload
}

#[cfg(test)]
mod tests;
