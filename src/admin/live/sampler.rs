//! Reads the counters once a second, and makes figures of them.
//!
//! Routes come and go with configurations, and their counters with them; the sums over all of
//! them are kept here, so that they only grow.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::{
    admin::{
        live::figures::{Pulse, RouteFigures, Second, Start},
        status::{RouteStatus, Status},
    },
    metrics::{BOUNDS, Buckets, Window, percentile},
    observe::requests::Requests,
    reason,
    snapshot::Snapshot,
};

/// Percentiles are of so many seconds.
const WINDOW: usize = 10;
/// So many seconds are remembered.
const HISTORY: usize = 300;
/// Where requests are counted that no route took; no route has such a name.
const UNROUTED: &str = "";
/// The class of a status of 500 or more.
const SERVER_ERRORS: usize = 4;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Sampler {
    last: Option<Look>,
    routes: BTreeMap<String, Seen>,
    all: Option<Window>,
    sum: Buckets,
    history: VecDeque<Second>,
}

/// What had been counted at a look.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    ended: u64,
    failed: u64,
}

/// What was seen of a route.
struct Seen {
    window: Window,
    errors: u64,
}

impl Sampler {
    /// Looks at what was counted.
    pub(super) fn look(&mut self, snapshot: &Snapshot, now: Instant, at: SystemTime) -> Second {
        let mut look = Look { at: now, ended: 0, failed: 0 };
        for (reason, count) in reason::counts() {
            look.ended += count;
            look.failed += if reason.is_failure() { count } else { 0 };
        }
        let errors = self.look_at_routes(snapshot);
        let sum = self.sum;
        let all = self.all.get_or_insert_with(|| Window::over(WINDOW, sum));
        all.look(sum);
        let counts = all.counts();
        let before = self.last.replace(look).unwrap_or(look);
        let span = now.saturating_duration_since(before.at).as_secs_f64();
        let rate = |count: u64| if 0.0 < span { count as f64 / span } else { 0.0 };
        let second = Second {
            at_ms: u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
                .unwrap_or(u64::MAX),
            requests_per_second: rounded(rate(look.ended.saturating_sub(before.ended))),
            failed_per_second: rounded(rate(look.failed.saturating_sub(before.failed))),
            errors_per_second: rounded(rate(errors)),
            p50_ms: millis(percentile(&counts, 0.5)),
            p90_ms: millis(percentile(&counts, 0.9)),
            p99_ms: millis(percentile(&counts, 0.99)),
        };
        if HISTORY <= self.history.len() {
            self.history.pop_front();
        }
        self.history.push_back(second.clone());
        second
    }

    /// Adds what is new, and tells how many answers with a status of 500 or more are.
    fn look_at_routes(&mut self, snapshot: &Snapshot) -> u64 {
        let ledger = &snapshot.ledger;
        let is_first = self.last.is_none();
        let mut seen = std::mem::take(&mut self.routes);
        let mut errors = 0;
        for (name, requests) in ledger.routes().chain([(UNROUTED, &*ledger.unrouted)]) {
            let (now, errors_now) = read(requests);
            let mut route = seen.remove(name).unwrap_or_else(|| {
                // What is new begins at nothing; at the first look, nothing counts as new.
                let (first, errors) =
                    if is_first { (now, errors_now) } else { (Buckets::default(), 0) };
                Seen { window: Window::over(WINDOW, first), errors }
            });
            for (sum, new) in self.sum.iter_mut().zip(route.window.look(now)) {
                *sum += new;
            }
            errors += errors_now.saturating_sub(route.errors);
            route.errors = errors_now;
            self.routes.insert(name.to_owned(), route);
        }
        errors
    }

    /// The routes of a snapshot, with their percentiles.
    pub(super) fn routes(&self, snapshot: &Snapshot) -> Vec<RouteFigures> {
        let routes = RouteStatus::all(snapshot).into_iter().map(|route| {
            let counts = self.routes.get(&route.name).map(|seen| seen.window.counts());
            let at = |share| millis(counts.and_then(|counts| percentile(&counts, share)));
            RouteFigures { p50_ms: at(0.5), p99_ms: at(0.99), route }
        });
        routes.collect()
    }

    /// Everything.
    pub(super) fn start(&self, status: &Status, routes: &[RouteFigures]) -> Start {
        Start {
            status: status.clone(),
            pulse: Pulse::of(status),
            routes: routes.to_vec(),
            history: self.history.iter().cloned().collect(),
        }
    }
}

/// What was counted of a route, whatever the status, and how many were errors.
fn read(requests: &Requests) -> (Buckets, u64) {
    let mut sum = [0; BOUNDS.len() + 1];
    let classes = requests.read();
    for class in &classes {
        for (sum, count) in sum.iter_mut().zip(class.buckets) {
            *sum += count;
        }
    }
    (sum, classes[SERVER_ERRORS].count())
}

fn millis(took: Option<Duration>) -> Option<f64> {
    took.map(|took| rounded(took.as_secs_f64() * 1_000.0))
}

/// To three places: nobody reads more, and every watcher is sent it.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{diagnostic::Problems, snapshot};

    fn snapshot(predecessor: Option<&Snapshot>, route: &str) -> Snapshot {
        let text = format!(
            "upstreams: {{ app: {{ backends: [127.0.0.1:1] }} }}\n\
             routes: [{{ name: {route}, upstream: app }}]\n"
        );
        let mut problems = Problems::default();
        let compiled = snapshot::compile(&text, &mut problems).unwrap();
        let Some(predecessor) = predecessor else { return compiled };
        snapshot::assemble(compiled.file, Some(predecessor), &mut problems)
    }

    #[test]
    fn figures_are_of_what_is_new_whatever_routes_come_and_go() {
        let first = snapshot(None, "old");
        let of = |snapshot: &Snapshot, status, times| {
            let (_, requests) = snapshot.ledger.routes().next().unwrap();
            (0..times).for_each(|_| requests.count(status, Duration::from_micros(1_750)));
        };
        let (mut sampler, start, at) = (Sampler::default(), Instant::now(), SystemTime::now());
        of(&first, 500, 100);
        let second = sampler.look(&first, start, at);
        assert_eq!((second.errors_per_second, second.p50_ms), (0.0, None), "that was before");

        of(&first, 503, 10);
        let second = sampler.look(&first, start + Duration::from_secs(2), at);
        assert_eq!((second.errors_per_second, second.p50_ms), (5.0, Some(1.75)));
        assert_eq!(sampler.routes(&first)[0].p50_ms, Some(1.75));

        let next = snapshot(Some(&first), "new");
        of(&next, 200, 30);
        first.ledger.unrouted.count(404, Duration::from_secs(2));
        let second = sampler.look(&next, start + Duration::from_secs(3), at);
        assert_eq!((second.errors_per_second, second.p99_ms.unwrap() > 1_000.0), (0.0, true));
        let routes = sampler.routes(&next);
        assert_eq!((&*routes[0].route.name, routes[0].p50_ms), ("new", Some(1.75)));
        assert_eq!(sampler.history.len(), 3);
        assert_eq!(sampler.routes.len(), 2, "the old route is forgotten");
    }
}
