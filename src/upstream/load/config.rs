//! The load that backends can bear, as the operator writes it.

use std::{num::NonZeroU32, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    diagnostic::{Problem, Problems},
    units::{self, Duration},
    upstream::{
        config::Config,
        link::{Link, STREAMS_MAX, config::Http},
        load::{Bounds, Queue, Requests, Rules, adaptive},
    },
    yaml::{self, Spanned, Word},
};

/// The longest line.
const QUEUE_MAX: u32 = 100_000;

/// Requests that a backend answers at a time, at most: a number, `adaptive`, or bounds for that.
///
/// What the operator writes under `max_requests:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MaxRequests")]
pub struct RequestsConfig {
    /// As many as the latency of a backend says that it bears; each backend has its own limit.
    pub adaptive: AdaptiveConfig,
    #[serde(skip)]
    fixed: Option<u32>,
}

/// Within what an adaptive limit moves.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Adaptive")]
pub struct AdaptiveConfig {
    /// The lowest limit. Default: `4`.
    pub min: NonZeroU32,
    /// The highest limit. Default: `1000`.
    pub max: NonZeroU32,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        const {
            Self {
                min: NonZeroU32::new(4).expect("no 0"),
                max: NonZeroU32::new(1000).expect("no 0"),
            }
        }
    }
}

impl FromStr for RequestsConfig {
    type Err = NoRequests;

    fn from_str(text: &str) -> Result<Self, NoRequests> {
        let fixed = match text {
            "adaptive" => None,
            _ => Some(text.parse::<NonZeroU32>().map_err(|_| NoRequests(text.to_owned()))?.get()),
        };
        Ok(Self { adaptive: AdaptiveConfig::default(), fixed })
    }
}

impl Word for RequestsConfig {
    fn word(_: &mut SchemaGenerator) -> Schema {
        let adaptive = yaml::words(&[("adaptive", "As many as its latency says that it bears.")]);
        let number = json_schema!({ "type": "integer", "minimum": 1, "maximum": u32::MAX });
        json_schema!({ "anyOf": [number, adaptive] })
    }
}

/// What is no bound of requests.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no number of requests\nhelp: write a number from 1 on, or `adaptive`")]
pub struct NoRequests(String);

/// Requests that wait where all backends have as much to do as they may.
///
/// What the operator writes under `queue:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Queue")]
pub struct QueueConfig {
    /// How many may wait, 1 to 100000; one more gets `503`, which says when to come back.
    /// Default: `100`.
    #[serde(deserialize_with = "queue_max")]
    #[schemars(range(min = 1, max = QUEUE_MAX))]
    pub max: u32,
    /// How long one may wait, before it gets `503`. Default: `5s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub timeout: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { max: 100, timeout: Duration::from_secs(5) }
    }
}

fn queue_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    units::in_range(deserializer, 1..=QUEUE_MAX)
}

/// Reads a bound of connections.
pub(in crate::upstream) fn connections<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<NonZeroU32>>, D::Error> {
    let number = Spanned::<u32>::deserialize(deserializer)?;
    let value = NonZeroU32::new(number.value)
        .ok_or_else(|| D::Error::custom("`0` is out of range: a backend needs a connection"))?;
    Ok(Some(Spanned { value, span: number.span }))
}

impl RequestsConfig {
    fn build(&self) -> Requests {
        let AdaptiveConfig { min, max } = self.adaptive;
        let rules = adaptive::Rules { min: min.get(), max: max.get() };
        self.fixed.map_or(Requests::Adaptive(rules), Requests::Fixed)
    }
}

impl Config {
    /// What is done about load.
    pub(in crate::upstream) fn load(&self, link: &Link, problems: &mut Problems) -> Rules {
        let requests = self.max_requests.as_ref();
        if let Some(written) = requests {
            let AdaptiveConfig { min, max } = written.value.adaptive;
            if max < min {
                let message = format!("`adaptive` has a `min` of {min} above its `max` of {max}");
                problems.push(Problem::error(message).at(written.span).help("swap them"));
            }
        }
        let connections = self.max_connections.as_ref();
        if let (Some(written), true) = (connections, self.send_proxy_protocol.is_some()) {
            let message = "`max_connections` cannot be kept beside `send_proxy_protocol`: each \
                           client has connections of its own, and idle ones would hold up others";
            let problem = Problem::error(message).at(written.span);
            problems.push(problem.help("write `max_requests`"));
        }
        if let (Some(queue), None, None) = (&self.queue, requests, connections) {
            let message = "`queue` does nothing without `max_requests` or `max_connections`: no \
                           backend is ever full";
            let help = "say what each backend bears, as in `max_requests: 100`";
            problems.push(Problem::error(message).at(queue.span).help(help));
        }
        let per_connection = if link.http() == Http::One { 1 } else { STREAMS_MAX };
        Rules {
            bounds: Bounds {
                requests: requests.map_or(Requests::Unlimited, |it| it.value.build()),
                connections: connections.map(|it| it.value.get()),
                per_connection,
            },
            queue: self
                .queue
                .as_ref()
                .map(|queue| Queue { max: queue.max as usize, timeout: queue.timeout.0 }),
        }
    }

    /// What is in force, setting by setting.
    pub(in crate::upstream) fn load_settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let Some(requests) = &self.max_requests {
            let value = match requests.value.build() {
                Requests::Fixed(max) => max.to_string(),
                Requests::Adaptive(rules) => format!("adaptive, {} to {}", rules.min, rules.max),
                Requests::Unlimited => "unlimited".to_owned(),
            };
            settings.push(("max_requests", value));
        }
        if let Some(connections) = &self.max_connections {
            settings.push(("max_connections", connections.to_string()));
        }
        if let Some(queue) = &self.queue {
            settings.push(("queue.max", queue.max.to_string()));
            settings.push(("queue.timeout", queue.timeout.to_string()));
        }
        settings
    }
}
