//! What traffic showed of one backend: counted on the path, looked at in the background.
//!
//! A request adds to counters that only grow. `Window`, pure, keeps what was added in the last
//! slices of time.

use std::{
    array,
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::upstream::ejection::histogram::{self, BUCKETS, Counts};

/// A window is looked at so often while it passes.
pub const SLICES: usize = 10;

/// Counters of one backend; they wrap, and only their growth counts.
#[derive(Debug)]
pub struct Observed {
    requests: AtomicU32,
    failures: AtomicU32,
    latencies: [AtomicU32; BUCKETS],
    window: Mutex<Window>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            requests: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            latencies: array::from_fn(|_| AtomicU32::new(0)),
            window: Mutex::default(),
        }
    }
}

impl Observed {
    /// Counts an attempt that ended well or not.
    pub fn count(&self, is_failure: bool) {
        self.requests.fetch_add(1, Relaxed);
        if is_failure {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    /// Counts how long an answer took to begin.
    pub fn time(&self, latency: Duration) {
        self.latencies[histogram::bucket(latency)].fetch_add(1, Relaxed);
    }

    /// Ends a slice of time, and tells what the window shows now.
    pub fn end_slice(&self) -> Shown {
        let total = Slice {
            requests: self.requests.load(Relaxed),
            failures: self.failures.load(Relaxed),
            latencies: array::from_fn(|index| self.latencies[index].load(Relaxed)),
        };
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.push(total);
        window.shown()
    }

    /// Begins the window anew: what was before an ejection says nothing of what comes after it.
    pub fn forget(&self) {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).slices.clear();
    }
}

/// The totals at the end of a slice of time, or what was added in several.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    requests: u32,
    failures: u32,
    latencies: Counts,
}

/// The totals at the ends of the last slices.
#[derive(Debug, Default)]
struct Window {
    slices: VecDeque<Box<Slice>>,
}

/// What a window shows of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Attempts that ended.
    pub requests: u32,
    /// Those of them that failed.
    pub failures: u32,
    /// The median of how long answers took to begin.
    pub latency: Option<Duration>,
}

impl Window {
    fn push(&mut self, totals: Slice) {
        // The oldest end is where the window begins, so there is one more of them.
        if self.slices.len() <= SLICES {
            self.slices.push_back(Box::new(totals));
        } else if let Some(mut oldest) = self.slices.pop_front() {
            *oldest = totals;
            self.slices.push_back(oldest);
        }
    }

    fn shown(&self) -> Shown {
        let (Some(first), Some(last)) = (self.slices.front(), self.slices.back()) else {
            return Shown::default();
        };
        let latencies =
            array::from_fn(|index| last.latencies[index].wrapping_sub(first.latencies[index]));
        let requests = last.requests.wrapping_sub(first.requests);
        // A request is counted before its failure, but the two are read at two moments.
        let failures = last.failures.wrapping_sub(first.failures).min(requests);
        Shown { requests, failures, latency: histogram::median(&latencies) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(observed: &Observed, requests: u32, failures: u32) -> Shown {
        (0..requests).for_each(|index| observed.count(index < failures));
        observed.end_slice()
    }

    #[test]
    fn a_window_shows_what_its_slices_added_and_nothing_older() {
        let observed = Observed::default();
        observe(&observed, 0, 0);
        for slice in 1..=u32::try_from(SLICES).unwrap() {
            let shown = observe(&observed, 10, 1);
            assert_eq!((shown.requests, shown.failures), (10 * slice, slice));
        }
        let shown = observe(&observed, 4, 4);
        assert_eq!((shown.requests, shown.failures), (94, 13));
        for _ in 0..SLICES {
            observe(&observed, 0, 0);
        }
        assert_eq!(observed.end_slice(), Shown::default());
    }

    #[test]
    fn what_was_before_it_is_forgotten_and_counters_may_wrap() {
        let observed = Observed::default();
        observed.requests.store(u32::MAX - 3, Relaxed);
        observed.end_slice();
        assert_eq!(observe(&observed, 10, 0).requests, 10);
        observed.forget();
        assert_eq!(observe(&observed, 10, 0).requests, 0, "the window begins here");
        observed.time(Duration::from_millis(100));
        let latency = observe(&observed, 1, 0).latency.unwrap();
        assert!(Duration::from_millis(80) < latency && latency < Duration::from_millis(120));
    }
}
