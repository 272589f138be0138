//! A compiled route: all that a request needs to the end, found by one lookup.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};

use crate::{
    config::{
        File, Named,
        route::{HostConfig, ONLY, PathConfig, RouteConfig},
    },
    diagnostic::{Problem, Problems, suggest},
    downstream::config::Config,
    observe::{requests::Requests, tally::Tally},
    policy::{Around, Policies, Withheld},
    routing::{rule::Rule, table::Table},
    snapshot::{Ledger, mirror::Mirror, rules, split::Split, traces::Traces},
    traces::Tracing,
    upstream::Upstream,
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
#[derive(Clone)]
pub struct Route {
    /// Its name in the configuration.
    pub name: String,
    /// What happens to its requests.
    pub policies: Arc<Policies>,
    /// The `Host` that the origin is sent.
    pub host: Host,
    /// Whether the path goes on as the client sent it.
    pub path_as_sent: bool,
    /// Whether the origin is sent `Forwarded`.
    pub forwarded: bool,
    /// Whether `Via` is added.
    pub via: bool,
    /// How long the head of an answer may take, whatever happens; `None` is for ever.
    pub timeout: Option<Duration>,
    /// Who answers; of a split, the first of them.
    pub upstream: Arc<Upstream>,
    /// Who else may answer.
    pub split: Option<Split>,
    /// How its requests are traced; `None` if nothing is.
    pub traces: Option<Arc<Tracing>>,
    /// Who gets copies.
    pub mirror: Option<Arc<Mirror>>,
    /// Counts how the requests of this configuration ended.
    pub tally: Arc<Tally>,
    /// Counts its requests, over all configurations that have it.
    pub requests: Arc<Requests>,
    /// The fields by which any listener tells of its clients' certificates: what a client says in
    /// them is removed, wherever it came in.
    pub vouched: Arc<[HeaderName]>,
}

/// What all routes of a configuration share.
pub(super) struct Shared {
    pub(super) tally: Arc<Tally>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) vouched: Arc<[HeaderName]>,
    pub(super) traces: Option<Traces>,
    /// The folder of the main file.
    pub(super) folder: PathBuf,
    /// Whether there may be faults on purpose.
    pub(super) allow_faults: bool,
    /// Cookies that no origin is sent.
    pub(super) withheld: Withheld,
    /// The routes of the configuration before, by name.
    pub(super) predecessors: HashMap<String, Arc<Route>>,
}

impl Shared {
    fn around<'a>(&'a self, route: &'a str) -> Around<'a> {
        let Self { folder, allow_faults, withheld, .. } = self;
        Around { folder, allow_faults: *allow_faults, route, withheld }
    }
}

/// The cookies of all routes that let people sign in.
pub(super) fn withheld(file: &File) -> Withheld {
    let routes = file.routes.iter().flatten().flatten();
    let all = routes.flat_map(|route| {
        let policies = route.policies.iter();
        policies.filter_map(|policy| policy.value.withheld(&route.name.value))
    });
    all.collect()
}

type Upstreams = BTreeMap<String, Arc<Upstream>>;

/// Compiles the routes of a file.
pub(super) fn table(
    written: &[Option<RouteConfig>],
    file: &File,
    upstreams: &Upstreams,
    shared: &Shared,
    problems: &mut Problems,
) -> Table<Arc<Route>> {
    let named = &file.upstreams;
    if written.is_empty() && file.listeners.iter().any(Config::speaks_http) {
        problems.push(Problem::warning("there are no routes: every request gets 404"));
    }
    let (mut routes, mut before) = (Vec::new(), HashSet::new());
    let names: HashSet<&str> = named.iter().map(|upstream| upstream.name.value.as_str()).collect();
    for config in written {
        let route = config.as_ref().and_then(|config| {
            check_name(config, &mut before, problems);
            build(config, &names, upstreams, shared, problems)
        });
        routes.push(route.map(Arc::new));
    }
    // A route that could not be read may use what the others do not.
    if written.iter().all(Option::is_some) {
        warn_unused(file, problems);
    }
    let rules = rules::compile(written, problems).into_iter();
    let with_route = |rule: Rule| routes[rule.index].clone().map(|route| (rule, route));
    Table::new(rules.filter_map(with_route).collect())
}

/// Without routes, the only upstream answers everything; where nothing speaks HTTP, nobody asks.
pub(super) fn only(
    file: &File,
    upstreams: &Upstreams,
    shared: &Shared,
    problems: &mut Problems,
) -> Table<Arc<Route>> {
    if !file.listeners.is_empty() && !file.listeners.iter().any(Config::speaks_http) {
        warn_unused(file, problems);
        return Table::new(Vec::new());
    }
    if let [_, second, ..] = &*file.upstreams {
        let problem = Problem::error("there are several upstreams and no routes to choose by");
        let help = "add `routes:`, for example `routes: [{ name: all, upstream: NAME }]`";
        problems.push(problem.at(second.name.span).help(help));
    }
    let only = upstreams.values().next().cloned();
    let only = only.map(|upstream| (Rule::any(), Arc::new(Route::to(upstream, shared))));
    Table::new(only.into_iter().collect())
}

impl Route {
    /// A route that only passes on.
    fn to(upstream: Arc<Upstream>, shared: &Shared) -> Self {
        Self {
            name: ONLY.to_owned(),
            requests: shared.ledger.requests(ONLY),
            policies: Arc::default(),
            host: Host::Pass,
            path_as_sent: false,
            forwarded: false,
            via: false,
            timeout: None,
            upstream,
            split: None,
            traces: shared.traces.as_ref().map(|traces| traces.of_route(ONLY)),
            mirror: None,
            tally: shared.tally.clone(),
            vouched: shared.vouched.clone(),
        }
    }
}

fn build(
    config: &RouteConfig,
    names: &HashSet<&str>,
    upstreams: &Upstreams,
    shared: &Shared,
    problems: &mut Problems,
) -> Option<Route> {
    let written = config.policies.iter().map(|policy| (&policy.value, policy.span));
    let old = shared.predecessors.get(&config.name.value).map(|route| &*route.policies);
    let policies = Arc::new(Policies::build(written, shared.around(&config.name), old, problems));
    for (upstream, span) in config.names() {
        if names.contains(upstream.as_str()) {
            continue;
        }
        let route = &config.name.value;
        let message =
            format!("route `{route}` sends to upstream `{upstream}`, which is not defined");
        let mut problem = Problem::error(message).at(span);
        // Finding the nearest of thousands of names takes its time.
        if problems.keeps_more() {
            problem = problem.help(suggest(upstream, names.iter().copied()));
        }
        problems.push(problem);
    }
    config.upstream.value.check(config.upstream.span, problems);
    let answering: Option<Vec<_>> =
        config.upstream_names().map(|(name, _)| upstreams.get(name).cloned()).collect();
    let answering = answering?;
    let mirror = match &config.mirror {
        Some(mirror) => {
            let upstream = upstreams.get(&mirror.upstream.value)?.clone();
            Some(Arc::new(Mirror::new(mirror, upstream)))
        }
        None => None,
    };
    let route = Route {
        traces: shared.traces.as_ref().map(|traces| traces.of_route(&config.name.value)),
        mirror,
        name: config.name.value.clone(),
        requests: shared.ledger.requests(&config.name.value),
        policies,
        host: match &*config.host {
            HostConfig::Pass => Host::Pass,
            HostConfig::Upstream => Host::Upstream,
            HostConfig::Replace(name) => Host::Replace(name.0.clone()),
        },
        path_as_sent: config.path == PathConfig::AsSent,
        forwarded: config.forwarded,
        via: config.via,
        timeout: config.timeout.map(|timeout| timeout.0),
        upstream: answering.first()?.clone(),
        split: None,
        tally: shared.tally.clone(),
        vouched: shared.vouched.clone(),
    };
    Some(Route { split: Split::build(&config.upstream.value, answering, &route), ..route })
}

fn check_name<'a>(config: &'a RouteConfig, before: &mut HashSet<&'a str>, problems: &mut Problems) {
    let name = &config.name;
    if name.is_empty() {
        problems.push(Problem::error("a route needs a name").at(name.span));
    }
    if !before.insert(&name.value) {
        let message = format!("two routes have the name `{}`", name.value);
        problems
            .push(Problem::error(message).at(name.span).help("names tell routes apart in logs"));
    }
}

fn warn_unused(file: &File, problems: &mut Problems) {
    let routes = file.routes.iter().flatten().flatten().flat_map(RouteConfig::names);
    let routes = routes.map(|(name, _)| name);
    let relays = file.listeners.iter().flat_map(Config::relays_to).map(|named| &named.value);
    let used: HashSet<_> = routes.chain(relays).collect();
    for Named { name, .. } in &file.upstreams {
        if !used.contains(&name.value) {
            let message = format!("no route sends to upstream `{}`", name.value);
            problems.push(Problem::warning(message).at(name.span));
        }
    }
}
