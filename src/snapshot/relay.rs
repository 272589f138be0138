//! Relays: which connections of a listener pass as they come, and where to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use crate::{
    config::File,
    diagnostic::{Problem, Problems, suggest},
    downstream::config::{Config, protocol::Protocol},
    observe::tally::Tally,
    routing::host::HostPattern,
    upstream::Upstream,
};

/// Where a connection is relayed to; it is kept to the end, whatever is reloaded meanwhile.
#[derive(Clone)]
pub struct Target {
    /// Who answers.
    pub upstream: Arc<Upstream>,
    /// Counts how the connections of this configuration ended.
    pub tally: Arc<Tally>,
}

/// What a listener relays.
#[derive(Clone, Default)]
pub struct Relays {
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where those go that no name sends elsewhere; `None` if nowhere, or they speak HTTP.
    pub rest: Option<Target>,
    /// Where those go that ask for a name; `None` if it does not matter.
    pub names: Option<Arc<Names>>,
}

/// Targets by the names that clients ask for.
#[derive(Default)]
pub struct Names {
    exact: HashMap<String, Target>,
    /// By what the names end with, its dot included.
    below: HashMap<String, Target>,
}

impl Relays {
    /// Whether there is nothing for a connection that no name sends anywhere.
    pub fn is_closed(&self) -> bool {
        self.protocol == Protocol::Tcp && self.rest.is_none()
    }

    /// The upstreams that connections are relayed to, by name.
    pub fn upstreams(&self) -> Vec<String> {
        let named =
            self.names.iter().flat_map(|names| names.exact.values().chain(names.below.values()));
        let all = self.rest.iter().chain(named).map(|target| target.upstream.name().to_string());
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl Names {
    /// Where a client is relayed to that asks for this name, in lower case.
    pub fn find(&self, name: &str) -> Option<&Target> {
        // The wildcard stands for at least one letter, and the longest comes first.
        let below = || {
            let dots = name.match_indices('.').filter(|(at, _)| 0 < *at);
            dots.map(|(at, _)| &name[at..]).find_map(|suffix| self.below.get(suffix))
        };
        self.exact.get(name).or_else(below)
    }

    fn insert(&mut self, name: &HostPattern, target: Target) {
        match name {
            HostPattern::Exact(name) => self.exact.insert(name.clone(), target),
            HostPattern::Below(suffix) => self.below.insert(suffix.clone(), target),
        };
    }
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// Where connections can be relayed to.
pub(super) struct Destinations<'a> {
    upstreams: &'a BTreeMap<String, Arc<Upstream>>,
    /// Those that are written, compiled or not.
    names: HashSet<&'a str>,
    tally: &'a Arc<Tally>,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(
        file: &'a File,
        upstreams: &'a BTreeMap<String, Arc<Upstream>>,
        tally: &'a Arc<Tally>,
    ) -> Self {
        let names = file.upstreams.iter().map(|upstream| upstream.name.value.as_str()).collect();
        Self { upstreams, names, tally }
    }

    /// Makes what a listener relays; names of no upstream are told.
    pub(super) fn relays(&self, config: &Config, problems: &mut Problems) -> Relays {
        for named in config.relays_to().filter(|named| !self.names.contains(named.value.as_str())) {
            let (address, upstream) = (&config.address.value, &named.value);
            let message = format!(
                "listener `{address}` relays to upstream `{upstream}`, which is not defined"
            );
            let problem = Problem::error(message).at(named.span);
            problems.push(problem.help(suggest(upstream, self.names.iter().copied())));
        }
        let target = |name: &String| {
            let upstream = self.upstreams.get(name)?.clone();
            Some(Target { upstream, tally: self.tally.clone() })
        };
        let names = config.passthrough.as_ref().map(|passed| {
            let mut names = Names::default();
            for passed in &passed.value {
                let Some(target) = target(&passed.value.upstream) else { continue };
                for name in &passed.value.matches.sni.value {
                    names.insert(&name.value, target.clone());
                }
            }
            Arc::new(names)
        });
        Relays {
            protocol: config.protocol.value,
            rest: config.upstream.as_ref().and_then(|upstream| target(&upstream.value)),
            names,
        }
    }
}

/// Tells routes that no request can reach, since no listener speaks HTTP.
pub(super) fn check_routes(file: &File, problems: &mut Problems) {
    let is_deaf = !file.listeners.is_empty() && !file.listeners.iter().any(Config::speaks_http);
    let first = file.routes.iter().flatten().flatten().next();
    if let Some(first) = first.filter(|_| is_deaf) {
        let message = "`routes` do nothing: no listener speaks HTTP";
        let help = "remove them, or add a listener without `protocol: tcp`";
        problems.push(Problem::error(message).at(first.name.span).help(help));
    }
}

#[cfg(test)]
mod tests {
    use crate::snapshot;

    use super::*;

    #[test]
    fn an_exact_name_comes_before_the_longest_wildcard() {
        let mut problems = Problems::default();
        let text = "
            listeners:
              - address: 0.0.0.0:443
                protocol: tcp
                passthrough:
                  - { match: { sni: [a.test, '*.b.test'] }, upstream: one }
                  - { match: { sni: ['*.a.b.test', X.b.test] }, upstream: two }
            upstreams: { one: { backends: [127.0.0.1:1] }, two: { backends: [127.0.0.1:2] } }";
        let compiled = snapshot::compile(text, &mut problems).expect("good");
        assert!(problems.is_empty(), "{problems:?}");
        let names = compiled.listeners[0].relays.names.clone().expect("names");
        let upstream = |name| names.find(name).map(|target| target.upstream.name().to_string());
        let cases = [
            ("a.test", Some("one")),
            ("b.a.test", None),
            ("c.b.test", Some("one")),
            ("d.c.b.test", Some("one")),
            ("b.test", None),
            (".b.test", None),
            ("a.b.test", Some("one")),
            ("c.a.b.test", Some("two")),
            ("x.b.test", Some("two")),
            ("y.x.b.test", Some("one")),
            ("test", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(upstream(name).as_deref(), expected, "{name}");
        }
    }
}
