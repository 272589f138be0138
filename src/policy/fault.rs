//! Faults on purpose, to see what clients and dashboards make of them.

use std::time::Duration as Time;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use tokio::time;

use crate::{
    field::{Lookup, Value},
    policy::contract::{Build, Facts, Flow, Hooks, Request, Written},
    reason::Reason,
    reply::Reply,
    units::{self, Duration, Percent},
};

/// Delays requests, or answers them with an error, on purpose: a share of all, or those with a
/// header field. Refused unless `allow_faults: true` stands at the top of the file, so that none is
/// left behind in a configuration by mistake.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Fault")]
pub struct Config {
    /// How long they wait before they go on. Default: not at all.
    #[serde(deserialize_with = "units::lasting")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub delay: Option<Duration>,
    /// The status that they get instead of being sent on, after the delay. Default: none.
    #[serde(deserialize_with = "status")]
    #[schemars(range(min = 400, max = 599))]
    pub abort: Option<u16>,
    /// The share of requests that it is done to, chosen by chance. Default: `100%`.
    pub share: Percent,
    /// The field that a request must have for it. Default: none.
    pub header: Option<WantedField>,
}

/// A field that a request must have.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FaultField")]
pub struct WantedField {
    /// Its name.
    pub name: Lookup,
    /// Its value. Default: any.
    #[serde(default)]
    pub value: Option<Value>,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    units::in_range(deserializer, 400..=599).map(Some)
}

impl Default for Config {
    fn default() -> Self {
        Self { delay: None, abort: None, share: Percent::new(100), header: None }
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    delay: Option<Time>,
    abort: Option<u16>,
    share: f64,
    header: Option<(HeaderName, Option<HeaderValue>)>,
}

impl Config {
    /// Makes it ready, if the file allows faults.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if !cx.allow_faults {
            let help = "write `allow_faults: true` at the top of the file, or remove the policy";
            cx.problem("faults are not allowed here", help);
            return None;
        }
        if self.delay.is_none() && self.abort.is_none() {
            cx.problem("this `fault` does nothing", "write `delay: 200ms` or `abort: 503`");
            return None;
        }
        let header = self.header.as_ref();
        let header = header.map(|field| (field.name.0.clone(), field.value.clone().map(|v| v.0)));
        let (delay, share) = (self.delay.map(|delay| delay.0), self.share.as_fraction());
        Some(Policy { delay, abort: self.abort, share, header })
    }
}

impl Policy {
    fn is_meant(&self, facts: &Facts<'_>) -> bool {
        let has_field = self.header.as_ref().is_none_or(|(name, wanted)| {
            let mut values = facts.headers().get_all(name).iter();
            values.any(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
        });
        has_field && fastrand::f64() < self.share
    }
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        if !self.is_meant(&request.facts) {
            return Flow::Continue;
        }
        if let Some(delay) = self.delay {
            Box::pin(time::sleep(delay)).await;
        }
        let Some(status) = self.abort else { return Flow::Continue };
        request.notes.reason = Some(Reason::Fault);
        Flow::Respond(Reply::status(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    #[test]
    fn a_share_of_those_with_the_field_is_aborted() {
        let config = "{ abort: 503, header: { name: x-fault, value: \"1\" } }";
        let policy = build(config, |config: &Config, cx| config.build(cx));
        let with = |value| Given::request("GET", "/").field("x-fault", value).refused(&policy);
        assert_eq!(with("1"), Some(503));
        assert_eq!(with("2"), None);
        assert_eq!(Given::request("GET", "/").refused(&policy), None);

        fastrand::seed(7);
        let policy = build("{ abort: 500, share: 25% }", |config: &Config, cx| config.build(cx));
        let given = Given::request("GET", "/");
        let aborted = (0..4_000).filter(|_| given.refused(&policy).is_some()).count();
        assert!((900..=1_100).contains(&aborted), "{aborted}");
    }

    #[test]
    fn one_that_does_nothing_is_refused() {
        let told = problems("{}", |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["this `fault` does nothing"]);
    }
}
