//! Where a backend listens: an address, a name, or a Unix socket.

use std::{fmt, net, os::unix, path::PathBuf, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::yaml;

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "BackendAddress")]
#[schemars(example = &"127.0.0.1:3031", example = &"app.internal:3031", example = &"unix:/run/app.sock")]
#[schemars(extend("pattern" = r"^(unix:/.*|([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):\+?[0-9]+)$"))]
pub enum Address {
    /// An address and a port.
    Socket(net::SocketAddr),
    /// A host name and a port; resolved in the background.
    Name(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why an address is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is a URL.
    #[error("`{0}` is a URL, and a backend is an address and a port\nhelp: write `{1}`")]
    Url(String, String),
    /// The port is missing.
    #[error("`{0}` has no port\nhelp: write `{0}:80`, or the port that the backend listens on")]
    NoPort(String),
    /// The port is no number from 1 to 65535.
    #[error("`{0}` has no valid port\nhelp: ports are numbers from 1 to 65535")]
    BadPort(String),
    /// The host is none.
    #[error(
        "`{0}` is no address\nhelp: write `127.0.0.1:3031`, `[::1]:3031`, `name:3031` or `unix:/path`"
    )]
    NotAnAddress(String),
}

impl Address {
    /// The address of a host, by its name or its IP address; `None` if it is none.
    pub fn of(host: &str, port: u16) -> Option<Self> {
        let at = match host.parse() {
            Ok(ip) => Self::Socket(net::SocketAddr::new(ip, port)),
            Err(_) => Self::Name(is_name(host).then(|| host.to_owned())?, port),
        };
        (port != 0).then_some(at)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let owned = || text.to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            let is_one =
                path.starts_with('/') && unix::net::SocketAddr::from_pathname(path).is_ok();
            return if is_one {
                Ok(Self::Unix(path.into()))
            } else {
                Err(AddressError::NotAnAddress(owned()))
            };
        }
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split('/').next().unwrap_or(rest);
            let has_port = host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
            let port = if has_port { "" } else { ":80" };
            return Err(AddressError::Url(owned(), format!("{host}{port}")));
        }
        if let Ok(address) = text.parse::<net::SocketAddr>() {
            return match address.port() {
                0 => Err(AddressError::BadPort(owned())),
                _ => Ok(Self::Socket(address)),
            };
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        if !is_name(host) {
            return Err(AddressError::NotAnAddress(owned()));
        }
        match port.parse() {
            _ if port.is_empty() => Err(AddressError::NoPort(owned())),
            Ok(0) | Err(_) => Err(AddressError::BadPort(owned())),
            Ok(port) => Ok(Self::Name(host.to_owned(), port)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether a text is a host name; the name of records is, too.
pub fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let has_letter = host.bytes().any(|byte| byte.is_ascii_alphabetic());
    has_letter && host.len() <= 253 && host.trim_end_matches('.').split('.').all(label)
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "an address such as `127.0.0.1:3031`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_make_an_address() {
        let of = |host: &str, port: u16| Address::of(host, port).map(|it| it.to_string());
        assert_eq!(of("10.0.0.1", 80).as_deref(), Some("10.0.0.1:80"));
        assert_eq!(of("fd00::1", 80).as_deref(), Some("[fd00::1]:80"));
        assert_eq!(of("web.test", 80).as_deref(), Some("web.test:80"));
        for (host, port) in [("10.0.0.1", 0), ("web.test", 0), ("unix:/run/a", 80), ("", 80)] {
            assert_eq!(of(host, port), None, "{host}");
        }
    }

    #[test]
    fn addresses_are_sockets_names_and_paths() {
        assert_eq!("127.0.0.1:80".parse(), Ok(Address::Socket("127.0.0.1:80".parse().unwrap())));
        assert_eq!("[::1]:80".parse(), Ok(Address::Socket("[::1]:80".parse().unwrap())));
        assert_eq!("a.test:80".parse(), Ok(Address::Name("a.test".to_owned(), 80)));
        assert!(matches!("unix:/run/a.sock".parse(), Ok(Address::Unix(_))));
    }

    #[test]
    fn wrong_addresses_say_what_to_write() {
        let error = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert!(error("http://a.test:80/x").ends_with("write `a.test:80`"));
        assert!(error("a.test").contains("has no port"));
        assert!(error("a.test:0").contains("1 to 65535"));
        assert!(error("127.0.0.1:0").contains("1 to 65535"));
        assert!(error("a.test:99999").contains("1 to 65535"));
        for text in ["127.0.0.256:80", "::1:80", "a b:80", ":80", "unix:relative", ""] {
            assert!(error(text).contains("is no address"), "{text}");
        }
    }
}
