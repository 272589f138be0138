//! What the limits of a route count.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::{
    counter::Counter,
    metrics::{Family, Page},
};

const REQUESTS: Family<3> = Family::counter(
    "crestline_limit_requests_total",
    "Requests that a limit looked at, by route and verdict; `spared` ones were over it in a dry run",
    ["route", "policy", "verdict"],
);
const FULL: Family<2> = Family::counter(
    "crestline_limit_table_full_total",
    "Times that the table of a limit was full, so that a key was forgotten early or not counted",
    ["route", "policy"],
);
const STORE_UP: Family<2> = Family::gauge(
    "crestline_limit_store_up",
    "Whether the store that a limit shares with other processes answers",
    ["route", "policy"],
);
const STORE_FAILURES: Family<2> = Family::counter(
    "crestline_limit_store_failures_total",
    "Questions to such a store that had no answer, or none in time",
    ["route", "policy"],
);

/// What one limit counts, over reloads.
#[derive(Debug, Default)]
pub struct Meter {
    /// Requests that were within it.
    pub admitted: Counter,
    /// Requests that were over it.
    pub refused: Counter,
    /// Requests that were over it, and went on in a dry run.
    pub spared: Counter,
    /// Times that its table was full.
    pub full: Counter,
    /// Questions to its store that failed.
    pub store_failures: Counter,
    /// Whether its store is away; `false` where it has none.
    pub store_is_away: AtomicBool,
}

/// What a limit shows.
#[derive(Clone, Copy, Debug)]
pub struct Metering<'a> {
    /// What it counted.
    pub meter: &'a Meter,
    /// Whether it has a store.
    pub has_store: bool,
}

/// A limit on its route.
#[derive(Clone, Debug)]
pub struct Metered<'a> {
    /// The route.
    pub route: &'a str,
    /// The policy, with its turn if there are several of the kind: `rate_limit`, `rate_limit_2`.
    pub policy: &'a str,
    /// What it shows.
    pub shown: Metering<'a>,
}

/// Writes what the limits counted.
pub fn collect(limits: &[Metered<'_>], page: &mut Page) {
    let mut requests = page.family(&REQUESTS);
    for Metered { route, policy, shown: Metering { meter, .. } } in limits {
        requests.add([route, policy, "admitted"], meter.admitted.get());
        requests.add([route, policy, "refused"], meter.refused.get());
        requests.add([route, policy, "spared"], meter.spared.get());
    }
    let mut full = page.family(&FULL);
    for Metered { route, policy, shown: Metering { meter, .. } } in limits {
        full.add([route, policy], meter.full.get());
    }
    let stored = || limits.iter().filter(|limit| limit.shown.has_store);
    let mut up = page.family(&STORE_UP);
    for Metered { route, policy, shown: Metering { meter, .. } } in stored() {
        up.add([route, policy], !meter.store_is_away.load(Relaxed));
    }
    let mut failures = page.family(&STORE_FAILURES);
    for Metered { route, policy, shown: Metering { meter, .. } } in stored() {
        failures.add([route, policy], meter.store_failures.get());
    }
}
