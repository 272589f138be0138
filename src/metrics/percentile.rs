//! Percentiles of durations that were counted in buckets, over the last while.

use std::{collections::VecDeque, time::Duration};

use crate::metrics::durations::{BOUNDS, BUCKETS};

/// How many durations fell between each bound and the one before.
pub type Buckets = [u64; BUCKETS];

/// The duration that such a share of them did not exceed: between two bounds, as if they were
/// spread evenly, which is how Prometheus reads a histogram. Beyond the last bound, that bound.
///
/// `None` if there are none.
pub fn percentile(buckets: &Buckets, share: f64) -> Option<Duration> {
    let all: u64 = buckets.iter().sum();
    if all == 0 {
        return None;
    }
    let (wanted, mut before, mut lower) = (share * all as f64, 0, Duration::ZERO);
    for (count, (upper, _)) in buckets.iter().zip(BOUNDS) {
        let with = before + count;
        if 0 < *count && wanted <= with as f64 {
            let part = ((wanted - before as f64) / *count as f64).clamp(0.0, 1.0);
            return Some(lower + upper.saturating_sub(lower).mul_f64(part));
        }
        (before, lower) = (with, upper);
    }
    Some(lower)
}

/// What was counted between the oldest look that is remembered and the last one.
#[derive(Clone, Debug)]
pub struct Window {
    looks: VecDeque<Buckets>,
    looks_max: usize,
}

impl Window {
    /// A window over so many spans between looks, which begins at a first look.
    pub fn over(spans: usize, first: Buckets) -> Self {
        Self { looks: VecDeque::from([first]), looks_max: spans + 1 }
    }

    /// Looks again at counts that only grow, and tells what is new since the last look.
    pub fn look(&mut self, now: Buckets) -> Buckets {
        let before = self.looks.back().copied().unwrap_or(now);
        if self.looks_max <= self.looks.len() {
            self.looks.pop_front();
        }
        self.looks.push_back(now);
        since(&before, &now)
    }

    /// What was counted within it.
    pub fn counts(&self) -> Buckets {
        match (self.looks.front(), self.looks.back()) {
            (Some(first), Some(last)) => since(first, last),
            _ => [0; BUCKETS],
        }
    }
}

fn since(before: &Buckets, now: &Buckets) -> Buckets {
    std::array::from_fn(|index| now[index].saturating_sub(before[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many in the bucket up to 1 ms, up to 2.5 ms, and beyond the last bound.
    fn buckets(first: u64, second: u64, beyond: u64) -> Buckets {
        let mut buckets = [0; BUCKETS];
        (buckets[3], buckets[4], buckets[BUCKETS - 1]) = (first, second, beyond);
        buckets
    }

    #[test]
    fn a_percentile_lies_between_the_bounds_of_its_bucket() {
        let micros = |buckets: &Buckets, share| percentile(buckets, share).map(|at| at.as_micros());
        assert_eq!(micros(&buckets(0, 0, 0), 0.5), None);
        let even = buckets(10, 10, 0);
        assert_eq!(micros(&even, 0.0), Some(500));
        assert_eq!(micros(&even, 0.25), Some(750));
        assert_eq!(micros(&even, 0.5), Some(1_000));
        assert_eq!(micros(&even, 0.75), Some(1_750));
        assert_eq!(micros(&even, 1.0), Some(2_500));
        assert_eq!(micros(&buckets(1, 0, 1), 0.99), Some(60_000_000), "the last bound");
    }

    #[test]
    fn a_window_forgets_what_is_older_than_it() {
        let mut window = Window::over(2, buckets(5, 0, 0));
        assert_eq!(window.counts(), buckets(0, 0, 0), "what was before counts for nothing");
        assert_eq!(window.look(buckets(7, 0, 0)), buckets(2, 0, 0));
        assert_eq!(window.look(buckets(7, 1, 0)), buckets(0, 1, 0));
        assert_eq!(window.counts(), buckets(2, 1, 0));
        window.look(buckets(7, 1, 3));
        assert_eq!(window.counts(), buckets(0, 1, 3));
    }
}
