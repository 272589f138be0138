//! Where a route sends its requests, as the operator writes it: to one upstream, or to several by
//! weight.

use std::{convert::Infallible, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::{Problem, Problems, Span},
    field::Lookup,
    routing::split::Key,
    units,
    upstream::balance::token::Token,
    yaml::{Spanned, Word},
};

/// The largest weight of a part.
const WEIGHT_MAX: u32 = 1000;

/// Several upstreams, and how requests are split between them.
///
/// What the operator writes under a route's `upstream:`; a name alone is one upstream for all.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Split")]
pub struct TargetConfig {
    /// The upstreams, each with its weight.
    #[schemars(length(min = 1))]
    pub split: Vec<Spanned<PartConfig>>,
    /// What keeps a client at its upstream, also when weights change as far as that is possible.
    /// A request that has no such thing is placed at random. Default: `random`.
    #[serde(default)]
    pub key: KeyConfig,
    #[serde(skip)]
    is_name: bool,
}

/// An upstream and its weight.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SplitPart")]
pub struct PartConfig {
    /// The name of the upstream.
    pub name: String,
    /// Its share of the requests, relative to the others; `0` for none.
    #[serde(deserialize_with = "weight")]
    #[schemars(range(max = WEIGHT_MAX))]
    pub weight: u32,
}

/// What keeps a client at its upstream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SplitKey")]
pub enum KeyConfig {
    /// Nothing: each request is placed by chance.
    #[default]
    Random,
    /// The client's address.
    Client,
    /// The value of a cookie.
    Cookie(Token),
    /// The value of a header field.
    Header(Lookup),
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    units::in_range(deserializer, 0..=WEIGHT_MAX)
}

impl FromStr for TargetConfig {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        let part = PartConfig { name: name.to_owned(), weight: 1 };
        Ok(Self { split: vec![Spanned::new(part)], key: KeyConfig::Random, is_name: true })
    }
}

impl Word for TargetConfig {
    fn word(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl TargetConfig {
    /// The names of the upstreams with their places; `at` is where all of it stands.
    pub fn names(&self, at: Span) -> impl Iterator<Item = (&String, Span)> {
        let place = move |part: &Spanned<PartConfig>| if self.is_name { at } else { part.span };
        self.split.iter().map(move |part| (&part.name, place(part)))
    }

    /// Whether all requests go to one upstream by its name.
    pub fn is_name(&self) -> bool {
        self.is_name
    }

    /// Tells what is wrong with the parts of a split.
    pub fn check(&self, at: Span, problems: &mut Problems) {
        for (index, part) in self.split.iter().enumerate() {
            if self.split[..index].iter().any(|before| before.name == part.name) {
                let problem = Problem::error(format!("`{}` stands twice in `split`", part.name));
                problems.push(problem.at(part.span).help("add the two weights up"));
            }
        }
        if self.split.iter().all(|part| part.weight == 0) {
            let problem = Problem::error("a split needs an upstream with a weight above 0").at(at);
            problems.push(problem.help("write `upstream: NAME` for one upstream alone"));
        }
    }
}

impl KeyConfig {
    /// What is looked at in a request.
    pub fn build(&self) -> Key {
        match self {
            Self::Random => Key::Random,
            Self::Client => Key::Client,
            Self::Cookie(name) => Key::Cookie(name.as_str().to_owned()),
            Self::Header(name) => Key::Header(name.0.clone()),
        }
    }
}
