//! What happens by itself: expiry, ARP, announcements, rates. A bounded amount at a time.

use super::{Director, Instant, rates};

/// Connections looked at by one call of `handle_timeout`, at most; the rest follows at once.
/// About 0.03 ms of work, half of what a burst takes: frames do not wait for a million expiries,
/// and expiries keep up with whatever can be opened between them.
const EXPIRY_BUDGET: u32 = 128;

impl Director {
    /// Does what is due: expiry, ARP, announcements. A bounded amount; [`Self::poll_timeout`]
    /// says when to come again.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.send_due_arp(now);
        self.run_checks(now);
        self.run_examination(now);
        self.guard(now);
        self.expire_fragments(now);
        let mut budget = EXPIRY_BUDGET;
        while let Some(connection) = self.connections.expire(now, &mut budget) {
            self.ended(now, connection.destination, connection.state);
        }
        self.sweep_cut(now);
        if self.next_sample <= now {
            self.sample_rates();
            // A pause in time (a suspended machine, a gap in a capture) is one sample.
            self.next_sample = now + rates::SAMPLE_INTERVAL;
        }
    }

    /// When [`Self::handle_timeout`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.neighbors.next_deadline(),
            self.announcer.next_deadline(),
            self.next_guard(),
            self.listeners.next_deadline(),
            self.fragments.next_deadline(),
            self.connections.next_wake(),
            self.checks.next_deadline(),
            self.prober.next_deadline(),
            self.examination.as_ref().and_then(|examination| examination.next_deadline()),
            Some(self.next_sample),
            self.sweep.map(|_| Instant::ZERO),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Goes on taking connections of real servers that were cut out of the table.
    fn sweep_cut(&mut self, now: Instant) {
        let Some(cursor) = self.sweep else { return };
        let mut ended = Vec::new();
        self.sweep = self.connections.page(cursor, EXPIRY_BUDGET, |id, connection| {
            let found = self.services.destinations.get(connection.destination);
            if found.is_some_and(|found| found.cut) {
                ended.push(id);
            }
        });
        for id in ended {
            self.end_connection(now, id);
        }
    }

    fn sample_rates(&mut self) {
        for (_, service) in self.services.services.iter_mut() {
            service.rates.sample(&service.traffic);
        }
        for (_, destination) in self.services.destinations.iter_mut() {
            destination.rates.sample(&destination.traffic);
        }
    }
}
