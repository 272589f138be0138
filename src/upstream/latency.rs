//! How long a backend takes to begin its answers: an average that rises at once and falls slowly.
//!
//! A moving average, exponentially weighted by time, after Finagle's "peak EWMA": an answer that
//! was slower than the average becomes the average, a faster one draws it down bit by bit. It
//! decays where nothing is heard, too, so that a backend that was slow once is asked again.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::clock;

/// In this time an old observation loses two thirds (1 − 1/e) of its weight.
const DECAY: Duration = Duration::from_secs(10);
/// What a failure counts at least: a backend that refuses at once is not a fast one.
const FAILURE: Duration = Duration::from_secs(1);

/// The average of one backend, as many threads see it: seconds as a float in the upper half, the
/// milliseconds of its last change in the lower half, all 0 while nothing is known.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// The average at `now`, in seconds; `None` before the first answer.
    pub fn get(&self, now: Instant) -> Option<f64> {
        match self.0.load(Relaxed) {
            0 => None,
            packed => Some(decayed(packed, stamp(now))),
        }
    }

    /// Learns how long an answer took to begin.
    pub fn observe(&self, took: Duration, now: Instant) {
        let (took, now) = (took.as_secs_f64(), stamp(now));
        let learn = |packed: u64| {
            let (old, since) = unpack(packed);
            let average = if old <= took {
                took
            } else {
                let weight = weight(since, now);
                old * weight + took * (1.0 - weight)
            };
            Some(pack(average, now))
        };
        // The closure never refuses.
        let _ = self.0.fetch_update(Relaxed, Relaxed, learn);
    }

    /// Learns that an answer would have taken longer than this.
    pub fn exceed(&self, took: Duration, now: Instant) {
        if self.get(now).is_none_or(|average| average < took.as_secs_f64()) {
            self.observe(took, now);
        }
    }

    /// Learns that an attempt failed after so long.
    pub fn fail(&self, took: Duration, now: Instant) {
        self.observe(took.max(FAILURE), now);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it wraps after 49 days, and so do differences"
)]
fn stamp(now: Instant) -> u32 {
    clock::millis(now) as u32
}

/// What is left of an observation.
fn weight(since: u32, now: u32) -> f64 {
    // Threads that read the clock one after the other may write in another order.
    let age = now.wrapping_sub(since);
    let age = if i32::try_from(age).is_ok() { age } else { 0 };
    (-f64::from(age) / 1_000.0 / DECAY.as_secs_f64()).exp()
}

fn decayed(packed: u64, now: u32) -> f64 {
    let (average, since) = unpack(packed);
    average * weight(since, now)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of a word; an average needs no more digits"
)]
fn unpack(packed: u64) -> (f64, u32) {
    (f64::from(f32::from_bits((packed >> 32) as u32)), packed as u32)
}

#[expect(clippy::cast_possible_truncation, reason = "an average needs no more digits")]
fn pack(average: f64, stamp: u32) -> u64 {
    u64::from((average as f32).to_bits()) << 32 | u64::from(stamp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_bit_by_bit() {
        let (latency, now) = (Latency::default(), Instant::now());
        assert_eq!(latency.get(now), None);
        latency.observe(10 * MS, now);
        latency.observe(100 * MS, now + MS);
        let peak = latency.get(now + MS).expect("known");
        assert!((peak - 0.1).abs() < 1e-6, "{peak}");
        latency.observe(10 * MS, now + 1_001 * MS);
        let after = latency.get(now + 1_001 * MS).expect("known");
        assert!(0.08 < after && after < 0.1, "{after}");
        let idle = latency.get(now + 61_001 * MS).expect("known");
        assert!(idle < 0.001, "a minute later it is worth a try again: {idle}");
    }

    #[test]
    fn a_fast_failure_is_no_fast_answer() {
        let (latency, now) = (Latency::default(), Instant::now());
        latency.fail(MS, now);
        assert!(0.99 < latency.get(now).expect("known"));
    }

    proptest! {
        /// Of two backends that answered at the same times, one never faster than the other, the
        /// average of the slower one is never the lower.
        #[test]
        fn the_average_is_monotone_in_the_latency(
            answers in prop::collection::vec((1u32..5_000, 0u32..5_000, 0u32..3_000), 1..60),
        ) {
            let (fast, slow) = (Latency::default(), Latency::default());
            let mut now = Instant::now();
            for (took, more, pause) in answers {
                now += pause * MS;
                fast.observe(took * MS, now);
                slow.observe((took + more) * MS, now);
                let (fast, slow) = (fast.get(now).expect("known"), slow.get(now).expect("known"));
                prop_assert!(fast <= slow * (1.0 + 1e-6), "{} {}", fast, slow);
                let (fastest, slowest) = (0.0, 10.0);
                prop_assert!(fastest < fast && slow < slowest);
            }
        }
    }
}
