//! How the requests of a route ended: by class of status, and how long they took.

use std::time::Duration;

use crate::metrics::{Durations, Reading};

/// The classes of statuses, in their order.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts the requests of a route for as long as any configuration has it.
#[derive(Debug, Default)]
pub struct Requests(Durations<{ CLASSES.len() }>);

impl Requests {
    /// Counts a request that ended with this status, after so long.
    pub fn count(&self, status: u16, took: Duration) {
        self.0.record(usize::from(status / 100).saturating_sub(1), took);
    }

    /// What was counted, by class.
    pub fn read(&self) -> [Reading; CLASSES.len()] {
        std::array::from_fn(|class| self.0.read(class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_counted_by_their_class() {
        let requests = Requests::default();
        for status in [101, 200, 299, 304, 404, 499, 500, 599, 999] {
            requests.count(status, Duration::from_millis(1));
        }
        assert_eq!(requests.read().map(|read| read.count()), [1, 2, 1, 2, 3]);
    }
}
