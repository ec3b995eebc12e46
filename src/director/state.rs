//! What a director leaves to the one after it: its connections and persistence templates, the
//! weights set by hand, the MACs it has found.
//!
//! All of it as [`Record`]s with natural keys, one at a time, so that a million connections need
//! no second copy. What a record says counts only as far as the configuration of the moment has
//! a place for it: a record may be of another configuration, or of nobody. How records are kept
//! in between, and for how long, is the caller's business.
//!
//! The order of records is part of it: real servers are numbered from 0 in the order they come,
//! templates likewise, and what comes later refers to them by these numbers.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::admission::template_key;
use super::connections::{Connection, ConnectionId, ConnectionState, Eviction};
use super::destination::Destination;
use super::flow::FlowKey;
use super::stations::Station;
use super::{DestinationId, Director, Instant, SegmentId, ServiceId};
use crate::config::WEIGHT_MAX;
use crate::config::snapshot::{self, Endpoint};
use crate::wire::MacAddr;

/// Slots of the connection table looked at in one go.
const PAGE_SLOTS: u32 = 1024;

/// One thing to remember.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    RealServer(RealServerRecord),
    Neighbor(NeighborRecord),
    Connection(ConnectionRecord),
}

/// A real server of a service. Those of one export are numbered, from 0 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerRecord {
    /// What its service listens on.
    pub listen: Vec<Endpoint>,
    pub address: IpAddr,
    /// The name of its segment.
    pub segment: String,
    pub weight_override: Option<WeightOverride>,
}

/// A weight that was set by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightOverride {
    pub weight: u32,
    /// The configured weight in whose place it was set.
    pub configured: u32,
}

/// A MAC that was found by asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborRecord {
    /// The name of the segment.
    pub segment: String,
    pub address: IpAddr,
    pub mac: MacAddr,
}

/// A connection, or a persistence template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// The number of the real server that has it.
    pub real_server: u32,
    /// Which of the endpoints of its service it came to: their VIP and protocol.
    pub endpoint: u16,
    /// The client; of a template, the client network.
    pub client: IpAddr,
    /// 0 for a template.
    pub client_port: u16,
    pub virtual_port: u16,
    pub state: ConnectionState,
    /// Whether there was more than one packet, where only that shows that there is a client.
    pub proven: bool,
    pub remaining_ms: u64,
    /// The number of the template that placed it. Templates are numbered by themselves, from 0 on.
    pub template: Option<u32>,
}

/// What became of the records of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Connections in the table now, templates not among them.
    pub connections: u32,
    pub templates: u32,
    /// Weights set by hand that are in force again.
    pub overrides: u32,
    /// Real servers whose MAC is known again.
    pub neighbors: u32,
    pub dropped: Dropped,
}

/// Connections and templates that were not taken up, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Their time was up meanwhile.
    pub expired: u32,
    /// Their service or real server is no longer configured, or their template no longer meant.
    pub unconfigured: u32,
    /// `connections_max` is smaller than it was.
    pub no_room: u32,
    /// No director can have left them.
    pub invalid: u32,
    /// Weights set by hand whose real server is gone, or has another configured weight by now.
    pub overrides: u32,
}

impl Director {
    /// Shows everything that is to be remembered, each thing once. What has less than a
    /// millisecond to live is forgotten, as is what belongs to a real server that was cut.
    ///
    /// # Errors
    /// The first of `visit`, which is not called again.
    pub fn export<E>(
        &self,
        now: Instant,
        mut visit: impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let numbers = self.export_real_servers(&mut visit)?;
        self.export_neighbors(&mut visit)?;
        let mut templates: Vec<ConnectionId> = Vec::new();
        self.export_connections(now, &numbers, |id, record| {
            if record.state != ConnectionState::Template {
                return Ok(());
            }
            templates.push(id);
            visit(&Record::Connection(record))
        })?;
        self.export_connections(now, &numbers, |id, record| {
            if record.state == ConnectionState::Template {
                return Ok(());
            }
            let template = self
                .connections
                .control(id)
                .and_then(|template| templates.binary_search(&template).ok())
                .map(|number| number as u32);
            visit(&Record::Connection(ConnectionRecord { template, ..record }))
        })
    }

    /// Begins to take up what a director before this one exported `down` ago. To be done before
    /// the first frame.
    pub fn import(&mut self, now: Instant, down: Duration) -> Import<'_> {
        let configured = self
            .services
            .destinations
            .iter()
            .filter(|(_, destination)| destination.is_configured())
            .map(|(id, found)| ((found.service, found.segment, found.address), id))
            .collect();
        Import {
            director: self,
            now,
            down,
            configured,
            real_servers: Vec::new(),
            templates: Vec::new(),
            imported: Imported::default(),
        }
    }

    /// Shows the real servers; their numbers by the index of their ids.
    fn export_real_servers<E>(
        &self,
        visit: &mut impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<Vec<Option<u32>>, E> {
        let (mut numbers, mut next) = (Vec::new(), 0);
        for (id, destination) in self.services.destinations.iter() {
            let Some(record) = self.real_server_record(destination) else { continue };
            visit(&Record::RealServer(record))?;
            numbers.resize(id.index() + 1, None);
            numbers[id.index()] = Some(next);
            next += 1;
        }
        Ok(numbers)
    }

    fn real_server_record(&self, destination: &Destination) -> Option<RealServerRecord> {
        let service = &self.services.services.get(destination.service)?.config;
        if destination.cut {
            return None;
        }
        Some(RealServerRecord {
            listen: service.listen.to_vec(),
            address: destination.address,
            segment: self.segments.name(destination.segment)?.to_string(),
            weight_override: destination
                .weight_override
                .map(|weight| WeightOverride { weight, configured: destination.configured_weight }),
        })
    }

    fn export_neighbors<E>(
        &self,
        visit: &mut impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<(), E> {
        for (_, neighbor) in self.neighbors.iter() {
            if let Some(mac) = neighbor.found_mac()
                && let Some(segment) = self.segments.name(neighbor.segment)
            {
                let (segment, address) = (segment.to_string(), neighbor.address);
                visit(&Record::Neighbor(NeighborRecord { segment, address, mac }))?;
            }
        }
        Ok(())
    }

    /// Shows the connections and templates that live, without their templates' numbers.
    fn export_connections<E>(
        &self,
        now: Instant,
        numbers: &[Option<u32>],
        mut visit: impl FnMut(ConnectionId, ConnectionRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let mut result = Ok(());
            cursor = self.connections.page(from, PAGE_SLOTS, |id, connection| {
                if result.is_ok()
                    && let Some(record) = self.connection_record(now, numbers, id, connection)
                {
                    result = visit(id, record);
                }
            });
            result?;
        }
        Ok(())
    }

    fn connection_record(
        &self,
        now: Instant,
        numbers: &[Option<u32>],
        id: ConnectionId,
        connection: &Connection,
    ) -> Option<ConnectionRecord> {
        let destination = connection.destination;
        // A template may have outlived its real server, and another one have the slot.
        let found = self.services.destinations.get(destination)?;
        let real_server = (*numbers.get(destination.index())?)?;
        let remaining = connection.deadline().since(now);
        let remaining_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
        if remaining_ms == 0 && self.connections.controlled(id) == 0 {
            return None;
        }
        let key = connection.key();
        let service = &self.services.services.get(found.service)?.config;
        let endpoint = service.listen.iter().position(|endpoint| {
            endpoint.vip == key.vip() && Some(endpoint.protocol) == key.protocol()
        })?;
        Some(ConnectionRecord {
            real_server,
            endpoint: u16::try_from(endpoint).ok()?,
            client: key.client(),
            client_port: key.client_port(),
            virtual_port: key.virtual_port(),
            state: connection.state,
            proven: connection.is_proven(),
            remaining_ms,
            template: None,
        })
    }
}

/// An import under way: [`Import::take`] each record in the order of the export, then
/// [`Import::finish`].
pub struct Import<'a> {
    director: &'a mut Director,
    now: Instant,
    down: Duration,
    /// The real servers there are now.
    configured: BTreeMap<(ServiceId, SegmentId, IpAddr), DestinationId>,
    /// By number; `None` for one that is no longer configured.
    real_servers: Vec<Option<DestinationId>>,
    /// By number; `None` for one that was not taken up.
    templates: Vec<Option<ConnectionId>>,
    imported: Imported,
}

/// Why a connection is not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfit {
    Expired,
    Unconfigured,
    NoRoom,
    Invalid,
}

impl Import<'_> {
    /// Takes one record up, as far as there is a place for it.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::RealServer(record) => self.take_real_server(record),
            Record::Neighbor(record) => self.take_neighbor(&record),
            Record::Connection(record) if record.state == ConnectionState::Template => {
                let taken = self.take_template(&record);
                self.templates.push(taken.ok());
                match taken {
                    Ok(_) => self.imported.templates += 1,
                    Err(unfit) => self.imported.dropped.count(unfit),
                }
            }
            Record::Connection(record) => match self.take_connection(&record) {
                Ok(()) => self.imported.connections += 1,
                Err(unfit) => self.imported.dropped.count(unfit),
            },
        }
    }

    /// Ends the import: what came of it.
    pub fn finish(mut self) -> Imported {
        // Those that only their connections would have kept, and none came.
        for template in core::mem::take(&mut self.templates).into_iter().flatten() {
            let connections = &mut self.director.connections;
            let over = connections.get(template).is_some_and(|of| of.deadline() <= self.now);
            if over && connections.controlled(template) == 0 {
                self.director.end_connection(self.now, template);
                self.imported.templates -= 1;
                self.imported.dropped.expired += 1;
            }
        }
        self.imported
    }

    fn take_real_server(&mut self, record: RealServerRecord) {
        let RealServerRecord { listen, address, segment, weight_override } = record;
        let found = self
            .director
            .services
            .by_key
            .get(listen.as_slice())
            .zip(self.director.segments.find(&segment))
            .and_then(|(&service, segment)| self.configured.get(&(service, segment, address)))
            .copied();
        self.real_servers.push(found);
        let Some(WeightOverride { weight, configured }) = weight_override else { return };
        let services = &self.director.services;
        let still_over = found
            .and_then(|id| services.destinations.get(id))
            .is_some_and(|found| found.configured_weight == configured);
        match found {
            Some(id) if still_over && weight <= WEIGHT_MAX => {
                self.director.set_override(id, Some(weight));
                self.imported.overrides += 1;
            }
            _ => self.imported.dropped.overrides += 1,
        }
    }

    fn take_neighbor(&mut self, NeighborRecord { segment, address, mac }: &NeighborRecord) {
        let own = matches!(self.director.stations.find(*mac), Some(Station::Own));
        if !mac.is_station() || own {
            return;
        }
        let Some(segment) = self.director.segments.find(segment) else { return };
        if self.director.neighbors.assume(self.now, segment, *address, *mac) {
            self.director.recognise_by(*address);
            self.imported.neighbors += 1;
        }
    }

    fn take_template(&mut self, record: &ConnectionRecord) -> Result<ConnectionId, Unfit> {
        let destination = self.real_server(record)?;
        let service = self.service(destination)?;
        let persistence = service.persistence.ok_or(Unfit::Unconfigured)?;
        if record.client_port != 0 || record.template.is_some() {
            return Err(Unfit::Invalid);
        }
        let key = template_key(service, record.client).ok_or(Unfit::Invalid)?;
        // The netmask may be another one now; then nobody would look for it.
        if (key.client(), key.virtual_port()) != (record.client, record.virtual_port) {
            return Err(Unfit::Unconfigured);
        }
        // One without any time left may still be wanted by its connections: see `finish`.
        let deadline = self.now + self.remaining(record, persistence.timeout);
        self.enter(key, destination, record, deadline)
    }

    fn take_connection(&mut self, record: &ConnectionRecord) -> Result<(), Unfit> {
        let destination = self.real_server(record)?;
        let listen = &self.service(destination)?.listen;
        let endpoint = listen.get(usize::from(record.endpoint)).ok_or(Unfit::Invalid)?;
        let Endpoint { vip, protocol, ports } = endpoint;
        if !record.state.fits(*protocol) || !ports.contains(record.virtual_port) {
            return Err(Unfit::Invalid);
        }
        let (protocol, port) = (protocol.number(), record.client_port);
        let key = match (record.client, *vip) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                FlowKey::v4(protocol, client, port, vip, record.virtual_port)
            }
            (IpAddr::V6(client), IpAddr::V6(vip)) => {
                FlowKey::v6(protocol, client, port, vip, record.virtual_port)
            }
            _ => return Err(Unfit::Invalid),
        };
        let template = self.template_of(record, destination)?;
        let timeout = record.state.timeout(&self.director.snapshot.timeouts);
        let remaining = self.remaining(record, timeout);
        if remaining.is_zero() {
            return Err(Unfit::Expired);
        }
        let id = self.enter(key, destination, record, self.now + remaining)?;
        if let Some(template) = template {
            self.director.connections.set_control(id, template);
        }
        let crossed = self.director.services.opened(destination, record.state.is_active());
        self.director.tell_threshold(destination, crossed);
        Ok(())
    }

    /// The real server that a record names.
    fn real_server(&self, record: &ConnectionRecord) -> Result<DestinationId, Unfit> {
        let found = self.real_servers.get(record.real_server as usize).ok_or(Unfit::Invalid)?;
        found.ok_or(Unfit::Unconfigured)
    }

    fn service(&self, destination: DestinationId) -> Result<&snapshot::Service, Unfit> {
        let services = &self.director.services;
        services
            .destinations
            .get(destination)
            .and_then(|destination| services.services.get(destination.service))
            .map(|service| &*service.config)
            .ok_or(Unfit::Unconfigured)
    }

    /// The template that a connection was placed by, if that was taken up.
    fn template_of(
        &self,
        record: &ConnectionRecord,
        destination: DestinationId,
    ) -> Result<Option<ConnectionId>, Unfit> {
        let Some(number) = record.template else { return Ok(None) };
        let found = *self.templates.get(number as usize).ok_or(Unfit::Invalid)?;
        let Some(template) = found.and_then(|id| self.director.connections.get(id)) else {
            return Ok(None);
        };
        if template.destination != destination {
            return Err(Unfit::Invalid);
        }
        Ok(found)
    }

    /// What is left of a record's time: at most what the configuration gives it now.
    fn remaining(&self, record: &ConnectionRecord, timeout: Duration) -> Duration {
        Duration::from_millis(record.remaining_ms).saturating_sub(self.down).min(timeout)
    }

    /// Enters a connection. In a full table, one that is never evicted takes the place of a lesser
    /// one; the lesser ones do not take each other's.
    fn enter(
        &mut self,
        key: FlowKey,
        destination: DestinationId,
        record: &ConnectionRecord,
        deadline: Instant,
    ) -> Result<ConnectionId, Unfit> {
        let connections = &self.director.connections;
        if connections.find(&key).is_some() {
            return Err(Unfit::Invalid);
        }
        let state = record.state;
        let (at_first, class) = (state.eviction_at_first(), state.eviction());
        if connections.len() == connections.capacity() {
            let is_kept = record.proven && class == Eviction::Kept;
            let displaces = if is_kept { state.displaces() } else { &[] };
            let victim = displaces.iter().find_map(|&class| connections.oldest(class));
            self.displace(victim.ok_or(Unfit::NoRoom)?);
        }
        let connections = &mut self.director.connections;
        let id =
            connections.insert(key, destination, state, deadline).map_err(|_| Unfit::NoRoom)?;
        if record.proven && class != at_first {
            connections.update(id, state, deadline);
        }
        if state == ConnectionState::Template {
            self.director.services.count_template(destination, true);
        }
        Ok(id)
    }

    /// Lets a connection or template go after all.
    fn displace(&mut self, id: ConnectionId) {
        let Some(connection) = self.director.connections.get(id) else { return };
        let imported = &mut self.imported;
        let count = match connection.state {
            ConnectionState::Template => &mut imported.templates,
            _ => &mut imported.connections,
        };
        *count = count.saturating_sub(1);
        imported.dropped.no_room += 1;
        self.director.end_connection(self.now, id);
    }
}

impl Dropped {
    fn count(&mut self, unfit: Unfit) {
        *match unfit {
            Unfit::Expired => &mut self.expired,
            Unfit::Unconfigured => &mut self.unconfigured,
            Unfit::NoRoom => &mut self.no_room,
            Unfit::Invalid => &mut self.invalid,
        } += 1;
    }
}
