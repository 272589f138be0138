//! The pause before a retry, by chance.

use std::time::Duration;

/// How the pause grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest pause before the first retry; each further one doubles it.
    pub base: Duration,
    /// The longest of all.
    pub max: Duration,
}

impl Backoff {
    /// The pause before retry number `retry` (from 1): anything from nothing to its step, so that
    /// the victims of one failure do not come back in step ("full jitter").
    pub fn pause(&self, retry: usize) -> Duration {
        self.step(retry).mul_f64(fastrand::f64())
    }

    fn step(&self, retry: usize) -> Duration {
        let doublings = u32::try_from(retry.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Never longer than its step, which doubles up to the longest.
        #[test]
        fn full_jitter_stays_within_its_bounds(base in 1u64..1_000, max in 1u64..10_000, retry in 0usize..100) {
            let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
            let step = backoff.step(retry);
            prop_assert!(step <= backoff.max);
            prop_assert_eq!(backoff.step(retry.max(1) + 1), (backoff.step(retry) * 2).min(backoff.max));
            for _ in 0..20 {
                prop_assert!(backoff.pause(retry) <= step);
            }
        }
    }

    /// Of full jitter, half of all pauses are shorter than half a step.
    #[test]
    fn pauses_are_spread_over_the_whole_step() {
        let backoff = Backoff { base: Duration::from_millis(10), max: Duration::from_secs(1) };
        let pauses: Vec<_> = (0..1_000).map(|_| backoff.pause(1)).collect();
        let short = pauses.iter().filter(|pause| **pause < Duration::from_millis(5)).count();
        assert!((300..700).contains(&short), "{short} of 1000");
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(1)));
    }
}
