//! Listeners: what is known of a connection by the place where it arrives.

use std::{collections::BTreeSet, sync::Arc};

use http::HeaderName;

use crate::{
    acme::Acme,
    config::File,
    diagnostic::{Problem, Problems},
    downstream::config::{Address, Bounds, Config, protocol::Protocol},
    observe::handshakes::Handshakes,
    routing::host::HostPattern,
    snapshot::{
        Snapshot,
        relay::{Destinations, Relays},
    },
    tls::{
        certificate::ALPN,
        keyring::{Current, Keyring, Making},
        tickets::Tickets,
    },
};

/// Where connections arrive.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The address; once it is bound, with the port that the system chose.
    pub address: Address,
    /// What is spoken, and what is relayed instead.
    pub relays: Relays,
    /// Whether HTTP/2 with prior knowledge is spoken.
    pub h2c: bool,
    /// What clients are shown; `None` in plaintext.
    pub tls: Option<Arc<Current>>,
    /// How handshakes ended, reloads or not.
    pub handshakes: Arc<Handshakes>,
    /// The bounds of its connections.
    pub bounds: Arc<Bounds>,
}

impl Listener {
    /// Whether HTTP is spoken on it.
    pub fn speaks_http(&self) -> bool {
        self.relays.protocol == Protocol::Http
    }
}

/// Listeners of a predecessor by their addresses as written: each is taken once, since a port
/// that is left to the system may be written several times.
pub(super) struct ByAddress<'a>(Vec<(&'a Config, &'a Listener)>);

impl<'a> ByAddress<'a> {
    pub(super) fn of(predecessor: Option<&'a Snapshot>) -> Self {
        let pairs =
            predecessor.iter().flat_map(|old| old.file.listeners.iter().zip(&old.listeners));
        Self(pairs.collect())
    }

    pub(super) fn take(&mut self, written: &Address) -> Option<&'a Listener> {
        let same = |(old, _): &(&Config, _)| old.address.value == *written;
        self.0.iter().position(same).map(|index| self.0.remove(index).1)
    }
}

/// Makes the listeners of a file; certificates are read here.
pub(super) fn all(
    file: &File,
    acme: Option<&Acme>,
    predecessor: Option<&Snapshot>,
    tickets: &Arc<Tickets>,
    destinations: &Destinations<'_>,
    problems: &mut Problems,
) -> Box<[Listener]> {
    let configs = &file.listeners;
    if configs.is_empty() && !problems.has_errors() {
        let problem = Problem::error("this list of listeners is empty: nothing would arrive");
        problems.push(problem.help("leave `listeners` out to listen on 0.0.0.0:8080"));
    }
    let mut old = ByAddress::of(predecessor);
    let mut listeners: Vec<Listener> = Vec::new();
    for config in configs {
        let address = &config.address;
        let is_chosen = !matches!(&address.value, Address::Socket(socket) if socket.port() == 0);
        if is_chosen && listeners.iter().any(|listener| listener.address == address.value) {
            let message = format!("two listeners have the address `{}`", address.value);
            problems.push(Problem::error(message).at(address.span).help("remove one of them"));
        }
        let old = old.take(address);
        let keyring = old.and_then(|old| old.tls.as_ref());
        listeners.push(Listener {
            relays: destinations.relays(config, problems),
            h2c: config.h2c.value,
            tls: config.tls.as_ref().and_then(|tls| {
                let offers: &[&[u8]] = if config.speaks_http() { &ALPN } else { &[] };
                let made = Making { folder: &file.folder, acme, tickets, offers };
                Keyring::read(tls, &made, keyring, problems)
            }),
            handshakes: old.map(|old| old.handshakes.clone()).unwrap_or_default(),
            bounds: Arc::new(config.bounds(problems)),
            address: config.address.value.clone(),
        });
    }
    uncovered(file, &listeners, problems);
    listeners.into()
}

/// The fields by which any listener tells origins of its clients' certificates. No route can
/// match by them: what a client sends in them counts for nothing.
pub(super) fn vouched(file: &File, problems: &mut Problems) -> Arc<[HeaderName]> {
    let tls = file.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let forward = tls.filter_map(|tls| Some(&tls.client_certificates.as_ref()?.forward));
    let names: BTreeSet<String> = forward
        .flat_map(|forward| forward.names().map(|name| name.value.to_header().to_string()))
        .collect();
    let routes = file.routes.iter().flatten().flatten();
    let matched = routes.filter_map(|route| route.matches.headers.as_ref());
    for (name, _) in matched.flat_map(|headers| &headers.value.0) {
        if names.contains(name.value.0.as_str()) {
            let message = format!("no route can match by `{}`", name.value.0);
            let help = "a listener tells origins of its clients in it, and what a client sends there \
                        is removed; remove the condition, or choose another name under `forward`";
            problems.push(Problem::error(message).at(name.span).help(help));
        }
    }
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Warns of hosts of routes that are in no certificate: where all listeners speak TLS, no client
/// can ask for them.
fn uncovered(file: &File, listeners: &[Listener], problems: &mut Problems) {
    let listeners = listeners.iter().filter(|listener| listener.speaks_http());
    let keyrings = listeners.map(|listener| Some(listener.tls.as_ref()?.now()));
    let keyrings: Option<Vec<_>> = keyrings.collect();
    let Some(keyrings) = keyrings.filter(|keyrings| !keyrings.is_empty()) else { return };
    let certificates = || keyrings.iter().flat_map(|keyring| keyring.certificates());
    let is_covered = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => certificates().any(|one| one.names.cover(host)),
        HostPattern::Below(_) => certificates().any(|one| {
            // Any label does for the one that a wildcard of the certificate stands for.
            one.names.iter().any(|name| pattern.matches(&name.replacen('*', "x", 1)))
        }),
    };
    let routes = file.routes.iter().flatten().flatten();
    let hosts = routes.filter_map(|route| route.matches.hosts.as_ref());
    let hosts = hosts.flat_map(|hosts| &hosts.value);
    for host in hosts.filter(|host| !is_covered(&host.value)) {
        let message = format!("no certificate has the name `{}`", host.value);
        let help = "clients that ask for it get the status 421; add a certificate for it";
        problems.push(Problem::warning(message).at(host.span).help(help));
    }
}
