//! Latencies by size, so that a median costs no list of them.
//!
//! Each power of two has four buckets, so a median is right to a fifth.

use std::{iter, time::Duration};

/// Buckets: from 64 µs to 4 minutes, and one for each end.
pub const BUCKETS: usize = 4 * OCTAVES as usize;

const OCTAVES: u32 = 22;
/// What is shorter is as good as this.
const SHORTEST: u64 = 64;

/// How many latencies there are of each size.
pub type Counts = [u32; BUCKETS];

/// The bucket of a latency.
pub fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(SHORTEST);
    let octave = (micros / SHORTEST).ilog2();
    if OCTAVES <= octave {
        return BUCKETS - 1;
    }
    let quarter = (micros.saturating_mul(4) >> octave) / SHORTEST % 4;
    4 * octave as usize + usize::try_from(quarter).unwrap_or_default()
}

/// Where a bucket begins.
fn start(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket / 4, bucket % 4);
    Duration::from_micros((SHORTEST << octave) * (4 + quarter as u64) / 4)
}

/// The median, taken from the middle of its bucket; `None` of nothing.
pub fn median(counts: &Counts) -> Option<Duration> {
    let total: u64 = counts.iter().copied().map(u64::from).sum();
    let sums = counts.iter().scan(0, |sum, count| {
        *sum += u64::from(*count);
        Some(*sum)
    });
    let middle = iter::zip(0.., sums).find(|(_, sum)| total <= 2 * sum && 0 < *sum)?.0;
    Some((start(middle) + start(middle + 1)) / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for index in 1..BUCKETS - 1 {
            let first = start(index);
            assert_eq!(bucket(first), index, "{first:?}");
            assert_eq!(
                bucket(first.saturating_sub(Duration::from_micros(1))),
                index - 1,
                "{first:?}"
            );
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn a_median_is_right_to_a_fifth(mut micros in prop::collection::vec(64u64..60_000_000, 1..200)) {
            let mut counts = [0; BUCKETS];
            for micros in &micros {
                counts[bucket(Duration::from_micros(*micros))] += 1;
            }
            micros.sort_unstable();
            let exact = micros[(micros.len() - 1) / 2] as f64;
            let told = median(&counts).unwrap().as_micros() as f64;
            prop_assert!((told - exact).abs() <= exact / 5.0, "{told} for {exact}");
        }
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(median(&[0; BUCKETS]), None);
    }
}
