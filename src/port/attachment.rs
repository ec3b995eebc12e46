//! The place of a TAP in this host: its bridge, its settings, and the way back.
//!
//! Every change is noted with its reverse. What vipr made is removed in the end; what it found
//! stays, and gets back what vipr changed on it (membership of a bridge, MTU), except that it
//! stays up. A card that joins the bridge as uplink is found, and leaves it again.
//!
//! A bridge that vipr made carries [`MADE_BY`] as its alias, and whoever leaves such a bridge
//! last removes it. So two segments on one bridge, two routers on one bridge, and a bridge left
//! over from a router that was killed all end well. One that somebody has given a port or an
//! address is no longer vipr's alone, and stays: a restart would take away what is on it. A person
//! who wants to keep one that is empty clears the alias (`ip link set NAME alias ""`).
//!
//! A bridge without a MAC of its own has the lowest of its ports', and a TAP's is random. So that
//! a restart never changes the MAC of a bridge (and with it, for minutes, the reachability of a
//! host that has its address there), a TAP that vipr makes gets a MAC that is higher than others'.
//!
//! On what vipr makes, IPv6 is switched off: else the host's own stack would send router
//! solicitations, duplicate address detection and multicast reports into the segment, and take
//! addresses and routes from whoever advertises them there. The host has no part in a segment
//! that exists for the director; one that shall have a part gets its bridge made beforehand.

use std::fs;

use log::{debug, warn};

use super::cards;
use super::link::{Kind, Link, Links};
use super::open_error::OpenError;
use super::tap::Card;

/// The alias of the bridges that vipr made.
pub(super) const MADE_BY: &str = "made by vipr";

/// What the MACs of TAPs begin with that vipr made: the highest first octet of a station whose MAC
/// was not assigned by a manufacturer.
const HIGH_OCTET: u8 = 0xfe;

/// Frames that may wait at a TAP that vipr made. The kernel's 1000 lose frames of plain bulk TCP
/// by the thousand.
pub(super) const QUEUE_LEN: u32 = 4000;

/// A host's devices, and what is to be undone on them.
pub(super) struct Attachment {
    links: Links,
    undo: Vec<Undo>,
}

/// The reverse of a change.
#[derive(Debug)]
enum Undo {
    /// Of a found TAP or a card: it is no longer a port of the bridge.
    Release { device: u32, bridge: u32 },
    /// Of a found TAP: its MTU is again what it was.
    Mtu { tap: u32, mtu: u32 },
    /// Of a bridge that vipr made.
    RemoveBridge { bridge: u32 },
}

impl Attachment {
    pub fn new(tap: &str) -> Result<Attachment, OpenError> {
        let links = Links::open()
            .map_err(|error| OpenError::refused("TAP", tap, "ask for network devices", error))?;
        Ok(Attachment { links, undo: Vec::new() })
    }

    /// The TAP of this name if there is one, provided that a port can be opened on it.
    pub fn find_tap(&self, name: &str) -> Result<Option<Link>, OpenError> {
        let Some(link) = self.find("TAP", name)? else { return Ok(None) };
        match &link.kind {
            Kind::Tap { multi_queue: false } => Ok(Some(link)),
            Kind::Tap { multi_queue: true } => {
                Err(OpenError::TapMultiQueue { tap: name.to_owned() })
            }
            other => Err(OpenError::NotATap { name: name.to_owned(), found: describe(other) }),
        }
    }

    /// The bridge of this name, made if absent, and up.
    pub fn have_bridge(&mut self, name: &str) -> Result<Link, OpenError> {
        let bridge = match self.find("bridge", name)? {
            Some(found) if found.kind == Kind::Bridge => found,
            Some(found) => {
                let found = describe(&found.kind);
                return Err(OpenError::NotABridge { name: name.to_owned(), found });
            }
            None => self.make_bridge(name)?,
        };
        if bridge.alias == MADE_BY {
            self.undo.push(Undo::RemoveBridge { bridge: bridge.index });
        }
        self.links
            .bring_up(bridge.index)
            .map_err(|error| OpenError::refused("bridge", name, "bring it up", error))?;
        Ok(bridge)
    }

    /// Refuses a TAP that is a port of something else than `bridge`.
    pub fn check_membership(&self, tap: &Link, bridge: Option<&str>) -> Result<(), OpenError> {
        let (Some(bridge), Some(master)) = (bridge, tap.master) else { return Ok(()) };
        let master = self
            .links
            .at(master)
            .map_err(|error| OpenError::refused("TAP", &tap.name, "find its bridge", error))?;
        match master {
            Some(master) if master.name != bridge => Err(OpenError::TapElsewhere {
                tap: tap.name.clone(),
                bridge: bridge.to_owned(),
                found: master.name,
            }),
            _ => Ok(()),
        }
    }

    /// Gives the opened TAP its MTU and its place, and brings it up. `found` is what there was
    /// before, if vipr did not make it. Returns the index of the device.
    pub fn join(
        &mut self,
        name: &str,
        found: Option<&Link>,
        mtu: Option<u16>,
        bridge: Option<&Link>,
    ) -> Result<u32, OpenError> {
        let refused = |action| move |error| OpenError::refused("TAP", name, action, error);
        let link = self.links.find(name).map_err(refused("find it"))?;
        let Some(link) = link else {
            return Err(refused("find it")(std::io::ErrorKind::NotFound.into()));
        };
        let tap = link.index;
        if found.is_none() {
            silence_ipv6(name);
            if let [_, rest @ ..] = link.mac.as_slice() {
                let mac = [&[HIGH_OCTET], rest].concat();
                self.links.set_mac(tap, &mac).map_err(refused("set its MAC"))?;
            }
            self.links.set_queue_len(tap, QUEUE_LEN).map_err(refused("set its queue length"))?;
        }
        if let Some(mtu) = mtu
            && link.mtu != u32::from(mtu)
        {
            self.set_mtu(&link, found.is_some(), mtu)?;
        }
        if let Some(bridge) = bridge
            && link.master != Some(bridge.index)
        {
            self.links.enslave(tap, bridge.index).map_err(refused("join it to its bridge"))?;
            if found.is_some() {
                self.undo.push(Undo::Release { device: tap, bridge: bridge.index });
            }
        }
        self.links.bring_up(tap).map_err(refused("bring it up"))?;
        Ok(tap)
    }

    /// Makes a card a port of the bridge, and brings it up.
    pub fn join_uplink(&mut self, card: Card<'_>, bridge: &Link) -> Result<(), OpenError> {
        let wanted = card.to_string();
        let all = self.links.all().map_err(|error| {
            OpenError::refused("card", &wanted, "ask for network devices", error)
        })?;
        let found = all.iter().find(|link| match card {
            Card::Name(name) => link.name == name,
            // A VLAN device, or a bridge, has the MAC of the card below it.
            Card::Mac(mac) => cards::card(link).is_some_and(|card| card.mac == mac),
        });
        let Some(link) = found else {
            return Err(OpenError::NoSuchCard {
                wanted,
                there_are: cards::listed(&cards::of(&all)),
            });
        };
        let card = &link.name;
        if matches!(link.kind, Kind::Bridge | Kind::Tap { .. }) || link.mac.is_empty() {
            let found = describe(&link.kind);
            let there_are = cards::listed(&cards::of(&all));
            return Err(OpenError::NotACard { name: card.clone(), found, there_are });
        }
        let refused = |action| move |error| OpenError::refused("card", card, action, error);
        match link.master {
            Some(master) if master == bridge.index => {}
            Some(master) => {
                let found = all.iter().find(|link| link.index == master);
                return Err(OpenError::CardElsewhere {
                    card: card.clone(),
                    bridge: bridge.name.clone(),
                    found: found.map_or_else(|| "another device".to_owned(), |l| l.name.clone()),
                });
            }
            None => {
                if self.links.has_addresses(link.index).map_err(refused("ask for addresses"))? {
                    warn!(
                        "card {card}: it has an IP address, by which this machine can no longer \
                         be reached while the card is a port of bridge {}: give the address to \
                         the bridge, or take another card",
                        bridge.name
                    );
                }
                let joined = self.links.enslave(link.index, bridge.index);
                joined.map_err(refused("join it to its bridge"))?;
                self.undo.push(Undo::Release { device: link.index, bridge: bridge.index });
            }
        }
        self.links.bring_up(link.index).map_err(refused("bring it up"))
    }

    /// The devices, to be asked about.
    pub fn links(&self) -> &Links {
        &self.links
    }

    fn find(&self, role: &'static str, name: &str) -> Result<Option<Link>, OpenError> {
        self.links.find(name).map_err(|error| OpenError::refused(role, name, "find it", error))
    }

    fn make_bridge(&self, name: &str) -> Result<Link, OpenError> {
        self.links.make_bridge(name).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => OpenError::NoBridgeDriver { name: name.to_owned() },
            _ => OpenError::refused("bridge", name, "make it", error),
        })?;
        let made = self.find("bridge", name)?.ok_or_else(|| {
            OpenError::refused("bridge", name, "make it", std::io::ErrorKind::NotFound.into())
        })?;
        silence_ipv6(name);
        if let Err(error) = self.links.set_alias(made.index, MADE_BY) {
            // Without its mark it would stay.
            let _ = self.links.remove(made.index);
            return Err(OpenError::refused("bridge", name, "mark it", error));
        }
        Ok(Link { alias: MADE_BY.to_owned(), ..made })
    }

    fn set_mtu(&mut self, tap: &Link, found: bool, mtu: u16) -> Result<(), OpenError> {
        self.links.set_mtu(tap.index, u32::from(mtu)).map_err(|error| {
            let name = &tap.name;
            match error.raw_os_error() {
                Some(libc::EINVAL) => OpenError::Mtu { tap: name.clone(), mtu, error },
                _ => OpenError::refused("TAP", name, "set its MTU", error),
            }
        })?;
        if found {
            self.undo.push(Undo::Mtu { tap: tap.index, mtu: tap.mtu });
        }
        Ok(())
    }

    fn undo(&self, step: &Undo) -> std::io::Result<()> {
        match *step {
            Undo::Release { device, bridge } => match self.links.at(device)? {
                Some(link) if link.master == Some(bridge) => self.links.release(device),
                _ => Ok(()),
            },
            Undo::Mtu { tap, mtu } => match self.links.at(tap)? {
                Some(_) => self.links.set_mtu(tap, mtu),
                None => Ok(()),
            },
            Undo::RemoveBridge { bridge } => match self.links.at(bridge)? {
                Some(link)
                    if link.alias == MADE_BY
                        && !self.links.has_ports(bridge)?
                        && !self.links.has_addresses(bridge)? =>
                {
                    self.links.remove(bridge)
                }
                _ => Ok(()),
            },
        }
    }
}

impl Drop for Attachment {
    /// Undoes the changes, the last one first. A TAP that vipr made is gone by then: its
    /// descriptor is closed before this runs.
    fn drop(&mut self) {
        for step in std::mem::take(&mut self.undo).iter().rev() {
            if let Err(error) = self.undo(step) {
                warn!("cannot undo a change to a network device ({step:?}): {error}");
            }
        }
    }
}

/// Keeps the host's IPv6 off a device that vipr made. In a container this setting may be
/// read-only: then some noise reaches the segment, which the director drops and counts.
fn silence_ipv6(name: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if let Err(error) = fs::write(&path, "1") {
        debug!("{path}: cannot be set: {error}");
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Bridge => "a bridge".to_owned(),
        Kind::Tap { .. } => "a TAP".to_owned(),
        Kind::Other(name) if name == "tun" => "a TUN device".to_owned(),
        Kind::Other(name) => format!("a device of kind {name}"),
        Kind::Plain => "a network card".to_owned(),
    }
}
