//! What is told of one second, and of all.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    admin::status::{RouteStatus, Status, UpstreamStatus},
    drain::{Load, State},
    overload::Level,
    panics::Panics,
    reason,
};

/// All requests of the process in one second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Second {
    /// Its end, in milliseconds since 1970.
    pub at_ms: u64,
    /// Requests that ended, a second.
    pub requests_per_second: f64,
    /// Those of them that ended for a reason that is a failure, a second.
    pub failed_per_second: f64,
    /// Answers with a status of 500 or more, a second, whoever gave them.
    pub errors_per_second: f64,
    /// What half of the requests of the last ten seconds took at most, in milliseconds; `null` if
    /// there were none.
    pub p50_ms: Option<f64>,
    /// The same for 90 % of them.
    pub p90_ms: Option<f64>,
    /// The same for 99 % of them.
    pub p99_ms: Option<f64>,
}

/// A route, and how long its requests took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteFigures {
    /// The route.
    #[serde(flatten)]
    pub route: RouteStatus,
    /// What half of its requests of the last ten seconds took at most, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The same for 99 % of them.
    pub p99_ms: Option<f64>,
}

/// How the process is, in each second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pulse {
    /// How long it has been serving.
    pub uptime_seconds: u64,
    /// Whether it serves.
    pub state: State,
    /// Why it should not be sent clients; nothing if it should.
    pub unready: Vec<String>,
    /// What is in flight.
    pub in_flight: Load,
    /// Whether there is too much to do.
    pub overload: Level,
    /// Panics since the process began.
    pub panics: Panics,
    /// How often requests ended for each reason since the process began.
    pub reasons: BTreeMap<String, u64>,
}

impl Pulse {
    pub(super) fn of(status: &Status) -> Self {
        let reasons = reason::counts().map(|(reason, count)| (reason.as_str().to_owned(), count));
        Self {
            uptime_seconds: status.uptime_seconds,
            state: status.state,
            unready: status.unready.clone(),
            in_flight: status.in_flight,
            overload: status.overload,
            panics: status.panics,
            reasons: reasons.collect(),
        }
    }
}

/// Everything: what a watcher is told first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LiveStart")]
pub struct Start {
    /// What runs.
    pub status: Status,
    /// How it is.
    pub pulse: Pulse,
    /// All routes, by name.
    pub routes: Vec<RouteFigures>,
    /// The last five minutes, the oldest second first.
    pub history: Vec<Second>,
}

/// What is new since the last event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LiveSecond")]
pub struct Tick {
    /// The second that has passed.
    pub second: Second,
    /// How the process is.
    pub pulse: Pulse,
    /// Upstreams that have changed, of their backends only those that have.
    pub upstreams: Vec<UpstreamStatus>,
    /// Routes that have changed.
    pub routes: Vec<RouteFigures>,
}
