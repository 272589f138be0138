//! The compiled configuration in force: routes, upstreams, listeners; immutable.
//!
//! [`compile`] makes one of a text and tells all problems at once. What runs loads it by one
//! pointer ([`Live`]); a request takes its route and keeps it to the end.

mod route;
mod rules;

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use pingora_core::server::configuration::ServerConf;

pub use route::{Host, Route};

use crate::{
    config::{File, Named, SMALLEST},
    diagnostic::{Problem, Problems},
    downstream::config::{Address, Bounds, Config as ListenerConfig},
    observe::access_log::{Target, line::Format},
    routing::table::Table,
    upstream::{Upstream, config::Config as UpstreamConfig},
};

/// Where connections arrive.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The address.
    pub address: Address,
    /// Whether HTTP/2 with prior knowledge is spoken.
    pub h2c: bool,
    /// The bounds of its connections.
    pub bounds: Arc<Bounds>,
}

/// The compiled configuration.
pub struct Snapshot {
    /// Which route takes a request.
    pub routes: Table<Arc<Route>>,
    /// Groups of backends, by name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
}

/// The snapshot in force.
pub type Live = Arc<ArcSwap<Snapshot>>;

/// All that a start needs.
pub struct Compiled {
    /// Pingora's half.
    pub server: ServerConf,
    /// Where connections arrive; at least one.
    pub listeners: Vec<Listener>,
    /// Networks whose `X-Forwarded-*` fields count.
    pub trusted_proxies: Vec<IpNet>,
    /// The access log; `None` if it is off.
    pub access_log: Option<(Format, Target)>,
    /// What requests see.
    pub snapshot: Snapshot,
}

/// Compiles a text; `None` if any problem is an error.
pub fn compile(text: &str, problems: &mut Problems) -> Option<Compiled> {
    let file = File::read(text, problems)?;
    let compiled = assemble(file, problems);
    (!problems.has_errors()).then_some(compiled)
}

/// Makes what runs of what was read.
pub fn assemble(file: File, problems: &mut Problems) -> Compiled {
    let named = file.upstreams.as_deref();
    let upstreams = upstreams(named, problems);
    let routes = match &file.routes {
        Some(routes) => route::table(routes, named, &upstreams, problems),
        None => route::only(named, &upstreams, problems),
    };
    let access_log = file.access_log.build(problems);
    Compiled {
        listeners: listeners(file.listeners, problems),
        trusted_proxies: file.trusted_proxies.iter().map(|network| network.0).collect(),
        access_log,
        snapshot: Snapshot { routes, upstreams },
        server: file.server,
    }
}

fn upstreams(
    named: Option<&[Named<UpstreamConfig>]>,
    problems: &mut Problems,
) -> BTreeMap<String, Arc<Upstream>> {
    if named.is_some_and(<[_]>::is_empty) {
        problems.push(Problem::error("no upstream is defined").help(SMALLEST));
    }
    let mut built = BTreeMap::new();
    for (id, Named { name, config }) in (1..).zip(named.unwrap_or_default()) {
        let upstream = config.as_ref().and_then(|config| config.build(name, id, problems));
        if let Some(upstream) = upstream {
            built.insert(name.value.clone(), Arc::new(upstream));
        }
    }
    built
}

fn listeners(configs: Vec<ListenerConfig>, problems: &mut Problems) -> Vec<Listener> {
    let configs = if configs.is_empty() {
        let any = std::net::SocketAddr::from(([0, 0, 0, 0], 8080));
        vec![ListenerConfig::at(Address::Socket(any))]
    } else {
        configs
    };
    let mut listeners: Vec<Listener> = Vec::new();
    for config in configs {
        let address = &config.address;
        let is_chosen = !matches!(&address.value, Address::Socket(socket) if socket.port() == 0);
        if is_chosen && listeners.iter().any(|listener| listener.address == address.value) {
            let message = format!("two listeners have the address `{}`", address.value);
            problems.push(Problem::error(message).at(address.span).help("remove one of them"));
        }
        listeners.push(Listener {
            h2c: config.h2c,
            bounds: Arc::new(config.bounds(problems)),
            address: config.address.value,
        });
    }
    listeners
}

#[cfg(test)]
mod tests;
