//! A line of the table: an upstream, or one of its backends.

use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
};

use crate::{
    admin::status::{BackendStatus, UpstreamStatus},
    cli::top::world::Order,
    upstream::backend::Availability,
};

/// Rates are over so many looks.
const LOOKS: usize = 6;

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// An upstream, or one of its backends.
    pub(super) name: String,
    /// What the backend may do; `None` for an upstream.
    pub(super) state: Option<Availability>,
    /// How many backends of an upstream are in service, of how many.
    pub(super) in_service: (usize, usize),
    pub(super) weight: u16,
    pub(super) in_flight: u64,
    pub(super) per_second: f64,
    pub(super) failed: u64,
    pub(super) failed_per_second: f64,
    pub(super) error: String,
}

impl Row {
    /// The row of an upstream, and those of its backends.
    pub(super) fn group(upstream: &UpstreamStatus, meters: &Meters) -> (Self, Vec<Self>) {
        let rows: Vec<Self> =
            upstream.backends.iter().map(|one| Self::of(upstream, one, meters)).collect();
        let fit =
            |row: &&Self| matches!(row.state, Some(Availability::Ready | Availability::Trial));
        let waiting = upstream.load.as_ref().map_or(0, |load| load.waiting);
        let whole = Self {
            name: upstream.name.clone(),
            state: None,
            in_service: (rows.iter().filter(fit).count(), rows.len()),
            weight: 0,
            in_flight: rows.iter().map(|row| row.in_flight).sum(),
            per_second: rows.iter().map(|row| row.per_second).sum(),
            failed: rows.iter().map(|row| row.failed).sum(),
            failed_per_second: rows.iter().map(|row| row.failed_per_second).sum(),
            error: if waiting == 0 { String::new() } else { format!("{waiting} wait for a place") },
        };
        (whole, rows)
    }

    fn of(upstream: &UpstreamStatus, backend: &BackendStatus, meters: &Meters) -> Self {
        let last = [(&backend.last_failure, "request"), (&backend.last_check_failure, "check")];
        let last = last.into_iter().filter_map(|(last, of)| Some((last.as_ref()?, of)));
        let last = last.max_by(|(one, _), (other, _)| one.at.cmp(&other.at));
        let (per_second, failed_per_second) = meters.rates(upstream, backend);
        Self {
            name: backend.address.clone(),
            state: Some(backend.availability),
            in_service: (0, 0),
            weight: backend.weight,
            in_flight: backend.in_flight.into(),
            per_second,
            failed: backend.failures,
            failed_per_second,
            error: last
                .map(|(last, of)| format!("{of}: {}, at {}", last.what, last.at))
                .unwrap_or_default(),
        }
    }

    /// Which of two comes first.
    pub(super) fn compare(&self, other: &Self, order: Order) -> Ordering {
        let by = |row: &Self| match order {
            Order::Load => [row.in_flight as f64, row.per_second],
            Order::Errors => [row.failed_per_second, row.failed as f64],
            Order::Name => [0.0, 0.0],
        };
        let ([one, then_one], [two, then_two]) = (by(self), by(other));
        two.total_cmp(&one)
            .then(then_two.total_cmp(&then_one))
            .then_with(|| self.name.cmp(&other.name))
    }
}

/// How fast attempts and failures of backends grow.
#[derive(Debug, Default)]
pub(super) struct Meters(HashMap<(String, String), VecDeque<Look>>);

#[derive(Clone, Copy, Debug)]
struct Look {
    at_ms: u64,
    attempts: u64,
    failures: u64,
}

impl Meters {
    /// Notes how far all that is counted has come; what is gone is forgotten.
    pub(super) fn look(&mut self, at_ms: u64, upstreams: &[UpstreamStatus]) {
        let mut before = std::mem::take(&mut self.0);
        for upstream in upstreams {
            for backend in &upstream.backends {
                let BackendStatus { attempts, failures, .. } = *backend;
                let key = key(upstream, backend);
                let mut looks = before.remove(&key).unwrap_or_default();
                if looks.back().is_some_and(|last| attempts < last.attempts) {
                    looks.clear(); // it is counted anew
                }
                if looks.back().is_none_or(|last| last.at_ms < at_ms) {
                    looks.push_back(Look { at_ms, attempts, failures });
                }
                if LOOKS < looks.len() {
                    looks.pop_front();
                }
                self.0.insert(key, looks);
            }
        }
    }

    /// Attempts and failures a second.
    fn rates(&self, upstream: &UpstreamStatus, backend: &BackendStatus) -> (f64, f64) {
        let looks = self.0.get(&key(upstream, backend));
        let Some((first, last)) = looks.and_then(|looks| looks.front().zip(looks.back())) else {
            return (0.0, 0.0);
        };
        let span = last.at_ms.saturating_sub(first.at_ms);
        if span == 0 {
            return (0.0, 0.0);
        }
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 * 1_000.0 / span as f64;
        (rate(first.attempts, last.attempts), rate(first.failures, last.failures))
    }
}

fn key(upstream: &UpstreamStatus, backend: &BackendStatus) -> (String, String) {
    (upstream.name.clone(), backend.address.clone())
}
