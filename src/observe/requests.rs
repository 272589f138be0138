//! How the requests of a route ended: by class of status, and how long they took.

use std::{sync::OnceLock, time::Duration};

use crate::{
    metrics::{Durations, Exemplar, Exemplars, Reading},
    observe::traced::Traced,
};

/// The classes of statuses, in their order.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts the requests of a route for as long as any configuration has it.
#[derive(Debug, Default)]
pub struct Requests {
    durations: Durations<{ CLASSES.len() }>,
    /// Of each class, made with its first.
    exemplars: [OnceLock<Box<Exemplars>>; CLASSES.len()],
}

impl Requests {
    /// Counts a request that ended with this status, after so long.
    pub fn count(&self, status: u16, took: Duration) {
        self.durations.record(class(status), took);
    }

    /// Has a request that was counted stand for others like it, by the ids by which it can be
    /// looked up: for those that are traced, or kept by the recorder.
    pub fn show(&self, status: u16, took: Duration, id: &[u8], traced: Option<Traced>) {
        let trace = traced.map(|traced| traced.trace.to_string());
        let id = str::from_utf8(id).ok().map(|id| ("request_id", id));
        let labels = trace.as_deref().map(|trace| ("trace_id", trace)).into_iter().chain(id);
        let labels: Vec<_> = labels.collect();
        if let Some(exemplar) = Exemplar::new(&labels, took) {
            self.exemplars[class(status)].get_or_init(Box::default).show(exemplar);
        }
    }

    /// What stands for the requests of each class.
    pub fn exemplars(&self) -> [Option<&Exemplars>; CLASSES.len()] {
        self.exemplars.each_ref().map(|exemplars| exemplars.get().map(|all| &**all))
    }

    /// What was counted, by class.
    pub fn read(&self) -> [Reading; CLASSES.len()] {
        std::array::from_fn(|class| self.durations.read(class))
    }
}

/// The place of a status among the classes.
fn class(status: u16) -> usize {
    usize::from(status / 100).saturating_sub(1).min(CLASSES.len() - 1)
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
