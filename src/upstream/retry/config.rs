//! Retries as the operator writes them.

use std::{num::ParseIntError, str::FromStr};

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    diagnostic::{Problem, Problems, suggest_among},
    field::Lookup,
    units::{self, ByteSize, Duration, Percent, Rate},
    upstream::retry::{
        budget::Share,
        pause::Backoff,
        policy::{Conditions, Policy},
    },
    yaml::{self, Spanned, Word},
};

/// Retries beyond this many serve nobody: Pingora makes 16 attempts at most.
const MAX: u8 = 10;
/// What Pingora keeps of a body.
const BUFFER_MAX: ByteSize = ByteSize::from_kib(64);

/// When a request is tried again on another backend, and how.
///
/// What the operator writes under `retries:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Retries")]
pub struct Config {
    /// How often one request is tried again. Default: `3`.
    #[serde(deserialize_with = "max")]
    #[schemars(range(max = MAX))]
    pub max: u8,
    /// What is worth another try: connections that are not made (`connect`), for every method;
    /// those that break (`reset`) or do not answer in time (`timeout`), and answers of `502`,
    /// `503` and `504`, for idempotent methods; and for every method answers with
    /// `retriable_header`. What an origin says that it has not processed is tried again in any
    /// case. Default: `[connect, reset, timeout]`.
    pub retry_on: Spanned<Vec<Condition>>,
    /// The field by which an origin says that a request is to be tried elsewhere, such as
    /// `x-retry`; belongs to the word `retriable_header` of `retry_on`. Default: none.
    #[schemars(with = "Lookup")]
    pub retriable_header: Option<Spanned<Lookup>>,
    /// How long one attempt may take to the head of its answer, the time apart in which the body
    /// is sent; over HTTP/2 from the client, also how long the answer may pause.
    /// Default: none, what `timeouts` allow.
    #[serde(deserialize_with = "some_time")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub per_try_timeout: Option<Duration>,
    /// After so long without the head of an answer, the request is sent to a second backend
    /// beside, if its method is idempotent and it has no body; the first answer is passed on, and
    /// the other is given up. It counts as a retry. Default: none.
    #[serde(deserialize_with = "some_spanned_time")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub hedge_after: Option<Spanned<Duration>>,
    /// The pause before a retry. Default: `{}`.
    pub backoff: BackoffConfig,
    /// The longest `Retry-After` that is waited for, where an answer is worth another try and no
    /// other backend is left; with a longer one, the answer is passed on. Default: `1s`.
    pub retry_after_max: Duration,
    /// How many retries all requests of the upstream may spend together. Default: `{}`.
    pub budget: BudgetConfig,
    /// The longest body that is sent again, at most 64 KiB. Default: `64KiB`.
    #[serde(deserialize_with = "buffer")]
    pub buffer: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max: 3,
            retry_on: Spanned::new(vec![Condition::Connect, Condition::Reset, Condition::Timeout]),
            retriable_header: None,
            per_try_timeout: None,
            hedge_after: None,
            backoff: BackoffConfig::default(),
            retry_after_max: Duration::from_secs(1),
            budget: BudgetConfig::default(),
            buffer: BUFFER_MAX,
        }
    }
}

impl FromStr for Config {
    type Err = NotACount;

    fn from_str(text: &str) -> Result<Self, NotACount> {
        let max: u64 = text.parse().map_err(|_: ParseIntError| NotACount::Word(text.to_owned()))?;
        let known = u8::try_from(max).ok().filter(|max| *max <= MAX);
        let max = known.ok_or(NotACount::OutOfRange(max))?;
        Ok(Self { max, ..Self::default() })
    }
}

impl Word for Config {
    fn word(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": MAX })
    }
}

/// What is no number of retries.
#[derive(Debug, thiserror::Error)]
pub enum NotACount {
    /// It is no number.
    #[error(
        "`{0}` is no number of retries\n\
         help: write a number such as `3`, or a mapping such as `{{ max: 3, retry_on: [connect, 503] }}`"
    )]
    Word(String),
    /// There are too many.
    #[error("`{0}` is out of range: 0 to {MAX}")]
    OutOfRange(u64),
}

/// What is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A connection that was not made.
    Connect,
    /// A connection that broke.
    Reset,
    /// An answer that did not come in time.
    Timeout,
    /// An answer with this status.
    Status(u16),
    /// An answer with the field that says so.
    RetriableHeader,
}

const WORDS: [&str; 7] = ["connect", "reset", "timeout", "502", "503", "504", "retriable_header"];

impl FromStr for Condition {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Ok(match word {
            "connect" => Self::Connect,
            "reset" => Self::Reset,
            "timeout" => Self::Timeout,
            "502" => Self::Status(502),
            "503" => Self::Status(503),
            "504" => Self::Status(504),
            "retriable_header" => Self::RetriableHeader,
            _ => {
                let help = suggest_among("Known here", word, WORDS);
                return Err(format!("unknown value `{word}`\nhelp: {help}"));
            }
        })
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a word such as `connect`")
    }
}

impl JsonSchema for Condition {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetryOn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["connect", "reset", "timeout", 502, 503, 504, "retriable_header"] })
    }
}

/// The pause before a retry.
///
/// What the operator writes under `backoff:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Backoff")]
pub struct BackoffConfig {
    /// The longest pause before the first retry; each further one doubles it, and chance chooses
    /// from nothing to that. Default: `10ms`.
    pub base: Duration,
    /// The longest pause of all. Default: `320ms`.
    pub max: Duration,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self { base: Duration::from_millis(10), max: Duration::from_millis(320) }
    }
}

/// How many retries all requests of an upstream may spend together: in a storm, retries kill.
///
/// What the operator writes under `budget:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RetryBudget")]
pub struct BudgetConfig {
    /// The share of the requests. Default: `20%`.
    pub share: Percent,
    /// What is allowed beside the share, however few requests there are. Default: `10/s`.
    pub floor: Rate,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { share: Percent::new(20), floor: Rate::per_second(10) }
    }
}

fn max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    units::in_range(deserializer, 0..=MAX)
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::positive(deserializer).map(Some)
}

fn some_spanned_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<Duration>>, D::Error> {
    let Spanned { value, span } = Spanned::deserialize(deserializer)?;
    units::longer_than_zero(value).map(|value| Some(Spanned { value, span }))
}

fn buffer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if BUFFER_MAX < size {
        return Err(D::Error::custom(format!("`{size}` is out of range: at most {BUFFER_MAX}")));
    }
    Ok(size)
}

impl Config {
    /// Compiles the policy.
    pub fn build(&self, problems: &mut Problems) -> Policy {
        Policy {
            max: usize::from(self.max),
            on: Conditions {
                connect: self.is_on(Condition::Connect),
                reset: self.is_on(Condition::Reset),
                timeout: self.is_on(Condition::Timeout),
                statuses: [502, 503, 504].map(|status| self.is_on(Condition::Status(status))),
                header: self.header(problems),
            },
            per_try: self.per_try_timeout.map(|time| time.0),
            hedge_after: self.hedge_after(problems),
            backoff: Backoff { base: self.backoff.base.0, max: self.backoff.max.0 },
            retry_after_max: self.retry_after_max.0,
            buffer: self.buffer.0,
            budget: Share {
                share: self.budget.share.as_fraction(),
                per_second: self.budget.floor.events_per_second(),
            },
        }
    }

    /// What leaves no time, or no retry, for a second backend makes nothing of it.
    fn hedge_after(&self, problems: &mut Problems) -> Option<std::time::Duration> {
        let written = self.hedge_after.as_ref()?;
        let why = match self.per_try_timeout {
            _ if self.max == 0 => "there are no retries",
            Some(per_try) if per_try <= written.value => {
                "an attempt ends before (`per_try_timeout`)"
            }
            _ => return Some(written.value.0),
        };
        let problem = Problem::error(format!("`hedge_after` does nothing: {why}"));
        problems.push(problem.at(written.span).help("remove it, or change the other"));
        None
    }

    fn is_on(&self, condition: Condition) -> bool {
        self.retry_on.contains(&condition)
    }

    /// The word and the name of the field are nothing without each other.
    fn header(&self, problems: &mut Problems) -> Option<HeaderName> {
        match (&self.retriable_header, self.is_on(Condition::RetriableHeader)) {
            (Some(name), true) => Some(name.value.0.clone()),
            (None, false) => None,
            (Some(name), false) => {
                let message = "`retriable_header` does nothing where `retry_on` does not name it";
                let help = "remove it, or add the word: `retry_on: [connect, retriable_header]`";
                problems.push(Problem::error(message).at(name.span).help(help));
                None
            }
            (None, true) => {
                let message = "`retry_on` has `retriable_header`, and no field is named";
                let help = "write which: `retriable_header: x-retry`";
                problems.push(Problem::error(message).at(self.retry_on.span).help(help));
                None
            }
        }
    }

    /// The settings, each with its key and its value; beside the number, those that are unusual.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let usual = Self::default();
        let mut settings = vec![("retries", self.max.to_string())];
        if self.retry_on != usual.retry_on {
            let on: Vec<String> = self.retry_on.iter().map(Condition::to_string).collect();
            settings.push(("retries.retry_on", on.join(", ")));
        }
        let (backoff, budget) = (self.backoff, self.budget);
        let (base, share) = (usual.backoff, usual.budget);
        let others = [
            ("retries.backoff.base", backoff.base.to_string(), backoff.base != base.base),
            ("retries.backoff.max", backoff.max.to_string(), backoff.max != base.max),
            (
                "retries.retry_after_max",
                self.retry_after_max.to_string(),
                self.retry_after_max != usual.retry_after_max,
            ),
            ("retries.budget.share", budget.share.to_string(), budget.share != share.share),
            ("retries.budget.floor", budget.floor.to_string(), budget.floor != share.floor),
            ("retries.buffer", self.buffer.to_string(), self.buffer != usual.buffer),
        ];
        let others = others.into_iter().filter(|(_, _, differs)| *differs);
        settings.extend(others.map(|(key, value, _)| (key, value)));
        let header = self.retriable_header.as_ref().map(|name| name.value.0.to_string());
        settings.extend(header.map(|name| ("retries.retriable_header", name)));
        let per_try = self.per_try_timeout.map(|time| time.to_string());
        settings.extend(per_try.map(|time| ("retries.per_try_timeout", time)));
        let hedge = self.hedge_after.as_ref().map(|time| time.value.to_string());
        settings.extend(hedge.map(|time| ("retries.hedge_after", time)));
        settings
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(status) => write!(f, "{status}"),
            Self::RetriableHeader => f.write_str("retriable_header"),
        }
    }
}
