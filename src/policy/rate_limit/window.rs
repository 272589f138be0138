//! One window of a limit: so many requests in a time, and how clients are told.

use std::str::FromStr;

use http::HeaderValue;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    policy::allowance::{Pace, Standing},
    units::{Rate, UnitError},
    yaml::Word,
};

/// How many requests in a time, such as `10/s`; or the same with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateWindow")]
pub struct Config {
    /// How many requests in which time, such as `10/s`, `100/m` or `1000/h`. They are let in
    /// evenly: with `60/m`, one more each second.
    pub rate: Rate,
    /// How many may come at once, if none came before. Default: as many as `rate` names.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
}

impl FromStr for Config {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.parse().map(|rate| Self { rate, burst: None })
    }
}

impl Word for Config {
    fn word(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Rate>()
    }
}

/// A window, made ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// As it is written, which is its name in the fields.
    pub name: String,
    /// What is counted.
    pub pace: Pace,
}

impl Config {
    /// Makes it ready; `None` for a burst of nothing.
    pub fn build(self) -> Option<Window> {
        let burst = self.burst.unwrap_or(self.rate.count.get());
        let period = u64::try_from(self.rate.per.duration().as_nanos()).unwrap_or(u64::MAX);
        let interval = (period / u64::from(self.rate.count.get())).max(1);
        let pace = Pace { interval, burst };
        (0 < burst).then(|| Window { name: self.rate.to_string(), pace })
    }
}

impl Window {
    /// Its part of `RateLimit-Policy`: what can be had in which time (draft-ietf-httpapi-
    /// ratelimit-headers-10 §3).
    pub fn policy(&self) -> String {
        let seconds = self.pace.debt_max().div_ceil(1_000_000_000);
        format!("\"{}\";q={};w={seconds}", self.name, self.pace.burst)
    }

    /// The value of `RateLimit`: what is left, and when all is there again (§4).
    pub fn left(&self, standing: Standing) -> HeaderValue {
        let seconds = standing.whole_after.as_nanos().div_ceil(1_000_000_000);
        let text = format!("\"{}\";r={};t={seconds}", self.name, standing.left);
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_window_lets_in_evenly() {
        let window = |text: &str| text.parse::<Config>().unwrap().build().unwrap();
        assert_eq!(window("10/s").pace, Pace { interval: 100_000_000, burst: 10 });
        assert_eq!(window("60/m").pace, Pace { interval: 1_000_000_000, burst: 60 });
        assert_eq!(window("4000000000/s").pace.interval, 1, "never zero");
        let none = Config { rate: "1/s".parse().unwrap(), burst: Some(0) };
        assert_eq!(none.build(), None);
    }

    #[test]
    fn clients_are_told_in_the_words_of_the_draft() {
        let window = Config { rate: "100/m".parse().unwrap(), burst: Some(20) }.build().unwrap();
        assert_eq!(window.policy(), "\"100/m\";q=20;w=12");
        let standing = Standing { left: 3, whole_after: Duration::from_millis(1_001) };
        assert_eq!(window.left(standing), "\"100/m\";r=3;t=2");
    }
}
