//! How requests ended: the counts by which one configuration is weighed against another.

use crate::counter::Counter;

/// Counts answers, and those among them that blame this side: statuses from 500 on.
#[derive(Debug, Default)]
pub struct Tally {
    answers: Counter,
    failures: Counter,
}

/// A reading of a [`Tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that ended.
    pub answers: u64,
    /// Those with a status from 500 on.
    pub failures: u64,
}

impl Tally {
    /// Counts a request that ended with this status.
    pub fn count(&self, status: u16) {
        self.answers.increment();
        if 500 <= status {
            self.failures.increment();
        }
    }

    /// Reads the counts.
    pub fn get(&self) -> Count {
        Count { answers: self.answers.get(), failures: self.failures.get() }
    }
}

impl Count {
    /// The share of failures, 0 to 1; none of nothing.
    pub fn share(self) -> f64 {
        if self.answers == 0 { 0.0 } else { self.failures as f64 / self.answers as f64 }
    }

    /// What came after an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            answers: self.answers.saturating_sub(earlier.answers),
            failures: self.failures.saturating_sub(earlier.failures),
        }
    }
}
