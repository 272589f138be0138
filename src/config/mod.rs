//! The file as the operator wrote it: Pingora's keys and ours side by side, each half strict.
//!
//! [`load`] reads it, and what it includes, as one tree; [`File::read`] makes types of that.
//! This room only gathers: every key belongs to the module that it configures. Each upstream,
//! listener and route is read on its own, so that one mistake does not hide another.

pub mod admin;
pub mod mirror;
mod parts;
mod places;
pub mod route;
pub mod schema;
pub mod server;
pub mod source;
pub mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use pingora_core::server::configuration::ServerConf;
use schemars::JsonSchema;
use serde::Deserialize;

pub use places::{Places, Written};
pub use source::{Loaded, load};

use crate::{
    acme, cache,
    config::{
        parts::{Halves, find, list, split, wrong_kind},
        route::RouteConfig,
    },
    diagnostic::{Problem, Problems},
    downstream, observe, overload, traces,
    units::{self, ByteSize, Duration},
    upstream,
    yaml::{self, Entry, Short, Spanned, Value},
};

/// A configuration as written. What could not be read is left out; its problems are told.
///
/// The attributes tell the schema how a part is written where that is not how it is kept.
#[derive(Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields, title = "The configuration of Crestline")]
#[schemars(description = "Pingora's keys and Crestline's, side by side.")]
pub struct File {
    /// The folder of the main file, from which certificates are looked for.
    #[schemars(skip)]
    pub folder: PathBuf,
    /// Pingora's half, with Crestline's defaults.
    #[schemars(flatten, with = "server::keys::Keys")]
    pub server: ServerConf,
    /// Which of Pingora's keys were written, and where.
    #[schemars(skip)]
    pub server_keys: Vec<Spanned<String>>,
    /// Where the settings of listeners and upstreams were written, by their path, such as
    /// `upstreams.app.timeouts.connect`.
    #[schemars(skip)]
    pub places: Places,
    /// More files, as paths or patterns such as `conf.d/*.yaml`, seen from the folder of this one.
    /// Their lists and mappings are joined with those of this file; no name may stand twice.
    /// Default: `[]`.
    #[schemars(default)]
    pub include: Vec<String>,
    /// Whether the files are read again when they change, once they have been still for a moment.
    /// Default: `false`.
    #[schemars(default)]
    pub watch: bool,
    /// Whether routes may have `fault` policies, which fail requests on purpose. Default: `false`.
    #[schemars(default)]
    pub allow_faults: bool,
    /// How long a process that is told to stop serves on and only says that it is draining, so
    /// that those who send it requests notice before its listeners close.
    /// Default: none, listeners close at once.
    #[schemars(default, with = "units::Duration", extend("pattern" = units::POSITIVE))]
    pub lame_duck: Option<Duration>,
    /// Where this proxy stands: backends of the same `zone` are preferred while they are fit.
    /// Default: nowhere, zones do not count.
    #[schemars(default, with = "String")]
    pub zone: Option<String>,
    /// Networks whose `X-Forwarded-*` and `X-Request-Id` fields count: the proxies in front of
    /// this one. Default: `[]`, no one's.
    #[schemars(default)]
    pub trusted_proxies: Vec<downstream::config::Network>,
    /// How much clients may take: all of them together, and each alone. Default: `{}`.
    #[schemars(default)]
    pub limits: downstream::config::process::Limits,
    /// How much is kept of answers, by routes with a `cache` policy. Default: `{}`.
    #[schemars(default)]
    pub cache: cache::config::Config,
    /// When new requests are shed because the process has too much to do. Default: `{}`.
    #[schemars(default)]
    pub overload: overload::config::Config,
    /// What the process tells of itself on standard error. Default: `{}`.
    #[schemars(default)]
    pub process_log: observe::process_log::config::Config,
    /// One line for each request. Default: `{}`.
    #[schemars(default, with = "Short<observe::access_log::config::Config>")]
    pub access_log: observe::access_log::config::Config,
    /// Which requests are traced, and who gets their spans.
    /// Default: nothing is traced; a trace that a client began goes on as it came.
    #[schemars(default)]
    pub traces: Option<Spanned<traces::config::Config>>,
    /// Where connections arrive. Default: one listener, at `0.0.0.0:8080`.
    #[schemars(default)]
    pub listeners: Vec<downstream::config::Config>,
    /// Where certificates are obtained that listeners name under `tls: { acme: … }`.
    /// Default: nowhere, certificates are from files.
    #[schemars(default)]
    pub acme: Option<Spanned<acme::config::Config>>,
    /// Where the API, `/metrics`, `/healthz` and `/readyz` are served over TCP.
    /// Default: nowhere, only on the socket beside the `pid_file`.
    #[schemars(default)]
    pub admin: Option<Spanned<admin::AdminConfig>>,
    /// Who resolves the names of backends: without it, the servers of `/etc/resolv.conf`.
    /// Default: `{}`.
    #[schemars(default)]
    pub dns: upstream::discovery::dns::Config,
    /// Groups of backends, by name, in the order written. Default: none, and a file needs one.
    #[schemars(default, with = "BTreeMap<String, upstream::config::Config>")]
    pub upstreams: Vec<Named<upstream::config::Config>>,
    /// Which requests go where. The most specific host comes first, then the most specific path.
    /// Default: everything goes to the one upstream.
    // `None` if the key is absent, and within for one that could not be read.
    #[schemars(default, with = "Vec<RouteConfig>")]
    pub routes: Option<Vec<Option<RouteConfig>>>,
}

/// A time that is longer than zero.
#[derive(Deserialize)]
struct Lasting(#[serde(deserialize_with = "units::positive")] Duration);

/// A part that has a name of its own in the file.
#[derive(Debug, PartialEq)]
pub struct Named<T> {
    /// The name.
    pub name: Spanned<String>,
    /// The part; `None` if it could not be read, so that references to it still resolve.
    pub config: Option<T>,
}

/// The `pid_file` of a configuration that may have all kinds of problems; `None` if those are
/// such that it cannot be told.
pub fn pid_file(loaded: &Loaded) -> Option<String> {
    match loaded.root.as_ref()?.get("pid_file") {
        Some(entry) => entry.value.text().map(str::to_owned),
        None => Some(server::defaults().pid_file),
    }
}

impl File {
    /// A configuration of one upstream behind one listener, all else by default.
    pub fn of(listener: downstream::config::Address, backends: upstream::config::Config) -> Self {
        let name = Spanned::new("default".to_owned());
        Self {
            folder: PathBuf::new(),
            server: server::defaults(),
            server_keys: Vec::new(),
            places: Places::default(),
            include: Vec::new(),
            watch: false,
            allow_faults: false,
            lame_duck: None,
            zone: None,
            acme: None,
            admin: None,
            dns: upstream::discovery::dns::Config::default(),
            process_log: observe::process_log::config::Config::default(),
            access_log: observe::access_log::config::Config::default(),
            traces: None,
            trusted_proxies: Vec::new(),
            limits: downstream::config::process::Limits::default(),
            cache: cache::config::Config::default(),
            overload: overload::config::Config::default(),
            listeners: vec![downstream::config::Config::at(listener)],
            upstreams: vec![Named { name, config: Some(backends) }],
            routes: None,
        }
    }

    /// Pingora's half, for the server that it makes: Pingora's type cannot be cloned.
    pub fn server(&self) -> ServerConf {
        let values = serde_json::to_value(&self.server);
        values.and_then(serde_json::from_value).expect("what Pingora writes it can read")
    }

    /// Pingora's half as values by key, to compare it with another.
    pub fn server_values(&self) -> BTreeMap<String, serde_json::Value> {
        match serde_json::to_value(&self.server) {
            Ok(serde_json::Value::Object(values)) => values.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    }

    /// The files of certificates, keys, tokens and policies, which are read when it is compiled.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let tls = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let upstreams = self.upstreams.iter().filter_map(|upstream| upstream.config.as_ref());
        let shown = tls.flat_map(|tls| tls.files(&self.folder));
        let admin = self.admin.iter().flat_map(|admin| admin.files(&self.folder));
        let routes = self.routes.iter().flatten().flatten();
        let policies = routes.flat_map(|route| &route.policies);
        let read = policies.flat_map(|policy| policy.value.files());
        shown
            .chain(upstreams.flat_map(|upstream| upstream.files(&self.folder)))
            .chain(admin)
            .chain(read.map(|path| self.folder.join(path)))
    }

    /// The names of its routes.
    pub fn route_names(&self) -> impl Iterator<Item = &str> {
        let written = self.routes.iter().flatten().flatten().map(|route| &*route.name.value);
        written.chain(self.routes.is_none().then_some(route::ONLY))
    }

    /// What Pingora is told of HTTP/2 when the process starts: the widest size of a head, and idle
    /// time, of all listeners that speak it. The defaults hold if none does.
    pub fn http2_bounds(&self) -> (ByteSize, Duration) {
        let speakers = || self.listeners.iter().filter(|listener| listener.speaks_http2());
        let size = speakers().map(|listener| listener.limits.header_size.value).max();
        let idle = speakers().map(|listener| listener.timeouts.idle.value).max();
        let default = downstream::config::Config::default();
        (
            size.unwrap_or(default.limits.header_size.value),
            idle.unwrap_or(default.timeouts.idle.value),
        )
    }

    /// Makes types of what was loaded; all that is wrong with its form goes to `problems`.
    pub fn read(loaded: &Loaded, problems: &mut Problems) -> Option<Self> {
        let root = loaded.root.as_ref()?;
        let entries = match &root.value {
            Value::Mapping(entries) => entries,
            Value::Unfilled => return None,
            Value::Null => {
                problems.push(Problem::error("the configuration is empty").help(SMALLEST));
                return None;
            }
            _ => {
                let problem = Problem::error("the configuration is not a mapping").at(root.span);
                problems.push(problem.help(SMALLEST));
                return None;
            }
        };
        let Halves { ours, pingoras, misspelt } = split(entries, problems);
        let server_keys = pingoras.iter();
        let server_keys = server_keys
            .map(|entry| Spanned { value: entry.key.clone(), span: entry.key_span })
            .collect();
        let listeners = list(loaded, &ours, "listeners", problems, yaml::read)
            .unwrap_or_else(|| vec![Some(downstream::config::Config::default())]);
        let file = Self {
            folder: loaded.folder.clone(),
            server_keys,
            places: Places::of(ours.iter().copied()),
            include: loaded.watched.includes(),
            server: server::read(pingoras, root.span, problems),
            watch: find(&ours, "watch")
                .and_then(|node| yaml::read(node, "watch", problems))
                .unwrap_or_default(),
            allow_faults: find(&ours, "allow_faults")
                .and_then(|node| yaml::read(node, "allow_faults", problems))
                .unwrap_or_default(),
            lame_duck: find(&ours, "lame_duck")
                .and_then(|node| yaml::read::<Lasting>(node, "lame_duck", problems))
                .map(|time| time.0),
            dns: find(&ours, "dns")
                .and_then(|node| yaml::read(node, "dns", problems))
                .unwrap_or_default(),
            zone: find(&ours, "zone").and_then(|node| yaml::read(node, "zone", problems)),
            acme: find(&ours, "acme").and_then(|node| yaml::read(node, "acme", problems)),
            admin: find(&ours, "admin").and_then(|node| yaml::read(node, "admin", problems)),
            process_log: find(&ours, "process_log")
                .and_then(|node| yaml::read(node, "process_log", problems))
                .unwrap_or_default(),
            access_log: find(&ours, "access_log")
                .and_then(|node| yaml::read::<Short<_>>(node, "access_log", problems))
                .map_or_else(Default::default, |log| log.0),
            traces: find(&ours, "traces").and_then(|node| yaml::read(node, "traces", problems)),
            trusted_proxies: find(&ours, "trusted_proxies")
                .and_then(|node| yaml::read(node, "trusted_proxies", problems))
                .unwrap_or_default(),
            limits: find(&ours, "limits")
                .and_then(|node| yaml::read(node, "limits", problems))
                .unwrap_or_default(),
            cache: find(&ours, "cache")
                .and_then(|node| yaml::read(node, "cache", problems))
                .unwrap_or_default(),
            overload: find(&ours, "overload")
                .and_then(|node| yaml::read(node, "overload", problems))
                .unwrap_or_default(),
            listeners: listeners.into_iter().flatten().collect(),
            upstreams: upstreams(&ours, problems),
            routes: list(loaded, &ours, "routes", problems, RouteConfig::read),
        };
        let is_lost = |key| {
            misspelt.contains(&key)
                || find(&ours, key).is_some_and(|node| match node.value {
                    Value::Sequence(_) => key != "routes",
                    Value::Mapping(_) => key != "upstreams",
                    _ => true,
                })
        };
        let is_whole = loaded.is_whole && !is_lost("routes") && !is_lost("upstreams");
        Some(if is_whole { file } else { file.with_room_for_the_rest() })
    }

    /// Takes for granted what may stand in a part that could not be read, which is told:
    /// the upstreams that routes name, and routes to the upstreams that no route names.
    fn with_room_for_the_rest(mut self) -> Self {
        let routes = self.routes.get_or_insert_default();
        let names = routes.iter().flatten().flat_map(RouteConfig::names);
        let names = names.map(|(name, _)| name.clone());
        let mut missing: BTreeSet<String> = names.collect();
        for upstream in &self.upstreams {
            missing.remove(&upstream.name.value);
        }
        if missing.is_empty() && self.upstreams.is_empty() {
            missing.insert(String::new());
        }
        routes.push(None);
        let missing = missing.into_iter();
        self.upstreams.extend(missing.map(|name| Named { name: Spanned::new(name), config: None }));
        self
    }
}

/// The help line for a file without anything to do.
pub const SMALLEST: &str =
    "the smallest file is `upstreams: { app: { backends: [127.0.0.1:3031] } }`";

fn upstreams(entries: &[&Entry], problems: &mut Problems) -> Vec<Named<upstream::config::Config>> {
    let Some(node) = find(entries, "upstreams") else { return Vec::new() };
    let Value::Mapping(named) = &node.value else {
        if node.value != Value::Unfilled {
            problems.push(wrong_kind("upstreams", node));
        }
        return Vec::new();
    };
    let read = |entry: &Entry| Named {
        name: Spanned { value: entry.key.clone(), span: entry.key_span },
        config: yaml::read(&entry.value, &format!("upstreams.{}", entry.key), problems),
    };
    named.iter().map(read).collect()
}
