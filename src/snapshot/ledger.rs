//! What is counted of the requests of each route, whatever configuration has it.

use std::{collections::BTreeMap, sync::Arc};

use crate::observe::{recorder::Recorder, requests::Requests};

/// The counts by the names of routes, handed on from one configuration to the next.
#[derive(Debug, Default)]
pub struct Ledger {
    routes: BTreeMap<String, Arc<Requests>>,
    /// Requests that no route took, malformed ones among them.
    pub unrouted: Arc<Requests>,
    /// The stories of those that failed, were refused, or were slow.
    pub recorder: Arc<Recorder>,
}

impl Ledger {
    /// Goes on with what a predecessor counted, for routes of these names.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>, predecessor: Option<&Self>) -> Self {
        let counts = |name: &str| {
            let known = predecessor.and_then(|old| old.routes.get(name));
            (name.to_owned(), known.cloned().unwrap_or_default())
        };
        let unrouted = predecessor.map(|old| old.unrouted.clone()).unwrap_or_default();
        let recorder = predecessor.map(|old| old.recorder.clone()).unwrap_or_default();
        Self { routes: names.map(counts).collect(), unrouted, recorder }
    }

    /// Where the requests of a route are counted.
    pub(super) fn requests(&self, name: &str) -> Arc<Requests> {
        self.routes.get(name).cloned().unwrap_or_default()
    }

    /// The counts of all routes, by name.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &Requests)> {
        self.routes.iter().map(|(name, requests)| (name.as_str(), &**requests))
    }
}
