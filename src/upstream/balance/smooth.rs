//! Weighted round robin, evenly interleaved: weights 2 and 1 give `a b a`, never `a a b` bursts.
//!
//! Pingora's own weighted selection sends each backend's share in one burst and falls back
//! without weights. This one follows nginx's smooth weighted round robin, computed once when the
//! set of backends changes; a request then takes the next place of a ring.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};

/// The ring of one set of backends.
pub struct SmoothRoundRobin {
    backends: Box<[Backend]>,
    /// Places hold indices into `backends`.
    ring: Box<[u16]>,
    next: AtomicUsize,
}

impl BackendSelection for SmoothRoundRobin {
    type Iter = Places;
    type Config = ();

    fn build(backends: &BTreeSet<Backend>) -> Self {
        let backends: Box<[Backend]> = backends.iter().cloned().collect();
        let weights: Vec<usize> = backends.iter().map(|backend| backend.weight).collect();
        Self { ring: ring(&weights).into(), backends, next: AtomicUsize::new(0) }
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> Places {
        Places { place: self.next.fetch_add(1, Relaxed), left: self.ring.len(), ring: self.clone() }
    }
}

/// Walks the ring once, from the next place on.
pub struct Places {
    ring: Arc<SmoothRoundRobin>,
    place: usize,
    left: usize,
}

impl BackendIter for Places {
    fn next(&mut self) -> Option<&Backend> {
        self.left = self.left.checked_sub(1)?;
        let index = self.ring.ring[self.place % self.ring.ring.len()];
        self.place = self.place.wrapping_add(1);
        Some(&self.ring.backends[usize::from(index)])
    }
}

/// How many places the ring of these weights has.
pub(super) fn turns(weights: impl Iterator<Item = usize> + Clone) -> usize {
    weights.clone().sum::<usize>() / weights.fold(0, gcd).max(1)
}

/// Interleaves: each round every backend gains its weight, and the richest is taken and pays the
/// sum of all.
fn ring(weights: &[usize]) -> Vec<u16> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> =
        weights.iter().map(|weight| i64::try_from(weight / divisor).unwrap_or(i64::MAX)).collect();
    let sum: i64 = weights.iter().sum();
    let mut purse = vec![0; weights.len()];
    let mut ring = Vec::new();
    for _ in 0..sum {
        for (held, weight) in purse.iter_mut().zip(&weights) {
            *held += weight;
        }
        let richest = (0..purse.len()).rev().max_by_key(|index| purse[*index]);
        let Some(richest) = richest else { break };
        purse[richest] -= sum;
        ring.push(u16::try_from(richest).unwrap_or(u16::MAX));
    }
    ring
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_are_interleaved() {
        assert_eq!(ring(&[2, 1]), [0, 1, 0]);
        assert_eq!(ring(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(ring(&[100, 50]), ring(&[2, 1]), "only the ratio counts");
        assert_eq!(ring(&[]), Vec::<u16>::new());
    }

    #[test]
    fn every_backend_is_offered_before_the_walk_ends() {
        let set = BTreeSet::from([
            Backend::new_with_weight("127.0.0.1:1", 9).unwrap(),
            Backend::new_with_weight("127.0.0.1:2", 1).unwrap(),
        ]);
        let ring = Arc::new(SmoothRoundRobin::build(&set));
        for _ in 0..20 {
            let mut places = ring.iter(b"");
            let mut seen = BTreeSet::new();
            while let Some(backend) = places.next() {
                seen.insert(backend.clone());
            }
            assert_eq!(seen, set);
        }
    }

    proptest! {
        /// One turn of the ring gives every backend exactly its weight, and no stretch of it
        /// strays from the share by more than one place for each backend.
        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(1usize..40, 1..12)) {
            let divisor = weights.iter().copied().fold(0, gcd);
            let ring = ring(&weights);
            let sum: usize = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let mut count = 0usize;
                for (place, taken) in ring.iter().enumerate() {
                    count += usize::from(usize::from(*taken) == index);
                    let fair = (place + 1) as f64 * *weight as f64 / sum as f64;
                    prop_assert!((count as f64 - fair).abs() <= weights.len() as f64);
                }
                prop_assert_eq!(count, weight / divisor);
            }
        }
    }
}
