//! How long the parts of an exchange with an origin may take, as the operator writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::{Problem, Problems, Span},
    units::{self, Duration},
    upstream::{
        Timeouts,
        link::{Link, config::Http},
    },
    yaml::Spanned,
};

/// How long the parts of an exchange with an origin may take.
///
/// What the operator writes under an upstream's `timeouts:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UpstreamTimeouts")]
pub struct TimeoutsConfig {
    /// Making the connection. Default: `1s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub connect: Duration,
    /// A TLS handshake, once the connection is made. Default: `2s`.
    #[serde(deserialize_with = "positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub handshake: Spanned<Duration>,
    /// From the end of the request to the first byte of the answer. Default: `60s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub first_byte: Duration,
    /// Between two pieces of the answer, or of the request. Default: `60s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub between_bytes: Duration,
    /// How long an unused connection is kept; stay below what the origin keeps. Default: `55s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub idle: Duration,
    /// Between two bytes of a WebSocket, or of a connection that is relayed, in either direction. Default: `1h`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub tunnel: Duration,
    /// From one ping to the next over HTTP/2; a connection whose ping is not answered in 5 s is
    /// given up. Many servers of gRPC end one that is pinged more often than every 5 minutes.
    /// Default: none, connections are not pinged.
    #[serde(deserialize_with = "ping")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub ping: Option<Spanned<Duration>>,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            handshake: Spanned::new(Duration::from_secs(2)),
            first_byte: Duration::from_secs(60),
            between_bytes: Duration::from_secs(60),
            idle: Duration::from_secs(55),
            tunnel: Duration::from_secs(3600),
            ping: None,
        }
    }
}

impl TimeoutsConfig {
    /// Checks what has its meaning for some connections only.
    pub(super) fn build(&self, link: &Link, problems: &mut Problems) -> Timeouts {
        if !link.is_tls() && self.handshake.span != Span::default() {
            let message = "`handshake` does nothing for an upstream without `tls`";
            let problem = Problem::error(message).at(self.handshake.span);
            problems.push(problem.help("remove it, or write `tls: on`"));
        }
        if let (Http::One, Some(ping)) = (link.http(), &self.ping) {
            let problem = Problem::error("`ping` does nothing with HTTP/1").at(ping.span);
            problems.push(problem.help("remove it, or write `http: 2`"));
        }
        Timeouts {
            connect: self.connect.0,
            handshake: self.handshake.value.0,
            first_byte: self.first_byte.0,
            between_bytes: self.between_bytes.0,
            idle: self.idle.0,
            tunnel: self.tunnel.0,
            ping: self.ping.as_ref().map(|ping| ping.value.0),
        }
    }
}

/// A time that is longer than zero, and its place.
#[derive(Deserialize)]
#[serde(transparent)]
struct Lasting(#[serde(deserialize_with = "units::positive")] Duration);

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spanned<Duration>, D::Error> {
    let Spanned { value: Lasting(value), span } = Spanned::deserialize(deserializer)?;
    Ok(Spanned { value, span })
}

fn ping<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Spanned<Duration>>, D::Error> {
    positive(deserializer).map(Some)
}
