//! From results of checks to the health of a real server: falls and rises, and what is kept for a
//! person.

use core::time::Duration;

use super::super::instant::Instant;
use super::super::report::{CheckReport, LastCheckReport, LatencyBucket};
use crate::config::check::Check;

/// Upper bounds of the classes of latency, in microseconds.
pub(super) const LATENCY_BOUNDS_US: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// What the checks of one real server have said so far.
#[derive(Debug)]
pub(super) struct History {
    healthy: bool,
    /// Checks in a row that said the opposite of `healthy`.
    against: u32,
    pub passed: u64,
    pub failed: u64,
    /// Checks that began later than they should have.
    pub late: u64,
    last: Option<Last>,
    /// Of checks that passed, by class; the last class has no bound.
    latencies: [u64; LATENCY_BOUNDS_US.len() + 1],
    latency_sum: Duration,
}

#[derive(Debug)]
struct Last {
    at: Instant,
    latency: Duration,
    /// Why it failed, if it did.
    reason: Option<String>,
}

/// A real server's health has changed, after so many checks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Fell(u32),
    Rose(u32),
}

impl History {
    /// Of a real server that is taken to be healthy until checks say otherwise.
    pub fn new(healthy: bool) -> History {
        History {
            healthy,
            against: 0,
            passed: 0,
            failed: 0,
            late: 0,
            last: None,
            latencies: [0; LATENCY_BOUNDS_US.len() + 1],
            latency_sum: Duration::ZERO,
        }
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    pub fn has_just_failed(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.reason.is_some())
    }

    /// Takes in a result: of a failure the reason.
    pub fn note(
        &mut self,
        now: Instant,
        check: &Check,
        result: Result<(), String>,
        latency: Duration,
    ) -> Option<Change> {
        let passed = result.is_ok();
        self.last = Some(Last { at: now, latency, reason: result.err() });
        if passed {
            self.passed += 1;
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            let class = LATENCY_BOUNDS_US.partition_point(|&bound| bound < micros);
            self.latencies[class] += 1;
            self.latency_sum += latency;
        } else {
            self.failed += 1;
        }
        if passed == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if passed { check.rise } else { check.fall };
        if self.against < needed {
            return None;
        }
        self.healthy = passed;
        let in_a_row = core::mem::take(&mut self.against);
        Some(if passed { Change::Rose(in_a_row) } else { Change::Fell(in_a_row) })
    }

    pub fn report(&self, now: Instant, check: &Check, running: bool) -> CheckReport {
        let bounds = LATENCY_BOUNDS_US.iter().map(|&bound| Some(bound as f64 / 1e6));
        let latency = bounds.chain([None]).zip(self.latencies);
        CheckReport {
            kind: check.kind.name().to_owned(),
            healthy: self.healthy,
            running,
            passed: self.passed,
            failed: self.failed,
            late: self.late,
            against: self.against,
            interval_seconds: check.interval.as_secs_f64(),
            last: self.last.as_ref().map(|last| LastCheckReport {
                passed: last.reason.is_none(),
                reason: last.reason.clone(),
                latency_seconds: last.latency.as_secs_f64(),
                age_seconds: now.since(last.at).as_secs_f64(),
            }),
            latency: latency.map(|(le, count)| LatencyBucket { le, count }).collect(),
            latency_sum_seconds: self.latency_sum.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::{CheckKind, OnFailure};

    fn check(fall: u32, rise: u32) -> Check {
        Check {
            kind: CheckKind::Tcp,
            vip: "192.0.2.10".parse().unwrap(),
            port: 80,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            retries: 0,
            delay_before_retry: Duration::ZERO,
            fall,
            rise,
            warmup: Duration::ZERO,
            on_failure: OnFailure::Remove,
        }
    }

    #[test]
    fn it_takes_that_many_in_a_row_to_fall_and_to_rise() {
        let check = check(3, 2);
        let mut history = History::new(true);
        let mut note = |passed: bool| {
            let result = if passed { Ok(()) } else { Err("HTTP 500".to_owned()) };
            history.note(Instant::ZERO, &check, result, Duration::from_millis(2))
        };
        // Two failures and one in between do not count together.
        for passed in [false, false, true, false, false] {
            assert_eq!(note(passed), None);
        }
        assert_eq!(note(false), Some(Change::Fell(3)));
        for passed in [false, true, false, true] {
            assert_eq!(note(passed), None);
        }
        assert_eq!(note(true), Some(Change::Rose(2)));
        let report = history.report(Instant::ZERO, &check, false);
        assert_eq!((report.passed, report.failed, report.healthy), (4, 7, true));
        let class = report.latency.iter().find(|class| class.count > 0).unwrap();
        assert_eq!((class.le, class.count), (Some(0.0025), 4));
        assert_eq!(report.latency.len(), LATENCY_BOUNDS_US.len() + 1);
    }
}
