//! An upstream as the operator writes it, and what is made of it.

mod address;
mod balance;
mod settings;
mod timeouts;

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    os::unix,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use pingora_core::protocols::l4::socket::SocketAddr;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

pub use address::{Address, AddressError, is_name};
pub use timeouts::TimeoutsConfig;

use crate::{
    diagnostic::{Problem, Problems, Span},
    units::{self, Duration},
    upstream::{
        Account, Parts, Upstream,
        backend::Heeds,
        balance as balancing,
        discovery::{
            self,
            feed::{Changed, Feed, Origin},
            source::Found,
        },
        ejection, health,
        link::{
            Link,
            config::{Http, TlsConfig},
        },
        load, proxy_header, retry,
        set::{Plan, Targets},
        site::Site,
        target::Target,
    },
    yaml::{Short, Spanned, Word},
};

/// The largest share of a backend.
pub const WEIGHT_MAX: u16 = 256;

/// A named group of backends, with one way to share requests out, to check and to retry.
///
/// What the operator writes under `upstreams:` for each name.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Upstream")]
pub struct Config {
    /// Where requests go: `127.0.0.1:3031`, `name:port`, `unix:/path`, or with a weight
    /// `{ address: …, weight: 2 }`. All addresses of a name are used.
    /// Default: none, and then `discovery` finds them.
    #[serde(default)]
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub backends: Spanned<Vec<Spanned<Short<BackendConfig>>>>,
    /// Where more backends are found, and followed as they change. Default: nowhere.
    #[serde(default)]
    #[schemars(with = "discovery::Config")]
    pub discovery: Option<Spanned<discovery::Config>>,
    /// TLS toward the backends. Default: none, connections are plaintext.
    #[serde(default)]
    #[schemars(with = "Short<TlsConfig>")]
    pub tls: Option<Spanned<Short<TlsConfig>>>,
    /// Which HTTP the backends speak: `1`; `2`, over TLS or in plaintext with prior knowledge; or
    /// over TLS `auto`, what each chooses. gRPC needs `2`. Default: `1`.
    #[serde(default)]
    pub http: Spanned<Http>,
    /// Tells backends the client's address by the PROXY protocol, as the first words of each
    /// connection, before TLS. A connection then serves one client only.
    /// Default: nothing is told.
    #[serde(default)]
    #[schemars(with = "proxy_header::Version")]
    pub send_proxy_protocol: Option<proxy_header::Version>,
    /// Whether `/readyz` says that the process is not ready while no backend may take a request.
    /// Default: `false`.
    #[serde(default)]
    pub required: bool,
    /// How requests are shared out. Default: `round_robin`.
    #[serde(default)]
    pub balance: balancing::Config,
    /// How long a backend that comes back into service, or is new, takes to grow from a twentieth
    /// of its share to all of it. Default: none, it has all of it at once.
    #[serde(default, deserialize_with = "units::lasting")]
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub slow_start: Option<Duration>,
    /// How backends are checked. Default: `tcp`.
    #[serde(default)]
    pub health_check: Short<health::config::Config>,
    /// When observed failures take a backend out of service. Default: `{}`.
    #[serde(default)]
    pub ejection: Short<ejection::config::Config>,
    /// Requests that each backend answers at a time, at most: a number; or `adaptive`, as many as
    /// its latency says that it bears, which `{ adaptive: { min: 4, max: 1000 } }` bounds.
    /// Default: unlimited.
    #[serde(default)]
    #[schemars(with = "Short<load::config::RequestsConfig>")]
    pub max_requests: Option<Spanned<Short<load::config::RequestsConfig>>>,
    /// Connections to each backend at a time, at most: in use, being made, and unused in the pool;
    /// those of checks come beside. Over HTTP/2 each carries up to 100 requests.
    /// Default: unlimited.
    #[serde(default, deserialize_with = "load::config::connections")]
    #[schemars(with = "NonZeroU32")]
    pub max_connections: Option<Spanned<NonZeroU32>>,
    /// Where requests wait, in the order of their arrival, while all backends that are fit have as
    /// much to do as they may. Default: nobody waits, the answer is `503`.
    #[serde(default)]
    #[schemars(with = "load::config::QueueConfig")]
    pub queue: Option<Spanned<load::config::QueueConfig>>,
    /// What becomes of a request when no backend is fit to take it. Default: `fail`.
    #[serde(default)]
    pub on_no_healthy: OnNoHealthy,
    /// How often one request is tried again on another backend, or when and how. Default: `3`.
    #[serde(default)]
    pub retries: Short<retry::config::Config>,
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
    /// Whether it serves only when no other is fit. Default: `false`.
    #[serde(default)]
    pub backup: bool,
    /// Where it stands: while backends of the `zone` of this proxy are fit they are preferred.
    /// Default: nowhere.
    #[serde(default)]
    pub zone: Option<Spanned<String>>,
}

impl BackendConfig {
    /// What is known of it beside its address.
    pub fn target(&self) -> Target {
        let zone = self.zone.as_ref().map(|zone| zone.value.as_str().into());
        Target { backup: self.backup, zone, ..Target::of(self.weight.0) }
    }
}

impl FromStr for BackendConfig {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = text.parse()?;
        Ok(Self { address, weight: Weight::default(), backup: false, zone: None })
    }
}

impl Word for BackendConfig {
    fn word(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Address>()
    }
}

/// The share of a backend, 1 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub struct Weight(#[schemars(range(min = 1, max = WEIGHT_MAX))] u16);

impl Weight {
    /// One, if the number may be one.
    pub fn new(weight: u16) -> Option<Self> {
        (1..=WEIGHT_MAX).contains(&weight).then_some(Self(weight))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

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

/// What becomes of a request when no backend is fit to take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNoHealthy {
    /// It gets `503` at once.
    #[default]
    Fail,
    /// Backends are tried that their checks found down, since checks may be wrong about all.
    Any,
}

impl OnNoHealthy {
    /// In the word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Any => "any",
        }
    }
}

impl Config {
    /// An upstream of these backends, all else by default.
    pub fn of(backends: Vec<BackendConfig>) -> Self {
        let backends = backends.into_iter().map(|backend| Spanned::new(Short(backend)));
        Self {
            backends: Spanned::new(backends.collect()),
            discovery: None,
            tls: None,
            http: Spanned::default(),
            send_proxy_protocol: None,
            required: false,
            balance: balancing::Config::default(),
            slow_start: None,
            health_check: Short::default(),
            ejection: Short::default(),
            on_no_healthy: OnNoHealthy::default(),
            retries: Short::default(),
            max_requests: None,
            max_connections: None,
            queue: None,
            timeouts: TimeoutsConfig::default(),
        }
    }

    /// Whether it says where its backends are; `name` is where it was written.
    pub fn has_backends(&self, name: &Spanned<String>, problems: &mut Problems) -> bool {
        let has_some = !self.backends.is_empty() || self.discovery.is_some();
        if !has_some {
            let is_written = self.backends.span != Span::default();
            let place = if is_written { self.backends.span } else { name.span };
            let help = "list at least one address, or say by `discovery` where they are found";
            let problem = Problem::error(format!("upstream `{name}` has no backends"));
            problems.push(problem.at(place).help(help));
        }
        has_some
    }

    /// The files that are read, seen from the folder of the main file.
    pub fn files(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        let tls = self.tls.iter();
        tls.flat_map(move |tls| tls.value.0.files(folder).collect::<Vec<_>>())
    }

    /// Reads the files that connections are made with; `None` if something is wrong with them.
    pub fn link(&self, folder: &Path, problems: &mut Problems) -> Option<Link> {
        let backends = self.backends.iter().map(|backend| (&backend.address, backend.span));
        let unnamed = backends.filter(|(address, _)| !matches!(address, Address::Name(..)));
        let unnamed = unnamed.map(|(address, span)| (format!("backend `{address}`"), span));
        let found = self.discovery.iter().filter(|found| found.value.gives_addresses());
        let found = found.map(|found| ("what `discovery` finds".to_owned(), found.span));
        let unnamed = unnamed.chain(found);
        Link::read(
            self.tls.as_ref(),
            &self.http,
            self.send_proxy_protocol,
            unnamed,
            folder,
            problems,
        )
    }

    /// Makes the upstream. A predecessor of the same name leaves it what is known of the same
    /// addresses and names, its account, and, if connections are made as before, those in its pool.
    pub fn build(
        &self,
        name: &str,
        link: Link,
        site: &Site,
        predecessor: Option<&Upstream>,
        problems: &mut Problems,
    ) -> Option<Upstream> {
        let name: Arc<str> = name.into();
        let Site { zone, sources, key, around } = site;
        self.check_balance(&name, zone.as_deref(), problems);
        let (fixed, names) = self.targets(&name, problems);
        let timeouts = self.timeouts.build(&link, problems);
        let alike = predecessor.filter(|old| *old.link() == link);
        let mut template = link.template(&timeouts, sources);
        template.group_key = alike.map_or_else(Link::pool, Upstream::pool);
        if self.max_connections.is_some() && template.options.custom_l4.is_none() {
            // What counts connections has to make them.
            let dial = link.dial(&timeouts, sources, proxy_header::Sender::Ourselves);
            template.options.custom_l4 = Some(Arc::new(dial));
        }
        let changed = Changed::default();
        let known = predecessor.map_or(&[][..], Upstream::feeds);
        let mut origins: Vec<Origin> = Origin::of_names(names).into_iter().collect();
        if let Some(discovery) = &self.discovery {
            origins.extend(discovery::Config::build(discovery, &name, around, problems));
        }
        let feeds = origins
            .into_iter()
            .map(|origin| Arc::new(Feed::new(&name, origin, &around.resolver, &changed, known)));
        let checks = self.health_check.build(&link, sources, problems).map(Arc::new);
        let ejection = self.ejection.rules();
        let outliers = self.ejection.outliers(problems);
        let load = self.load(&link, problems);
        let plan = Plan {
            balance: self.balance.clone(),
            slow_start: self.slow_start.map(|time| time.0),
            zone: zone.clone(),
            upstream: name.clone(),
            key: key.clone(),
            heeds: Heeds {
                probe: checks.is_some(),
                ejection: ejection.is_some(),
                load: load.bounds,
            },
            observes: outliers.is_some(),
            template,
        };
        let parts = Parts {
            checks,
            ejection,
            outliers,
            on_no_healthy: self.on_no_healthy,
            plan,
            feeds: feeds.collect(),
            changed,
            name,
            fixed,
            is_required: self.required,
            retries: self.retries.build(problems),
            load,
            timeouts,
            link,
            sources: sources.clone(),
        };
        let account = predecessor.map_or_else(Account::open, |old| old.account().clone());
        Some(Upstream::new(parts, account, predecessor))
    }

    fn targets(&self, upstream: &str, problems: &mut Problems) -> (Targets, Vec<Found>) {
        let (mut fixed, mut names) = (Targets::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for backend in &self.backends.value {
            let target = backend.value.0.target();
            let address = &backend.value.0.address;
            match address {
                Address::Socket(address) => {
                    fixed.insert(SocketAddr::Inet(*address), target);
                }
                Address::Unix(path) => {
                    let address = unix::net::SocketAddr::from_pathname(path);
                    fixed.extend(address.map(|address| (SocketAddr::Unix(address), target)));
                }
                Address::Name(..) => names.push(Found { address: address.clone(), target }),
            }
            let text = address.to_string();
            if !seen.insert(text.clone()) {
                let message = format!("backend `{text}` stands twice in upstream `{upstream}`");
                let help = "remove it, and give the one that stays a `weight` if it is to get more";
                problems.push(Problem::error(message).at(backend.span).help(help));
            }
        }
        (fixed, names)
    }
}
