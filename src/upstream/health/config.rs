//! The checks of an upstream as the operator writes them.

use std::{
    collections::BTreeMap, num::NonZeroU32, ops::RangeInclusive, str::FromStr, sync::Arc, time,
};

use http::{header::HOST, uri::PathAndQuery};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_load_balancing::health_check::HealthCheck;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::{Problem, Problems},
    field::{Name, Value},
    routing::host::HostName,
    units::{self, Duration},
    upstream::{
        Timeouts,
        health::{
            Checks,
            check::{HttpCheck, TcpCheck},
            state::Thresholds,
        },
        link::{Link, Sources},
        proxy_header::Sender,
    },
    yaml::{self, Spanned, Word},
};

/// How the backends of an upstream are checked.
///
/// What the operator writes under `health_check:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HealthCheck", extend("not" = { "required": ["tcp", "http"] }))]
pub struct Config {
    /// Asks whether a connection can be made, without TLS also where requests go over it; there is
    /// nothing to set. Default: what is asked, unless `http` is there.
    pub tcp: Option<TcpConfig>,
    /// Asks for a page instead, over TLS and HTTP/2 where requests go over them.
    /// Default: no page is asked for.
    pub http: Option<Spanned<HttpConfig>>,
    /// From one check to the next, give or take a tenth. Default: `5s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub every: Duration,
    /// How long a whole check may take. Default: `1s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub timeout: Duration,
    /// Good answers in a row until a backend is in service. Default: `1`.
    pub healthy_after: NonZeroU32,
    /// Bad answers in a row until it is out of service. Default: `2`.
    pub unhealthy_after: NonZeroU32,
    #[serde(skip)]
    is_off: bool,
}

/// A check that connects, and nothing more: `{}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TcpCheck")]
pub struct TcpConfig {}

/// A check that asks for a page.
///
/// What the operator writes under `http:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HttpCheck")]
pub struct HttpConfig {
    /// The page that is asked for with `GET`. Default: `/`.
    #[serde(default)]
    pub path: CheckPath,
    /// The `Host` field. Default: over TLS the name that a certificate must have, else the address
    /// of the backend.
    #[serde(default)]
    pub host: Option<HostName>,
    /// The port that is asked. Default: the port of the backend.
    #[serde(default)]
    pub port: Option<std::num::NonZeroU16>,
    /// The statuses that are good. Default: `[200-299]`.
    #[serde(default = "successful")]
    #[schemars(length(min = 1))]
    pub expect: Spanned<Vec<StatusRange>>,
    /// More fields of the request. Default: `{}`.
    #[serde(default)]
    pub headers: BTreeMap<Name, Value>,
}

impl Default for Config {
    fn default() -> Self {
        const ONE: NonZeroU32 = NonZeroU32::MIN;
        Self {
            tcp: None,
            http: None,
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy_after: ONE,
            unhealthy_after: ONE.saturating_add(1),
            is_off: false,
        }
    }
}

impl FromStr for Config {
    type Err = NoCheck;

    fn from_str(text: &str) -> Result<Self, NoCheck> {
        match text {
            "tcp" => Ok(Self::default()),
            "off" => Ok(Self { is_off: true, ..Self::default() }),
            _ => Err(NoCheck(text.to_owned())),
        }
    }
}

impl Word for Config {
    fn word(_: &mut SchemaGenerator) -> Schema {
        yaml::words(&[
            ("tcp", "Asks every 5 s whether a connection can be made."),
            ("off", "Trusts every backend."),
        ])
    }
}

/// A word that names no check.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no check\nhelp: write `tcp`, `off`, or a mapping such as `{{ http: {{ path: /healthz }} }}`"
)]
pub struct NoCheck(String);

/// A path that can be asked for, with or without a query.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", example = &"/healthz", extend("pattern" = r"^/[^\s#]*$"))]
pub struct CheckPath(String);

impl Default for CheckPath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl FromStr for CheckPath {
    type Err = NotAPath;

    fn from_str(text: &str) -> Result<Self, NotAPath> {
        match PathAndQuery::from_str(text) {
            Ok(path) if text.starts_with('/') && path.as_str() == text => Ok(Self(text.to_owned())),
            _ => Err(NotAPath(text.to_owned())),
        }
    }
}

/// What is no path.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no path\nhelp: write a path such as `/healthz`")]
pub struct NotAPath(String);

impl<'de> Deserialize<'de> for CheckPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a path such as `/healthz`")
    }
}

/// A status or a range of them: `204`, `200-299`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", example = &"200-299", example = &204)]
#[schemars(extend("type" = ["string", "integer"], "minimum" = 100, "maximum" = 599))]
#[schemars(extend("pattern" = r"^\s*\+?0*[1-5][0-9][0-9]\s*(-\s*\+?0*[1-5][0-9][0-9]\s*)?$"))]
pub struct StatusRange(RangeInclusive<u16>);

/// What is no range of statuses.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no status\nhelp: write a status such as `204` or a range such as `200-299`")]
pub struct NotAStatus(String);

impl FromStr for StatusRange {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 100 <= first && first <= last && last <= 599 => {
                Ok(Self(first..=last))
            }
            _ => Err(NotAStatus(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a status such as `204`")
    }
}

fn successful() -> Spanned<Vec<StatusRange>> {
    Spanned::new(vec![StatusRange(200..=299)])
}

impl Config {
    /// Makes the checks, which connect as requests do; `None` if they are off.
    pub fn build(
        &self,
        link: &Link,
        sources: &Arc<Sources>,
        problems: &mut Problems,
    ) -> Option<Checks> {
        if self.is_off {
            return None;
        }
        if let (Some(_), Some(http)) = (&self.tcp, &self.http) {
            let problem = Problem::error("a check is either `tcp` or `http`, not both");
            problems.push(problem.at(http.span).help("remove one of the two"));
        }
        let timeouts = within(self.timeout.0);
        let check: Box<dyn HealthCheck + Send + Sync> = match &self.http {
            None => Box::new(TcpCheck(link.dial(&timeouts, sources, Sender::Ourselves))),
            Some(http) => Box::new(http.build(link.template(&timeouts, sources), problems)?),
        };
        Some(Checks {
            check,
            every: self.every.0,
            timeout: self.timeout.0,
            thresholds: Thresholds {
                healthy_after: self.healthy_after.get(),
                unhealthy_after: self.unhealthy_after.get(),
            },
        })
    }
}

impl Config {
    /// What is in force, setting by setting, as keys of the upstream.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        if self.is_off {
            return vec![("health_check", "off".to_owned())];
        }
        let mut settings = match &self.http {
            None => vec![("health_check", "tcp".to_owned())],
            Some(http) => vec![("health_check.http.path", http.path.0.clone())],
        };
        settings.extend([
            ("health_check.every", self.every.to_string()),
            ("health_check.timeout", self.timeout.to_string()),
            ("health_check.healthy_after", self.healthy_after.to_string()),
            ("health_check.unhealthy_after", self.unhealthy_after.to_string()),
        ]);
        settings
    }
}

impl HttpConfig {
    fn build(&self, template: HttpPeer, problems: &mut Problems) -> Option<HttpCheck> {
        let mut headers = Vec::new();
        if let Some(host) = &self.host {
            headers.push((HOST, host.0.clone()));
        }
        let fields = self.headers.iter();
        headers.extend(fields.map(|(name, value)| (name.to_header(), value.0.clone())));
        if self.expect.is_empty() {
            let problem = Problem::error("no status is expected: every backend would be down");
            problems.push(problem.at(self.expect.span).help("write `[200-299]`"));
        }
        let expect = self.expect.iter().map(|range| range.0.clone()).collect();
        let port = self.port.map(Into::into);
        match HttpCheck::new(&self.path.0, &headers, port, expect, template) {
            Ok(check) => Some(check),
            Err(why) => {
                problems.push(Problem::error(format!("this check cannot be sent: {why}")));
                None
            }
        }
    }
}

/// No part of a check may take longer than the whole.
fn within(timeout: time::Duration) -> Timeouts {
    Timeouts {
        connect: timeout,
        handshake: timeout,
        first_byte: timeout,
        between_bytes: timeout,
        idle: timeout,
        tunnel: timeout,
        ping: None,
    }
}
