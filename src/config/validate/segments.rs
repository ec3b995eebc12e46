//! Segments among each other: devices, MAC addresses, the director's own addresses.

use core::hash::Hasher;
use std::collections::{HashMap, HashSet};

use siphasher::sip::SipHasher13;

use super::Seen;
use crate::config::attach::Device;
use crate::config::diagnostics::{Mistake, Mistakes, Read, Span};
use crate::config::document::{Document, SegmentSection};
use crate::config::section::At;
use crate::config::snapshot::{Attach, Defend, Segment};
use crate::wire::MacAddr;

/// Segments of one router.
pub const SEGMENTS_MAX: usize = 4096;

/// RFC 8200, section 5: the least MTU of a link that carries IPv6.
const IPV6_MTU_MIN: u16 = 1280;

/// Checks the segments and gives them their MAC addresses.
pub(super) fn validate(document: &Document, mistakes: &mut Mistakes) -> Read<Vec<Segment>> {
    let sections = &document.segments;
    let mut complete = Ok(());
    if sections.is_empty() {
        // An editor that truncates the file first must not take the router down.
        let mistake = Mistake::structural(Span::default(), "no segment is configured")
            .help("add at least one, with a header such as [segment.front]");
        complete = Err(mistakes.report(mistake));
    }
    if let Some(extra) = sections.get(SEGMENTS_MAX) {
        let mistake = Mistake::new(extra.name.span, format!("{} segments", sections.len()))
            .expected(format!("expected at most {SEGMENTS_MAX}"))
            .help("split the configuration between several routers");
        return Err(mistakes.report(mistake));
    }
    check_devices(sections, mistakes);
    check_uplinks(sections, mistakes);
    check_addresses(sections, mistakes);
    let configured = check_macs(sections, mistakes);
    let router_name = document.router.name.clone();
    let mut taken = configured;
    let mut segments = Vec::with_capacity(sections.len());
    for section in sections {
        check_mtu(section, mistakes);
        check_guardian(section, mistakes);
        check_vlan(section, mistakes);
        let built = router_name.clone().and_then(|router| build(section, &router, &mut taken));
        match built {
            Ok(segment) => segments.push(segment),
            Err(reported) => complete = Err(reported),
        }
    }
    complete.map(|()| segments)
}

fn build(section: &SegmentSection, router: &str, taken: &mut HashSet<MacAddr>) -> Read<Segment> {
    let mac = match section.mac? {
        Some(mac) => mac.value,
        None => derive_mac(router, &section.name.value, |mac| taken.contains(&mac)),
    };
    taken.insert(mac);
    section.addresses.complete?;
    Ok(Segment {
        name: section.name.value.clone(),
        role: section.role?.value,
        attach: section.attachment.attach.clone()?,
        vlan: section.vlan?.map(|at| at.value),
        offload: section.offload?,
        mac,
        mtu: section.mtu?.map(|at| at.value),
        addresses: section.addresses.items.iter().map(|at| at.value).collect(),
        defend: section.defend?.map_or(Defend::default(), |at| at.value),
        arp_guard: section.arp_guard?.is_some_and(|at| at.value),
    })
}

/// The director's MAC address on a segment that has none configured: a locally administered
/// station's address, the same whenever router and segment have the same names. A second attempt
/// is made where `taken` says so.
fn derive_mac(router: &str, segment: &str, taken: impl Fn(MacAddr) -> bool) -> MacAddr {
    // Any keys do, but they may never change: neighbours know the director by the result.
    const KEYS: (u64, u64) = (0x7669_7072_2d6d_6163, 0x6c6f_6361_6c2d_3032);
    let mut attempt = 0u64;
    loop {
        let mut hasher = SipHasher13::new_with_keys(KEYS.0, KEYS.1);
        hasher.write(router.as_bytes());
        // No name holds a NUL, so no two pairs of names feed the same bytes.
        hasher.write_u8(0);
        hasher.write(segment.as_bytes());
        hasher.write_u8(0);
        hasher.write(&attempt.to_be_bytes());
        let [a, b, c, d, e, ..] = hasher.finish().to_be_bytes();
        let mac = MacAddr([0x02, a, b, c, d, e]);
        if !taken(mac) {
            return mac;
        }
        attempt += 1;
    }
}

/// No device is used twice, in whatever part; but segments of different VLANs may share a TAP, and
/// with it its bridge.
fn check_devices(sections: &[SegmentSection], mistakes: &mut Mistakes) {
    // A socket may have the name of a device.
    let mut seen: HashMap<(bool, &str), (&SegmentSection, &Device)> = HashMap::new();
    let mut vlans = Seen::new();
    for section in sections {
        for device in &section.attachment.devices {
            let Device { role: kind, name: At { value, span } } = device;
            let vlan = (*kind == "TAP").then(|| section.vlan.ok()).flatten();
            let same_vlan = vlan
                .and_then(|vlan| vlans.note((value.clone(), vlan.map(|vlan| vlan.value)), *span));
            let &mut (first, earlier) =
                seen.entry((*kind == "socket", value)).or_insert((section, device));
            if core::ptr::eq(earlier, device) {
                continue;
            }
            let shares = earlier.role == *kind && tap_of(first) == tap_of(section);
            if shares && same_vlan.is_none() && matches!(*kind, "TAP" | "bridge") {
                if *kind == "TAP" {
                    check_trunk(first, section, mistakes);
                }
                continue;
            }
            let help = match *kind {
                "TAP" => "give each segment a TAP of its own, or on one TAP a `vlan` of its own",
                "interface" => "one segment with role = \"both\" serves one interface",
                "socket" => "any number of machines may connect to one, and one listens at each",
                _ => "one segment with role = \"both\" serves one bridge from one TAP",
            };
            let message = match vlan.flatten() {
                Some(vlan) if same_vlan.is_some() => {
                    format!("{kind} `{value}` has VLAN {} already", vlan.value)
                }
                _ => format!("{kind} `{value}` is in use already"),
            };
            let mistake = Mistake::new(*span, message)
                .expected("expected a device that no other key names")
                .related(same_vlan.unwrap_or(earlier.name.span), "first used here")
                .help(help);
            mistakes.report(mistake);
        }
    }
}

/// A card joins one bridge.
fn check_uplinks(sections: &[SegmentSection], mistakes: &mut Mistakes) {
    let (mut seen, mut taps) = (Seen::new(), HashSet::new());
    for section in sections {
        let Ok(Some(uplink)) = &section.attachment.uplink else { continue };
        // Segments of one TAP have one bridge, and so one card.
        if tap_of(section).is_some_and(|tap| !taps.insert(tap)) {
            continue;
        }
        if let Some(first) = seen.note(uplink.value.clone(), uplink.span) {
            let message = format!("card `{}` is in use already", uplink.value);
            let mistake = Mistake::new(uplink.span, message)
                .expected("expected a card that no other segment names")
                .related(first, "first used here")
                .help("a card joins one bridge: give each segment its own");
            mistakes.report(mistake);
        }
    }
}

fn tap_of(section: &SegmentSection) -> Option<&str> {
    let mut devices = section.attachment.devices.iter();
    devices.find(|device| device.role == "TAP").map(|device| &*device.name.value)
}

/// Segments that share a TAP say the same of it.
fn check_trunk(first: &SegmentSection, other: &SegmentSection, mistakes: &mut Mistakes) {
    let bridge = |section: &SegmentSection| match &section.attachment.attach {
        Ok(Attach::Tap { bridge, .. }) => Some(bridge.clone()),
        _ => None,
    };
    let uplink = |section: &SegmentSection| match &section.attachment.attach {
        Ok(Attach::Tap { uplink, .. }) => Some(uplink.clone()),
        _ => None,
    };
    let mtu = |section: &SegmentSection| section.mtu.ok().map(|mtu| mtu.map(|at| at.value));
    let differing = [
        ("bridge", bridge(first) == bridge(other)),
        ("uplink", uplink(first) == uplink(other)),
        ("mtu", mtu(first) == mtu(other)),
        ("offload", first.offload == other.offload),
    ];
    for (key, _) in differing.iter().filter(|(_, same)| !same) {
        let message = format!("segments of one TAP differ in `{key}`");
        let mistake = Mistake::new(other.name.span, message)
            .expected("expected the same, since it is that of the TAP")
            .related(first.name.span, "the first of its segments")
            .help(format!("give both the same `{key}`, or none"));
        mistakes.report(mistake);
    }
}

/// No two segments have the same MAC address. The configured ones.
fn check_macs(sections: &[SegmentSection], mistakes: &mut Mistakes) -> HashSet<MacAddr> {
    let mut seen = Seen::new();
    for mac in sections.iter().filter_map(|section| section.mac.ok().flatten()) {
        if let Some(first) = seen.note(mac.value, mac.span) {
            let message = format!("MAC address {} on two segments", mac.value);
            let mistake = Mistake::new(mac.span, message)
                .expected("expected an address of its own")
                .related(first, "first used here")
                .help("change one, or remove it: then it is derived from the segment's name");
            mistakes.report(mistake);
        }
    }
    seen.0.into_keys().collect()
}

/// The director has an address on one segment only, and once.
fn check_addresses(sections: &[SegmentSection], mistakes: &mut Mistakes) {
    let mut seen = Seen::new();
    for address in sections.iter().flat_map(|section| &section.addresses.items) {
        let host = address.value.addr();
        if let Some(first) = seen.note(host, address.span) {
            let mistake = Mistake::new(address.span, format!("address {host} is configured twice"))
                .expected("expected an address of its own")
                .related(first, "first configured here")
                .help("remove one of the two");
            mistakes.report(mistake);
        }
    }
}

fn check_mtu(section: &SegmentSection, mistakes: &mut Mistakes) {
    let Ok(Some(mtu)) = section.mtu else { return };
    let ipv6 = section.addresses.items.iter().find(|at| at.value.addr().is_ipv6());
    if let Some(address) = ipv6
        && mtu.value < IPV6_MTU_MIN
    {
        let mistake = Mistake::new(mtu.span, format!("MTU {} is too small for IPv6", mtu.value))
            .expected(format!("expected at least {IPV6_MTU_MIN}"))
            .related(address.span, "the segment has an IPv6 address")
            .help("raise the MTU, or remove the IPv6 address");
        mistakes.report(mistake);
    }
}

/// Many cards take the tag off a frame and tell it beside the frame, where AF_XDP does not look.
fn check_vlan(section: &SegmentSection, mistakes: &mut Mistakes) {
    if let (Ok(Some(vlan)), Ok(Attach::Xdp { .. })) = (&section.vlan, &section.attachment.attach) {
        let mistake = Mistake::new(vlan.span, "`vlan` with attach = \"xdp\"")
            .expected("expected attach = \"packet\" or \"tap\" on a segment with a VLAN")
            .help("with \"xdp\" frames come without the tags that the card takes off them");
        mistakes.report(mistake);
    }
}

/// VIPs are defended where there are any, and guarded where the bridge is at hand.
fn check_guardian(section: &SegmentSection, mistakes: &mut Mistakes) {
    let defend = section.defend.ok().flatten().map(|at| ("defend", at.span));
    let guard = section.arp_guard.ok().flatten().filter(|at| at.value);
    let keys = defend.into_iter().chain(guard.map(|at| ("arp_guard", at.span)));
    if let Ok(role) = &section.role
        && !role.value.has_vips()
    {
        for (key, span) in keys {
            let mistake = Mistake::new(span, format!("`{key}` on a segment without VIPs"))
                .expected("expected on a segment with the role \"vip\" or \"both\"")
                .related(role.span, "the role is set here")
                .help("remove it");
            mistakes.report(mistake);
        }
    } else if let (Some(guard), Ok(None)) = (guard, section.attachment.bridge()) {
        let mistake = Mistake::new(guard.span, "`arp_guard` on a segment without a bridge")
            .expected("expected `bridge`, as in bridge = \"br-vip\"")
            .help(
                "it is the bridge that keeps others from claiming a VIP: name it, or remove this",
            );
        mistakes.report(mistake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_address_is_stable_and_locally_administered() {
        let free = |_: MacAddr| false;
        let mac = derive_mac("vipr", "front", free);
        // Written down: a change here moves every router's addresses.
        assert_eq!(mac, derive_mac("vipr", "front", free));
        assert_eq!(mac.to_string(), "02:4d:0d:06:85:27");
        assert!(mac.is_station());
        assert_eq!(mac.0[0], 0x02);
    }

    #[test]
    fn a_derived_address_depends_on_both_names() {
        let free = |_: MacAddr| false;
        let macs: HashSet<MacAddr> =
            [("vipr", "front"), ("vipr", "back"), ("viprf", "ront"), ("", "viprfront")]
                .into_iter()
                .map(|(router, segment)| derive_mac(router, segment, free))
                .collect();
        assert_eq!(macs.len(), 4);
    }

    #[test]
    fn a_derived_address_avoids_what_is_taken() {
        let first = derive_mac("vipr", "front", |_| false);
        let second = derive_mac("vipr", "front", |mac| mac == first);
        assert_ne!(first, second);
        assert_eq!(second, derive_mac("vipr", "front", |mac| mac == first));
    }
}
