//! A packet that belongs to no connection: a new one, or none.

use core::net::IpAddr;

use ipnet::IpNet;

use super::connections::{ConnectionId, ConnectionState, TableFull, TcpEvent};
use super::flow::FlowKey;
use super::scheduler::PickKey;
use super::services::{DestinationId, ServiceId, Threshold};
use super::traffic::Arrival;
use super::{Director, DropReason, Event, Instant, Verdict};
use crate::config::snapshot::{Persistence, Ports, Protocol};
use crate::wire::Frame;

/// Where a new connection goes, and the template that says so.
#[derive(Clone, Copy, Debug)]
struct Choice {
    destination: DestinationId,
    template: Option<ConnectionId>,
}

impl Director {
    /// TCP or UDP without a connection: scheduled if it opens one, else answered or dropped.
    pub(super) fn judge_new_flow(
        &mut self,
        now: Instant,
        frame: &mut Frame<'_>,
        arrival: &Arrival<'_>,
        key: FlowKey,
    ) -> Verdict {
        let vip = arrival.ip.destination;
        if !self.services.vip(vip).is_some_and(|vip| vip.configured) {
            return Verdict::drop(DropReason::NotVip);
        }
        if !self.is_possible_client(arrival.ip.source) {
            return Verdict::drop(DropReason::BadSourceAddress);
        }
        let service = self.services.find(vip, arrival.protocol, arrival.destination_port);
        if let Some(verdict) = self.judge_loop(now, arrival.ingress, arrival.source_mac, arrival.ip)
        {
            return service.map_or(verdict, |service| verdict.with_service(service));
        }
        let Some(service) = service else {
            return self.answer_unmatched(now, frame, arrival);
        };
        let verdict = if !opens(arrival) {
            self.answer_unmatched(now, frame, arrival)
        } else {
            match self.choose(now, service, arrival) {
                None => self.answer_no_real_server(now, frame, arrival),
                Some(choice) => self.open(now, frame, arrival, key, service, choice),
            }
        };
        verdict.with_service(service)
    }

    /// The real server for a new connection: the client's own under persistence, else the
    /// scheduler's choice.
    fn choose(&mut self, now: Instant, id: ServiceId, arrival: &Arrival<'_>) -> Option<Choice> {
        let client = arrival.ip.source;
        let vip = arrival.ip.destination;
        let pick = PickKey { now, client, client_port: arrival.source_port, vip };
        let service = self.services.services.get(id)?;
        let Some(persistence) = service.config.persistence else {
            let destination = self.services.schedule(id, &pick)?;
            return Some(Choice { destination, template: None });
        };
        let ports = &service.config.ports;
        let key = template_key(&persistence, ports, arrival.ip.protocol, client, vip);
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
        // Without room for the template the connection is still worth having.
        let state = ConnectionState::Template;
        let template = self.insert_connection(now, key, destination, state, deadline).ok();
        Some(Choice { destination, template })
    }

    /// Whether a persistent client stays with a real server: it is still one of the service's
    /// and answers. A weight of 0 does not send its clients away (IPVS without
    /// `expire_quiescent_template`), nor does an upper threshold.
    fn is_kept(&self, service: ServiceId, destination: DestinationId) -> bool {
        self.services.destinations.get(destination).is_some_and(|found| {
            found.service == service && found.position.is_some() && found.reachable
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
            let state = match arrival.protocol {
                Protocol::Tcp => ConnectionState::None.after(TcpEvent::from(arrival.flags)),
                Protocol::Udp | Protocol::Sctp => ConnectionState::Udp,
            };
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
            self.fragments.insert(now, arrival.ip, destination);
        }
        self.forward(now, arrival.ingress, frame, arrival.ip, destination)
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
        self.connections.insert(key, destination, state, deadline)
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
        if state != ConnectionState::Template {
            let crossed = self.services.closed(destination, state.is_active());
            self.tell_threshold(destination, crossed);
            self.remove_if_drained(now, destination);
        }
        // Told again when it fills up after having been emptier by a sixteenth.
        let (len, capacity) = (self.connections.len(), self.connections.capacity());
        self.full_told &= len >= capacity - (capacity / 16).max(1);
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

/// Whether a packet may open a connection: of TCP a SYN, of UDP any.
fn opens(arrival: &Arrival<'_>) -> bool {
    match arrival.protocol {
        Protocol::Tcp => arrival.opens_tcp(),
        Protocol::Udp | Protocol::Sctp => true,
    }
}

/// The key of a client's template: its network, and one port for all the ports of the service.
/// The client and the VIP are of one family.
pub(super) fn template_key(
    persistence: &Persistence,
    ports: &Ports,
    protocol: u8,
    client: IpAddr,
    vip: IpAddr,
) -> FlowKey {
    let client = IpNet::new(client, persistence.netmask).map_or(client, |net| net.network());
    let port = match ports {
        Ports::Any => 0,
        Ports::Some(ranges) => ranges.first().map_or(0, |range| range.first),
    };
    FlowKey::template(protocol, client, vip, port)
}
