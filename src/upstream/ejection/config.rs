//! Ejection as the operator writes it.

use std::{num::NonZeroU32, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    diagnostic::{Problem, Problems, Span},
    units::{self, Duration, Percent},
    upstream::ejection::{EJECT_FOR_MAX, Rules, outliers::Outliers},
    yaml::{self, Spanned, Word},
};

/// A window is at least so long that its slices are, and at most as long as the longest penalty.
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration(EJECT_FOR_MAX);
/// What a factor and a number of deviations may be.
const FACTOR: (f64, f64) = (1.1, 100.0);
const DEVIATIONS: (f64, f64) = (0.1, 10.0);

/// When traffic takes a backend out of service.
///
/// What the operator writes under `ejection:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Ejection")]
pub struct Config {
    /// So many failures in a row eject: connections that fail, break or time out, and the
    /// statuses 502, 503 and 504. Default: `3`.
    pub consecutive_failures: NonZeroU32,
    /// Ejects a backend that failed this share of its requests, or more, over `window`.
    /// Default: none, no share ejects.
    #[serde(deserialize_with = "some_share")]
    #[schemars(with = "Percent", extend("pattern" = units::POSITIVE))]
    pub failure_share: Option<Percent>,
    /// Ejects a backend whose success rate over `window` is so many standard deviations below the
    /// mean of all, such as `1.9`; never one within 5% of it, nor where less than five backends
    /// had requests enough. Default: none, rates are not compared.
    #[serde(deserialize_with = "deviations")]
    #[schemars(with = "f64", range(min = DEVIATIONS.0, max = DEVIATIONS.1))]
    pub success_rate_deviations: Option<f64>,
    /// Ejects a backend whose answers begin so many times later than those of the others, such as
    /// `3`, in the median over `window`; never one that is less than 10 ms behind.
    /// Default: none, latencies are not compared.
    #[serde(deserialize_with = "factor")]
    #[schemars(with = "f64", range(min = FACTOR.0, max = FACTOR.1))]
    pub latency_factor: Option<f64>,
    /// How far back shares, rates and latencies look, from 1 second to 5 minutes; ten times
    /// while it passes they are looked at. Default: `10s`.
    #[serde(deserialize_with = "window")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub window: Spanned<Duration>,
    /// A backend that had fewer requests over `window` is not judged by it, nor compared.
    /// Default: `20`.
    #[schemars(with = "NonZeroU32")]
    pub min_requests: Spanned<NonZeroU32>,
    /// For how long, at most 5 minutes; each relapse doubles it, up to that. Default: `10s`.
    #[serde(deserialize_with = "penalty")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub eject_for: Duration,
    /// The share of the upstream's backends that may be ejected at a time. Default: `50%`.
    pub max_ejected: Percent,
    #[serde(skip)]
    is_off: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive_failures: const { NonZeroU32::new(3).expect("3 is not 0") },
            failure_share: None,
            success_rate_deviations: None,
            latency_factor: None,
            window: Spanned::new(Duration::from_secs(10)),
            min_requests: Spanned::new(const { NonZeroU32::new(20).expect("20 is not 0") }),
            eject_for: Duration::from_secs(10),
            max_ejected: Percent::new(50),
            is_off: false,
        }
    }
}

impl FromStr for Config {
    type Err = NotOff;

    fn from_str(text: &str) -> Result<Self, NotOff> {
        match text {
            "off" => Ok(Self { is_off: true, ..Self::default() }),
            _ => Err(NotOff(text.to_owned())),
        }
    }
}

impl Word for Config {
    fn word(_: &mut SchemaGenerator) -> Schema {
        yaml::words(&[("off", "Never ejects a backend.")])
    }
}

/// Reads a penalty, which no relapse could make longer than the longest there is.
fn penalty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let penalty = units::positive(deserializer)?;
    if EJECT_FOR_MAX < penalty.0 {
        let max = Duration(EJECT_FOR_MAX);
        return Err(D::Error::custom(format!("`{penalty}` is out of range: at most {max}")));
    }
    Ok(penalty)
}

/// The only word that ejection knows.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no way to eject\nhelp: write `off`, or a mapping such as `{{ eject_for: 10s }}`")]
pub struct NotOff(String);

/// Reads a share that is more than nothing.
fn some_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Percent>, D::Error> {
    let share = Percent::deserialize(deserializer)?;
    if share.get() == 0 {
        let help = "write a share such as `50%`, or leave the key out";
        return Err(D::Error::custom(format!("`{share}` would eject everybody\nhelp: {help}")));
    }
    Ok(Some(share))
}

fn factor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    within(deserializer, FACTOR)
}

fn deviations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    within(deserializer, DEVIATIONS)
}

fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    (min, max): (f64, f64),
) -> Result<Option<f64>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if min <= number && number <= max {
        return Ok(Some(number));
    }
    Err(D::Error::custom(format!("`{number}` is out of range: {min} to {max}")))
}

/// A window, and its place.
#[derive(Deserialize)]
#[serde(transparent)]
struct Window(#[serde(deserialize_with = "bounded")] Duration);

fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let window = units::positive(deserializer)?;
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&window) {
        let message = format!("`{window}` is out of range: {WINDOW_MIN} to {WINDOW_MAX}");
        return Err(D::Error::custom(message));
    }
    Ok(window)
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spanned<Duration>, D::Error> {
    let Spanned { value: Window(value), span } = Spanned::deserialize(deserializer)?;
    Ok(Spanned { value, span })
}

impl Config {
    /// When failures eject, and for how long; `None` never.
    pub fn rules(&self) -> Option<Rules> {
        (!self.is_off).then(|| Rules {
            consecutive_failures: self.consecutive_failures.get(),
            eject_for: self.eject_for.0,
            max_ejected: self.max_ejected.as_fraction(),
        })
    }

    /// When a window of traffic ejects; `None` never.
    pub fn outliers(&self, problems: &mut Problems) -> Option<Outliers> {
        let Self { failure_share, success_rate_deviations, latency_factor, .. } = *self;
        let has_rules = failure_share.is_some()
            || success_rate_deviations.is_some()
            || latency_factor.is_some();
        if has_rules {
            return Some(Outliers {
                window: self.window.value.0,
                requests_min: self.min_requests.get(),
                failure_share: failure_share.map(Percent::as_fraction),
                success_rate_deviations,
                latency_factor,
            });
        }
        let spans = [("window", self.window.span), ("min_requests", self.min_requests.span)];
        for (key, span) in spans.into_iter().filter(|(_, span)| *span != Span::default()) {
            let message = format!("`{key}` does nothing where no window of traffic is judged");
            let help = "remove it, or write `failure_share: 50%`, `latency_factor: 3` or \
                        `success_rate_deviations: 1.9`";
            problems.push(Problem::error(message).at(span).help(help));
        }
        None
    }

    /// The settings, each with its key and its value.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        if self.is_off {
            return vec![("ejection", "off".to_owned())];
        }
        let mut settings = vec![
            ("ejection.consecutive_failures", self.consecutive_failures.to_string()),
            ("ejection.eject_for", self.eject_for.to_string()),
            ("ejection.max_ejected", self.max_ejected.to_string()),
        ];
        let rules = [
            ("ejection.failure_share", self.failure_share.map(|share| share.to_string())),
            (
                "ejection.success_rate_deviations",
                self.success_rate_deviations.map(|number| number.to_string()),
            ),
            ("ejection.latency_factor", self.latency_factor.map(|number| number.to_string())),
        ];
        let rules: Vec<_> =
            rules.into_iter().filter_map(|(key, rule)| Some((key, rule?))).collect();
        if !rules.is_empty() {
            settings.push(("ejection.window", self.window.to_string()));
            settings.push(("ejection.min_requests", self.min_requests.to_string()));
        }
        settings.extend(rules);
        settings
    }
}
