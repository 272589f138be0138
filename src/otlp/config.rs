//! A receiver of OpenTelemetry as the operator writes it.

use std::{collections::BTreeMap, path::Path, str::FromStr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::PathAndQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    client::{
        channel::{Channel, Version},
        endpoint::{Endpoint, Files},
        roots::Roots,
    },
    diagnostic::{Problem, Problems},
    units,
    yaml::{self, Spanned},
};

/// A receiver of OpenTelemetry (OTLP).
///
/// What the operator writes under `otlp:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Otlp")]
pub struct Config {
    /// Its URL; over HTTP, `/v1/logs` or `/v1/traces` is added to its path.
    pub endpoint: Spanned<Url>,
    /// How it is spoken to. Default: `http`.
    #[serde(default)]
    pub protocol: Protocol,
    /// Fields of each request, such as an `authorization`; secrets are better kept in files:
    /// `${file:/run/secrets/otlp}`. Default: `{}`.
    #[serde(default)]
    pub headers: BTreeMap<Name, Text>,
    /// A file of certificates in PEM: a receiver at an `https://` URL must be vouched for by one of
    /// them. It is seen from the folder of the main file, and read for each connection.
    /// Default: those that the system trusts.
    #[serde(default)]
    #[schemars(with = "String")]
    pub ca: Option<Spanned<String>>,
    /// The name of the service that records come from. Default: `crestline`.
    #[serde(default = "crestline")]
    #[schemars(length(min = 1))]
    pub service_name: String,
    /// More attributes of that resource, such as `deployment.environment.name`. Default: `{}`.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// How long one attempt may take. Default: `10s`.
    #[serde(default = "ten_seconds", deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub timeout: units::Duration,
    /// How long records are gathered at most before they are sent. Default: `1s`.
    #[serde(default = "one_second", deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub every: units::Duration,
}

fn crestline() -> String {
    "crestline".to_owned()
}

fn ten_seconds() -> units::Duration {
    units::Duration::from_secs(10)
}

fn one_second() -> units::Duration {
    units::Duration::from_secs(1)
}

/// How a receiver is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OtlpProtocol")]
pub enum Protocol {
    /// Protocol buffers over HTTP/1.1, for the most part at port 4318.
    #[default]
    Http,
    /// gRPC, for the most part at port 4317.
    Grpc,
}

/// The URL of a receiver.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "OtlpUrl", example = &"http://127.0.0.1:4318", example = &"https://otlp.example.com/otlp")]
#[schemars(extend("pattern" = r"^(https?://[^/?#@]+(/[^?#]*)?|unix:/.*)$"))]
pub struct Url {
    endpoint: Endpoint,
    /// Without a slash at its end.
    path: String,
}

/// What is no URL of a receiver.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no URL of a receiver\nhelp: write `http://HOST:PORT`, `https://HOST/PATH` or `unix:/path`"
)]
pub struct NoUrl(String);

impl FromStr for Url {
    type Err = NoUrl;

    fn from_str(text: &str) -> Result<Self, NoUrl> {
        let wrong = || NoUrl(text.to_owned());
        let is_unix = text.starts_with("unix:");
        let start = text.find("://").map_or(0, |at| at + "://".len());
        let slash = text[start..].find('/').map(|at| start + at).filter(|_| !is_unix);
        let (base, path) = slash.map_or((text, ""), |at| text.split_at(at));
        let path = path.trim_end_matches('/');
        let is_path =
            path.is_empty() || path.parse::<PathAndQuery>().is_ok_and(|it| it.query().is_none());
        let endpoint = base.parse().ok().filter(|_| is_path && !path.contains('#'));
        Ok(Self { endpoint: endpoint.ok_or_else(wrong)?, path: path.to_owned() })
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a URL such as `http://127.0.0.1:4318`")
    }
}

/// The name of a field that a receiver is sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", rename = "OtlpFieldName", example = &"authorization")]
#[schemars(extend("pattern" = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
pub struct Name(String);

/// Fields that frame the message, or tell what it is.
const RESERVED: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What is no name of a field here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no field that can be added\nhelp: name one such as `authorization`; those that frame a message are Crestline's own"
)]
pub struct NoName(String);

impl FromStr for Name {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let name = HeaderName::from_str(text).ok().filter(|name| !RESERVED.contains(name));
        name.map(|name| Self(name.as_str().to_owned())).ok_or_else(|| NoName(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "the name of a field")
    }
}

/// The value of such a field, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "OtlpFieldValue")]
pub struct Text(HeaderValue);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            D::Error::custom(
                "this is no value of a field\nhelp: remove line breaks and control characters",
            )
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// What runs: where records go, and what goes with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    endpoint: Endpoint,
    pub(super) path: String,
    pub(super) protocol: Protocol,
    pub(super) headers: HeaderMap,
    files: Files,
    pub(super) timeout: Duration,
    /// How long records are gathered.
    pub every: Duration,
    /// The name of the service.
    pub service_name: String,
    /// More attributes of the resource.
    pub resource: BTreeMap<String, String>,
}

impl Config {
    /// Prepares it; nobody is asked yet. `None` if something is wrong.
    pub fn build(&self, folder: &Path, problems: &mut Problems) -> Option<Receiver> {
        let Url { endpoint, path } = &self.endpoint.value;
        let mut refuse = |problem: Problem| {
            problems.push(problem);
            None
        };
        if self.protocol == Protocol::Grpc && !path.is_empty() {
            let problem = Problem::error("a path does nothing with `protocol: grpc`");
            let help = format!("write `{endpoint}`, or `protocol: http`");
            return refuse(problem.at(self.endpoint.span).help(help));
        }
        let ca = match &self.ca {
            None => None,
            Some(ca) if !endpoint.is_tls() => {
                let problem = Problem::error("`ca` does nothing without an `https://` URL");
                let help = "write `https://` if the receiver speaks TLS, or remove `ca`";
                return refuse(problem.at(ca.span).help(help));
            }
            Some(ca) => {
                let path = folder.join(&ca.value);
                match Roots::of_file(&path, ca, "the receiver", ca.span) {
                    Ok(_) => Some(path),
                    Err(problem) => return refuse(problem),
                }
            }
        };
        Some(Receiver {
            endpoint: endpoint.clone(),
            path: path.clone(),
            protocol: self.protocol,
            headers: self.fields(),
            files: Files { ca, own: None },
            timeout: self.timeout.0,
            every: self.every.0,
            service_name: self.service_name.clone(),
            resource: self.resource.clone(),
        })
    }

    fn fields(&self) -> HeaderMap {
        let own: &[(HeaderName, &'static str)] = match self.protocol {
            Protocol::Http => &[(header::CONTENT_TYPE, "application/x-protobuf")],
            Protocol::Grpc => {
                &[(header::CONTENT_TYPE, "application/grpc+proto"), (header::TE, "trailers")]
            }
        };
        let own = own.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let agent = (header::USER_AGENT, HeaderValue::from_static(AGENT));
        let given = self.headers.iter().filter_map(|(name, value)| {
            Some((HeaderName::from_str(&name.0).ok()?, value.0.clone()))
        });
        let mut fields = HeaderMap::new();
        for (name, value) in own.chain([agent]).chain(given) {
            fields.insert(name, value);
        }
        fields
    }
}

const AGENT: &str = concat!("crestline/", env!("CARGO_PKG_VERSION"));

impl Receiver {
    /// A channel to it that is not connected yet.
    pub(super) fn channel(&self) -> Channel {
        let version = match self.protocol {
            Protocol::Http => Version::One,
            Protocol::Grpc => Version::Two,
        };
        Channel::new(self.endpoint.clone(), self.files.clone(), version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_has_a_place_and_perhaps_a_path() {
        for (text, endpoint, path) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318", ""),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318", ""),
            ("https://otlp.example.com/otlp/", "https://otlp.example.com", "/otlp"),
            ("unix:/run/otel.sock", "unix:/run/otel.sock", ""),
        ] {
            let endpoint = endpoint.parse().unwrap();
            assert_eq!(text.parse(), Ok(Url { endpoint, path: path.to_owned() }), "{text}");
        }
        for text in [
            "127.0.0.1:4318",
            "grpc://a.test",
            "http://a.test/b?c",
            "http://a.test/#b",
            "http:///b",
            "unix:a",
        ] {
            assert_eq!(text.parse::<Url>(), Err(NoUrl(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_field_of_ours_cannot_be_replaced() {
        assert_eq!("Authorization".parse::<Name>(), Ok(Name("authorization".to_owned())));
        for text in ["content-type", "Host", "a b", ""] {
            assert_eq!(text.parse::<Name>(), Err(NoName(text.to_owned())), "{text}");
        }
    }
}
