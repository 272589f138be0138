//! Origins of pages (RFC 6454): `https://app.example.com`, as browsers tell them.

use std::{fmt, str::FromStr};

use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::yaml;

/// Whose pages: `https://app.example.com`, with a port where it is not that of the scheme;
/// `https://*.example.com` for all hosts below it; or `"*"` for anybody's.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "Origin", example = &"https://app.example.com")]
#[schemars(extend("pattern" = r"^(\*|https?://[^/?#@ ]+)$"))]
pub enum Origin {
    /// Anybody's.
    Any,
    /// This one.
    Exact(String),
    /// All that begin with a scheme and end with a dot, a host, and perhaps a port.
    Below {
        /// `https://`.
        scheme: String,
        /// `.example.com:8443`.
        end: String,
    },
}

/// What is no origin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no origin\nhelp: write a scheme and a host alone: `https://app.example.com`, `https://*.example.com`, or `\"*\"`"
)]
pub struct NoOrigin(String);

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let wrong = || NoOrigin(text.to_owned());
        if text == "*" {
            return Ok(Self::Any);
        }
        let at = text.find("://").ok_or_else(wrong)? + 3;
        let (scheme, host) = text.split_at(at);
        // Browsers tell them in lower case, and without the port of the scheme.
        let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
        let usual = match scheme.as_str() {
            "https://" => ":443",
            "http://" => ":80",
            _ => return Err(wrong()),
        };
        let host = host.strip_suffix(usual).unwrap_or(&host);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let name = host.strip_prefix("*.").unwrap_or(host);
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(wrong());
        }
        Ok(match host.strip_prefix('*') {
            Some(end) => Self::Below { scheme, end: end.to_owned() },
            None => Self::Exact(format!("{scheme}{host}")),
        })
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "an origin such as `https://app.example.com`")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Below { scheme, end } => write!(f, "{scheme}*{end}"),
        }
    }
}

/// Those that are allowed something.
#[derive(Debug)]
pub(super) struct Origins(Box<[Origin]>);

impl Origins {
    /// Makes a list ready, which may be empty.
    pub(super) fn of(written: &[Origin]) -> Self {
        Self(written.into())
    }

    /// Whether anybody is.
    pub(super) fn is_anybody(&self) -> bool {
        self.0.contains(&Origin::Any)
    }

    /// Whether an origin is, as a browser told it.
    pub(super) fn allow(&self, told: &HeaderValue) -> bool {
        let Ok(told) = told.to_str() else { return false };
        self.0.iter().any(|origin| match origin {
            Origin::Any => true,
            Origin::Exact(own) => own == told,
            Origin::Below { scheme, end } => {
                let host = told.strip_prefix(scheme.as_str());
                let below = host.and_then(|host| host.strip_suffix(end.as_str()));
                // No other host can hide in front: it would need a sign that no name has.
                below.is_some_and(|name| {
                    !name.is_empty()
                        && name
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
                })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_browsers_tell_them() {
        let written = ["https://App.test:443", "http://*.b.test:8080"];
        let origins = Origins(written.iter().map(|text| text.parse().unwrap()).collect());
        let allow = |told: &'static str| origins.allow(&HeaderValue::from_static(told));
        assert!(allow("https://app.test"));
        assert!(allow("http://x.y.b.test:8080"));
        for stranger in [
            "https://app.test.evil.test",
            "https://app.test:8443",
            "http://app.test",
            "http://b.test:8080",
            "http://.b.test:8080",
            "http://evil.test/x.b.test:8080",
            "http://evil.test@x.b.test:8080",
            "null",
            "",
        ] {
            assert!(!allow(stranger), "{stranger}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in
            ["app.test", "https://", "https://a.test/", "ftp://a.test", "https://a*.test", "null"]
        {
            assert_eq!(text.parse::<Origin>(), Err(NoOrigin(text.to_owned())), "{text}");
        }
        for text in ["*", "https://a.test", "http://*.a.test:8080"] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        }
    }
}
