//! What the director has to tell, as log lines: a bounded number of each kind.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use crate::director::{Event, Instant, Severity};

/// Lines of one kind in one [`WINDOW`].
pub const LINES_MAX: u32 = 32;
/// See [`LINES_MAX`].
pub const WINDOW: Duration = Duration::from_secs(10);

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub severity: Severity,
    pub text: String,
}

/// Decides which events are logged. Bounded by the number of kinds there are.
#[derive(Default)]
pub struct EventLog {
    kinds: HashMap<Discriminant<Event>, Kind>,
}

struct Kind {
    window_start: Instant,
    printed: u32,
    suppressed: u64,
    /// The last event that was suppressed, as an example.
    last: Option<Event>,
}

impl EventLog {
    /// The line for this event, unless there were too many like it.
    pub fn handle(&mut self, now: Instant, event: Event) -> Option<Line> {
        let kind = self.kinds.entry(discriminant(&event)).or_insert(Kind {
            window_start: now,
            printed: 0,
            suppressed: 0,
            last: None,
        });
        if kind.suppressed == 0 && now.since(kind.window_start) >= WINDOW {
            kind.window_start = now;
            kind.printed = 0;
        }
        if kind.printed == LINES_MAX {
            kind.suppressed += 1;
            kind.last = Some(event);
            return None;
        }
        kind.printed += 1;
        Some(Line { severity: event.severity(), text: event.to_string() })
    }

    /// A line for each kind whose window has passed, if some were suppressed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for kind in self.kinds.values_mut() {
            if now.since(kind.window_start) < WINDOW {
                continue;
            }
            if let Some(event) = kind.last.take() {
                let text = match kind.suppressed {
                    1 => event.to_string(),
                    more => format!("{event} (and {} more like it)", more - 1),
                };
                lines.push(Line { severity: event.severity(), text });
                kind.window_start = now;
                kind.printed = 1;
                kind.suppressed = 0;
            }
        }
        lines
    }

    /// When [`Self::handle_timeout`] next has a line.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.kinds.values().filter(|kind| kind.suppressed > 0);
        waiting.map(|kind| kind.window_start + WINDOW).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(capacity: u32) -> Event {
        Event::ConnectionsFull { capacity }
    }

    fn relieved() -> Event {
        Event::Relieved { service: "web".into(), real_server: "rs1".into(), connections: 1 }
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_and_summed_up_and_other_kinds_pass() {
        let mut log = EventLog::default();
        let printed = (0..1000).filter_map(|i| log.handle(seconds(1), full(i))).count();
        assert_eq!(printed, LINES_MAX as usize);
        assert!(log.handle(seconds(1), relieved()).is_some());

        assert_eq!(log.poll_timeout(), Some(seconds(11)));
        assert_eq!(log.handle_timeout(seconds(10)), []);
        let lines = log.handle_timeout(seconds(11));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].text.ends_with("(and 967 more like it)"), "{}", lines[0].text);
        assert_eq!(lines[0].severity, Severity::Warning);
        assert_eq!(log.poll_timeout(), None);
        assert_eq!(log.handle_timeout(seconds(60)), []);
    }

    #[test]
    fn a_slow_trickle_is_never_cut() {
        let mut log = EventLog::default();
        for second in 0..100 {
            assert!(log.handle(seconds(second * 2), relieved()).is_some());
        }
        assert_eq!(log.poll_timeout(), None);
    }

    #[test]
    fn after_a_flood_lines_come_again() {
        let mut log = EventLog::default();
        for i in 0..=LINES_MAX {
            log.handle(seconds(0), full(i));
        }
        assert_eq!(log.handle(seconds(10), full(0)), None, "the sum comes first");
        let lines = log.handle_timeout(seconds(10));
        assert!(lines[0].text.ends_with("(and 1 more like it)"), "{}", lines[0].text);
        assert!(log.handle(seconds(10), full(0)).is_some());
    }
}
