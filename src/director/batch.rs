//! Frames that arrived together, judged in stages.
//!
//! With a million connections a frame's look-up waits for memory twice, longer than everything
//! else takes. The waits of a whole burst overlap when they are begun together: so first every
//! frame of it is read and its flow hashed, and what the index has for it brought near; then every
//! connection; and then the frames are judged one by one, by the same rules, in the same order and
//! with the same result as if they had come alone (`tests/frames/batch.rs`). What was read and
//! hashed in the first stage is used in the last.
//!
//! A stage that only looks is safe to run ahead: a frame's bytes and the MAC of its segment, which
//! are all that [`Director::sight`] goes by, are not changed by the frames before it.

use super::connections::{FlowHash, Hint};
use super::flow::FlowKey;
use super::ingress::{is_arp, is_discovery};
use super::{BURST_MAX, Director, Instant, SegmentId, Verdict};
use crate::wire::frame::ETHERNET_HEADER_LEN;
use crate::wire::packet::{self, Body, Ip, Malformed, Packet, Transport};
use crate::wire::vlan::Tag;
use crate::wire::{Burst, MacAddr};

/// With fewer connections there is nothing to wait for. With more there is even where they would
/// all fit into the caches: the system calls between two bursts leave little of them there. In
/// the forwarding benchmark looking ahead takes a quarter off 10,000 connections hit at random.
const CONNECTIONS_MIN: u32 = 256;

/// What a frame says, before anything is looked up. Not handed on but written where it stays: with
/// all the kinds of packet there are it is large to move, and most of it is never looked at.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub reading: Reading,
    /// Only after [`Reading::Packet`].
    pub packet: Packet,
    /// Of TCP, UDP and SCTP.
    pub flow: Option<Flow>,
}

/// What came of reading a frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// It was not read.
    None,
    Malformed(Malformed),
    Packet,
}

impl Sight {
    pub const NONE: Sight = Sight { reading: Reading::None, packet: Packet::EMPTY, flow: None };
}

/// What a connection is found by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub key: FlowKey,
    pub hash: FlowHash,
    pub hint: Hint,
}

impl Director {
    /// Judges frames that arrived on `ingress` together, up to [`BURST_MAX`] at a time, and
    /// rewrites in place those that are to be forwarded. `decided` is told of each, in order, with
    /// the VLAN tag that it is to leave with.
    pub fn handle_batch(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frames: &mut (impl Burst + ?Sized),
        mut decided: impl FnMut(usize, Verdict, Option<Tag>),
    ) {
        let len = frames.len();
        if len == 1 || self.connections.len() < CONNECTIONS_MIN {
            for index in 0..len {
                let mut frame = frames.frame(index);
                let verdict = self.handle_frame(now, ingress, &mut frame);
                decided(index, verdict, frame.offload.tag);
            }
            return;
        }
        let mut sights = core::mem::take(&mut self.sights);
        sights.resize(BURST_MAX, Sight::NONE);
        for start in (0..len).step_by(BURST_MAX) {
            let sights = &mut sights[..BURST_MAX.min(len - start)];
            self.look_ahead(ingress, frames, start, sights);
            for (index, sight) in (start..).zip(sights) {
                let mut frame = frames.frame(index);
                let verdict = self.decide(now, ingress, &mut frame, Some(sight));
                decided(index, verdict, frame.offload.tag);
            }
        }
        self.sights = sights;
    }

    /// All stages but the last, for the frames from `start` on.
    fn look_ahead(
        &self,
        ingress: SegmentId,
        frames: &mut (impl Burst + ?Sized),
        start: usize,
        sights: &mut [Sight],
    ) {
        let mut last = None;
        for (index, sight) in (start..).zip(&mut *sights) {
            sight.reading = Reading::None;
            sight.flow = None;
            let frame = frames.frame(index);
            let segment = self.segments.arrival(ingress, frame.offload.tag).ok();
            let Some(segment) = segment.and_then(|id| self.segments.get(id)) else { continue };
            self.sight(segment.mac, frame.bytes, last, sight);
            last = sight.flow.as_ref().or(last);
        }
        // Each in a loop of its own: a processor goes on past a load it waits for only as far as
        // some hundred instructions reach, which is less than reading and hashing one frame takes.
        let mut touched = 0;
        for flow in sights.iter().filter_map(|sight| sight.flow.as_ref()) {
            touched ^= self.connections.approach_index(flow.hash);
        }
        core::hint::black_box(touched);
        for flow in sights.iter_mut().filter_map(|sight| sight.flow.as_mut()) {
            let (hint, read) = self.connections.approach_entry(flow.hash);
            flow.hint = hint;
            touched ^= read;
        }
        core::hint::black_box(touched);
    }

    /// Reads a frame into a sight of none; it stays one if the frame does not even have to be read,
    /// as it is not for us. Frames of one flow come one behind the other, so that of the `last` one
    /// may serve for this one as well.
    #[inline]
    pub(super) fn sight(&self, mac: MacAddr, frame: &[u8], last: Option<&Flow>, sight: &mut Sight) {
        let Some((header, _)) = frame.split_first_chunk::<ETHERNET_HEADER_LEN>() else { return };
        if header[..6] != mac.0 && !is_arp(header) && !is_discovery(header) {
            return;
        }
        if let Err(malformed) = packet::read(frame, &mut sight.packet) {
            sight.reading = Reading::Malformed(malformed);
            return;
        }
        sight.reading = Reading::Packet;
        let Body::Ip(ip) = &sight.packet.body else { return };
        let Some(key) = key_of(ip) else { return };
        let hash = match last {
            Some(last) if last.key == key => last.hash,
            _ => self.connections.hash(&key),
        };
        sight.flow = Some(Flow { key, hash, hint: Hint::NONE });
    }
}

/// What the connection of a packet is filed under, if it has a transport of which there are
/// connections.
#[inline]
fn key_of(ip: &Ip) -> Option<FlowKey> {
    let (Transport::Tcp { source_port, destination_port, .. }
    | Transport::Udp { source_port, destination_port }
    | Transport::Sctp { source_port, destination_port, .. }) = ip.transport
    else {
        return None;
    };
    Some(FlowKey::new(ip.protocol, ip.source, source_port, ip.destination, destination_port))
}
