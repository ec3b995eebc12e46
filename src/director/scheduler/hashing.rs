//! Schedulers that hash an address: sh (the client's) and dh (the destination's).
//!
//! 256 buckets, each for one candidate, and the same hash as in IPVS, so that directors of both
//! kinds agree without telling each other. When the bucket's candidate is not eligible, there
//! is no other, but for sh with `fallback`: that goes on to further buckets, at most all 256.

use core::net::IpAddr;

use super::Candidate;
use crate::config::snapshot::SchedulerOptions;

const BUCKET_BITS: u32 = 8;
const BUCKETS: usize = 1 << BUCKET_BITS;

/// Linux's `GOLDEN_RATIO_32` (`include/linux/hash.h`).
const GOLDEN_RATIO: u32 = 0x61C8_8647;

/// Which candidate has which bucket.
#[derive(Clone, Debug)]
pub struct Buckets {
    positions: Box<[u32; BUCKETS]>,
    share: Share,
    with_port: bool,
    fallback: bool,
}

#[derive(Clone, Copy, Debug)]
enum Share {
    ByWeight,
    Even,
}

impl Buckets {
    /// sh: as many buckets in a row as the candidate's weight says; one if it is 0 (which is not
    /// eligible, so its clients wait for it).
    pub(super) fn by_weight(options: &SchedulerOptions) -> Buckets {
        let SchedulerOptions { port, fallback, .. } = *options;
        let positions = Box::new([0; BUCKETS]);
        Buckets { positions, share: Share::ByWeight, with_port: port, fallback }
    }

    /// dh: one bucket each in turn.
    pub(super) fn even() -> Buckets {
        let positions = Box::new([0; BUCKETS]);
        Buckets { positions, share: Share::Even, with_port: false, fallback: false }
    }

    /// Deals the buckets out, in the order of the list, from its head again at its end.
    pub(super) fn candidates_changed(&mut self, candidates: &[Candidate]) {
        let (mut position, mut dealt) = (0, 0);
        for bucket in self.positions.iter_mut() {
            *bucket = position as u32;
            dealt += 1;
            let share = match self.share {
                Share::ByWeight => candidates.get(position).map_or(1, |c| c.weight),
                Share::Even => 1,
            };
            if dealt >= share {
                position = (position + 1) % candidates.len().max(1);
                dealt = 0;
            }
        }
    }

    pub(super) fn pick(
        &self,
        candidates: &[Candidate],
        address: IpAddr,
        port: u16,
    ) -> Option<usize> {
        let port = if self.with_port { port } else { 0 };
        let first = bucket_of(address, port);
        let in_bucket = |bucket: usize| {
            let position = self.positions[bucket % BUCKETS] as usize;
            candidates.get(position)?.is_eligible().then_some(position)
        };
        // The bucket's number is the first offset that is tried, and is added to it.
        let others = || (0..BUCKETS).find_map(|offset| in_bucket(first + first + offset));
        in_bucket(first).or_else(|| if self.fallback { others() } else { None })
    }
}

/// An address as 32 bits, in the host's order: IPv6 by exclusive or of its four words.
pub(super) fn folded(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// IPVS's `ip_vs_sh_hashkey` and `ip_vs_dh_hashkey`, without the offset.
fn bucket_of(address: IpAddr, port: u16) -> usize {
    let sum = folded(address).wrapping_add(port.into());
    (sum.wrapping_mul(GOLDEN_RATIO) >> (32 - BUCKET_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights
            .iter()
            .map(|&weight| Candidate { weight, available: true, active: 0, inactive: 0 })
            .collect()
    }

    fn by_weight(port: bool, fallback: bool) -> Buckets {
        Buckets::by_weight(&SchedulerOptions { port, fallback, ..SchedulerOptions::default() })
    }

    #[test]
    fn buckets_are_dealt_in_list_order() {
        let rows: [(Buckets, &[u32], &[u32]); 6] = [
            (by_weight(false, false), &[1, 1, 1], &[0, 1, 2, 0, 1, 2, 0]),
            (by_weight(false, false), &[3, 1], &[0, 0, 0, 1, 0, 0, 0, 1, 0]),
            (by_weight(false, false), &[2, 0, 1], &[0, 0, 1, 2, 0, 0, 1, 2]),
            (by_weight(false, false), &[300, 1], &[0; 256]),
            (Buckets::even(), &[3, 1], &[0, 1, 0, 1]),
            (Buckets::even(), &[], &[0; 256]),
        ];
        for (mut buckets, weights, expected) in rows {
            buckets.candidates_changed(&candidates(weights));
            let dealt = &buckets.positions[..expected.len()];
            assert_eq!(dealt, expected, "{:?} {weights:?}", buckets.share);
        }
    }

    #[test]
    fn addresses_fall_into_the_buckets_of_ipvs() {
        // (address × 0x61C88647 mod 2^32) >> 24, worked out by hand.
        for (address, port, bucket) in [
            ("0.0.0.0", 0, 0),
            ("0.0.0.1", 0, 0x61),
            ("0.0.0.2", 0, 0xC3),
            ("1.0.0.0", 0, 0x47),
            ("::", 0, 0),
            ("::1", 0, 0x61),
            ("1::", 0, 0x86),
            ("0:1:0:1:0:1:0:1", 0, 0),
            ("0:1:0:1::1", 0, 0x61),
            ("0.0.0.0", 2, 0xC3),
            ("255.255.255.255", 2, 0x61),
        ] {
            assert_eq!(bucket_of(address.parse().unwrap(), port), bucket, "{address}:{port}");
        }
    }

    #[test]
    fn the_fallback_begins_at_twice_the_bucket_and_goes_round() {
        // Bucket 0x61 = 97 is for candidate 97 of 256; then 194, 195, ... 255, 0, ...
        let mut candidates = candidates(&[1; 256]);
        let address = "0.0.0.1".parse().unwrap();
        let (mut plain, mut fallback) = (by_weight(false, false), by_weight(false, true));
        plain.candidates_changed(&candidates);
        fallback.candidates_changed(&candidates);
        assert_eq!(fallback.pick(&candidates, address, 7), Some(97));
        for gone in [97].into_iter().chain(194..256).chain(0..97).chain(98..193) {
            candidates[gone].available = false;
            let next = match gone {
                97 => 194,
                96 => 98,
                gone => (gone + 1) % 256,
            };
            assert_eq!(fallback.pick(&candidates, address, 7), Some(next), "after {gone}");
            assert_eq!(plain.pick(&candidates, address, 7), None);
        }
        candidates[193].available = false;
        assert_eq!(fallback.pick(&candidates, address, 7), None);
    }
}
