//! Schedulers that hash an address: sh (the client's) and dh (the destination's).
//!
//! 256 buckets, each for one candidate, and the same hash as in IPVS, so that directors of both
//! kinds agree without telling each other. When the bucket's candidate is not eligible, there
//! is no other.

use core::net::IpAddr;

use super::Candidate;

const BUCKET_BITS: u32 = 8;
const BUCKETS: usize = 1 << BUCKET_BITS;

/// Linux's `GOLDEN_RATIO_32` (`include/linux/hash.h`).
const GOLDEN_RATIO: u32 = 0x61C8_8647;

/// Which candidate has which bucket.
#[derive(Clone, Debug)]
pub struct Buckets {
    positions: [u32; BUCKETS],
    share: Share,
    assigned: bool,
}

#[derive(Clone, Copy, Debug)]
enum Share {
    ByWeight,
    Even,
}

impl Buckets {
    /// As many buckets in a row as the candidate's weight says; one if it is 0 (which is not
    /// eligible, so its clients wait for it).
    pub(super) const fn by_weight() -> Buckets {
        Buckets { positions: [0; BUCKETS], share: Share::ByWeight, assigned: false }
    }

    /// One bucket each in turn.
    pub(super) const fn even() -> Buckets {
        Buckets { positions: [0; BUCKETS], share: Share::Even, assigned: false }
    }

    /// Deals the buckets out, in the order of the list, from its head again at its end.
    pub(super) fn candidates_changed(&mut self, candidates: &[Candidate]) {
        let (mut position, mut dealt) = (0, 0);
        for bucket in &mut self.positions {
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
        self.assigned = true;
    }

    pub(super) fn pick(&mut self, candidates: &[Candidate], address: IpAddr) -> Option<usize> {
        if !self.assigned {
            self.candidates_changed(candidates);
        }
        let position = self.positions[bucket_of(address)] as usize;
        candidates.get(position)?.is_eligible().then_some(position)
    }
}

/// IPVS's `ip_vs_sh_hashkey` and `ip_vs_dh_hashkey`, without port and offset.
fn bucket_of(address: IpAddr) -> usize {
    let folded = match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    };
    (folded.wrapping_mul(GOLDEN_RATIO) >> (32 - BUCKET_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(buckets: &mut Buckets, weights: &[u32]) -> Vec<u32> {
        let candidates: Vec<Candidate> = weights
            .iter()
            .map(|&weight| Candidate { weight, available: true, active: 0, inactive: 0 })
            .collect();
        buckets.candidates_changed(&candidates);
        buckets.positions.to_vec()
    }

    #[test]
    fn buckets_are_dealt_in_list_order() {
        let rows: [(Buckets, &[u32], &[u32]); 6] = [
            (Buckets::by_weight(), &[1, 1, 1], &[0, 1, 2, 0, 1, 2, 0]),
            (Buckets::by_weight(), &[3, 1], &[0, 0, 0, 1, 0, 0, 0, 1, 0]),
            (Buckets::by_weight(), &[2, 0, 1], &[0, 0, 1, 2, 0, 0, 1, 2]),
            (Buckets::by_weight(), &[300, 1], &[0; 256]),
            (Buckets::even(), &[3, 1], &[0, 1, 0, 1]),
            (Buckets::even(), &[], &[0; 256]),
        ];
        for (mut buckets, weights, expected) in rows {
            let dealt = dealt(&mut buckets, weights);
            assert_eq!(dealt[..expected.len()], *expected, "{:?} {weights:?}", buckets.share);
        }
    }

    #[test]
    fn addresses_fall_into_the_buckets_of_ipvs() {
        // (address × 0x61C88647 mod 2^32) >> 24, worked out by hand.
        for (address, bucket) in [
            ("0.0.0.0", 0),
            ("0.0.0.1", 0x61),
            ("0.0.0.2", 0xC3),
            ("1.0.0.0", 0x47),
            ("::", 0),
            ("::1", 0x61),
            ("1::", 0x86),
            ("0:1:0:1:0:1:0:1", 0),
            ("0:1:0:1::1", 0x61),
        ] {
            assert_eq!(bucket_of(address.parse().unwrap()), bucket, "{address}");
        }
    }
}
