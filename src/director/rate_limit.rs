//! Token buckets for what the director sends in answer to others (RFC 1812, 4.3.2.8).

use super::instant::Instant;

/// Lets through so many a second on average, and a burst after a pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    per_second: u32,
    burst: u32,
    /// In billionths of a token, so that refilling loses nothing.
    nano_tokens: u64,
    refilled: Instant,
}

const NANO: u64 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket: `per_second` on average, at most `burst` at once.
    pub fn new(now: Instant, per_second: u32, burst: u32) -> TokenBucket {
        TokenBucket { per_second, burst, nano_tokens: u64::from(burst) * NANO, refilled: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = u64::try_from(now.since(self.refilled).as_nanos()).unwrap_or(u64::MAX);
        self.refilled = self.refilled.max(now);
        let refill = elapsed.saturating_mul(u64::from(self.per_second));
        self.nano_tokens =
            self.nano_tokens.saturating_add(refill).min(u64::from(self.burst) * NANO);
        let enough = self.nano_tokens >= NANO;
        if enough {
            self.nano_tokens -= NANO;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_average() {
        let start = Instant::from_nanos(5);
        let mut bucket = TokenBucket::new(start, 10, 3);
        let passed =
            |bucket: &mut TokenBucket, at: Instant| (0..100).filter(|_| bucket.take(at)).count();
        assert_eq!(passed(&mut bucket, start), 3);
        assert_eq!(passed(&mut bucket, start + Duration::from_millis(99)), 0);
        assert_eq!(passed(&mut bucket, start + Duration::from_millis(100)), 1);
        assert_eq!(
            passed(&mut bucket, start + Duration::from_secs(3600)),
            3,
            "no more than a burst"
        );
    }
}
