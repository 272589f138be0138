//! A route as the operator writes it.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    config::{mirror::MirrorConfig, target::TargetConfig},
    diagnostic::{Problem, Problems, Span, nearest, suggest_among},
    field::Lookup,
    policy::PolicyConfig,
    routing::{
        host::{HostName, HostPattern},
        method::MethodName,
        pattern::PathPattern,
        wanted::{ByName, Parameter},
    },
    units::{self, Duration},
    yaml::{self, Entry, Node, Short, Spanned, Value},
};

/// The name of the route that a configuration without routes has.
pub const ONLY: &str = "default";

/// Which requests go where.
///
/// What the operator writes in the list under `routes:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Route")]
pub struct RouteConfig {
    /// The name in logs and messages.
    pub name: Spanned<String>,
    /// Which requests. Default: `{}`, all of them.
    #[serde(default, rename = "match")]
    pub matches: Spanned<MatchConfig>,
    /// What happens to them, in this order; to answers in the reverse. Default: `[]`.
    #[serde(default)]
    pub policies: Vec<Spanned<PolicyConfig>>,
    /// The `Host` that the origin is sent. Default: `pass`.
    #[serde(default)]
    #[schemars(with = "HostConfig")]
    pub host: Short<HostConfig>,
    /// The path that the origin is sent. Default: `canonical`.
    #[serde(default)]
    pub path: PathConfig,
    /// Whether the origin is also sent `Forwarded` (RFC 7239). Default: `false`.
    #[serde(default)]
    pub forwarded: bool,
    /// Whether `Via: 1.1 crestline` is added in both directions. Default: `false`.
    #[serde(default)]
    pub via: bool,
    /// How long a request may take to the head of its answer, all attempts and the pauses between
    /// them included; then it gets `504`. Over HTTP/2 from the client, also how long the answer
    /// may pause. Default: none, what the upstream's `timeouts` allow.
    #[serde(default, deserialize_with = "some_time")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub timeout: Option<Duration>,
    /// Another upstream that gets copies of the requests, whose answers are thrown away.
    /// Default: none.
    #[serde(default)]
    #[schemars(with = "MirrorConfig")]
    pub mirror: Option<MirrorConfig>,
    /// The upstream that answers; or several, as in
    /// `{ split: [{ name: a, weight: 90 }, { name: b, weight: 10 }], key: client }`.
    #[schemars(with = "Short<TargetConfig>")]
    pub upstream: Spanned<Short<TargetConfig>>,
}

/// Which requests a route takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Match")]
pub struct MatchConfig {
    /// Hosts: `shop.example.com`, or `*.example.com` for all below it. Default: any host.
    #[serde(deserialize_with = "written")]
    #[schemars(with = "Vec<HostPattern>", length(min = 1), extend("uniqueItems" = true))]
    pub hosts: Option<Spanned<Vec<Spanned<HostPattern>>>>,
    /// A path: `/api/` for it and all below it, `= /api` for it alone, `~ ^/v[0-9]+/` for those
    /// in which a regular expression is found. Default: `/`.
    pub path: Spanned<PathPattern>,
    /// Methods, such as `[GET, POST]`; `GET` takes `HEAD` as well. Default: any method.
    #[serde(deserialize_with = "written")]
    #[schemars(with = "Vec<MethodName>", length(min = 1), extend("uniqueItems" = true))]
    pub methods: Option<Spanned<Vec<Spanned<MethodName>>>>,
    /// What is wanted of header fields, by name: a text (or `= text`), `~ regex`, `"*"` for any
    /// value, `"!"` for none. Default: nothing is wanted.
    #[serde(deserialize_with = "written")]
    #[schemars(with = "ByName<Lookup>")]
    pub headers: Option<Spanned<ByName<Lookup>>>,
    /// What is wanted of the parameters of the query, by name, as of header fields.
    /// Default: nothing is wanted.
    #[serde(deserialize_with = "written")]
    #[schemars(with = "ByName<Parameter>")]
    pub query: Option<Spanned<ByName<Parameter>>>,
}

/// Reads a key that may be left out, but not left empty: one would match nothing, or everything.
fn written<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let empty = "expected a value, found nothing\nhelp: leave the key out to match all";
    Option::deserialize(from)?.map(Some).ok_or_else(|| D::Error::custom(empty))
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::positive(deserializer).map(Some)
}

/// Keys of `match` that are easily written a line too high.
const MATCH_KEYS: [&str; 4] = ["headers", "hosts", "methods", "query"];

impl RouteConfig {
    /// The upstreams that get requests or copies of them, with the places of their names.
    pub fn names(&self) -> impl Iterator<Item = (&String, Span)> {
        let mirror = self.mirror.iter().map(|it| (&it.upstream.value, it.upstream.span));
        self.upstream_names().chain(mirror)
    }

    /// The upstreams that answer, with the places of their names.
    pub fn upstream_names(&self) -> impl Iterator<Item = (&String, Span)> {
        self.upstream.value.0.names(self.upstream.span)
    }

    /// Reads a route; `None` also if it is not known what it matches, so that nothing is told of
    /// that beside the mistake.
    pub(super) fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let is_misplaced = |entry: &&Entry| MATCH_KEYS.contains(&entry.key.as_str());
        let misplaced: Vec<&Entry> = node.entries().iter().filter(is_misplaced).collect();
        for entry in &misplaced {
            let key = &entry.key;
            let problem = Problem::error(format!("unknown key `{key}` in `{path}`"));
            let help = format!("indent it under `match`: `match: {{ {key}: … }}`");
            problems.push(problem.at(entry.key_span).help(help));
        }
        if !misplaced.is_empty() {
            let others = node.entries().iter().filter(|entry| !is_misplaced(entry)).cloned();
            let others = Node { value: Value::Mapping(others.collect()), ..node.clone() };
            let _ = yaml::read::<Self>(&others, path, problems);
            return None;
        }
        let matches = node.get("match").map(|entry| entry.value.span);
        let is_within =
            |at: Span| matches.is_some_and(|it| it.start <= at.start && at.end <= it.end);
        let route = yaml::read(node, path, problems);
        let is_known = !problems.iter().filter_map(|problem| problem.span).any(is_within);
        route.filter(|_| is_known)
    }
}

/// The `Host` that the origin is sent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RouteHost")]
pub enum HostConfig {
    /// The one that the client sent.
    #[default]
    Pass,
    /// The address of the backend.
    Upstream,
    /// This host.
    Replace(HostName),
}

impl FromStr for HostConfig {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        const WORDS: [&str; 3] = ["pass", "replace", "upstream"];
        let is_host = word.parse::<HostPattern>().is_ok() && nearest(word, WORDS).is_none();
        let help = match word {
            "pass" => return Ok(Self::Pass),
            "upstream" => return Ok(Self::Upstream),
            "replace" => return Err("`replace` needs a value\nhelp: write `replace: …`".to_owned()),
            _ if is_host => format!(
                "write `match: {{ hosts: [{word}] }}` to choose requests by their host, or \
                 `host: {{ replace: {word} }}` to send the origin this one"
            ),
            _ => suggest_among("Known here", word, WORDS),
        };
        Err(format!("unknown value `{word}`\nhelp: {help}"))
    }
}

/// The path that the origin is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RoutePath")]
pub enum PathConfig {
    /// The canonical form, which is also the one that is matched.
    #[default]
    Canonical,
    /// The bytes as they came.
    AsSent,
}

impl FromStr for PathConfig {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let help = match word {
            "canonical" => return Ok(Self::Canonical),
            "as_sent" => return Ok(Self::AsSent),
            _ if word.starts_with(['/', '=', '~', '^']) => format!(
                "write `match: {{ path: {word} }}` to choose requests by their path; here stands \
                 how it is sent on: as_sent or canonical"
            ),
            _ => suggest_among("Known here", word, ["as_sent", "canonical"]),
        };
        Err(format!("unknown value `{word}`\nhelp: {help}"))
    }
}

impl<'de> Deserialize<'de> for PathConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "`canonical` or `as_sent`")
    }
}
