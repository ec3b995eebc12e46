//! Answers to questions: what `status` and `connections` show.

use super::destination::Destination;
use super::report::{
    ConflictReport, ConnectionReport, ConnectionsPage, ConnectionsSummary, CountersReport,
    GuardianReport, RealServerReport, RealServerState, SegmentReport, ServiceReport, StatusReport,
};
use super::services::Service;
use super::{Command, Director, DropReason, Instant, Response, ServiceId};
use crate::config::WEIGHT_MAX;

/// Connections in one page of `connections`: about 0.2 ms of work.
const PAGE_CONNECTIONS: u32 = 512;

impl Director {
    /// Answers a question.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Response {
        self.services.settle_quorums();
        match command {
            Command::Weight { service, real_server, weight } => {
                match self.set_weight(&service, &real_server, weight) {
                    Ok(done) => Response::Done(done),
                    Err(why) => Response::Refused(why),
                }
            }
            Command::RealServer { service, real_server } => {
                match self.services.find_by_name(&service, &real_server, true) {
                    Ok(found) => {
                        Response::RealServer(Box::new(self.real_server_report(now, found.1)))
                    }
                    Err(why) => Response::Refused(why),
                }
            }
            Command::Examine { service, real_server } => {
                match self.examine(now, service.as_deref(), real_server.as_deref()) {
                    Ok(report) => Response::Examination(report),
                    Err(why) => Response::Refused(why),
                }
            }
            Command::Examination => Response::Examination(self.examination_report(now)),
            Command::CheckNow { service, real_server } => {
                match self.check_now(now, &service, &real_server) {
                    Ok(report) => Response::RealServer(Box::new(report)),
                    Err(why) => Response::Refused(why),
                }
            }
            Command::Status => Response::Status(Box::new(self.status(now))),
            Command::Connections { cursor } => {
                Response::Connections(self.connections_page(now, cursor))
            }
        }
    }

    /// Sets a weight by hand, or with `None` goes back to the configured one; what was done.
    fn set_weight(
        &mut self,
        service: &str,
        real_server: &str,
        weight: Option<u32>,
    ) -> Result<String, String> {
        if let Some(weight) = weight.filter(|weight| *weight > WEIGHT_MAX) {
            return Err(format!("weight {weight}: the largest is {WEIGHT_MAX}"));
        }
        let (id, found) = self.services.find_by_name(service, real_server, false)?;
        let (name, before) = (found.name.clone(), found.weight());
        let service = self.service_name(found.service).cloned().unwrap_or_else(|| "?".into());
        let (configured, connections) = (found.configured_weight, found.connections());
        self.set_override(id, weight);
        let after = weight.unwrap_or(configured);
        let by = if after == configured { "as configured" } else { "set by hand" };
        Ok(format!(
            "service {service}: real server {name} weight {before} → {after} ({by}), \
             {connections} connections"
        ))
    }

    /// Begins the check of a real server now; what there is of it before.
    fn check_now(
        &mut self,
        now: Instant,
        service: &str,
        real_server: &str,
    ) -> Result<RealServerReport, String> {
        let (id, found) = self.services.find_by_name(service, real_server, false)?;
        let report = self.real_server_report(now, found);
        if !self.hasten_check(now, id) {
            return Err(format!("service {service} has no [service.check]"));
        }
        self.run_checks(now);
        Ok(report)
    }

    fn status(&self, now: Instant) -> StatusReport {
        StatusReport {
            name: self.snapshot.router.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.generation,
            uptime_seconds: now.since(self.started).as_secs(),
            connections: ConnectionsSummary {
                current: self.connections.len(),
                max: self.connections.capacity(),
                evicted: self.evicted,
            },
            services: self.service_reports(now),
            segments: self.segment_reports(),
            counters: self.counters_report(),
            conflicts: self.conflict_reports(),
            guardian: self.guardian_report(),
        }
    }

    /// Configured services in their order, then those that only have old connections.
    fn service_reports(&self, now: Instant) -> Vec<ServiceReport> {
        let retired = self.services.services.iter().filter(|(_, service)| !service.configured);
        let ids: Vec<ServiceId> =
            self.services.order.iter().copied().chain(retired.map(|(id, _)| id)).collect();
        ids.into_iter()
            .filter_map(|id| self.services.services.get(id))
            .map(|service| self.service_report(now, service))
            .collect()
    }

    fn service_report(&self, now: Instant, service: &Service) -> ServiceReport {
        let real_servers = service
            .destinations
            .iter()
            .chain(&service.draining)
            .filter_map(|&id| self.services.destinations.get(id))
            .map(|destination| self.real_server_report(now, destination))
            .collect();
        let sorry_server = service.sorry.and_then(|id| self.services.destinations.get(id));
        let first = service.config.first();
        ServiceReport {
            name: service.config.name.to_string(),
            vip: first.vip,
            protocol: first.protocol,
            ports: first.ports.to_string(),
            listen: service.config.listen.iter().map(ToString::to_string).collect(),
            scheduler: service.scheduler.kind(),
            scheduler_options: service.config.scheduler_options.words(service.config.scheduler),
            scheduler_refused: service.scheduler.refused(),
            persistence: service
                .config
                .persistence
                .map(|persistence| persistence.timeout.as_secs()),
            up: service.configured && service.is_up(),
            diverted: sorry_server.is_some_and(|found| found.reachable)
                && service.configured
                && !service.is_up(),
            live_weight: service.live_weight,
            quorum: service.config.quorum,
            sorry_server: sorry_server.map(|found| self.real_server_report(now, found)),
            configured: service.configured,
            traffic: service.traffic,
            rates: service.rates.rates(),
            real_servers,
        }
    }

    fn real_server_report(&self, now: Instant, destination: &Destination) -> RealServerReport {
        let neighbor = self.neighbors.get(destination.neighbor);
        let resolving = neighbor.is_some_and(|neighbor| neighbor.is_resolving());
        let state = match destination {
            Destination { position: None, is_sorry: false, .. } => RealServerState::Draining,
            _ if !destination.is_alive() => RealServerState::Down,
            Destination { is_sorry: true, .. } => RealServerState::Sorry,
            _ if destination.weight() == 0 => RealServerState::Quiesced,
            Destination { overloaded: true, .. } => RealServerState::Overloaded,
            _ if resolving => RealServerState::Resolving,
            _ => RealServerState::Up,
        };
        RealServerReport {
            name: destination.name.to_string(),
            address: destination.address,
            segment: self.segment_label(destination.segment).to_string(),
            mac: neighbor.and_then(|neighbor| neighbor.mac()),
            weight: destination.weight(),
            configured_weight: destination.configured_weight,
            state,
            check: destination.check.and_then(|id| self.checks.report(now, id)),
            active: destination.active,
            inactive: destination.inactive,
            templates: destination.templates,
            upper_threshold: destination.upper_threshold,
            lower_threshold: destination.lower_threshold,
            traffic: destination.traffic,
            rates: destination.rates.rates(),
        }
    }

    fn segment_reports(&self) -> Vec<SegmentReport> {
        let configured = &self.snapshot.segments;
        self.segments
            .iter()
            .filter_map(|(_, segment)| {
                let config = configured.iter().find(|config| config.name == segment.name)?;
                Some(SegmentReport {
                    name: segment.name.to_string(),
                    role: segment.role,
                    attach: config.attach.kind(),
                    tap: config.device().to_string(),
                    bridge: config.bridge().map(|bridge| bridge.to_string()),
                    mac: segment.mac,
                    mtu: segment.mtu(),
                    addresses: segment.addresses.iter().map(|net| net.to_string()).collect(),
                    defend: segment.role.has_vips().then_some(segment.defend),
                    arp_guard: None,
                    received_frames: segment.received.frames,
                    received_bytes: segment.received.bytes,
                    sent_frames: segment.sent.frames,
                    sent_bytes: segment.sent.bytes,
                    send_errors: 0,
                    missed_frames: 0,
                    up: true,
                })
            })
            .collect()
    }

    fn counters_report(&self) -> CountersReport {
        let counters = &self.counters;
        CountersReport {
            received: counters.received,
            forwarded: counters.forwarded,
            replied: counters.replied,
            consumed: counters.consumed,
            held: counters.held,
            dropped: counters.dropped(),
            drops: DropReason::ALL
                .iter()
                .map(|&reason| (reason.name().to_owned(), counters.drops(reason)))
                .collect(),
        }
    }

    fn conflict_reports(&self) -> Vec<ConflictReport> {
        self.conflicts
            .iter()
            .map(|claimant| ConflictReport {
                vip: claimant.vip,
                segment: self.segment_label(claimant.segment).to_string(),
                mac: claimant.mac,
                real_server: claimant.real_server.as_ref().map(|name| name.to_string()),
                first: claimant.first.since(self.started).as_secs_f64(),
                last: claimant.last.since(self.started).as_secs_f64(),
                first_at: None,
                last_at: None,
                count: claimant.count,
            })
            .collect()
    }

    fn guardian_report(&self) -> GuardianReport {
        let counters = &self.guardian;
        GuardianReport {
            asked: counters.asked,
            defended: counters.defended,
            repaired: counters.repaired,
            repairs_refused: counters.repairs_refused,
            stations: self.askers.len() as u64,
            stations_refused: self.askers.refused(),
            adopted: counters.adopted,
            contested: counters.contested,
            unknowable: counters.unknowable,
        }
    }

    fn connections_page(&self, now: Instant, cursor: u32) -> ConnectionsPage {
        let mut connections = Vec::new();
        let next = self.connections.page(cursor, PAGE_CONNECTIONS, |_, connection| {
            let key = connection.key();
            let Some(destination) = self.services.destinations.get(connection.destination) else {
                return;
            };
            let Some(protocol) = key.protocol() else { return };
            let remaining = connection.deadline().since(now);
            if remaining.is_zero() {
                return;
            }
            connections.push(ConnectionReport {
                protocol,
                expires_seconds: remaining.as_secs(),
                state: connection.state,
                client: key.client(),
                client_port: key.client_port(),
                vip: key.vip(),
                virtual_port: key.virtual_port(),
                service: self
                    .service_name(destination.service)
                    .map_or_else(String::new, |name| name.to_string()),
                real_server: destination.name.to_string(),
                real_server_address: destination.address,
            });
        });
        ConnectionsPage { connections, next }
    }
}
