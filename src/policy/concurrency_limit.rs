//! So many requests at the same time, for each client or whatever else they are counted by.

use std::sync::Arc;

use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::{
        contract::{Build, Flow, Hooks, Request, Written},
        exchange::HELD_MAX,
        key::{self, Key},
        meter::{Meter, Metering},
        places::{COUNT_MAX, Place, Places},
        rate_limit,
    },
    reason::Reason,
    reply::Reply,
    units,
};

/// So many requests at the same time, for each client or whatever `by` names; a request is under
/// way until its answer is whole, or its connection that was upgraded ends. Those over it get
/// `429`. Counts outlive reloads, but not an upgrade.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConcurrencyLimit")]
pub struct Config {
    /// What requests are told apart by, each combination counted for itself. Default: `[client]`.
    #[serde(default = "key::client")]
    pub by: key::Written,
    /// How many may be under way.
    #[serde(deserialize_with = "max")]
    #[schemars(range(min = 1, max = 65_535))]
    pub max: u64,
    /// How many keys are counted at a time, each in 8 bytes. Where there are more, some requests
    /// are not counted, and pass. Default: `65536`.
    #[serde(default = "rate_limit::keys_default", deserialize_with = "rate_limit::keys")]
    #[schemars(range(min = 64, max = 4_194_304))]
    pub keys_max: usize,
    /// Whether requests over it go on and are only counted, as `spared`. Default: `false`.
    #[serde(default)]
    pub dry_run: bool,
}

fn max<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    units::in_range(deserializer, 1..=COUNT_MAX)
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    key: Key,
    max: u64,
    counts: Arc<Counts>,
    dry_run: bool,
}

/// What is counted, over reloads.
#[derive(Debug)]
struct Counts {
    keys_max: usize,
    places: Arc<Places>,
    meter: Meter,
}

impl Config {
    /// Finds what was counted before.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if HELD_MAX <= cx.turn() {
            let help = format!("a route may have {HELD_MAX} of them");
            cx.problem("too many limits of requests at the same time", help);
            return None;
        }
        let key = Key::build(&self.by, cx)?;
        let keys_max = self.keys_max;
        let places = || Arc::new(Places::new(keys_max));
        let counts = cx.state(
            |old: &Counts| old.keys_max == keys_max,
            || Counts { keys_max, places: places(), meter: Meter::default() },
        );
        Some(Policy { key, max: self.max, counts, dry_run: self.dry_run })
    }
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let Counts { places, meter, .. } = &*self.counts;
        match places.take(&self.key, &request.facts, self.max) {
            Place::Held(place) => {
                if !request.notes.hold(places.clone(), place) {
                    meter.full.increment();
                }
                meter.admitted.increment();
                Flow::Continue
            }
            Place::Uncounted => {
                meter.full.increment();
                meter.admitted.increment();
                Flow::Continue
            }
            Place::Full if self.dry_run => {
                meter.spared.increment();
                Flow::Continue
            }
            Place::Full => {
                meter.refused.increment();
                request.notes.reason = Some(Reason::TooManyAtOnce);
                Flow::Respond(Reply::status(429).with(RETRY_AFTER, 1.into()))
            }
        }
    }

    fn meter(&self) -> Option<Metering<'_>> {
        Some(Metering { meter: &self.counts.meter, has_store: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    fn of(yaml: &str) -> Policy {
        build(yaml, |config: &Config, cx| config.build(cx))
    }

    #[test]
    fn a_place_is_held_until_the_request_ends() {
        let policy = of("{ max: 2 }");
        let ask = |client: &str| Given::request("GET", "/").from(client).ask(&policy);
        let (first, second) = (ask("192.0.2.1"), ask("192.0.2.1"));
        let Flow::Respond(reply) = ask("192.0.2.1").0 else { panic!("there are two") };
        assert_eq!((reply.status.as_u16(), reply.fields.len()), (429, 1));
        assert!(matches!(ask("192.0.2.2").0, Flow::Continue), "another client");
        drop(first);
        let third = ask("192.0.2.1");
        assert!(matches!(third.0, Flow::Continue));
        drop((second, third));
        assert_eq!(policy.counts.meter.admitted.get(), 4);
        assert_eq!(policy.counts.meter.refused.get(), 1);
    }

    #[test]
    fn a_dry_run_counts_and_lets_pass() {
        let policy = of("{ by: [route], max: 1, dry_run: true }");
        let held = Given::request("GET", "/").ask(&policy);
        assert_eq!(Given::request("GET", "/").refused(&policy), None);
        assert_eq!(policy.counts.meter.spared.get(), 1);
        drop(held);
    }

    #[test]
    fn a_key_of_nothing_is_refused() {
        let told = problems("{ by: [], max: 1 }", |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["by what requests are counted is not said"]);
    }
}
