//! Hosts: what a route names, and what a request asks for.

use std::{fmt, io::Write as _, net::Ipv6Addr, str::FromStr};

use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::yaml;

/// The longest host name (RFC 1035 §2.3.4), with room for an IPv6 literal.
const HOST_LENGTH_MAX: usize = 255;

/// A host that a route names: `a.example.com`, or `*.example.com` for all names below it.
///
/// The order is the order of matching: exact before wildcard, longer wildcards first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", example = &"shop.example.com", example = &"*.example.com")]
#[schemars(extend("pattern" = r"^(\*\.)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$"))]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Any host that ends with this, which begins with a dot.
    Below(String),
}

/// Why a host cannot be matched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It is no host name.
    #[error(
        "`{0}` is no host name\nhelp: write a name such as `shop.example.com`, an address, or `*.example.com`"
    )]
    NotAHost(String),
    /// It is a URL.
    #[error("`{0}` is a URL\nhelp: write `{1}`: hosts match over every scheme and port")]
    Url(String, String),
    /// It has a port.
    #[error("`{0}` has a port\nhelp: write the host alone: hosts match with any port")]
    HasPort(String),
    /// The wildcard stands elsewhere than before the first dot.
    #[error(
        "`{0}` has a wildcard where none can be\nhelp: `*.` stands once, at the beginning; leave `hosts` out to match any host"
    )]
    Wildcard(String),
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let owned = || text.to_owned();
        if let Some((_, rest)) = text.split_once("://") {
            let host = without_port(rest.split('/').next().unwrap_or(rest));
            return Err(HostError::Url(owned(), host.to_owned()));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        if name.contains('*') {
            return Err(HostError::Wildcard(owned()));
        }
        if without_port(name).len() != name.len() {
            return Err(HostError::HasPort(owned()));
        }
        let lower = name.to_ascii_lowercase();
        if let Some(address) = literal(&lower)
            && name.len() == text.len()
        {
            return Ok(Self::Exact(format!("[{address}]")));
        }
        let is_name =
            lower.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let is_dotted = !lower.starts_with('.') && !lower.contains("..");
        if lower.is_empty() || HOST_LENGTH_MAX < lower.len() || !(is_name && is_dotted) {
            return Err(HostError::NotAHost(owned()));
        }
        let lower = lower.trim_end_matches('.').to_owned();
        if name.len() < text.len() {
            return Ok(Self::Below(format!(".{lower}")));
        }
        Ok(Self::Exact(lower))
    }
}

impl HostPattern {
    /// Whether this is the host of a request.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Below(suffix) => suffix.len() < host.len() && host.ends_with(suffix),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a host such as `shop.example.com`")
    }
}

/// A host that can stand in a `Host` field, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", example = &"app.internal", example = &"app.internal:8080")]
#[schemars(extend("pattern" = r"^[^\s@/?#]*[^\s@/?#:](:[0-9]+)?$"))]
pub struct HostName(pub HeaderValue);

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_authority = text.parse::<http::uri::Authority>().is_ok_and(|authority| {
            let port = authority.port_u16().is_some_and(|port| 0 < port);
            !text.contains('@')
                && !authority.host().is_empty()
                && (port || authority.host().len() == text.len())
        });
        match HeaderValue::from_str(&text) {
            Ok(value) if is_authority => Ok(Self(value)),
            _ => Err(D::Error::custom(format!(
                "`{text}` is no host\nhelp: write a name such as `app.internal`, with or without a port"
            ))),
        }
    }
}

/// The host of a request: lower case, without its port, an IPv6 address in its shortest form
/// (RFC 5952); on the stack.
pub struct RequestHost {
    bytes: [u8; HOST_LENGTH_MAX],
    length: usize,
}

impl RequestHost {
    /// Takes the host off a `Host` field or an authority; too long a host is no host.
    pub fn new(authority: &str) -> Self {
        let host = without_port(authority);
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut bytes = [0; HOST_LENGTH_MAX];
        let mut rest = bytes.as_mut_slice();
        let written = match literal(host) {
            Some(address) => write!(rest, "[{address}]"),
            None => rest.write_all(host.as_bytes()),
        };
        let length = if written.is_ok() { HOST_LENGTH_MAX - rest.len() } else { 0 };
        bytes[..length].make_ascii_lowercase();
        Self { bytes, length }
    }

    /// The host.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// The address in `[::1]`.
fn literal(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// `a.test:80` → `a.test`, `[::1]:80` → `[::1]`.
fn without_port(authority: &str) -> &str {
    let name_end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[name_end..].find(':') {
        Some(colon) => &authority[..name_end + colon],
        None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_asked_for_its_host_without_case_port_or_final_dot() {
        let cases = [
            ("Shop.Example.com:8443", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
            ("[0:0::0001]:80", "[::1]"),
            ("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("", ""),
        ];
        for (authority, host) in cases {
            assert_eq!(RequestHost::new(authority).as_str(), host);
        }
        assert_eq!(RequestHost::new(&"a".repeat(300)).as_str(), "", "too long");
    }

    #[test]
    fn patterns_are_names_or_one_leading_wildcard() {
        assert_eq!("A.test".parse(), Ok(HostPattern::Exact("a.test".to_owned())));
        assert_eq!("*.A.test".parse(), Ok(HostPattern::Below(".a.test".to_owned())));
        assert_eq!("[::1]".parse(), Ok(HostPattern::Exact("[::1]".to_owned())));
        assert_eq!("[2001:DB8:0::1]".parse(), Ok(HostPattern::Exact("[2001:db8::1]".to_owned())));
        let error = |text: &str| text.parse::<HostPattern>().unwrap_err();
        assert_eq!(error("a.*.test"), HostError::Wildcard("a.*.test".to_owned()));
        assert_eq!(error("*"), HostError::Wildcard("*".to_owned()));
        assert_eq!(error("a.test:80"), HostError::HasPort("a.test:80".to_owned()));
        assert_eq!(error("*.[::1]"), HostError::NotAHost("*.[::1]".to_owned()));
        assert_eq!(error("a test"), HostError::NotAHost("a test".to_owned()));
        assert_eq!(error(""), HostError::NotAHost(String::new()));
    }
}
