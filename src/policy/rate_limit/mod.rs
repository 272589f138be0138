//! So many requests in a time, for each client or whatever else they are counted by.

mod shared;
mod window;

use std::{hash::RandomState, iter, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header::RETRY_AFTER};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    clock,
    policy::{
        allowance::{Forgot, Standing, Table, Taken},
        contract::{Build, Facts, Flow, Hooks, Notes, Request, Written},
        key::{self, Key},
        meter::{Meter, Metering},
        rate_limit::{shared::Store, window::Window},
    },
    reason::Reason,
    reply::Reply,
    units,
    yaml::{Short, Spanned},
};

/// A limit may have so many windows.
const WINDOWS_MAX: usize = 4;

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// So many requests in a time, such as `{ rates: [10/s, 1000/h] }`, for each client or whatever
/// `by` names. Those over it get `429` with `Retry-After`. Counts outlive reloads, but not an
/// upgrade.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimit")]
pub struct Config {
    /// What requests are told apart by, each combination with an allowance of its own.
    /// Default: `[client]`.
    #[serde(default = "key::client")]
    pub by: key::Written,
    /// The windows, such as `[10/s, { rate: 1000/h, burst: 50 }]`: one to four, and a request must
    /// be within each of them.
    pub rates: Spanned<Vec<Short<window::Config>>>,
    /// How many keys are remembered at a time, each in 16 bytes for every window. Where there are
    /// more, those with the smallest debt are forgotten. Default: `65536`.
    #[serde(default = "keys_default", deserialize_with = "keys")]
    #[schemars(range(min = 64, max = 4_194_304))]
    pub keys_max: usize,
    /// Who is told of the limit by `RateLimit` and `RateLimit-Policy`
    /// (draft-ietf-httpapi-ratelimit-headers-10). Default: `refused`.
    #[serde(default)]
    pub fields: Fields,
    /// Whether requests over it go on and are only counted, as `spared`. Default: `false`.
    #[serde(default)]
    pub dry_run: bool,
    /// A store that several processes share the counts in. Default: none, each counts for itself.
    #[serde(default)]
    pub store: Option<shared::Config>,
}

/// Who is told of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fields {
    /// Nobody.
    Never,
    /// Those who are over it.
    #[default]
    Refused,
    /// Everybody; this costs an allocation for each request.
    Always,
}

/// How many keys a table has, if nothing is said.
pub(super) fn keys_default() -> usize {
    65_536
}

/// Reads how many keys a table has.
pub(super) fn keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    units::in_range(deserializer, 64..=4_194_304)
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    key: Key,
    windows: Box<[Window]>,
    counts: Arc<Counts>,
    fields: Fields,
    /// The value of `RateLimit-Policy`.
    told: HeaderValue,
    dry_run: bool,
}

/// What is counted, over reloads.
#[derive(Debug)]
struct Counts {
    shape: Shape,
    /// One for each window.
    tables: Box<[Table]>,
    meter: Meter,
    store: Option<Store>,
}

/// What a successor must have in common to go on with the counts.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    windows: usize,
    keys_max: usize,
    store: Option<shared::Config>,
}

/// What became of a request, in the window that is closest to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    window: usize,
    standing: Standing,
    /// When there is an allowance again, if there was none.
    again_after: Option<Duration>,
}

impl Config {
    /// Makes the windows ready, and finds what was counted before.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let key = Key::build(&self.by, cx);
        let span = self.rates.span;
        if self.rates.is_empty() || WINDOWS_MAX < self.rates.len() {
            let help = "write one to four, such as `[10/s, 1000/h]`";
            cx.problem_at(span, format!("{} windows", self.rates.len()), help);
            return None;
        }
        let windows: Option<Vec<Window>> = self.rates.iter().map(|rate| rate.0.build()).collect();
        let Some(windows) = windows else {
            cx.problem_at(span, "a burst of 0 lets nobody in", "write at least `burst: 1`");
            return None;
        };
        let store = match &self.store {
            Some(store) => Some(store.build(cx)?),
            None => None,
        };
        let shape =
            Shape { windows: windows.len(), keys_max: self.keys_max, store: self.store.clone() };
        let counts =
            cx.state(|old: &Counts| old.shape == shape, || Counts::new(shape.clone(), store));
        let told: Vec<String> = windows.iter().map(Window::policy).collect();
        Some(Policy {
            key: key?,
            told: HeaderValue::try_from(told.join(", ")).ok()?,
            windows: windows.into(),
            counts,
            fields: self.fields,
            dry_run: self.dry_run,
        })
    }
}

impl Counts {
    fn new(shape: Shape, store: Option<Store>) -> Self {
        let hasher = RandomState::new();
        let table = || Table::new(shape.keys_max, hasher.clone());
        let tables = iter::repeat_with(table).take(shape.windows).collect();
        Self { shape, tables, meter: Meter::default(), store }
    }
}

impl Policy {
    /// Counts a request in this process.
    fn take_here(&self, facts: &Facts<'_>) -> Outcome {
        let now = clock::nanos(Instant::now());
        let tag = self.counts.tables[0].tag(&self.key, facts);
        let each = || self.windows.iter().zip(&self.counts.tables).enumerate();
        let mut tightest: Option<Outcome> = None;
        for (window, (Window { pace, .. }, table)) in each() {
            let (taken, Forgot(someone)) = table.take(tag, *pace, now);
            if someone {
                self.counts.meter.full.increment();
            }
            match taken {
                Taken::Yes(standing) => {
                    let outcome = Outcome { window, standing, again_after: None };
                    let is_tighter = |other: &Outcome| standing.left < other.standing.left;
                    if tightest.as_ref().is_none_or(is_tighter) {
                        tightest = Some(outcome);
                    }
                }
                Taken::No { again_after, standing } => {
                    for (_, (Window { pace, .. }, table)) in each().take(window) {
                        table.give_back(tag, pace.interval);
                    }
                    return Outcome { window, standing, again_after: Some(again_after) };
                }
            }
        }
        tightest.unwrap_or(Outcome { window: 0, standing: Standing::NONE, again_after: None })
    }

    /// Counts it in the store, or here while that is away.
    async fn take(&self, facts: &Facts<'_>) -> Outcome {
        let Some(store) = &self.counts.store else { return self.take_here(facts) };
        let meter = &self.counts.meter;
        match Box::pin(store.take(&self.key, &self.windows, facts, meter)).await {
            Some(outcome) => outcome,
            None => self.take_here(facts),
        }
    }

    fn tell(&self, outcome: Outcome) -> [(HeaderName, HeaderValue); 2] {
        let left = self.windows[outcome.window].left(outcome.standing);
        [(RATE_LIMIT_POLICY.clone(), self.told.clone()), (RATE_LIMIT.clone(), left)]
    }

    fn admit(&self, outcome: Outcome, notes: &mut Notes) -> Flow {
        if self.fields == Fields::Always {
            notes.to_client.extend(self.tell(outcome));
        }
        Flow::Continue
    }
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let outcome = self.take(&request.facts).await;
        let meter = &self.counts.meter;
        let Some(again_after) = outcome.again_after else {
            meter.admitted.increment();
            return self.admit(outcome, request.notes);
        };
        if self.dry_run {
            meter.spared.increment();
            return Flow::Continue;
        }
        meter.refused.increment();
        request.notes.reason = Some(Reason::RateLimited);
        // Rounded up: who comes back at that time is let in.
        let seconds = again_after.as_nanos().div_ceil(1_000_000_000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        let mut reply = Reply::status(429).with(RETRY_AFTER, seconds.into());
        if self.fields != Fields::Never {
            reply.fields.extend(self.tell(outcome));
        }
        Flow::Respond(reply)
    }

    fn meter(&self) -> Option<Metering<'_>> {
        Some(Metering { meter: &self.counts.meter, has_store: self.counts.store.is_some() })
    }
}
