//! A packet that belongs to no connection: a new one, or none.

use core::net::IpAddr;

use super::connections::{ConnectionId, ConnectionState, TableFull};
use super::destination::{DestinationId, Threshold};
use super::flow::FlowKey;
use super::scheduler::PickKey;
use super::services::ServiceId;
use super::traffic::Arrival;
use super::{Director, DropReason, Event, Instant, Verdict};
use crate::config::snapshot::{self, Endpoint, Ports, Protocol};
use crate::wire::packet::SCTP_NO_CHUNK;
use crate::wire::{Frame, sctp};

/// Where a new connection goes, and the template that says so.
#[derive(Clone, Copy, Debug)]
struct Choice {
    destination: DestinationId,
    template: Option<ConnectionId>,
}

impl Director {
    /// TCP, UDP or SCTP without a connection: scheduled if it opens one, else answered or dropped.
    pub(super) fn judge_new_flow(
        &mut self,
        now: Instant,
        frame: &mut Frame<'_>,
        arrival: &Arrival<'_>,
        key: FlowKey,
    ) -> Verdict {
        let vip = arrival.ip.destination;
        if !self.services.vip(vip).is_some_and(|vip| vip.configured) {
            return self.judge_not_vip(now, arrival.ingress, frame, arrival.ip);
        }
        if !self.is_possible_client(arrival.ip.source) {
            let (ingress, mac) = (arrival.ingress, arrival.source_mac);
            if let Some(verdict) = self.judge_returned(now, ingress, mac, arrival.ip) {
                return verdict;
            }
            return Verdict::drop(DropReason::BadSourceAddress);
        }
        if self.observes {
            return Verdict::drop(DropReason::Unmatched);
        }
        let service = self.services.find(vip, arrival.protocol, arrival.destination_port);
        if let Some(verdict) = self.judge_loop(now, arrival.ingress, arrival.source_mac, arrival.ip)
        {
            return service.map_or(verdict, |service| verdict.with_service(service));
        }
        let Some(service) = service else {
            return self.answer_unmatched(now, frame, arrival);
        };
        let verdict = if !self.opens(service, arrival) {
            match self.adopter(arrival, vip, service) {
                Some(destination) => {
                    self.guardian.adopted += 1;
                    let choice = Choice { destination, template: None };
                    self.open(now, frame, arrival, key, service, choice)
                }
                None => self.answer_unmatched(now, frame, arrival),
            }
        } else {
            match self.choose(now, service, arrival) {
                None => self.answer_no_real_server(now, frame, arrival),
                Some(choice) => self.open(now, frame, arrival, key, service, choice),
            }
        };
        verdict.with_service(service)
    }

    /// Whether a packet may open a connection: of TCP a SYN, or with `sloppy_tcp` all but a RST; of
    /// SCTP an INIT, or with `sloppy_sctp` all but an ABORT; of UDP any.
    fn opens(&self, id: ServiceId, arrival: &Arrival<'_>) -> bool {
        let service = self.services.services.get(id);
        match arrival.protocol {
            Protocol::Tcp => {
                let sloppy = service.is_some_and(|service| service.config.sloppy_tcp);
                arrival.opens_tcp() || sloppy && !arrival.flags.rst()
            }
            Protocol::Sctp => {
                let sloppy = service.is_some_and(|service| service.config.sloppy_sctp);
                let is_chunk = !matches!(arrival.chunk, sctp::ABORT | SCTP_NO_CHUNK);
                arrival.chunk == sctp::INIT || sloppy && is_chunk
            }
            Protocol::Udp => true,
        }
    }

    /// The real server for a new connection: the client's own under persistence, else the
    /// scheduler's choice.
    fn choose(&mut self, now: Instant, id: ServiceId, arrival: &Arrival<'_>) -> Option<Choice> {
        let client = arrival.ip.source;
        let vip = arrival.ip.destination;
        let pick = PickKey { now, client, client_port: arrival.source_port, vip };
        self.services.settle_quorums();
        if let Some(destination) = self.services.diverted_to(id) {
            // Its client is free to come back once there is a quorum again.
            return Some(Choice { destination, template: None });
        }
        let service = self.services.services.get(id)?;
        let persistence = service.config.persistence.as_ref();
        let Some((persistence, key)) =
            persistence.and_then(|found| Some((found, template_key(&service.config, client)?)))
        else {
            if let Some(destination) = self.contested(now, arrival, vip, id) {
                self.guardian.contested += 1;
                return Some(Choice { destination, template: None });
            }
            let destination = self.services.schedule(id, &pick)?;
            return Some(Choice { destination, template: None });
        };
        let deadline = now + persistence.timeout;
        if let Some(template) = self.connections.find(&key)
            && let Some(known) = self.connections.get(template)
        {
            let destination = known.destination;
            let lives = now < known.deadline() || self.connections.controlled(template) > 0;
            if lives && self.is_kept(id, destination) {
                self.connections.update(template, ConnectionState::Template, deadline);
                return Some(Choice { destination, template: Some(template) });
            }
            self.end_connection(now, template);
        }
        let destination = self.services.schedule(id, &pick)?;
        if self.services.destinations.get(destination).is_some_and(|found| found.is_sorry) {
            return Some(Choice { destination, template: None });
        }
        // Without room for the template the connection is still worth having.
        let state = ConnectionState::Template;
        let template = self.insert_connection(now, key, destination, state, deadline).ok();
        Some(Choice { destination, template })
    }

    /// Whether a persistent client stays with a real server: it is still one of the service's
    /// and answers. A weight of 0 sends its clients away with `expire_quiescent` only (IPVS's
    /// `expire_quiescent_template`), and an upper threshold never does.
    fn is_kept(&self, service: ServiceId, destination: DestinationId) -> bool {
        let expires =
            self.services.services.get(service).is_some_and(|found| found.config.expire_quiescent);
        self.services.destinations.get(destination).is_some_and(|found| {
            found.service == service
                && found.position.is_some()
                && found.is_available()
                && !(expires && (found.weight() == 0 || !found.is_alive()))
        })
    }

    /// Enters a new connection and hands its first packet on.
    fn open(
        &mut self,
        now: Instant,
        frame: &mut Frame<'_>,
        arrival: &Arrival<'_>,
        key: FlowKey,
        service: ServiceId,
        Choice { destination, template }: Choice,
    ) -> Verdict {
        let one_packet = arrival.protocol == Protocol::Udp
            && self.services.services.get(service).is_some_and(|service| service.config.one_packet);
        if !one_packet {
            let state = arrival.after(match arrival.protocol {
                Protocol::Tcp => ConnectionState::None,
                Protocol::Udp => ConnectionState::Udp,
                Protocol::Sctp => ConnectionState::SctpNone,
            });
            let deadline = now + state.timeout(&self.snapshot.timeouts);
            let Ok(id) = self.insert_connection(now, key, destination, state, deadline) else {
                return Verdict::drop(DropReason::ConnectionsFull);
            };
            if let Some(template) = template {
                self.connections.set_control(id, template);
            }
            let crossed = self.services.opened(destination, state.is_active());
            self.tell_threshold(destination, crossed);
        }
        self.services.count_connection(destination);
        if arrival.ip.is_fragment() {
            return self.forward_first_fragment(
                now,
                arrival.ingress,
                frame,
                arrival.ip,
                destination,
            );
        }
        self.forward(now, arrival.ingress, frame, arrival.ip, destination)
    }

    /// A SYN comes again: where its service has it so, and its real server seems silent, the
    /// connection starts over with another one.
    pub(super) fn rescue_syn(
        &mut self,
        now: Instant,
        frame: &mut Frame<'_>,
        arrival: &Arrival<'_>,
        (id, key): (ConnectionId, FlowKey),
        from: DestinationId,
    ) -> Option<Verdict> {
        let service = self.services.destinations.get(from)?.service;
        if !self.services.services.get(service)?.config.syn_rescue {
            return None;
        }
        let last_syn = self.last_syn(self.connections.get(id)?.deadline());
        let pick = PickKey {
            now,
            client: arrival.ip.source,
            client_port: arrival.source_port,
            vip: arrival.ip.destination,
        };
        let to = self.rescue(service, from, last_syn, &pick)?;
        self.note_progress(now, from, true);
        self.end_connection(now, id);
        let choice = Choice { destination: to, template: None };
        Some(self.open(now, frame, arrival, key, service, choice).with_service(service))
    }

    /// Enters a connection or template, at the cost of a lesser one when the table is full.
    fn insert_connection(
        &mut self,
        now: Instant,
        key: FlowKey,
        destination: DestinationId,
        state: ConnectionState,
        deadline: Instant,
    ) -> Result<ConnectionId, TableFull> {
        if self.connections.len() == self.connections.capacity() {
            let victim = state.displaces().iter().find_map(|&class| self.connections.oldest(class));
            if !self.full_told {
                self.full_told = true;
                self.events.push(Event::ConnectionsFull { capacity: self.connections.capacity() });
            }
            self.end_connection(now, victim.ok_or(TableFull)?);
            self.evicted += 1;
        }
        let inserted = self.connections.insert(key, destination, state, deadline);
        if inserted.is_ok() && state == ConnectionState::Template {
            self.services.count_template(destination, true);
        }
        inserted
    }

    /// Takes a connection out of the table and out of its real server's counts.
    pub(super) fn end_connection(&mut self, now: Instant, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(id) {
            self.ended(now, connection.destination, connection.state);
        }
    }

    /// A connection of a real server has gone. A draining one goes with its last.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        destination: DestinationId,
        state: ConnectionState,
    ) {
        if state == ConnectionState::Template {
            self.services.count_template(destination, false);
        } else {
            let crossed = self.services.closed(destination, state.is_active());
            self.tell_threshold(destination, crossed);
            self.remove_if_drained(now, destination);
        }
        // Told again when it fills up after having been emptier by a sixteenth.
        let (len, capacity) = (self.connections.len(), self.connections.capacity());
        self.full_told &= len >= capacity - (capacity / 16).max(1);
    }

    /// A service gained its quorum, or lost it.
    pub(super) fn tell_quorum(&mut self, id: ServiceId, has: bool) {
        let Some(found) = self.services.services.get(id) else { return };
        let (service, quorum) = (found.config.name.clone(), found.config.quorum);
        let live_weight = found.live_weight;
        let sorry_server = self.services.diverted_to(id);
        let sorry_server = sorry_server.and_then(|id| self.real_server_name(id)).cloned();
        self.events.push(if has {
            Event::QuorumGained { service, live_weight, quorum }
        } else {
            Event::QuorumLost { service, live_weight, quorum, sorry_server }
        });
    }

    pub(super) fn tell_threshold(&mut self, id: DestinationId, crossed: Option<Threshold>) {
        let Some(crossed) = crossed else { return };
        let Some(destination) = self.services.destinations.get(id) else { return };
        let Some(service) = self.services.services.get(destination.service) else { return };
        let (service, real_server) = (service.config.name.clone(), destination.name.clone());
        let connections = destination.connections();
        self.events.push(match crossed {
            Threshold::Overloaded => Event::Overloaded { service, real_server, connections },
            Threshold::Relieved => Event::Relieved { service, real_server, connections },
        });
    }
}

/// The key of a client's template: its network, and one VIP and port for all that the service
/// listens on (the first of the client's family; 0 stands for any port). `None` if the service has
/// no VIP of that family, or no persistence.
pub(super) fn template_key(service: &snapshot::Service, client: IpAddr) -> Option<FlowKey> {
    let network = service.persistence?.network_of(client);
    let mut listen = service.listen.iter();
    let Endpoint { vip, protocol, ports } =
        listen.find(|endpoint| endpoint.vip.is_ipv4() == client.is_ipv4())?;
    let (port, is_exact) = match ports {
        Ports::Any => (0, true),
        Ports::Some(ranges) => {
            ranges.first().map_or((0, true), |range| (range.first, range.is_exact()))
        }
    };
    let key = FlowKey::template(protocol.number(), network, *vip, port);
    // Another service may have just that port.
    Some(if is_exact { key } else { key.of_range() })
}
