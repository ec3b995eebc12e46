//! What clients' packets say about real servers: a SYN that comes again was not answered, or the
//! answer was lost. Where that goes on and nobody gets through, the real server is checked at once.

use super::super::connections::ConnectionState;
use super::super::destination::DestinationId;
use super::super::scheduler::PickKey;
use super::super::services::ServiceId;
use super::super::{Director, Event, Instant};

/// SYNs that came again without progress of anybody's, until a real server is suspect.
const SUSPECT_AFTER: u32 = 3;

impl Director {
    /// A connection that was half open had a packet: another SYN, or progress.
    pub(in crate::director) fn note_progress(
        &mut self,
        now: Instant,
        id: DestinationId,
        is_syn: bool,
    ) {
        let Some(found) = self.services.destinations.get_mut(id) else { return };
        if !is_syn {
            found.unanswered_syns = 0;
            found.progressed = now;
            return;
        }
        found.unanswered_syns = found.unanswered_syns.saturating_add(1);
        if found.unanswered_syns != SUSPECT_AFTER {
            return;
        }
        let (service, real_server) = (found.service, found.name.clone());
        if let Some(service) = self.service_name(service).cloned() {
            self.events.push(Event::Suspect { service, real_server, syns: SUSPECT_AFTER });
        }
        self.hasten_check(now, id);
    }

    /// The real server that a SYN which comes again goes to in place of this one: another one, if
    /// the service has it so, and no connection to this one made progress since the last SYN. (If
    /// one did, a packet was lost, and both ends will send it again.)
    pub(in crate::director) fn rescue(
        &mut self,
        service: ServiceId,
        from: DestinationId,
        last_syn: Instant,
        key: &PickKey,
    ) -> Option<DestinationId> {
        let found = self.services.destinations.get(from)?;
        let wanted = self.services.services.get(service)?.config.syn_rescue;
        if !wanted || found.progressed > last_syn {
            return None;
        }
        self.services.schedule_except(service, from, key).filter(|&other| other != from)
    }

    /// When the last SYN of a half-open connection came, by its deadline.
    pub(in crate::director) fn last_syn(&self, deadline: Instant) -> Instant {
        deadline - ConnectionState::SynRecv.timeout(&self.snapshot.timeouts)
    }
}
