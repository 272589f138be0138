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

/// So many steps are taken to interleave as evenly as can be.
const STEPS_MAX: usize = 4_000_000;

/// Interleaves: each round every backend gains its weight, and the richest is taken and pays the
/// sum of all. Where that would take too long, see [`large_ring`].
fn ring(weights: &[usize]) -> Vec<u16> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> =
        weights.iter().map(|weight| i64::try_from(weight / divisor).unwrap_or(i64::MAX)).collect();
    let sum: i64 = weights.iter().sum();
    let steps = usize::try_from(sum).unwrap_or(usize::MAX).saturating_mul(weights.len());
    if STEPS_MAX < steps {
        return large_ring(&weights);
    }
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

/// Interleaves many: each backend stands in the middle of each of the stretches, as many as its
/// weight, into which it cuts the turn.
fn large_ring(weights: &[i64]) -> Vec<u16> {
    let places = weights.iter().enumerate().flat_map(|(index, weight)| {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        let stretch = (1_u64 << 40) / u64::try_from(*weight).unwrap_or(u64::MAX).max(1);
        (0..u64::try_from(*weight).unwrap_or(0))
            .map(move |place| (stretch * (2 * place + 1), index))
    });
    let mut places: Vec<(u64, u16)> = places.collect();
    places.sort_unstable();
    places.into_iter().map(|(_, index)| index).collect()
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
            let whole = weights.iter().map(|weight| i64::try_from(weight / divisor).unwrap());
            let whole: Vec<i64> = whole.collect();
            let sum: usize = weights.iter().sum();
            for (ring, (index, weight)) in [ring(&weights), large_ring(&whole)]
                .iter()
                .flat_map(|ring| weights.iter().enumerate().map(move |of| (ring, of)))
            {
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
