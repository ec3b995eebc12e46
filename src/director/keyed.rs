//! Hash maps keyed by the director's seed: deterministic for a seed, unpredictable without it.

use core::hash::BuildHasher;
use std::collections::HashMap;

use siphasher::sip::SipHasher13;

/// A hash map whose hash has a secret key.
pub(super) type KeyedMap<K, V> = HashMap<K, V, HashKey>;

/// The key of every hash of one director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashKey(pub u64, pub u64);

impl HashKey {
    /// Stretches a seed to a key.
    pub fn from_seed(seed: u64) -> HashKey {
        let stretch = SipHasher13::new_with_keys(seed, 0x7669_7072);
        HashKey(stretch.hash(b"first"), stretch.hash(b"second"))
    }

    /// An empty map with this key.
    pub fn map<K, V>(self) -> KeyedMap<K, V> {
        HashMap::with_hasher(self)
    }
}

impl BuildHasher for HashKey {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
