//! An upstream as the operator writes it, and what is made of it.

use std::{
    collections::BTreeSet, net, num::NonZeroU32, os::unix, path::PathBuf, str::FromStr, sync::Arc,
};

use pingora_core::{protocols::l4::socket::SocketAddr, upstreams::peer::HttpPeer};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::{Problem, Problems},
    units::{self, Duration, Percent},
    upstream::{
        Parts, Timeouts, Upstream, balance,
        discovery::dns::{Dns, Name},
        ejection::Rules,
        health, peer,
        set::Targets,
    },
    yaml::{self, Short, Spanned, Word},
};

/// Retries beyond this many serve nobody: Pingora makes 16 attempts at most.
const RETRIES_MAX: u8 = 10;
/// The largest share of a backend.
const WEIGHT_MAX: u16 = 256;

/// A named group of backends, with one way to share requests out, to check and to retry.
///
/// What the operator writes under `upstreams:` for each name.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Upstream")]
pub struct Config {
    /// Where requests go: `127.0.0.1:3031`, `name:port`, `unix:/path`, or with a weight
    /// `{ address: …, weight: 2 }`. All addresses of a name are used.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub backends: Spanned<Vec<Spanned<Short<BackendConfig>>>>,
    /// How requests are shared out. Default: `round_robin`.
    #[serde(default)]
    pub balance: balance::Config,
    /// How backends are checked. Default: `tcp`.
    #[serde(default)]
    pub health_check: Short<health::config::Config>,
    /// When observed failures take a backend out of service. Default: `{}`.
    #[serde(default)]
    pub ejection: Short<EjectionConfig>,
    /// How often one request is tried again on another backend. Default: `3`.
    #[serde(default)]
    pub retries: Retries,
    /// How long the parts of an exchange may take. Default: `{}`.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Backend")]
pub struct BackendConfig {
    /// Where it listens.
    pub address: Address,
    /// Its share of the requests, relative to the others. Default: `1`.
    #[serde(default)]
    pub weight: Weight,
}

impl FromStr for BackendConfig {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Ok(Self { address: text.parse()?, weight: Weight::default() })
    }
}

impl Word for BackendConfig {
    fn word(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Address>()
    }
}

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

fn is_name(host: &str) -> bool {
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

/// The share of a backend, 1 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub struct Weight(#[schemars(range(min = 1, max = WEIGHT_MAX))] u16);

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        units::in_range(deserializer, 1..=WEIGHT_MAX).map(Self)
    }
}

/// How often one request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub struct Retries(#[schemars(range(max = RETRIES_MAX))] u8);

impl Default for Retries {
    fn default() -> Self {
        Self(3)
    }
}

impl<'de> Deserialize<'de> for Retries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        units::in_range(deserializer, 0..=RETRIES_MAX).map(Self)
    }
}

/// When traffic takes a backend out of service.
///
/// What the operator writes under `ejection:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Ejection")]
pub struct EjectionConfig {
    /// So many failures in a row eject: connections that fail, break or time out, and the
    /// statuses 502, 503 and 504. Default: `3`.
    pub consecutive_failures: NonZeroU32,
    /// For how long; each relapse doubles it, up to 5 minutes. Default: `10s`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub eject_for: Duration,
    /// The share of the upstream's backends that may be ejected at a time. Default: `50%`.
    pub max_ejected: Percent,
    #[serde(skip)]
    is_off: bool,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: const { NonZeroU32::new(3).expect("3 is not 0") },
            eject_for: Duration::from_secs(10),
            max_ejected: Percent::new(50),
            is_off: false,
        }
    }
}

impl FromStr for EjectionConfig {
    type Err = NotOff;

    fn from_str(text: &str) -> Result<Self, NotOff> {
        match text {
            "off" => Ok(Self { is_off: true, ..Self::default() }),
            _ => Err(NotOff(text.to_owned())),
        }
    }
}

impl Word for EjectionConfig {
    fn word(_: &mut SchemaGenerator) -> Schema {
        yaml::words(&[("off", "Never ejects a backend.")])
    }
}

/// The only word that ejection knows.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no way to eject\nhelp: write `off`, or a mapping such as `{{ eject_for: 10s }}`")]
pub struct NotOff(String);

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
    /// Between two bytes of a WebSocket, in either direction. Default: `1h`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub tunnel: Duration,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(60),
            between_bytes: Duration::from_secs(60),
            idle: Duration::from_secs(55),
            tunnel: Duration::from_secs(3600),
        }
    }
}

impl Config {
    /// An upstream of these backends, all else by default.
    pub fn of(backends: Vec<BackendConfig>) -> Self {
        let backends = backends.into_iter().map(|backend| Spanned::new(Short(backend)));
        Self {
            backends: Spanned::new(backends.collect()),
            balance: balance::Config::default(),
            health_check: Short::default(),
            ejection: Short::default(),
            retries: Retries::default(),
            timeouts: TimeoutsConfig::default(),
        }
    }

    /// Makes the upstream; `id` keeps its pooled connections apart from those of others.
    pub fn build(&self, name: &str, id: u64, problems: &mut Problems) -> Option<Upstream> {
        let name: Arc<str> = name.into();
        if self.backends.is_empty() {
            let problem = Problem::error(format!("upstream `{name}` has no backends"));
            problems.push(problem.at(self.backends.span).help("list at least one address"));
            return None;
        }
        let (fixed, names) = self.targets(&name, problems);
        let timeouts = self.timeouts.build();
        Some(Upstream::new(Parts {
            checks: self.health_check.build(problems).map(Arc::new),
            ejection: (!self.ejection.is_off).then(|| self.ejection.rules()),
            names: (!names.is_empty()).then(|| Dns::new(&name, names)),
            peer: template(id, &timeouts),
            name,
            fixed,
            balance: self.balance,
            retries_max: usize::from(self.retries.0),
            timeouts,
        }))
    }

    fn targets(&self, upstream: &str, problems: &mut Problems) -> (Targets, Vec<Name>) {
        let (mut fixed, mut names) = (Targets::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for backend in &self.backends.value {
            let BackendConfig { address, weight: Weight(weight) } = &backend.value.0;
            let text = match address {
                Address::Socket(address) => {
                    fixed.insert(SocketAddr::Inet(*address), *weight);
                    address.to_string()
                }
                Address::Unix(path) => {
                    let address = unix::net::SocketAddr::from_pathname(path);
                    fixed.extend(address.map(|address| (SocketAddr::Unix(address), *weight)));
                    format!("unix:{}", path.display())
                }
                Address::Name(host, port) => {
                    names.push(Name { host: host.clone(), port: *port, weight: *weight });
                    format!("{host}:{port}")
                }
            };
            if !seen.insert(text.clone()) {
                let message = format!("backend `{text}` stands twice in upstream `{upstream}`");
                let help = "remove it, and give the one that stays a `weight` if it is to get more";
                problems.push(Problem::error(message).at(backend.span).help(help));
            }
        }
        (fixed, names)
    }
}

impl EjectionConfig {
    fn rules(&self) -> Rules {
        Rules {
            consecutive_failures: self.consecutive_failures.get(),
            eject_for: self.eject_for.0,
            max_ejected: self.max_ejected.as_fraction(),
        }
    }
}

impl TimeoutsConfig {
    fn build(&self) -> Timeouts {
        Timeouts {
            connect: self.connect.0,
            first_byte: self.first_byte.0,
            between_bytes: self.between_bytes.0,
            idle: self.idle.0,
            tunnel: self.tunnel.0,
        }
    }
}

/// The peer of every backend, but for the address.
fn template(id: u64, timeouts: &Timeouts) -> HttpPeer {
    const NOWHERE: net::SocketAddr =
        net::SocketAddr::new(net::IpAddr::V4(net::Ipv4Addr::UNSPECIFIED), 1);
    let mut peer = peer::plain(NOWHERE.into());
    peer.group_key = id;
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.write_timeout = Some(timeouts.between_bytes);
    peer.options.idle_timeout = Some(timeouts.idle);
    peer
}

#[cfg(test)]
mod tests {
    use super::*;

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
