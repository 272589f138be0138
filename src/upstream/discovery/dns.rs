//! How names are resolved: by the servers of `dns:`, or by the system's.
//!
//! An answer holds as long as its TTL says, at least a second and at most five minutes. That there
//! is no such name is believed for five seconds at most, whatever its zone says.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::OnceLock,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, rdata::SRV},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

use crate::{upstream::discovery::source::Failure, yaml};

/// The shortest time that an answer is kept, whatever its TTL says.
const KEEP_MIN: Duration = Duration::from_secs(1);
/// The longest, so that a mistaken TTL of a week can be mended.
const KEEP_MAX: Duration = Duration::from_secs(300);
/// The longest that a name is believed not to be there.
const ABSENT_MAX: Duration = Duration::from_secs(5);
/// The longest that one lookup may take.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// How long one server is waited for before it, or another one, is asked again.
const SERVER_MAX: Duration = Duration::from_secs(1);
/// So often it is asked again until the lookup's own time is over.
const ATTEMPTS: usize = 8;
/// So many lookups are under way at a time.
const LOOKUPS_MAX: usize = 256;

/// Who resolves the names of backends.
///
/// What the operator writes under `dns:`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Dns")]
pub struct Config {
    /// The servers that are asked, as addresses; their port is 53 if none is given.
    /// Default: `[]`, those of `/etc/resolv.conf`.
    pub servers: Vec<Server>,
}

/// An address of IPv4 or IPv6, with a port or without, as an editor can tell it.
const PATTERN: &str =
    r"^([0-9.]+(:[1-9][0-9]*)?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*|\[[0-9A-Fa-f:.]+\]:[1-9][0-9]*)$";

/// The address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "DnsServer", example = &"10.0.0.2", example = &"127.0.0.1:5353")]
#[schemars(extend("pattern" = PATTERN))]
pub struct Server(SocketAddr);

impl FromStr for Server {
    type Err = NotAServer;

    fn from_str(text: &str) -> Result<Self, NotAServer> {
        let with_port = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
        let address = || text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 53));
        with_port.or_else(address).map(Self).ok_or_else(|| NotAServer(text.to_owned()))
    }
}

/// What is no address of a server.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no address of a DNS server\nhelp: write an address such as `10.0.0.2` or `127.0.0.1:5353`"
)]
pub struct NotAServer(String);

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "an address such as `10.0.0.2`")
    }
}

/// What a lookup found, and how long that holds.
#[derive(Clone, Debug)]
pub struct Kept<T> {
    /// What was found; at least one.
    pub found: Vec<T>,
    /// Until then.
    pub until: Instant,
}

/// Resolves names; shared by all upstreams, with its cache.
pub struct Resolver {
    config: Config,
    inner: OnceLock<TokioResolver>,
    room: Semaphore,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Resolver {
    /// Prepares one; settings of the system are read with the first lookup.
    pub fn new(config: Config) -> Self {
        Self { config, inner: OnceLock::new(), room: Semaphore::new(LOOKUPS_MAX) }
    }

    /// What it was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Looks up all addresses of a name, in order.
    pub async fn addresses(&self, host: &str) -> Result<Kept<IpAddr>, Failure> {
        self.within(async {
            let found = self.inner()?.lookup_ip(host).await.map_err(failure)?;
            let mut addresses: Vec<_> = found.iter().collect();
            addresses.sort_unstable();
            addresses.dedup();
            Ok((addresses, Instant::from_std(found.valid_until())))
        })
        .await
    }

    /// Looks up the SRV records of a name.
    pub async fn services(&self, name: &str) -> Result<Kept<SRV>, Failure> {
        self.within(async {
            let found = self.inner()?.srv_lookup(name).await.map_err(failure)?;
            let services = found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(service) => Some(service.clone()),
                _ => None,
            });
            Ok((services.collect(), Instant::from_std(found.valid_until())))
        })
        .await
    }

    async fn within<T>(
        &self,
        lookup: impl Future<Output = Result<(Vec<T>, Instant), Failure>>,
    ) -> Result<Kept<T>, Failure> {
        let _room = self.room.acquire().await;
        let looked_up = time::timeout(LOOKUP_MAX, lookup).await;
        let (found, until) =
            looked_up.map_err(|_| Failure::new("no server answers the lookup"))??;
        if found.is_empty() {
            return Err(Failure::new("the name has no records of that kind"));
        }
        let now = Instant::now();
        let ttl = until.saturating_duration_since(now);
        Ok(Kept { found, until: now + ttl.clamp(KEEP_MIN, KEEP_MAX) })
    }

    fn inner(&self) -> Result<&TokioResolver, Failure> {
        if let Some(resolver) = self.inner.get() {
            return Ok(resolver);
        }
        let mut builder = if self.config.servers.is_empty() {
            TokioResolver::builder_tokio()
                .map_err(|why| Failure(format!("cannot read the resolver's settings: {why}")))?
        } else {
            let servers = self.config.servers.iter().map(|server| name_server(server.0));
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = SERVER_MAX;
        options.attempts = ATTEMPTS;
        options.positive_max_ttl = Some(KEEP_MAX);
        options.negative_max_ttl = Some(ABSENT_MAX);
        options.max_active_requests = LOOKUPS_MAX * 2;
        let built = builder.build().map_err(failure)?;
        Ok(self.inner.get_or_init(|| built))
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn failure(why: impl std::fmt::Display) -> Failure {
    Failure(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        for (text, address) in [
            ("10.0.0.2", "10.0.0.2:53"),
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("fd00::2", "[fd00::2]:53"),
            ("[fd00::2]:54", "[fd00::2]:54"),
        ] {
            assert_eq!(text.parse::<Server>().unwrap().0, address.parse().unwrap());
        }
        for text in ["ns.internal", "10.0.0.2:0", "10.0.0.2:dns", ""] {
            let why = text.parse::<Server>().unwrap_err().to_string();
            assert!(why.contains("is no address of a DNS server"), "{why}");
        }
    }
}
