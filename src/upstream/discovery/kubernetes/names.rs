//! What Kubernetes names: services, namespaces, and ports.

use std::{fmt, ops::Deref, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::yaml;

/// The longest name.
const LENGTH_MAX: usize = 63;

/// The name of a service or of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "KubernetesName", example = &"web")]
#[schemars(extend("pattern" = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
pub struct Name(String);

/// What is no name.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no name in Kubernetes\nhelp: names are at most 63 lower case letters, digits and `-`, as in `web`"
)]
pub struct NoName(String);

impl FromStr for Name {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let has_ends = !text.is_empty() && !text.starts_with('-') && !text.ends_with('-');
        let is_name = has_ends && text.len() <= LENGTH_MAX && text.bytes().all(fits);
        if is_name { Ok(Self(text.to_owned())) } else { Err(NoName(text.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a name such as `web`")
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A port of endpoints, by its name or its number.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "ServicePort", example = &"http", example = &"8080")]
#[schemars(extend("type" = ["string", "integer"]))]
pub enum Port {
    /// By its name.
    Name(String),
    /// By its number.
    Number(u16),
}

/// What is no port.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no port of a service\nhelp: write its name, such as `http`, or a number from 1 to 65535"
)]
pub struct NoPort(String);

impl FromStr for Port {
    type Err = NoPort;

    fn from_str(text: &str) -> Result<Self, NoPort> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|port| *port != 0);
            return number.map(Self::Number).ok_or_else(|| NoPort(text.to_owned()));
        }
        match text.parse() {
            Ok(Name(name)) => Ok(Self::Name(name)),
            Err(NoName(text)) => Err(NoPort(text)),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "the name of a port or its number")
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_ports_are_names_or_numbers() {
        for text in ["web", "web-2", "0"] {
            assert_eq!(&*text.parse::<Name>().unwrap(), text);
        }
        for text in ["", "-web", "web-", "Web", "a,b=c", "a.b", &"x".repeat(64)] {
            let why = text.parse::<Name>().unwrap_err().to_string();
            assert!(why.contains("is no name in Kubernetes"), "{why}");
        }
        assert_eq!("8080".parse::<Port>().unwrap(), Port::Number(8080));
        assert_eq!("h2c".parse::<Port>().unwrap(), Port::Name("h2c".to_owned()));
        for text in ["0", "65536", "", "http_alt"] {
            let why = text.parse::<Port>().unwrap_err().to_string();
            assert!(why.contains("is no port of a service"), "{why}");
        }
    }
}
