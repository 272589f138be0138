//! Traces as the operator writes them.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Problem, Problems},
    field::Lookup,
    otlp,
    routing::{pattern::PathPattern, wanted::ByName},
    units::Percent,
    yaml::Spanned,
};

/// Which requests are traced, and who gets their spans.
///
/// What the operator writes under `traces:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Traces")]
pub struct Config {
    /// A receiver of OpenTelemetry, which gets the spans.
    pub otlp: otlp::config::Config,
    /// The share of requests that are traced, by the ids of their traces. What a proxy among
    /// `trusted_proxies` has decided on goes on as it says. Default: `1%`.
    #[serde(default = "one_percent")]
    pub sample: Percent,
    /// Other shares for some requests: the first rule that fits a request decides.
    /// Default: `[]`.
    #[serde(default)]
    pub rules: Vec<Spanned<RuleConfig>>,
    /// By which fields a trace goes on: it is that of the first kind which names one, and told to
    /// origins by all of them. Default: `[w3c]`.
    #[serde(default = "w3c")]
    #[schemars(with = "Vec<Propagator>", length(min = 1), extend("uniqueItems" = true))]
    pub propagation: Spanned<Vec<Spanned<Propagator>>>,
}

fn one_percent() -> Percent {
    Percent::new(1)
}

fn w3c() -> Spanned<Vec<Spanned<Propagator>>> {
    Spanned::new(vec![Spanned::new(Propagator::W3c)])
}

/// Another share for some requests: those that meet all of its conditions, of which there is one
/// at least.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TraceRule", extend("minProperties" = 2))]
pub struct RuleConfig {
    /// The route that takes them. Default: any, and none.
    #[serde(default)]
    #[schemars(with = "String")]
    pub route: Option<Spanned<String>>,
    /// Their path, written as in a route. Default: any.
    #[serde(default)]
    #[schemars(with = "PathPattern")]
    pub path: Option<PathPattern>,
    /// What is wanted of their header fields, written as in a route. Default: nothing is wanted.
    #[serde(default)]
    #[schemars(with = "ByName<Lookup>")]
    pub headers: Option<Spanned<ByName<Lookup>>>,
    /// The share of them that is traced.
    pub sample: Percent,
}

/// How a trace crosses from one program to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TracePropagation")]
pub enum Propagator {
    /// W3C Trace Context: `traceparent` and `tracestate`.
    W3c,
    /// Zipkin's `b3`; the fields of `b3_multi` are understood as well.
    B3,
    /// Zipkin's `x-b3-traceid` and those that belong to it; `b3` is understood as well.
    B3Multi,
}

impl Propagator {
    fn as_str(self) -> &'static str {
        match self {
            Self::W3c => "w3c",
            Self::B3 => "b3",
            Self::B3Multi => "b3_multi",
        }
    }
}

impl Config {
    /// By which fields traces go on; what would do nothing goes to `problems`.
    pub fn propagation(&self, problems: &mut Problems) -> Box<[Propagator]> {
        let kinds = &self.propagation;
        if kinds.is_empty() {
            let problem = Problem::error("this list is empty: no trace would go on");
            problems.push(problem.at(kinds.span).help("write `[w3c]`, which is the default"));
        }
        for (at, kind) in kinds.iter().enumerate() {
            if kinds[..at].contains(kind) {
                let word = kind.value.as_str();
                let problem = Problem::error(format!("`{word}` stands twice in this list"));
                problems.push(problem.at(kind.span).help("remove one of them"));
            }
        }
        kinds.iter().map(|kind| kind.value).collect()
    }

    /// Tells rules that would do nothing.
    pub fn check_rules(&self, problems: &mut Problems) {
        for rule in &self.rules {
            let RuleConfig { route, path, headers, .. } = &rule.value;
            if route.is_none() && path.is_none() && headers.is_none() {
                let problem = Problem::error("this rule has no condition: it is for all requests");
                let help =
                    "add `route`, `path` or `headers`, or write its share as `sample` of `traces`";
                problems.push(problem.at(rule.span).help(help));
            }
        }
    }
}
