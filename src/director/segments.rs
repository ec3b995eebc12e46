//! The segments the director has a port on, at run time.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::{DropReason, SegmentId};
use crate::config::snapshot::{self, Defend, Role};
use crate::wire::vlan::{Tag, Vlan};
use crate::wire::{MacAddr, ipv6};

/// The MTU where neither the configuration nor a device says otherwise.
pub(super) const MTU_DEFAULT: u16 = 1500;

/// A segment at run time.
#[derive(Debug)]
pub(super) struct Segment {
    pub name: Arc<str>,
    pub role: Role,
    pub defend: Defend,
    pub mac: MacAddr,
    /// The director's own addresses here.
    pub addresses: Vec<IpNet>,
    /// Whether there is a VIP of IPv6 here.
    ipv6_vips: bool,
    /// Whether there is, or was, a real server with an address of IPv6 here.
    ipv6_neighbors: bool,
    /// The VLAN whose frames are this segment's; `None` for those without a tag.
    pub vlan: Option<Vlan>,
    /// The segments that share its device, itself among them.
    trunk: Vec<(Option<Vlan>, SegmentId)>,
    /// False once the configuration has dropped it.
    pub configured: bool,
    mtu_configured: Option<u16>,
    mtu_device: Option<u16>,
    pub received: FrameCount,
    pub sent: FrameCount,
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameCount {
    pub frames: u64,
    pub bytes: u64,
}

impl FrameCount {
    #[inline]
    pub fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

impl Segment {
    /// The largest IP packet it carries, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu_configured.or(self.mtu_device).unwrap_or(MTU_DEFAULT)
    }

    /// What the device carries, if one was there since the segment was configured.
    pub fn device_mtu(&self) -> Option<u16> {
        self.mtu_device
    }

    /// The tag of a frame that goes out here, which came in with another, or none.
    #[inline]
    pub fn tag(&self, before: Option<Tag>) -> Option<Tag> {
        self.vlan.map(|vlan| Tag::new(vlan, before))
    }

    /// Whether an address is the director's own here.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
            || self.link_local().is_some_and(|own| address == own)
    }

    /// The address of IPv6 that it needs no configuration for: to ask for neighbors from, and to
    /// tell bridges what it listens to. Only where IPv6 is spoken at all.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let spoken = self.ipv6_vips
            || self.ipv6_neighbors
            || self.addresses.iter().any(|own| own.addr().is_ipv6());
        spoken.then(|| ipv6::link_local(self.mac))
    }

    /// All addresses of IPv6 that are the director's own here.
    pub fn own_ipv6(&self) -> impl Iterator<Item = Ipv6Addr> {
        let configured = self.addresses.iter().filter_map(|own| match own.addr() {
            IpAddr::V6(own) => Some(own),
            IpAddr::V4(_) => None,
        });
        configured.chain(self.link_local())
    }

    /// Takes in whether there are VIPs of IPv6 here.
    pub fn follow_vips(&mut self, any: bool) {
        self.ipv6_vips = any;
    }

    /// Takes in that there is a real server of IPv6 here; whether that is new.
    pub fn follow_neighbor(&mut self) -> bool {
        !core::mem::replace(&mut self.ipv6_neighbors, true)
    }

    /// Whether an address is the director's own here, or stands for all stations here: that of
    /// the network or its broadcast address (RFC 1122, 3.2.1.3), of which IPv6 has neither.
    pub fn has_or_is_all_of(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| match (own, address) {
            (IpNet::V4(own), IpAddr::V4(address)) => {
                let for_all = [own.network(), own.broadcast()];
                own.addr() == address || own.prefix_len() < 31 && for_all.contains(&address)
            }
            (own, address) => own.addr() == address,
        }) || address.is_ipv6() && self.has_address(address)
    }

    /// The address to ask for a neighbor from: one whose prefix covers it, else any; in IPv6 the
    /// link-local one, which a neighbor reaches whatever prefixes it knows.
    pub fn source_for(&self, neighbor: IpAddr) -> Option<IpAddr> {
        let same_family =
            || self.addresses.iter().filter(|own| own.addr().is_ipv4() == neighbor.is_ipv4());
        same_family().find(|own| own.contains(&neighbor)).map(IpNet::addr).or_else(
            || match neighbor {
                IpAddr::V4(_) => same_family().next().map(IpNet::addr),
                IpAddr::V6(_) => self.link_local().map(IpAddr::V6),
            },
        )
    }

    /// The address to ask a real server from: one whose prefix covers it, else any that is
    /// configured. Not the link-local one of IPv6: the answer must find its way as a client's does.
    pub fn source_towards(&self, destination: IpAddr) -> Option<IpAddr> {
        let of_family =
            || self.addresses.iter().filter(|own| own.addr().is_ipv4() == destination.is_ipv4());
        of_family()
            .find(|own| own.contains(&destination))
            .or_else(|| of_family().next())
            .map(IpNet::addr)
    }
}

/// Segments by id. A segment of the same name keeps its id for as long as the process runs.
#[derive(Debug, Default)]
pub(super) struct Segments {
    all: Vec<Segment>,
}

impl Segments {
    /// A configured segment.
    #[inline]
    pub fn get(&self, id: SegmentId) -> Option<&Segment> {
        self.all.get(id.index()).filter(|segment| segment.configured)
    }

    /// A segment, configured or not.
    pub fn get_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.all.get_mut(id.index())
    }

    /// Configured segments.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.all
            .iter()
            .enumerate()
            .filter(|(_, segment)| segment.configured)
            .map(|(index, segment)| (SegmentId(index as u16), segment))
    }

    /// Configured segments.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SegmentId, &mut Segment)> {
        self.all
            .iter_mut()
            .enumerate()
            .filter(|(_, segment)| segment.configured)
            .map(|(index, segment)| (SegmentId(index as u16), segment))
    }

    /// The configured segment of this name.
    pub fn find(&self, name: &str) -> Option<SegmentId> {
        self.iter().find(|(_, segment)| &*segment.name == name).map(|(id, _)| id)
    }

    /// The name of a segment, also of one that is no longer configured.
    pub fn name(&self, id: SegmentId) -> Option<&Arc<str>> {
        self.all.get(id.index()).map(|segment| &segment.name)
    }

    pub fn set_device_mtu(&mut self, id: SegmentId, mtu: u16) {
        if let Some(segment) = self.get_mut(id) {
            segment.mtu_device = Some(mtu);
        }
    }

    /// Enters a segment as now configured, or updates it; its id.
    pub fn configure(&mut self, next: &snapshot::Segment) -> SegmentId {
        let index = match self.all.iter().position(|segment| segment.name == next.name) {
            Some(index) => index,
            None => {
                self.all.push(Segment {
                    name: next.name.clone(),
                    role: next.role,
                    defend: next.defend,
                    mac: next.mac,
                    addresses: Vec::new(),
                    ipv6_vips: false,
                    ipv6_neighbors: false,
                    vlan: next.vlan,
                    trunk: Vec::new(),
                    configured: true,
                    mtu_configured: None,
                    mtu_device: None,
                    received: FrameCount::default(),
                    sent: FrameCount::default(),
                });
                self.all.len() - 1
            }
        };
        let segment = &mut self.all[index];
        segment.role = next.role;
        segment.defend = next.defend;
        segment.mac = next.mac;
        segment.vlan = next.vlan;
        segment.addresses.clone_from(&next.addresses);
        segment.mtu_configured = next.mtu;
        segment.configured = true;
        SegmentId(index as u16)
    }

    /// Lets segments know with which others they share a device.
    pub fn link_trunks(&mut self, configured: &[snapshot::Segment]) {
        let mut trunks: BTreeMap<&str, Vec<(Option<Vlan>, SegmentId)>> = BTreeMap::new();
        for segment in configured {
            if let Some(id) = self.find(&segment.name) {
                trunks.entry(segment.device()).or_default().push((segment.vlan, id));
            }
        }
        for trunk in trunks.into_values() {
            for &(_, id) in &trunk {
                if let Some(segment) = self.get_mut(id) {
                    segment.trunk.clone_from(&trunk);
                }
            }
        }
    }

    /// The segment that a frame with this tag belongs to, which came by the device of `ingress`.
    #[inline]
    pub fn arrival(&self, ingress: SegmentId, tag: Option<Tag>) -> Result<SegmentId, DropReason> {
        let segment = self.get(ingress).ok_or(DropReason::SegmentGone)?;
        // A tag that only has a priority is none.
        let vlan = tag.and_then(Tag::vlan);
        if segment.vlan == vlan {
            return Ok(ingress);
        }
        let found = segment.trunk.iter().find(|(other, _)| *other == vlan);
        found.map(|(_, id)| *id).ok_or_else(|| {
            let is_tagged = |(vlan, _): &(Option<Vlan>, SegmentId)| vlan.is_some();
            match vlan {
                None => DropReason::VlanMissing,
                Some(_) if segment.trunk.iter().any(is_tagged) => DropReason::VlanUnknown,
                Some(_) => DropReason::VlanTag,
            }
        })
    }

    /// Takes a segment out of service; its name and counts stay.
    pub fn retire(&mut self, id: SegmentId) {
        if let Some(segment) = self.get_mut(id) {
            segment.configured = false;
            segment.mtu_device = None;
        }
    }
}
