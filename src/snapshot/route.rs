//! A compiled route: all that a request needs to the end, found by one lookup.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderValue;

use crate::{
    config::{
        Named,
        route::{HostConfig, PathConfig, RouteConfig},
    },
    diagnostic::{Problem, Problems, suggest},
    observe::tally::Tally,
    policy::Policies,
    routing::{
        pattern::PathPattern,
        table::{Rule, Table},
    },
    upstream::{Upstream, config::Config as UpstreamConfig},
};

/// The `Host` that the origin is sent.
#[derive(Clone, Debug)]
pub enum Host {
    /// The client's.
    Pass,
    /// The backend's address.
    Upstream,
    /// This one.
    Replace(HeaderValue),
}

/// A compiled route.
pub struct Route {
    /// Its name in the configuration.
    pub name: String,
    /// What happens to its requests.
    pub policies: Policies,
    /// The `Host` that the origin is sent.
    pub host: Host,
    /// Whether the path goes on as the client sent it.
    pub path_as_sent: bool,
    /// Whether the origin is sent `Forwarded`.
    pub forwarded: bool,
    /// Whether `Via` is added.
    pub via: bool,
    /// Who answers.
    pub upstream: Arc<Upstream>,
    /// Counts how the requests of this configuration ended.
    pub tally: Arc<Tally>,
}

type Upstreams = BTreeMap<String, Arc<Upstream>>;

/// Compiles the routes of a file.
pub(super) fn table(
    written: &[Option<RouteConfig>],
    named: &[Named<UpstreamConfig>],
    upstreams: &Upstreams,
    tally: &Arc<Tally>,
    problems: &mut Problems,
) -> Table<Arc<Route>> {
    let mut table = Table::default();
    if written.is_empty() {
        problems.push(Problem::warning("there are no routes: every request gets 404"));
    }
    let configs: Vec<&RouteConfig> = written.iter().flatten().collect();
    for (index, config) in configs.iter().enumerate() {
        check_name(config, &configs[..index], problems);
        if let Some(route) = build(config, named, upstreams, tally, problems) {
            insert(&mut table, config, &Arc::new(route), problems);
        }
    }
    // A route that could not be read may use what the others do not.
    if configs.len() == written.len() {
        warn_unused(&configs, named, problems);
    }
    table
}

/// Without routes, the only upstream answers everything.
pub(super) fn only(
    named: &[Named<UpstreamConfig>],
    upstreams: &Upstreams,
    tally: &Arc<Tally>,
    problems: &mut Problems,
) -> Table<Arc<Route>> {
    let mut table = Table::default();
    if let [_, second, ..] = named {
        let problem = Problem::error("there are several upstreams and no routes to choose by");
        let help = "add `routes:`, for example `routes: [{ name: all, upstream: NAME }]`";
        problems.push(problem.at(second.name.span).help(help));
    }
    if let Some(upstream) = upstreams.values().next() {
        let rule = Rule { host: None, path: PathPattern::default() };
        let inserted = table.insert(&rule, Arc::new(Route::to(upstream.clone(), tally.clone())));
        debug_assert!(inserted.is_ok(), "the table was empty");
    }
    table
}

impl Route {
    /// A route that only passes on.
    fn to(upstream: Arc<Upstream>, tally: Arc<Tally>) -> Self {
        Self {
            name: "default".to_owned(),
            policies: Policies::default(),
            host: Host::Pass,
            path_as_sent: false,
            forwarded: false,
            via: false,
            upstream,
            tally,
        }
    }
}

fn build(
    config: &RouteConfig,
    named: &[Named<UpstreamConfig>],
    upstreams: &Upstreams,
    tally: &Arc<Tally>,
    problems: &mut Problems,
) -> Option<Route> {
    let policies = Policies::build(&config.policies);
    let target = &config.upstream;
    if !named.iter().any(|upstream| upstream.name.value == target.value) {
        let (route, upstream) = (&config.name.value, &target.value);
        let message =
            format!("route `{route}` sends to upstream `{upstream}`, which is not defined");
        let names = named.iter().map(|upstream| upstream.name.value.as_str());
        problems.push(Problem::error(message).at(target.span).help(suggest(upstream, names)));
    }
    Some(Route {
        name: config.name.value.clone(),
        policies,
        host: match &config.host {
            HostConfig::Pass => Host::Pass,
            HostConfig::Upstream => Host::Upstream,
            HostConfig::Replace(name) => Host::Replace(name.0.clone()),
        },
        path_as_sent: config.path == PathConfig::AsSent,
        forwarded: config.forwarded,
        via: config.via,
        upstream: upstreams.get(&target.value)?.clone(),
        tally: tally.clone(),
    })
}

fn insert(
    table: &mut Table<Arc<Route>>,
    config: &RouteConfig,
    route: &Arc<Route>,
    problems: &mut Problems,
) {
    let hosts = match &config.matches.hosts {
        None => vec![(None, config.matches.span)],
        Some(hosts) => {
            if hosts.is_empty() {
                let problem = Problem::error("this list of hosts is empty: nothing would match");
                problems.push(problem.at(hosts.span).help("leave `hosts` out to match any host"));
            }
            hosts.iter().map(|host| (Some(host.value.clone()), host.span)).collect()
        }
    };
    for (host, span) in hosts {
        let rule = Rule { host, path: config.matches.path.clone() };
        let Err(first) = table.insert(&rule, route.clone()) else { continue };
        let host = rule.host.as_ref().map_or("any host".to_owned(), ToString::to_string);
        let (first, second) = (&first.name, &config.name.value);
        let message = if first == second {
            format!("route `{first}` names {host} twice")
        } else {
            format!(
                "routes `{first}` and `{second}` match the same requests: {host}, {}",
                rule.path
            )
        };
        let span = if span == crate::diagnostic::Span::default() { config.name.span } else { span };
        problems.push(Problem::error(message).at(span).help("remove one of them"));
    }
}

fn check_name(config: &RouteConfig, before: &[&RouteConfig], problems: &mut Problems) {
    let name = &config.name;
    if name.is_empty() {
        problems.push(Problem::error("a route needs a name").at(name.span));
    }
    if before.iter().any(|other| other.name == *name) {
        let message = format!("two routes have the name `{}`", name.value);
        problems
            .push(Problem::error(message).at(name.span).help("names tell routes apart in logs"));
    }
}

fn warn_unused(configs: &[&RouteConfig], named: &[Named<UpstreamConfig>], problems: &mut Problems) {
    for Named { name, .. } in named {
        if !configs.iter().any(|route| route.upstream.value == name.value) {
            let message = format!("no route sends to upstream `{}`", name.value);
            problems.push(Problem::warning(message).at(name.span));
        }
    }
}
