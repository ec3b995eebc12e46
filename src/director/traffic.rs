//! IP that is addressed to the director's MAC: connections to VIPs, and what surrounds them.

use core::net::IpAddr;
use core::time::Duration;

use super::batch::Flow;
use super::connections::{ConnectionId, ConnectionState, Hint, SctpEvent, TcpEvent};
use super::destination::Destination;
use super::flow::FlowKey;
use super::neighbors::Hop;
use super::super_frames::OnWire;
use super::{DestinationId, Director, DropReason, Event, Instant, SegmentId, Verdict};
use crate::config::snapshot::Protocol;
use crate::wire::icmp::{Meaning, is_single_host};
use crate::wire::packet::{Ip, SCTP_NO_CHUNK, TcpFlags, Transport, quoted_flow};
use crate::wire::{Frame, MacAddr, sctp};

/// A person is told of a loop through the same real server at most this often.
const LOOP_TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A packet to a VIP with the transport header that decides about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub ingress: SegmentId,
    pub source_mac: MacAddr,
    pub ip: &'a Ip,
    pub protocol: Protocol,
    pub source_port: u16,
    pub destination_port: u16,
    /// Of TCP; none set for the others.
    pub flags: TcpFlags,
    /// Of SCTP, the type of the chunk that governs; [`SCTP_NO_CHUNK`] for the others.
    pub chunk: u8,
}

impl Arrival<'_> {
    fn key(&self) -> FlowKey {
        let Ip { source, destination, protocol, .. } = *self.ip;
        FlowKey::new(protocol, source, self.source_port, destination, self.destination_port)
    }

    /// Whether it is a TCP segment that may open a connection: a SYN that is no RST.
    pub fn opens_tcp(&self) -> bool {
        self.flags.syn() && !self.flags.rst()
    }

    /// Whether it says that it opens a connection, whatever there was before.
    fn opens_anew(&self) -> bool {
        self.opens_tcp() || self.chunk == sctp::INIT
    }

    /// The state of a connection after this packet. One without a chunk says nothing.
    #[inline]
    pub fn after(&self, state: ConnectionState) -> ConnectionState {
        match self.protocol {
            Protocol::Tcp => state.after(TcpEvent::from(self.flags)),
            Protocol::Sctp if self.chunk != SCTP_NO_CHUNK => {
                state.after_chunk(SctpEvent::of(self.chunk))
            }
            Protocol::Udp | Protocol::Sctp => state,
        }
    }
}

impl Director {
    #[inline]
    pub(super) fn judge_ip(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
        source_mac: MacAddr,
        ip: &Ip,
        flow: Option<&Flow>,
    ) -> Verdict {
        if let Transport::Icmp { kind, .. } = ip.transport
            && ip.is_ipv6()
            && Meaning::of(true, kind) == Meaning::Discovery
            && let Some(verdict) = self.judge_discovery(now, ingress, frame, source_mac, ip)
        {
            return verdict;
        }
        if !self.segments.get(ingress).is_some_and(|segment| segment.role.has_vips()) {
            return self.judge_on_backend(now, ingress, frame, source_mac, ip);
        }
        let arrival = |protocol, source_port, destination_port, flags| Arrival {
            ingress,
            source_mac,
            ip,
            protocol,
            source_port,
            destination_port,
            flags,
            chunk: SCTP_NO_CHUNK,
        };
        match ip.transport {
            Transport::Tcp { source_port, destination_port, flags } => {
                let arrival = arrival(Protocol::Tcp, source_port, destination_port, flags);
                self.judge_transport(now, frame, &arrival, flow)
            }
            Transport::Udp { source_port, destination_port } => {
                let none = TcpFlags::default();
                let arrival = arrival(Protocol::Udp, source_port, destination_port, none);
                self.judge_transport(now, frame, &arrival, flow)
            }
            Transport::Icmp { kind, .. } => {
                self.judge_icmp(now, ingress, frame, source_mac, ip, kind)
            }
            Transport::LaterFragment => {
                self.judge_later_fragment(now, ingress, frame, source_mac, ip)
            }
            Transport::Sctp { source_port, destination_port, .. } => {
                let none = TcpFlags::default();
                let arrival = Arrival {
                    chunk: sctp::governing_chunk(frame.bytes, ip),
                    ..arrival(Protocol::Sctp, source_port, destination_port, none)
                };
                self.judge_transport(now, frame, &arrival, flow)
            }
            Transport::Other => self.judge_other_protocol(ip, DropReason::ProtocolUnsupported),
        }
    }

    /// On a segment with nothing but real servers, traffic to a VIP can only be on its way back.
    fn judge_on_backend(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &Frame<'_>,
        source_mac: MacAddr,
        ip: &Ip,
    ) -> Verdict {
        if self.services.vip(ip.destination).is_none() {
            return self.judge_not_vip(now, ingress, frame, ip);
        }
        if let Some(verdict) = self.judge_returned(now, ingress, source_mac, ip) {
            return verdict;
        }
        let verdict = Verdict::drop(DropReason::VipOnBackend);
        match self.real_server_at(now, source_mac, None) {
            Some(looping) => self.name_loop(now, ingress, source_mac, ip, looping, verdict),
            None => verdict,
        }
    }

    /// TCP, UDP or SCTP: the connection it belongs to, else a new one.
    #[inline]
    fn judge_transport(
        &mut self,
        now: Instant,
        frame: &mut Frame<'_>,
        arrival: &Arrival<'_>,
        flow: Option<&Flow>,
    ) -> Verdict {
        let made;
        let Flow { key, hash, hint } = match flow {
            Some(flow) => flow,
            None => {
                let key = arrival.key();
                made = Flow { key, hash: self.connections.hash(&key), hint: Hint::NONE };
                &made
            }
        };
        if let Some((id, connection)) = self.connections.find_hinted(*hint, *hash, key) {
            let (destination, state) = (connection.destination, connection.state);
            let deadline = connection.deadline();
            // A frame that a real server sent back neither goes on with anything nor ends it.
            if let Some(verdict) =
                self.judge_loop(now, arrival.ingress, arrival.source_mac, arrival.ip)
            {
                let given_to = self.services.destinations.get(destination);
                return given_to.map_or(verdict, |found| verdict.with_service(found.service));
            }
            if state == ConnectionState::SynRecv
                && arrival.opens_tcp()
                && let Some(verdict) = self.rescue_syn(now, frame, arrival, (id, *key), destination)
            {
                return verdict;
            }
            if deadline <= now || self.is_over(id, destination, state, arrival) {
                self.end_connection(now, id);
                return self.judge_new_flow(now, frame, arrival, *key);
            }
            self.advance(now, id, destination, state, arrival);
            let (ingress, ip) = (arrival.ingress, arrival.ip);
            return if ip.is_fragment() {
                self.forward_first_fragment(now, ingress, frame, ip, destination)
            } else {
                self.forward(now, ingress, frame, ip, destination)
            };
        }
        self.judge_new_flow(now, frame, arrival, *key)
    }

    /// Whether a connection ends with this packet of it although its time is not up: its real
    /// server is not there, or the packet starts over in its place.
    #[inline]
    fn is_over(
        &self,
        id: ConnectionId,
        destination: DestinationId,
        state: ConnectionState,
        arrival: &Arrival<'_>,
    ) -> bool {
        let Some(destination) = self.services.destinations.get(destination) else { return true };
        destination.cut
            || !destination.is_available() && self.expires_nodest(destination)
            || arrival.opens_anew() && self.starts_over(id, state, destination)
    }

    /// Whether a packet that opens a connection is to be placed afresh although there is one.
    #[cold]
    fn starts_over(
        &self,
        id: ConnectionId,
        state: ConnectionState,
        destination: &Destination,
    ) -> bool {
        // Persistence has the last word about where it goes: IPVS lets such a one be, too.
        state.is_reusable() && self.connections.control(id).is_none()
            || state.is_opening() && !destination.is_alive()
            || destination.weight() == 0 && self.expires_nodest(destination)
    }

    /// Whether connections to a real server that is not there end with their next packet.
    #[cold]
    fn expires_nodest(&self, destination: &Destination) -> bool {
        let service = self.services.services.get(destination.service);
        service.is_some_and(|service| service.config.expire_nodest)
    }

    /// Takes a packet into a connection's state and deadline.
    #[inline]
    fn advance(
        &mut self,
        now: Instant,
        id: ConnectionId,
        destination: DestinationId,
        state: ConnectionState,
        arrival: &Arrival<'_>,
    ) {
        if state == ConnectionState::SynRecv {
            self.note_progress(now, destination, arrival.opens_tcp());
        }
        let next = arrival.after(state);
        let deadline = now + next.timeout(&self.snapshot.timeouts);
        self.connections.update(id, next, deadline);
        if next != state && next.is_active() != state.is_active() {
            let crossed = self.services.shifted(destination, next.is_active());
            self.tell_threshold(destination, crossed);
        }
    }

    /// The verdict on a packet to a VIP that a real server sent, unless it speaks for itself. Of
    /// the services on that machine the verdict names any.
    #[inline]
    pub(super) fn judge_loop(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        mac: MacAddr,
        ip: &Ip,
    ) -> Option<Verdict> {
        let looping = self.real_server_at(now, mac, Some(ip.source))?;
        let verdict = Verdict::drop(DropReason::Loop);
        Some(self.name_loop(now, ingress, mac, ip, looping, verdict))
    }

    /// Puts the real server that sends frames back into a verdict, and now and then into the log.
    pub(super) fn name_loop(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        mac: MacAddr,
        ip: &Ip,
        looping: DestinationId,
        verdict: Verdict,
    ) -> Verdict {
        let Some(destination) = self.services.destinations.get_mut(looping) else { return verdict };
        let told = destination.loop_told;
        if told.is_none_or(|told| now.since(told) >= LOOP_TELL_INTERVAL) {
            destination.loop_told = Some(now);
            self.events.push(Event::Loop {
                real_server: destination.name.clone(),
                segment: self.segments.name(ingress).cloned().unwrap_or_else(|| "?".into()),
                mac,
                vip: ip.destination,
            });
        }
        verdict.with_real_server(looping, destination.service)
    }

    /// Hands a packet to a real server: rewritten, or held until its MAC is known.
    #[inline]
    pub(super) fn forward(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
        ip: &Ip,
        id: DestinationId,
    ) -> Verdict {
        let Some(destination) = self.services.destinations.get(id) else {
            return Verdict::drop(DropReason::NoRealServer);
        };
        let (egress, neighbor, service) =
            (destination.segment, destination.neighbor, destination.service);
        let about = |verdict: Verdict| verdict.with_real_server(id, service);
        let Some(segment) = self.segments.get(egress) else {
            return about(Verdict::drop(DropReason::SegmentGone));
        };
        let mac = segment.mac;
        let tag = segment.tag(frame.offload.tag);
        let mtu = segment.mtu();
        let on_wire = OnWire::of(frame.bytes, ip, &frame.offload);
        let fits = on_wire.largest <= u32::from(mtu);
        if !fits && (ip.dont_fragment || frame.offload.segment_size != 0) {
            return about(self.answer_too_big(now, ingress, frame, ip, mtu));
        }
        let hop = self.neighbors.get(neighbor).map_or(Hop::Unreachable, |found| found.hop());
        match hop {
            Hop::Mac(hop) => {
                frame.rewrite_macs(hop, mac);
                if !fits && let Err(reason) = self.send_fragments(egress, frame, ip, mtu) {
                    return about(Verdict::drop(reason));
                }
                frame.offload.tag = tag;
                self.services.count_packets(id, on_wire.packets, on_wire.bytes);
                about(if fits { Verdict::forward(egress) } else { Verdict::fragment(egress) })
            }
            Hop::Resolving => match self.hold.push(neighbor, frame) {
                Ok(()) => {
                    self.services.count_packets(id, on_wire.packets, on_wire.bytes);
                    about(Verdict::hold())
                }
                Err(_) => about(Verdict::drop(DropReason::HoldFull)),
            },
            Hop::Unreachable => about(Verdict::drop(DropReason::NeighborUnknown)),
        }
    }

    /// Drops what is not balanced, by whether it was for a VIP at all.
    fn judge_other_protocol(&self, ip: &Ip, reason: DropReason) -> Verdict {
        let is_vip = self.services.vip(ip.destination).is_some();
        Verdict::drop(if is_vip { reason } else { DropReason::NotVip })
    }

    fn judge_icmp(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
        source_mac: MacAddr,
        ip: &Ip,
        kind: u8,
    ) -> Verdict {
        let vip = ip.destination;
        if self.services.vip(vip).is_none() {
            return self.judge_not_vip(now, ingress, frame, ip);
        }
        if !self.is_possible_client(ip.source) {
            return Verdict::drop(DropReason::BadSourceAddress);
        }
        if let Some(verdict) = self.judge_loop(now, ingress, source_mac, ip) {
            return verdict;
        }
        self.services.settle_quorums();
        match Meaning::of(ip.is_ipv6(), kind) {
            Meaning::EchoRequest if !self.services.is_vip_up(vip) => {
                Verdict::drop(DropReason::VipDown)
            }
            Meaning::EchoRequest => self.answer_echo(ingress, frame, ip),
            Meaning::Error => self.relay_icmp_error(now, ingress, frame, ip),
            Meaning::Discovery | Meaning::Other => Verdict::drop(DropReason::IcmpUnsupported),
        }
    }

    /// An ICMP error about a reply goes to the real server that sent the reply.
    fn relay_icmp_error(
        &mut self,
        now: Instant,
        ingress: SegmentId,
        frame: &mut Frame<'_>,
        ip: &Ip,
    ) -> Verdict {
        let unrelated = Verdict::drop(DropReason::IcmpUnrelated);
        let Some(quoted) = quoted_flow(frame.bytes, ip) else { return unrelated };
        // The VIP is the source of the quoted reply; an error about another's packet is not ours.
        if quoted.source != ip.destination {
            return unrelated;
        }
        let key = FlowKey::new(
            quoted.protocol,
            quoted.destination,
            quoted.destination_port,
            quoted.source,
            quoted.source_port,
        );
        let connection = self.connections.find(&key).and_then(|id| self.connections.get(id));
        match connection {
            Some(connection) if now < connection.deadline() => {
                let destination = connection.destination;
                self.forward(now, ingress, frame, ip, destination)
            }
            _ => unrelated,
        }
    }

    /// Whether a single other host can have a source address.
    pub(super) fn is_possible_client(&self, source: IpAddr) -> bool {
        let own = || {
            self.services.vip(source).is_some()
                || self.segments.iter().any(|(_, segment)| segment.has_or_is_all_of(source))
        };
        is_single_host(source) && !own()
    }
}
