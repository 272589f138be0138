//! The compiled configuration in force: routes, upstreams, listeners; immutable.
//!
//! [`compile`] makes one of a text and tells all problems at once. What runs loads it by one
//! pointer ([`Live`]); a request takes its route and keeps it to the end.
//!
//! INVARIANT: making a snapshot changes nothing that runs, so that one with problems can be
//! thrown away; what it takes over from its predecessor is shared, and only read.

mod acme;
mod admin;
mod ledger;
mod listener;
pub mod metrics;
mod mirror;
mod relay;
mod route;
mod rules;
mod split;
mod traces;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::time::Instant;

pub use admin::Access;
pub use ledger::Ledger;
pub use listener::Listener;
pub use mirror::Mirror;
pub use relay::{Names, Relays, Target as RelayTarget};
pub use route::{Host, Route};
pub use split::Split;

use crate::{
    acme::Acme,
    config::{File, Loaded, Named, SMALLEST, server},
    diagnostic::{Problem, Problems},
    downstream::config::Address,
    observe::{
        access_log::{AccessLog, form::Form, target::Target},
        tally::Tally,
    },
    routing::table::Table,
    snapshot::traces::Traces,
    tls::{keyring::Keyring, tickets::Tickets},
    traces::Tracing,
    upstream::{
        Upstream,
        balance::sticky::OwnKey,
        config::Config as UpstreamConfig,
        discovery::{Around, dns::Resolver},
        link::Sources,
        site::Site,
    },
};

/// The compiled configuration.
pub struct Snapshot {
    /// Counts the configurations that were in force since the process began; the first is 1.
    pub version: u64,
    /// What the operator wrote.
    pub file: Arc<File>,
    /// Where connections arrive; at least one.
    pub listeners: Box<[Listener]>,
    /// Who may use the admin listener; `None` if there is none.
    pub admin: Option<Access>,
    /// What is obtained by ACME; `None` if nothing is.
    pub acme: Option<Arc<Acme>>,
    /// Networks whose `X-Forwarded-*` fields count.
    pub trusted: Arc<[IpNet]>,
    /// Which route takes a request.
    pub routes: Table<Arc<Route>>,
    /// Who resolves the names of backends.
    pub resolver: Arc<Resolver>,
    /// Groups of backends, by name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// The access log; `None` if it is off.
    pub access_log: Option<Arc<AccessLog>>,
    /// How requests are traced that no route takes; `None` if nothing is.
    pub traces: Option<Arc<Tracing>>,
    /// How the requests of this version ended.
    pub tally: Arc<Tally>,
    /// What is counted of each route's requests, over all versions.
    pub ledger: Arc<Ledger>,
    /// What session tickets are sealed with; the same over all versions.
    pub tickets: Arc<Tickets>,
    /// What cookies of sticky upstreams are signed with that are given no key; the same over all
    /// versions.
    pub sticky: Arc<OwnKey>,
}

/// The snapshot in force.
pub type Live = Arc<ArcSwap<Snapshot>>;

/// Compiles a text alone, without environment and included files; `None` if any problem is an
/// error.
pub fn compile(text: &str, problems: &mut Problems) -> Option<Snapshot> {
    let file = File::read(&Loaded::of(text, problems), problems)?;
    let snapshot = assemble(Arc::new(file), None, problems);
    (!problems.has_errors()).then_some(snapshot)
}

/// Makes what runs of what was read; what is equal to its predecessor's stays the same.
pub fn assemble(
    file: Arc<File>,
    predecessor: Option<&Snapshot>,
    problems: &mut Problems,
) -> Snapshot {
    let tally = Arc::new(Tally::default());
    let resolver = resolver(&file, predecessor);
    let sticky = predecessor.map(|old| old.sticky.clone()).unwrap_or_default();
    let upstreams = upstreams(&file, &resolver, &sticky, predecessor, problems);
    let ledger = Arc::new(Ledger::of(file.route_names(), predecessor.map(|old| &*old.ledger)));
    let old_routes = predecessor.iter().flat_map(|old| old.routes.routes());
    let shared = route::Shared {
        tally: tally.clone(),
        ledger: ledger.clone(),
        vouched: listener::vouched(&file, problems),
        traces: Traces::of(&file, predecessor, problems),
        folder: file.folder.clone(),
        allow_faults: file.allow_faults,
        withheld: route::withheld(&file),
        predecessors: old_routes.map(|(_, old)| (old.name.clone(), old.clone())).collect(),
    };
    let routes = match &file.routes {
        Some(routes) => route::table(routes, &file, &upstreams, &shared, problems),
        None => route::only(&file, &upstreams, &shared, problems),
    };
    relay::check_routes(&file, problems);
    file.cache.check(&file.folder, problems);
    let access_log = file.access_log.build(&file.folder, problems);
    let acme = acme::of(&file, predecessor, problems);
    let tickets = predecessor.map(|old| old.tickets.clone()).unwrap_or_default();
    let destinations = relay::Destinations::new(&file, &upstreams, &tally);
    let listeners =
        listener::all(&file, acme.as_deref(), predecessor, &tickets, &destinations, problems);
    Snapshot {
        version: predecessor.map_or(1, |old| old.version + 1),
        listeners,
        admin: Access::of(&file, &tickets, predecessor, problems),
        acme,
        trusted: file.trusted_proxies.iter().map(|network| network.0).collect(),
        access_log: access_log.map(|(form, target)| log_to(form, target, predecessor)),
        traces: shared.traces.as_ref().map(Traces::of_no_route),
        routes,
        resolver,
        upstreams,
        tally,
        ledger,
        tickets,
        sticky,
        file,
    }
}

/// Makes the upstreams. Files with certificates are read at any rate, so that one whose
/// configuration is equal to its predecessor's is kept only if those are, too.
fn upstreams(
    file: &File,
    resolver: &Arc<Resolver>,
    sticky: &Arc<OwnKey>,
    predecessor: Option<&Snapshot>,
    problems: &mut Problems,
) -> BTreeMap<String, Arc<Upstream>> {
    if file.upstreams.is_empty() {
        problems.push(Problem::error("no upstream is defined").help(SMALLEST));
    }
    let known = predecessor.map(|old| &old.resolver);
    let site = Site {
        sources: Arc::new(Sources::new(server::sources(&file.server))),
        zone: file.zone.as_deref().map(Into::into),
        key: sticky.clone(),
        around: Around { resolver: resolver.clone(), folder: file.folder.clone() },
    };
    let is_site_alike = known.is_some_and(|old| Arc::ptr_eq(old, resolver))
        && predecessor.is_some_and(|old| old.file.zone == file.zone);
    let mut built = BTreeMap::new();
    for Named { name, config } in &file.upstreams {
        let Some(config) = config else { continue };
        if !config.has_backends(name, problems) {
            continue;
        }
        let Some(link) = config.link(&file.folder, problems) else { continue };
        let old = predecessor.and_then(|old| old.upstreams.get(&name.value));
        let is_equal = predecessor.and_then(|old| old.written(name)) == Some(config);
        let upstream =
            if let Some(old) = old.filter(|old| is_equal && is_site_alike && *old.link() == link) {
                Some(old.clone())
            } else {
                let old = old.map(Arc::as_ref);
                config.build(name, link, &site, old, problems).map(Arc::new)
            };
        built.extend(upstream.map(|upstream| (name.value.clone(), upstream)));
    }
    built
}

impl Snapshot {
    /// Takes over the addresses that the listeners of a predecessor were bound to, which are the
    /// same but for ports that the system chose.
    pub fn bind_as(&mut self, predecessor: &Self) {
        let mut bound = listener::ByAddress::of(Some(predecessor));
        for (written, listener) in self.file.listeners.iter().zip(&mut self.listeners) {
            if let Some(old) = bound.take(&written.address) {
                listener.address = old.address.clone();
            }
        }
    }

    /// Begins what its policies do beside requests; those that go on from a predecessor have begun.
    /// Call it within a runtime.
    pub fn start_errands(&self) {
        self.routes.routes().iter().for_each(|(_, route)| route.policies.start());
    }

    /// The certificates of listeners and of the admin listener, with their addresses.
    pub fn keyrings(&self) -> impl Iterator<Item = (&Address, Arc<Keyring>)> {
        let listeners = self.listeners.iter().map(|one| (&one.address, one.tls.as_ref()));
        let admin = self.admin.iter().map(|admin| (&admin.address, admin.tls.as_ref()));
        listeners.chain(admin).filter_map(|(address, tls)| Some((address, tls?.now())))
    }

    /// Why the process should not be sent clients yet, in words; nothing if it should. A probe for
    /// readiness asks here.
    pub fn unready(&self, now: SystemTime) -> Vec<String> {
        let all = self.acme.iter().flat_map(|acme| acme.certificates());
        let reasons = all.filter_map(|managed| {
            let why = managed.standing(now).unready(now)?;
            Some(format!("certificate for {managed}: {why}"))
        });
        let required = self.upstreams.values().filter(|upstream| upstream.is_required());
        let now = Instant::now();
        let unfit = required.filter(|upstream| !upstream.is_fit(now));
        let unfit =
            unfit.map(|upstream| format!("upstream {} has no fit backend", upstream.name()));
        reasons.chain(unfit).collect()
    }

    /// An upstream as the operator wrote it.
    pub fn written(&self, name: &str) -> Option<&UpstreamConfig> {
        let mut named = self.file.upstreams.iter();
        named.find(|upstream| upstream.name.value == name)?.config.as_ref()
    }
}

/// The resolver that there is already, with what it knows, if its servers are the same.
fn resolver(file: &File, predecessor: Option<&Snapshot>) -> Arc<Resolver> {
    let old = predecessor.map(|old| &old.resolver).filter(|old| *old.config() == file.dns);
    old.cloned().unwrap_or_else(|| Arc::new(Resolver::new(file.dns.clone())))
}

/// The log that is kept already, if it is the same one.
fn log_to(form: Form, target: Target, predecessor: Option<&Snapshot>) -> Arc<AccessLog> {
    let old = predecessor.and_then(|old| old.access_log.as_ref());
    let kept = old.filter(|log| log.is_the_one(&form, &target));
    kept.cloned().unwrap_or_else(|| AccessLog::new(form, target))
}

#[cfg(test)]
mod tests;
