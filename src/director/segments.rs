//! The segments the director has a port on, at run time.

use core::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::SegmentId;
use crate::config::snapshot::{self, Role};
use crate::wire::MacAddr;

/// The MTU where neither the configuration nor a device says otherwise.
pub(super) const MTU_DEFAULT: u16 = 1500;

/// A segment at run time.
#[derive(Debug)]
pub(super) struct Segment {
    pub name: Arc<str>,
    pub role: Role,
    pub mac: MacAddr,
    /// The director's own addresses here.
    pub addresses: Vec<IpNet>,
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

    /// Whether an address is the director's own here.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
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
        })
    }

    /// The address to ask for a neighbor from: one whose prefix covers it, else any.
    pub fn source_for(&self, neighbor: IpAddr) -> Option<IpAddr> {
        let same_family =
            || self.addresses.iter().filter(|own| own.addr().is_ipv4() == neighbor.is_ipv4());
        same_family()
            .find(|own| own.contains(&neighbor))
            .or_else(|| same_family().next())
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
                    mac: next.mac,
                    addresses: Vec::new(),
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
        segment.mac = next.mac;
        segment.addresses.clone_from(&next.addresses);
        segment.mtu_configured = next.mtu;
        segment.configured = true;
        SegmentId(index as u16)
    }

    /// Takes a segment out of service; its name and counts stay.
    pub fn retire(&mut self, id: SegmentId) {
        if let Some(segment) = self.get_mut(id) {
            segment.configured = false;
            segment.mtu_device = None;
        }
    }
}
