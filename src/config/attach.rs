//! Reading how a segment is attached to the host: `attach` and the keys that go with each kind.

use std::sync::Arc;

use super::diagnostics::{Mistake, Mistakes, Read, Reported};
use super::section::{At, List, Section};
use super::snapshot::{Attach, AttachKind, Sockets, Uplink};
use super::values;

/// Sockets that a segment connects to.
pub const CONNECT_MAX: usize = 64;

/// The keys that name a device, and what they name.
const DEVICE_KEYS: [(&str, &str); 3] =
    [("tap", "TAP"), ("bridge", "bridge"), ("interface", "interface")];
const SOCKET: &str = "socket";

/// How a segment is attached, as far as it could be read.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Every device that is named, whatever else is wrong.
    pub devices: Vec<Device>,
    pub uplink: Read<Option<At<Uplink>>>,
    pub attach: Read<Attach>,
}

/// A device and the place that names it.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// `TAP`, `bridge`, `interface` or `socket`.
    pub role: &'static str,
    pub name: At<Arc<str>>,
}

/// What the keys say, before it is seen whether they go together.
struct Keys {
    tap: Read<Option<At<Arc<str>>>>,
    bridge: Read<Option<At<Arc<str>>>>,
    uplink: Read<Option<At<Uplink>>>,
    interface: Read<Option<At<Arc<str>>>>,
    socket: Read<Option<At<Arc<str>>>>,
    connect: List<Arc<str>>,
}

impl Attachment {
    /// The bridge, if the segment has one.
    pub fn bridge(&self) -> Read<Option<&Arc<str>>> {
        match &self.attach {
            Ok(Attach::Tap { bridge, .. }) => Ok(bridge.as_ref()),
            Ok(Attach::Packet { .. } | Attach::Xdp { .. } | Attach::Qemu { .. }) => Ok(None),
            Err(reported) => Err(*reported),
        }
    }

    pub fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> Attachment {
        let kind = section.optional("attach", mistakes, values::attach);
        let [tap, bridge, interface] =
            DEVICE_KEYS.map(|(key, _)| section.optional(key, mistakes, values::device));
        let keys = Keys {
            tap,
            bridge,
            interface,
            uplink: section.optional("uplink", mistakes, values::uplink),
            socket: section.optional("socket", mistakes, values::segment_socket),
            connect: section.list("connect", CONNECT_MAX, mistakes, values::segment_socket),
        };
        let attach = kind.and_then(|kind| keys.attach(section, kind.map(|at| at.value), mistakes));
        Attachment { devices: keys.devices(), uplink: keys.uplink, attach }
    }
}

impl Keys {
    fn devices(&self) -> Vec<Device> {
        let named = [&self.tap, &self.bridge, &self.interface];
        let named = DEVICE_KEYS.iter().zip(named).filter_map(|(&(_, role), read)| {
            Some(Device { role, name: read.as_ref().ok()?.clone()? })
        });
        let listening = self.socket.iter().flatten();
        let sockets = listening.chain(&self.connect.items);
        named.chain(sockets.map(|at| Device { role: SOCKET, name: at.clone() })).collect()
    }

    fn attach(
        &self,
        section: &Section<'_>,
        kind: Option<AttachKind>,
        mistakes: &mut Mistakes,
    ) -> Read<Attach> {
        if kind.is_none()
            && let Some(reported) = self.alone(section, mistakes)
        {
            return Err(reported);
        }
        let kind = kind.unwrap_or_default();
        let fitting = self.refuse_strangers(section, kind, mistakes);
        match kind {
            AttachKind::Tap => {
                let tap = present(section, "tap", "tap = \"vipr-front\"", &self.tap, mistakes);
                let uplink = self.uplink.clone().and_then(|uplink| match (uplink, &self.bridge) {
                    (Some(uplink), Ok(None)) => Err(without_bridge(&uplink, mistakes)),
                    (uplink, _) => Ok(uplink.map(|at| at.value)),
                });
                fitting?;
                let bridge = self.bridge.clone()?.map(|at| at.value);
                Ok(Attach::Tap { tap: tap?, bridge, uplink: uplink? })
            }
            AttachKind::Packet | AttachKind::Xdp => {
                let example = "interface = \"eth0\"";
                let interface = present(section, "interface", example, &self.interface, mistakes)?;
                fitting?;
                Ok(match kind {
                    AttachKind::Xdp => Attach::Xdp { interface },
                    _ => Attach::Packet { interface },
                })
            }
            AttachKind::Qemu => {
                let listen = self.socket.clone()?.map(|at| at.value);
                self.connect.complete?;
                let connect = self.connect.items.iter().map(|at| at.value.clone()).collect();
                let sockets = Sockets::new(listen, connect).ok_or_else(|| {
                    section.missing("socket", "socket = \"/run/vipr/front.sock\"", mistakes)
                });
                fitting?;
                Ok(Attach::Qemu { sockets: sockets? })
            }
        }
    }

    /// A key that says how a segment is attached, where nothing else does: one line for what is
    /// one mistake.
    fn alone(&self, section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Reported> {
        if !matches!(self.tap, Ok(None)) {
            return None;
        }
        if let Ok(Some(interface)) = &self.interface {
            return Some(interface_alone(section, interface, mistakes));
        }
        let socket = matches!(self.socket, Ok(Some(_))).then_some("socket");
        let key = socket.or_else(|| section.value("connect").map(|_| "connect"))?;
        let mistake = Mistake::new(section.key_span(key), format!("`{key}` without `attach`"))
            .expected("expected attach = \"qemu\" beside it")
            .help("add attach = \"qemu\" to be the network of virtual machines");
        Some(mistakes.report(mistake))
    }

    /// Reports keys that do not go with this kind of attachment.
    fn refuse_strangers(
        &self,
        section: &Section<'_>,
        kind: AttachKind,
        mistakes: &mut Mistakes,
    ) -> Read<()> {
        let is_there = |read: &Read<Option<At<Arc<str>>>>| matches!(read, Ok(Some(_)));
        let keys = [
            ("tap", is_there(&self.tap)),
            ("bridge", is_there(&self.bridge)),
            ("uplink", matches!(self.uplink, Ok(Some(_)))),
            ("interface", is_there(&self.interface)),
            ("socket", is_there(&self.socket)),
            ("connect", section.value("connect").is_some()),
        ];
        let (fitting, expected, help): (&[&str], _, _) = match kind {
            AttachKind::Tap => (
                &["tap", "bridge", "uplink"],
                "tap, bridge and uplink",
                "remove it, or write attach = \"packet\" and neither tap nor bridge",
            ),
            AttachKind::Packet | AttachKind::Xdp => (
                &["interface"],
                "interface",
                "remove it: frames come and go on the interface itself, by no TAP and no bridge",
            ),
            AttachKind::Qemu => (
                &["socket", "connect"],
                "socket and connect",
                "remove it: frames come and go by sockets, with no device of this host",
            ),
        };
        let mut result = Ok(());
        for (key, _) in keys.iter().filter(|(key, there)| *there && !fitting.contains(key)) {
            let message = format!("`{key}` with attach = \"{}\"", kind.name());
            // Where it would fit matters more than what else fits here.
            let help = match (kind, *key) {
                (AttachKind::Tap | AttachKind::Packet | AttachKind::Xdp, "socket" | "connect") => {
                    "remove it, or write attach = \"qemu\" and name no device of this host"
                }
                _ => help,
            };
            let mistake = Mistake::new(section.key_span(key), message)
                .expected(format!("expected only: {expected}"))
                .help(help);
            result = Err(mistakes.report(mistake));
        }
        result
    }
}

fn present(
    section: &Section<'_>,
    key: &'static str,
    example: &str,
    read: &Read<Option<At<Arc<str>>>>,
    mistakes: &mut Mistakes,
) -> Read<Arc<str>> {
    match read.clone()? {
        Some(at) => Ok(at.value),
        None => Err(section.missing(key, example, mistakes)),
    }
}

fn without_bridge(uplink: &At<Uplink>, mistakes: &mut Mistakes) -> Reported {
    mistakes.report(
        Mistake::new(uplink.span, "`uplink` in a segment without a bridge")
            .expected("expected `bridge` beside it")
            .help("add the bridge that the card and the TAP meet on: bridge = \"br-vip\""),
    )
}

fn interface_alone(
    section: &Section<'_>,
    interface: &At<Arc<str>>,
    mistakes: &mut Mistakes,
) -> Reported {
    let span = section.key_span("interface");
    let name = &interface.value;
    mistakes.report(
        Mistake::new(span, "`interface` without `attach`")
            .expected("expected attach = \"packet\" or attach = \"xdp\" beside it")
            .help(format!(
                "add attach = \"packet\" to take frames from {name} itself; a TAP and a bridge \
                 have keys of their own: tap, bridge"
            )),
    )
}
