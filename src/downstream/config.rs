//! A listener as the operator writes it, and the bounds of its connections.

pub mod process;
pub mod protocol;
pub mod proxy_protocol;
mod settings;
pub mod socket;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time,
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::{Problem, Problems, Span},
    http1::head,
    tls,
    units::{self, ByteSize, Duration},
    yaml::{self, Spanned},
};

/// A place where connections arrive.
///
/// What the operator writes in the list under `listeners:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Listener")]
pub struct Config {
    /// Where to listen: `0.0.0.0:80`, `[::]:80` (IPv4 as well), or `unix:/path`.
    pub address: Spanned<Address>,
    /// What is spoken. Default: `http`.
    #[serde(default)]
    pub protocol: Spanned<protocol::Protocol>,
    /// Where a listener of `protocol: tcp` relays connections, and with `tls` what is said within.
    /// Default: nowhere, if those are passed through that ask for certain names.
    #[serde(default)]
    pub upstream: Option<Spanned<String>>,
    /// Connections that are relayed as they come, TLS untouched, by the name that they ask for.
    /// All others fare as without this. Default: none.
    #[serde(default)]
    #[schemars(with = "Vec<protocol::PassthroughConfig>", length(min = 1))]
    pub passthrough: Option<Spanned<Vec<Spanned<protocol::PassthroughConfig>>>>,
    /// Whether clients may speak HTTP/2 with prior knowledge on this plaintext listener.
    /// Default: `false`.
    #[serde(default)]
    pub h2c: Spanned<bool>,
    /// Certificates with which clients are spoken to over TLS, 1.2 or 1.3; HTTP/2 is offered
    /// beside HTTP/1.1. Default: none, in plaintext.
    #[serde(default)]
    pub tls: Option<Spanned<tls::config::Config>>,
    /// How long a client may take. Default: `{}`.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// How much a client may send before its request is refused. Default: `{}`.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Load balancers in front that say with the PROXY protocol who their clients are. The client
    /// that they tell is the client everywhere. Default: none, and whoever sends it is refused.
    #[serde(default)]
    pub proxy_protocol: Option<proxy_protocol::Config>,
    /// What the kernel is told of the socket. Default: `{}`.
    #[serde(default)]
    pub socket: socket::Config,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", rename = "ListenerAddress")]
#[schemars(example = &"0.0.0.0:80", example = &"[::]:80", example = &"unix:/run/crestline/http.sock")]
#[schemars(extend("pattern" = r"^(unix:/[^ ]*|([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+)$"))]
pub enum Address {
    /// An address and a port.
    Socket(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why an address cannot be listened on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen on\nhelp: write `0.0.0.0:80`, `[::]:80`, or `unix:/path`")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            // The kernel takes 107 bytes; Pingora passes addresses on as words.
            let fits = path.starts_with('/') && path.len() <= 107 && !path.contains(' ');
            return if fits { Ok(Self::Unix(path.into())) } else { Err(AddressError(text.into())) };
        }
        text.parse().map(Self::Socket).map_err(|_| AddressError(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "an address such as `0.0.0.0:80`")
    }
}

/// A network whose peers may say who their clients are: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", example = &"10.0.0.0/8", example = &"2001:db8::1")]
#[schemars(extend("pattern" = "^[0-9A-Fa-f:.]+(/[0-9]+)?$"))]
pub struct Network(pub IpNet);

/// What is no network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network\nhelp: write `10.0.0.0/8`, `2001:db8::/32`, or one address")]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| NotANetwork(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a network such as `10.0.0.0/8`")
    }
}

/// How long a client may take.
///
/// What the operator writes under a listener's `timeouts:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerTimeouts")]
pub struct TimeoutsConfig {
    /// A TLS handshake, from the connection to its end. Default: `10s`.
    #[serde(deserialize_with = "positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub handshake: Spanned<Duration>,
    /// A request head, from its first byte to its last. Default: `10s`.
    #[serde(deserialize_with = "positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub header: Spanned<Duration>,
    /// Between an answer and the next request. Default: `75s`.
    #[serde(deserialize_with = "positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub idle: Spanned<Duration>,
    /// Between two pieces of a request's body. Default: `30s`.
    #[serde(deserialize_with = "positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub body: Spanned<Duration>,
    /// How long a client may not take any of its answer. Default: `30s`.
    #[serde(deserialize_with = "positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub write: Spanned<Duration>,
}

/// Reads a time that must not be zero, with its place.
fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spanned<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct Positive(#[serde(deserialize_with = "units::positive")] Duration);
    let Spanned { value: Positive(value), span } = Spanned::deserialize(deserializer)?;
    Ok(Spanned { value, span })
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            handshake: Spanned::new(Duration::from_secs(10)),
            header: Spanned::new(Duration::from_secs(10)),
            idle: Spanned::new(Duration::from_secs(75)),
            body: Spanned::new(Duration::from_secs(30)),
            write: Spanned::new(Duration::from_secs(30)),
        }
    }
}

/// How much a client may send.
///
/// What the operator writes under a listener's `limits:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerLimits")]
pub struct LimitsConfig {
    /// The head of a request, all of it; `431` beyond. From `64B` to `64KiB`. Default: `64KiB`.
    pub header_size: Spanned<ByteSize>,
    /// The fields of a request; `431` beyond. Default: `128`.
    #[schemars(range(min = 1, max = HEADER_FIELDS_MAX))]
    pub header_fields: Spanned<usize>,
    /// The target of a request (path and query); `414` beyond. From `64B` to `64KiB`.
    /// Default: `16KiB`.
    pub target_size: Spanned<ByteSize>,
    /// What a client must send of a body in each second on average, once it has been waited for
    /// as long as `timeouts.body` says; `408` below. `0B` asks for nothing. Default: `240B`.
    pub body_rate: Spanned<ByteSize>,
}

/// A byte now and then keeps nobody busy: this is slower than any modem.
const BODY_RATE: u64 = 240;

/// Pingora reads this many fields at most.
const HEADER_FIELDS_MAX: usize = 256;

const LIMITS: head::Limits =
    head::Limits { header_size: 64 * 1024, header_fields: 128, target_size: 16 * 1024 };

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            header_size: Spanned::new(ByteSize(LIMITS.header_size as u64)),
            header_fields: Spanned::new(LIMITS.header_fields),
            target_size: Spanned::new(ByteSize(LIMITS.target_size as u64)),
            body_rate: Spanned::new(ByteSize(BODY_RATE)),
        }
    }
}

/// What runs: the bounds of every connection of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// A TLS handshake.
    pub handshake_timeout: time::Duration,
    /// A request head, from its first byte to its last.
    pub header_timeout: time::Duration,
    /// Between an answer and the next request.
    pub idle_timeout: time::Duration,
    /// Between two pieces of a request's body.
    pub body_timeout: time::Duration,
    /// How long a client may not take any of its answer.
    pub write_timeout: time::Duration,
    /// What must come of a body in each second on average, in bytes; 0 is nothing.
    pub body_rate: u64,
    /// The size of a head and its parts.
    pub head: head::Limits,
    /// Who introduces its clients; `None` if nobody does.
    pub proxy_protocol: Option<proxy_protocol::Rules>,
}

impl Default for Bounds {
    fn default() -> Self {
        TimeoutsConfig::default().bounds(LIMITS)
    }
}

impl TimeoutsConfig {
    fn bounds(&self, head: head::Limits) -> Bounds {
        Bounds {
            handshake_timeout: self.handshake.value.0,
            header_timeout: self.header.0,
            idle_timeout: self.idle.0,
            body_timeout: self.body.0,
            write_timeout: self.write.0,
            body_rate: BODY_RATE,
            head,
            proxy_protocol: None,
        }
    }
}

impl Default for Config {
    /// `0.0.0.0:8080`, all else by default.
    fn default() -> Self {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
        Self::at(Address::Socket(any))
    }
}

impl Config {
    /// A listener at this address, all else by default.
    pub fn at(address: Address) -> Self {
        Self {
            address: Spanned::new(address),
            protocol: Spanned::default(),
            upstream: None,
            passthrough: None,
            h2c: Spanned::new(false),
            tls: None,
            timeouts: TimeoutsConfig::default(),
            limits: LimitsConfig::default(),
            proxy_protocol: None,
            socket: socket::Config::default(),
        }
    }

    /// Whether clients may speak HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        self.speaks_http() && (self.h2c.value || self.tls.is_some())
    }

    /// Checks what has its meaning with TLS only, or without it, and the limits; makes the bounds.
    pub fn bounds(&self, problems: &mut Problems) -> Bounds {
        let Self { h2c, tls, timeouts, .. } = self;
        if h2c.value && tls.is_some() {
            let problem =
                Problem::error("`h2c` does nothing on a listener with `tls`").at(h2c.span);
            problems.push(problem.help("remove it: HTTP/2 is always offered over TLS"));
        }
        let is_written = timeouts.handshake.span != Span::default();
        if is_written && tls.is_none() && self.passthrough.is_none() {
            let message = "`handshake` does nothing on a listener without `tls`";
            let problem = Problem::error(message).at(timeouts.handshake.span);
            problems.push(problem.help("remove it, or give the listener certificates"));
        }
        self.check_protocol(problems);
        self.socket.check(&self.address, problems);
        let proxy_protocol = self.proxy_protocol.as_ref();
        Bounds {
            body_rate: self.limits.body_rate.0,
            proxy_protocol: proxy_protocol.map(|told| told.build(&self.address, problems)),
            ..self.timeouts.bounds(self.limits.build(problems))
        }
    }
}

impl LimitsConfig {
    fn build(&self, problems: &mut Problems) -> head::Limits {
        let mut size = |name: &str, size: &Spanned<ByteSize>, max: usize| {
            let bytes = usize::try_from(size.value.0).unwrap_or(usize::MAX);
            if !(64..=max).contains(&bytes) {
                let max = ByteSize(max as u64);
                let message =
                    format!("`{}` is out of range for `{name}`: 64B to {max}", size.value);
                problems.push(Problem::error(message).at(size.span));
            }
            bytes
        };
        let header_size = size("header_size", &self.header_size, LIMITS.header_size);
        let target_size = size("target_size", &self.target_size, LIMITS.header_size);
        let fields = &self.header_fields;
        if !(1..=HEADER_FIELDS_MAX).contains(&fields.value) {
            let message = format!(
                "`{}` is out of range for `header_fields`: 1 to {HEADER_FIELDS_MAX}",
                fields.value
            );
            problems.push(Problem::error(message).at(fields.span));
        }
        head::Limits { header_size, header_fields: fields.value, target_size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_are_written() {
        for text in ["0.0.0.0:80", "[::]:443", "unix:/run/crestline/http.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["localhost:80", "80", "unix:http.sock", "unix:/a b", ""] {
            assert_eq!(text.parse::<Address>(), Err(AddressError(text.to_owned())));
        }
    }
}
