//! Maps whose keys are numbers that this process has given: jobs, batches, functions.
//!
//! Nobody else chooses such a key, so that the hash need not withstand anybody; and several are looked up for each call.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from numbers of our own.
pub(crate) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// Spreads a number over all bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        // The golden ratio: consecutive numbers, and multiples of a power of two, end up far from each other.
        let product = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::{BuildHasher, Hash};

    #[test]
    fn numbers_that_are_alike_are_spread() {
        let hasher = BuildHasherDefault::<Spread>::default();
        let spread = |number: u64| hasher.hash_one(number);
        for step in [1, 8, 64, 4096, 1 << 20] {
            let hashes: Vec<u64> = (0..256).map(|n| spread(n * step)).collect();
            // The lowest bits choose the place in a table, and the seven highest tell those in one place apart.
            let places: HashSet<u64> = hashes.iter().map(|hash| hash % 256).collect();
            let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(
                places.len() > 96,
                "{} places for steps of {step}",
                places.len()
            );
            assert!(tags.len() > 64, "{} tags for steps of {step}", tags.len());
        }
        let mut other = Spread::default();
        (1u8, 2u16).hash(&mut other);
        assert_ne!(other.finish(), 0);
    }
}
