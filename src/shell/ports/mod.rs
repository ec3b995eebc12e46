//! The ports of all segments: opened, read in turn, reopened when their device went away.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::link_watch::{LinkWatch, Turn};
use super::tokens;
use super::urgent::Urgent;
use crate::config::snapshot::{Attach, AttachKind, OffloadMode, Segment, Uplink};
use crate::director::{Instant, SegmentId};
use crate::port::urgent::URGENT_LEN;
use crate::port::{
    AnyPort, Batch, Card, Condition, Lost, PacketConfig, PacketPort, Port, QemuConfig, QemuPort,
    Readiness, TapConfig, TapPort, XdpPort,
};
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
    Open { port: P, descriptors: Vec<RawFd> },
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
        if let Link::Open { descriptors, .. } = &slot.link {
            for descriptor in descriptors {
                let (token, interest) = (tokens::port(heir), Interest::READABLE);
                if registry.reregister(&mut SourceFd(descriptor), token, interest).is_err() {
                    slot.close(registry);
                    return;
                }
            }
        }
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

    /// Notes that a port may have frames. The index is that of its segment.
    pub fn wake(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut)
            && !slot.is_ready
        {
            slot.is_ready = true;
            self.ready.push_back(slot.id);
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
        let Link::Open { port, .. } = &mut slot.link else { return };
        let result = port.receive(batch);
        // A device that gives frames is up, whatever became of the last one sent.
        slot.last_send_failed &= batch.is_empty();
        let left_some = batch.is_full() && matches!(result, Ok(Readiness::More));
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

    /// The next frame of a segment that is to be handled before those of the burst, if any.
    pub fn receive_urgent<'b>(
        &mut self,
        now: Instant,
        id: SegmentId,
        buffer: &'b mut [u8; URGENT_LEN],
    ) -> Option<&'b mut [u8]> {
        self.slot_mut(id)?.urgent.receive(now, buffer)
    }

    /// Whether a segment gives frames that are to be handled first.
    pub fn has_urgent(&mut self, id: SegmentId) -> bool {
        self.slot_mut(id).is_some_and(|slot| slot.urgent.is_active())
    }

    /// Whether a frame of a burst was handled before it.
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
            let mut descriptors = port.further_descriptors();
            descriptors.push(port.descriptor());
            for descriptor in &descriptors {
                let interest = Interest::READABLE;
                registry.register(&mut SourceFd(descriptor), tokens::port(id), interest)?;
            }
            Ok((port, descriptors, mtu))
        });
        match result {
            Ok((port, descriptors, mtu)) => {
                slot.link = Link::Open { port, descriptors };
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
        if let Link::Open { port, descriptors } = self {
            // Closing would do, were the descriptor not shared by whoever made the device.
            for descriptor in &descriptors {
                let _ = registry.deregister(&mut SourceFd(descriptor));
            }
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

/// Opens what a segment says: a TAP, an interface of the host, or sockets of virtual machines.
#[derive(Clone, Copy, Debug)]
pub struct Devices;

impl Opener for Devices {
    type Port = AnyPort;

    fn open(&mut self, segment: &Segment) -> Result<AnyPort, OpenError> {
        let mtu = segment.mtu;
        match &segment.attach {
            Attach::Tap { tap, bridge, uplink } => {
                let uplink = uplink.as_ref().map(|uplink| match uplink {
                    Uplink::Name(name) => Card::Name(name),
                    Uplink::Mac(mac) => Card::Mac(*mac),
                });
                let config = TapConfig { tap, bridge: bridge.as_deref(), uplink, mtu };
                Ok(AnyPort::Tap(match segment.offload {
                    OffloadMode::Auto => TapPort::open_with_offload(&config)?,
                    OffloadMode::Off => TapPort::open(&config)?,
                }))
            }
            Attach::Packet { interface } => {
                let config = PacketConfig { interface, mac: segment.mac, mtu };
                Ok(AnyPort::Packet(PacketPort::open(&config)?))
            }
            Attach::Xdp { interface } => {
                let config = PacketConfig { interface, mac: segment.mac, mtu };
                Ok(AnyPort::Xdp(XdpPort::open(&config)?))
            }
            Attach::Qemu { sockets } => {
                let listen = sockets.listen().map(|path| &**path);
                let connect = sockets.connect().map(|path| &**path).collect();
                let config = QemuConfig { mac: segment.mac, mtu, listen, connect };
                Ok(AnyPort::Qemu(QemuPort::open(&config)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::Poll;

    use super::super::fake::Lan;
    use super::super::link_watch::LOOK_INTERVAL;
    use super::*;
    use crate::config;
    use crate::director::{Director, Limits};

    /// The ports of the segments of a configuration, and the ids a director gives to them.
    struct Fixture {
        poll: Poll,
        lan: Lan,
        ports: Ports<Lan>,
        director: Director,
    }

    /// Segments by name and TAP, with the VLAN behind a point.
    fn snapshot(segments: &[(&str, &str)]) -> Arc<config::Snapshot> {
        let mut text = String::new();
        for (name, tap) in segments {
            let (tap, vlan) = match tap.split_once('.') {
                Some((tap, vlan)) => (tap, format!("vlan = {vlan}\n")),
                None => (*tap, String::new()),
            };
            text += &format!("[segment.{name}]\nrole = \"both\"\ntap = \"{tap}\"\n{vlan}");
        }
        text += "[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80\n\
                 scheduler = \"rr\"\n";
        Arc::new(config::parse(&text, "vipr.toml").unwrap_or_else(|error| panic!("{error}")))
    }

    impl Fixture {
        fn new() -> Fixture {
            let lan = Lan::default();
            let snapshot = snapshot(&[("a", "tap-a"), ("b", "tap-b")]);
            let director = Director::new(Instant::ZERO, snapshot, Limits::default(), 0);
            let ports = Ports::new(lan.clone());
            Fixture { poll: Poll::new().unwrap(), lan, ports, director }
        }

        /// Which segments were opened, and whether they did.
        fn reconcile(&mut self, segments: &[(&str, &str)]) -> Vec<(String, bool)> {
            let snapshot = snapshot(segments);
            self.director.apply(Instant::ZERO, Arc::clone(&snapshot));
            let ids = self.director.segments();
            let find = |name: &str| snapshot.segments.iter().find(|s| *s.name == *name).unwrap();
            let wanted: Vec<_> = ids.iter().map(|(id, name)| (*id, find(name))).collect();
            let opened = self.ports.reconcile(self.poll.registry(), Instant::ZERO, &wanted);
            let name = |id| self.director.segment_name(id).unwrap().to_string();
            opened.into_iter().map(|(id, result)| (name(id), result.is_ok())).collect()
        }

        fn opened(&self, tap: &str) -> (u32, u32) {
            self.lan.device(tap, |device| (device.opened, device.open_now))
        }

        fn up(&self, name: &str) -> bool {
            self.ports.status(name).is_some_and(|status| status.up)
        }

        fn retry_at(&self) -> Option<Instant> {
            self.ports.slots.iter().flatten().filter_map(Slot::retry_at).min()
        }

        fn id(&self, name: &str) -> SegmentId {
            let segments = self.director.segments();
            segments.iter().find(|(_, other)| **other == *name).unwrap().0
        }
    }

    #[test]
    fn segments_of_one_device_share_its_port_and_hand_it_on() {
        let mut fixture = Fixture::new();
        let opened = |names: &[&str]| -> Vec<(String, bool)> {
            names.iter().map(|name| (name.to_string(), true)).collect()
        };
        let all = [("a", "trunk.10"), ("b", "trunk.20"), ("c", "trunk")];
        assert_eq!(fixture.reconcile(&all), opened(&["a", "b", "c"]), "each is told the MTU");
        assert_eq!(fixture.opened("trunk"), (1, 1));
        assert!(["a", "b", "c"].iter().all(|name| fixture.up(name)));
        for name in ["a", "b", "c"] {
            let id = fixture.id(name);
            fixture.ports.send(Instant::ZERO, id, &[0; 60], Offload::default());
        }
        assert_eq!(fixture.lan.device("trunk", |device| device.sent.len()), 3);
        // Another VLAN is no matter of the port's.
        let moved = [("a", "trunk.11"), ("b", "trunk.20"), ("c", "trunk")];
        assert_eq!(fixture.reconcile(&moved), []);
        // The first leaves, the port stays.
        assert_eq!(fixture.reconcile(&moved[1..]), []);
        assert_eq!(fixture.opened("trunk"), (1, 1));
        assert!(!fixture.up("a") && fixture.up("b") && fixture.up("c"));
        assert_eq!(fixture.ports.next_ready(), Some(fixture.id("b")), "it is read as b's");
        assert_eq!(fixture.reconcile(&all), opened(&["a"]), "and comes back");
        // With the last the device goes.
        fixture.reconcile(&[("d", "other")]);
        assert_eq!(fixture.opened("trunk"), (1, 0));
    }

    #[test]
    fn a_device_that_comes_up_again_counts_as_opened_anew() {
        let mut fixture = Fixture::new();
        fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
        let mut now = Instant::ZERO;
        let mut look = |fixture: &mut Fixture, is_down: bool| -> Vec<SegmentId> {
            fixture.lan.device("tap-a", |device| device.is_down = is_down);
            let at = fixture.ports.poll_timeout().unwrap();
            assert!(at <= now + LOOK_INTERVAL, "{at:?}");
            now = at.max(now);
            let opened = fixture.ports.handle_timeout(fixture.poll.registry(), now);
            opened.into_iter().map(|(id, result)| result.map(|_| id).unwrap()).collect()
        };
        assert_eq!(look(&mut fixture, false), []);
        assert_eq!(look(&mut fixture, true), []);
        assert!(!fixture.up("a") && fixture.up("b"));
        assert_eq!(look(&mut fixture, true), []);
        let a = fixture.id("a");
        assert_eq!(look(&mut fixture, false), [a]);
        assert_eq!(look(&mut fixture, false), [], "once");
        assert!(fixture.up("a"));
    }

    #[test]
    fn only_ports_whose_device_changes_are_touched() {
        let mut fixture = Fixture::new();
        let opened = |names: &[&str]| -> Vec<(String, bool)> {
            names.iter().map(|name| (name.to_string(), true)).collect()
        };
        assert_eq!(fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]), opened(&["a", "b"]));
        assert_eq!(fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]), opened(&[]));
        // Another device under the old name.
        assert_eq!(fixture.reconcile(&[("a", "tap-a"), ("b", "tap-c")]), opened(&["b"]));
        assert_eq!((fixture.opened("tap-b"), fixture.opened("tap-c")), ((1, 0), (1, 1)));
        // The old device under another name: closed before it is opened.
        assert_eq!(fixture.reconcile(&[("a", "tap-a"), ("c", "tap-c")]), opened(&["c"]));
        assert_eq!(fixture.opened("tap-c"), (2, 1));
        assert_eq!(fixture.reconcile(&[("c", "tap-c")]), opened(&[]));
        assert_eq!((fixture.opened("tap-a"), fixture.opened("tap-c")), ((1, 0), (2, 1)));
        assert_eq!(fixture.ports.status("a"), None);
    }

    #[test]
    fn a_port_whose_device_is_gone_is_opened_again_ever_more_rarely() {
        let mut fixture = Fixture::new();
        fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
        let (id, mut now, mut batch) = (fixture.id("a"), Instant::ZERO, Batch::new(4));
        assert!(fixture.up("a") && fixture.up("b"));
        fixture.lan.device("tap-a", |device| {
            device.is_gone = true;
            device.refuses_to_open = true;
            device.arriving.push_back(vec![0; 60]);
        });
        fixture.ports.receive(fixture.poll.registry(), now, id, &mut batch);
        assert_eq!(batch.len(), 1, "what came before the end counts");
        assert!(!fixture.up("a") && fixture.up("b"));
        assert_eq!(fixture.opened("tap-a"), (1, 0));

        for pause in [1, 2, 4, 8, 16, 30, 30] {
            let due = now + Duration::from_secs(pause);
            assert_eq!(fixture.retry_at(), Some(due));
            let registry = fixture.poll.registry();
            let early = due - Duration::from_nanos(1);
            assert!(fixture.ports.handle_timeout(registry, early).is_empty());
            let opened = fixture.ports.handle_timeout(registry, due);
            assert!(matches!(opened.as_slice(), [(_, Err(_))]));
            now = due;
        }
        fixture.lan.device("tap-a", |device| {
            device.is_gone = false;
            device.refuses_to_open = false;
        });
        now += REOPEN_AFTER_MAX;
        let opened = fixture.ports.handle_timeout(fixture.poll.registry(), now);
        assert!(matches!(opened.as_slice(), [(_, Ok(1500))]));
        assert!(fixture.up("a"));
        assert_eq!(fixture.retry_at(), None);
    }

    #[test]
    fn offload_is_for_all_ports_or_for_none() {
        let mut fixture = Fixture::new();
        let welcome = |fixture: &Fixture| {
            ["tap-a", "tap-b"].map(|tap| fixture.lan.device(tap, |device| device.offload))
        };
        fixture.lan.device("tap-a", |device| device.takes_offload = true);
        fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
        assert_eq!(welcome(&fixture), [false, false]);
        // A frame that comes with work left to do all the same is finished on the way to the port
        // that cannot, and only there.
        let mut bytes = crate::wire::samples::UDP.to_vec();
        bytes[40..42].copy_from_slice(&[0, 0]);
        let offload = Offload {
            checksum_pending: true,
            checksum_start: 34,
            checksum_offset: 6,
            ..Offload::default()
        };
        for (name, tap, is_finished) in [("a", "tap-a", false), ("b", "tap-b", true)] {
            fixture.ports.send(Instant::ZERO, fixture.id(name), &bytes, offload);
            let sent = fixture.lan.device(tap, |device| device.sent.pop()).unwrap();
            assert_eq!(sent[40..42] != [0, 0], is_finished, "{name}");
        }
        // Both can; then only one of them is left.
        fixture.lan.device("tap-c", |device| device.takes_offload = true);
        fixture.reconcile(&[("a", "tap-a"), ("c", "tap-c")]);
        assert!(fixture.lan.device("tap-a", |device| device.offload));
        assert!(fixture.lan.device("tap-c", |device| device.offload));
        fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
        assert_eq!(welcome(&fixture), [false, false]);
        fixture.reconcile(&[("a", "tap-a")]);
        assert!(welcome(&fixture)[0]);
    }

    #[test]
    fn frames_that_a_port_does_not_take_are_counted() {
        let mut fixture = Fixture::new();
        fixture.reconcile(&[("a", "tap-a"), ("b", "tap-b")]);
        let id = fixture.id("a");
        let send = |fixture: &mut Fixture| {
            fixture.ports.send(Instant::ZERO, id, &[0; 60], Offload::default());
            fixture.ports.status("a").unwrap()
        };
        assert_eq!(send(&mut fixture), PortStatus { up: true, send_errors: 0, missed: 0 });
        fixture.lan.device("tap-a", |device| device.is_down = true);
        assert_eq!(send(&mut fixture), PortStatus { up: false, send_errors: 1, missed: 0 });
        assert_eq!(send(&mut fixture), PortStatus { up: false, send_errors: 2, missed: 0 });
        fixture.lan.device("tap-a", |device| device.is_down = false);
        assert_eq!(send(&mut fixture), PortStatus { up: true, send_errors: 2, missed: 0 });
        assert_eq!(fixture.lan.device("tap-a", |device| device.sent.len()), 2);

        // A device that gives frames is up again; one that has none to give may not be.
        fixture.lan.device("tap-a", |device| device.is_down = true);
        send(&mut fixture);
        fixture.lan.device("tap-a", |device| device.is_down = false);
        let mut batch = Batch::new(4);
        for (frames, up) in [(0, false), (1, true)] {
            fixture.lan.arrive("tap-a", vec![vec![0; 60]; frames]);
            fixture.ports.receive(fixture.poll.registry(), Instant::ZERO, id, &mut batch);
            assert_eq!((batch.len(), fixture.up("a")), (frames, up));
        }
    }
}
