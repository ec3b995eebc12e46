//! Reading how a segment is attached to the host: `attach` and the keys that go with each kind.

use std::sync::Arc;

use super::diagnostics::{Mistake, Mistakes, Read, Reported};
use super::section::{At, Section};
use super::snapshot::{Attach, AttachKind, Uplink};
use super::values;

/// The keys that name a device, and what they name.
const DEVICE_KEYS: [(&str, &str); 3] =
    [("tap", "TAP"), ("bridge", "bridge"), ("interface", "interface")];

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
    /// `TAP`, `bridge` or `interface`.
    pub role: &'static str,
    pub name: At<Arc<str>>,
}

impl Attachment {
    /// The bridge, if the segment has one.
    pub fn bridge(&self) -> Read<Option<&Arc<str>>> {
        match &self.attach {
            Ok(Attach::Tap { bridge, .. }) => Ok(bridge.as_ref()),
            Ok(Attach::Packet { .. } | Attach::Xdp { .. }) => Ok(None),
            Err(reported) => Err(*reported),
        }
    }

    pub fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> Attachment {
        let kind = section.optional("attach", mistakes, values::attach);
        let [tap, bridge, interface] =
            DEVICE_KEYS.map(|(key, _)| section.optional(key, mistakes, values::device));
        let uplink = section.optional("uplink", mistakes, values::uplink);
        let joined = uplink.clone();
        let named = [&tap, &bridge, &interface];
        let devices = DEVICE_KEYS
            .iter()
            .zip(named)
            .filter_map(|(&(_, role), read)| {
                Some(Device { role, name: read.as_ref().ok()?.clone()? })
            })
            .collect();
        let attach = kind.and_then(|kind| match (kind, tap, bridge, interface) {
            // One line for what is one mistake.
            (None, Ok(None), _, Ok(Some(interface))) => {
                Err(interface_alone(section, &interface, mistakes))
            }
            (None | Some(At { value: AttachKind::Tap, .. }), tap, bridge, interface) => {
                let none = without(section, AttachKind::Tap, "interface", &interface, mistakes);
                let example = "tap = \"vipr-front\"";
                let tap = present(section, "tap", example, tap, mistakes);
                let uplink = joined.and_then(|uplink| match (uplink, &bridge) {
                    (Some(uplink), Ok(None)) => Err(without_bridge(&uplink, mistakes)),
                    (uplink, _) => Ok(uplink.map(|at| at.value)),
                });
                none?;
                let bridge = bridge?.map(|at| at.value);
                Ok(Attach::Tap { tap: tap?, bridge, uplink: uplink? })
            }
            (Some(At { value: kind, .. }), tap, bridge, interface) => {
                let no_tap = without(section, kind, "tap", &tap, mistakes);
                let no_bridge = without(section, kind, "bridge", &bridge, mistakes);
                let no_uplink = without(section, kind, "uplink", &joined, mistakes);
                let example = "interface = \"eth0\"";
                let interface = present(section, "interface", example, interface, mistakes)?;
                no_tap.and(no_bridge).and(no_uplink)?;
                Ok(match kind {
                    AttachKind::Xdp => Attach::Xdp { interface },
                    AttachKind::Tap | AttachKind::Packet => Attach::Packet { interface },
                })
            }
        });
        Attachment { devices, uplink, attach }
    }
}

fn present(
    section: &Section<'_>,
    key: &'static str,
    example: &str,
    read: Read<Option<At<Arc<str>>>>,
    mistakes: &mut Mistakes,
) -> Read<Arc<str>> {
    match read? {
        Some(at) => Ok(at.value),
        None => Err(section.missing(key, example, mistakes)),
    }
}

/// Reports a key that does not go with this kind of attachment.
fn without<T>(
    section: &Section<'_>,
    kind: AttachKind,
    key: &'static str,
    read: &Read<Option<At<T>>>,
    mistakes: &mut Mistakes,
) -> Read<()> {
    if !matches!(read, Ok(Some(_))) {
        return Ok(());
    }
    let (keys, help) = match kind {
        AttachKind::Tap => (
            "tap, bridge and uplink",
            "remove it, or write attach = \"packet\" and neither tap nor bridge",
        ),
        AttachKind::Packet | AttachKind::Xdp => (
            "interface",
            "remove it: frames come and go on the interface itself, by no TAP and no bridge",
        ),
    };
    let span = section.key_span(key);
    let mistake = Mistake::new(span, format!("`{key}` with attach = \"{}\"", kind.name()))
        .expected(format!("expected only: {keys}"))
        .help(help);
    Err(mistakes.report(mistake))
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
