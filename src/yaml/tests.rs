//! A small configuration, read right and wrong.

mod messages;
mod places;
mod reading;
mod refusals;

use std::collections::BTreeMap;
use std::net::{AddrParseError, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Short, Spanned, parse, read};
use crate::diagnostic::{Color, Problems, Sources, render};
use crate::units::{Duration, Percent, Rate};

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    upstreams: BTreeMap<String, Upstream>,
    #[serde(default)]
    routes: Vec<Route>,
    threads: Option<u16>,
    #[serde(default)]
    error_pages: BTreeMap<u16, String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Upstream {
    backends: Vec<Short<Backend>>,
    health_check: Option<Short<Check>>,
    #[serde(default)]
    balance: Balance,
    retries: Option<u8>,
    timeout: Option<Duration>,
    max_ejected: Option<Percent>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backend {
    address: SocketAddr,
    #[serde(default = "one")]
    weight: NonZeroU16,
}

/// Without `deny_unknown_fields`, on purpose: unknown keys are refused all the same.
#[derive(Debug, Default, PartialEq, Deserialize)]
struct Check {
    http: Option<HttpCheck>,
    every: Option<Duration>,
    #[serde(default)]
    off: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
struct HttpCheck {
    path: String,
    host: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Balance {
    #[default]
    RoundRobin,
    LeastRequests,
    Hash {
        key: String,
    },
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    name: Option<String>,
    upstream: Spanned<String>,
    #[serde(default)]
    policies: Vec<Policy>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Policy {
    Deny,
    RateLimit(Rate),
    RequestHeaders(Headers),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Headers {
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    remove: Vec<String>,
}

impl FromStr for Backend {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        Ok(Self { address: text.parse()?, weight: one() })
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let off = match text {
            "tcp" => false,
            "off" => true,
            other => {
                return Err(format!("unknown check `{other}`\nhelp: write `tcp` or `off`"));
            }
        };
        Ok(Self { off, ..Self::default() })
    }
}

fn one() -> NonZeroU16 {
    NonZeroU16::MIN
}

/// Reads a text and renders what is wrong with it.
fn attempt<T: DeserializeOwned>(text: &str) -> (Option<T>, String) {
    let mut problems = Problems::default();
    let value = match parse(text) {
        Ok(node) => read(&node, "", &mut problems),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    (value, render(&problems, &Sources::of("crestline.yaml", text), Color::Never))
}

/// Reads a text in which nothing is wrong.
fn right<T: DeserializeOwned>(text: &str) -> T {
    let (value, problems) = attempt(text);
    assert_eq!(problems, "");
    value.unwrap()
}

/// Checks the whole text that an operator sees.
#[track_caller]
fn wrong(text: &str, expected: &str) {
    assert_eq!(attempt::<File>(text).1, expected);
}
