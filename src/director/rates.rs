//! Rates as IPVS estimates them: sampled every 2 s, a moving average with weight 1/4.

use core::time::Duration;

use super::counters::Traffic;
use super::report::Rates;

/// From one sample to the next.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// Averages are kept in 1024ths, so that small rates do not vanish.
const SCALE_BITS: u32 = 10;

/// The moving averages of one service or real server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateEstimator {
    last: Traffic,
    connections: u64,
    packets: u64,
    bytes: u64,
}

impl RateEstimator {
    /// Takes a sample; called every [`SAMPLE_INTERVAL`].
    pub fn sample(&mut self, traffic: &Traffic) {
        let seconds = SAMPLE_INTERVAL.as_secs();
        let average = |average: &mut u64, count: u64, last: u64| {
            let rate = (count.saturating_sub(last) << SCALE_BITS) / seconds;
            // Weight 1/4 for the newest, rounding towards it so that an idle average reaches 0.
            *average = if rate >= *average {
                *average + (rate - *average) / 4
            } else {
                *average - (*average - rate).div_ceil(4)
            };
        };
        average(&mut self.connections, traffic.connections, self.last.connections);
        average(&mut self.packets, traffic.packets, self.last.packets);
        average(&mut self.bytes, traffic.bytes, self.last.bytes);
        self.last = *traffic;
    }

    /// Rounded to whole units a second.
    pub fn rates(&self) -> Rates {
        let whole = |scaled: u64| (scaled + (1 << (SCALE_BITS - 1))) >> SCALE_BITS;
        Rates {
            connections_per_second: whole(self.connections),
            packets_per_second: whole(self.packets),
            bytes_per_second: whole(self.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_approached_by_quarters_and_an_idle_one_fades_to_zero() {
        let mut estimator = RateEstimator::default();
        let mut traffic = Traffic::default();
        let mut seen = Vec::new();
        for _ in 0..40 {
            traffic.packets += 2000;
            estimator.sample(&traffic);
            seen.push(estimator.rates().packets_per_second);
        }
        assert_eq!(&seen[..4], &[250, 438, 578, 684]);
        assert_eq!(seen[39], 1000);
        for _ in 0..60 {
            estimator.sample(&traffic);
        }
        assert_eq!(estimator.rates(), Rates::default());
    }
}
