//! From what is written under `traces:` to what each route needs of it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::File,
    diagnostic::{Problem, Problems, suggest},
    snapshot::{Snapshot, rules},
    traces::{
        Outlet, Tracing,
        config::{Config, RuleConfig},
        sampling::{Rule, Sampling, Share},
    },
    yaml::Spanned,
};

/// What routes ask for how they are traced.
pub(super) struct Traces {
    /// For all routes that no rule names, and for requests that no route takes.
    common: Arc<Tracing>,
    named: BTreeMap<String, Arc<Tracing>>,
}

impl Traces {
    /// Compiles what a file says; `None` if nothing is traced. Spans for the same receiver as
    /// before go on by the same exporter.
    pub(super) fn of(
        file: &File,
        predecessor: Option<&Snapshot>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let config = file.traces.as_ref()?;
        let propagation = config.propagation(problems);
        config.check_rules(problems);
        let rules = rules_of(config, file, problems);
        let receiver = config.otlp.build(&file.folder, problems)?;
        let old = predecessor.and_then(|old| old.traces.as_ref()).map(|old| old.outlet());
        let old = old.filter(|old| *old.exporter().receiver() == receiver);
        let outlet = old.cloned().unwrap_or_else(|| Outlet::new(receiver));
        let tracing = |route: Option<&str>| {
            let is_for = |(name, _): &&(Option<&str>, Rule)| name.is_none() || *name == route;
            let rules = rules.iter().filter(is_for).map(|(_, rule)| rule.clone()).collect();
            let sampling = Sampling::new(rules, Share::from(config.sample));
            Arc::new(Tracing::new(propagation.clone(), sampling, outlet.clone()))
        };
        let named = rules.iter().filter_map(|(name, _)| *name);
        let named = named.map(|name| (name.to_owned(), tracing(Some(name)))).collect();
        Some(Self { common: tracing(None), named })
    }

    /// For the requests of a route.
    pub(super) fn of_route(&self, name: &str) -> Arc<Tracing> {
        self.named.get(name).unwrap_or(&self.common).clone()
    }

    /// For requests that no route takes.
    pub(super) fn of_no_route(&self) -> Arc<Tracing> {
        self.common.clone()
    }
}

/// The rules, each with the route that it is for.
fn rules_of<'a>(
    config: &'a Config,
    file: &File,
    problems: &mut Problems,
) -> Vec<(Option<&'a str>, Rule)> {
    let mut rules = Vec::new();
    for rule in &config.rules {
        let RuleConfig { route, path, headers, sample } = &rule.value;
        check_route(route.as_ref(), file, problems);
        let headers = rules::headers(headers.as_ref(), problems);
        let rule = Rule { path: path.clone(), headers, share: (*sample).into() };
        rules.push((route.as_ref().map(|name| name.value.as_str()), rule));
    }
    rules
}

/// A route that could not be read may have any name.
fn check_route(named: Option<&Spanned<String>>, file: &File, problems: &mut Problems) {
    let Some(name) = named else { return };
    let is_whole = file.routes.iter().flatten().all(Option::is_some);
    if is_whole && file.route_names().all(|known| known != name.value) {
        let problem = Problem::error(format!("there is no route `{}`", name.value));
        problems.push(problem.at(name.span).help(suggest(&name.value, file.route_names())));
    }
}
