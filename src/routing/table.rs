//! The table of routes: a lookup by host, then by path, then a look at the few that are left.
//! Nothing in it allocates, but for an expression that meets what it has not met before, and for
//! an encoded parameter that a condition looks at.
//!
//! The most specific route takes the request: an exact host before a wildcard, a longer wildcard
//! before a shorter one, any host last; in each an exact path before the longest prefix before
//! expressions in the order of the file; for each path the one with the most conditions.

use std::{collections::HashMap, ops::Range};

use http::HeaderValue;

use crate::routing::{
    host::HostPattern, judged::Judged, method::Methods, pattern::PathPattern,
    request::RequestParts, rule::Rule, verdict::Verdict,
};

/// Routes in their order, and where in it the routes of a host and a path stand.
#[derive(Debug)]
pub struct Table<T> {
    /// INVARIANT: sorted, so that the routes of one host and one path stand side by side.
    routes: Box<[(Rule, T)]>,
    hosts: HashMap<Box<str>, Paths>,
    /// By suffix, which begins with a dot.
    wildcards: HashMap<Box<str>, Paths>,
    any: Paths,
}

/// Where the routes of one host stand.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Range<usize>>,
    prefixes: HashMap<Box<str>, Range<usize>>,
    expressions: Range<usize>,
}

/// What the table knows of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a, T> {
    /// This route takes it.
    Route(&'a T),
    /// A route would take it with another method; [`Table::allowed`] tells which methods.
    OtherMethods,
    /// No route is for it.
    Nothing,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<T> Table<T> {
    /// Makes a table of rules, each with its route.
    pub fn new(mut routes: Vec<(Rule, T)>) -> Self {
        routes.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut hosts: HashMap<Box<str>, Paths> = HashMap::new();
        let mut wildcards: HashMap<Box<str>, Paths> = HashMap::new();
        let mut any = Paths::default();
        for (at, (rule, _)) in routes.iter().enumerate() {
            let paths = match &rule.host {
                None => &mut any,
                Some(HostPattern::Exact(host)) => hosts.entry(host.as_str().into()).or_default(),
                Some(HostPattern::Below(suffix)) => {
                    wildcards.entry(suffix.as_str().into()).or_default()
                }
            };
            paths.add(&rule.path, at);
        }
        Self { routes: routes.into(), hosts, wildcards, any }
    }

    /// Finds the route of a request.
    pub fn find(&self, request: &RequestParts<'_>) -> Found<'_, T> {
        let mut found = Found::Nothing;
        for at in self.candidates(request) {
            let (rule, route) = &self.routes[at];
            match rule.verdict_of_conditions(request) {
                Verdict::Matches => return Found::Route(route),
                Verdict::Method(..) => found = Found::OtherMethods,
                _ => {}
            }
        }
        found
    }

    /// The value of `Allow`: the methods with which a request would find a route.
    #[cold]
    pub fn allowed(&self, request: &RequestParts<'_>) -> HeaderValue {
        let candidates = self.candidates(request);
        let methods =
            candidates.filter_map(|at| match self.routes[at].0.verdict_of_conditions(request) {
                Verdict::Method(methods, _) => Some(methods.iter().cloned()),
                _ => None,
            });
        methods.flatten().collect::<Methods>().to_allow()
    }

    /// Tells of every rule what it says of a request, the nearest first.
    #[cold]
    pub fn explain<'a>(&'a self, request: &RequestParts<'a>) -> Vec<Judged<'a, T>> {
        let judge =
            |(rule, route): &'a (Rule, T)| Judged { verdict: rule.verdict(request), rule, route };
        let mut judged: Vec<_> = self.routes.iter().map(judge).collect();
        judged.sort();
        judged
    }

    /// All routes in their order.
    pub fn routes(&self) -> &[(Rule, T)] {
        &self.routes
    }

    /// Where the routes stand whose host and path match, in their order.
    fn candidates<'a>(
        &'a self,
        request: &RequestParts<'a>,
    ) -> impl Iterator<Item = usize> + use<'a, T> {
        let RequestParts { host, path, .. } = *request;
        let exact = self.hosts.get(host).into_iter();
        let levels = exact.chain(self.below(host)).chain([&self.any]);
        levels.flat_map(move |paths| paths.candidates(&self.routes, path))
    }

    /// The wildcards that a host is below, the longest first.
    fn below<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Paths> + use<'a, T> {
        let host = if self.wildcards.is_empty() { "" } else { host };
        // A dot at the very beginning leaves no name for the wildcard.
        let dots = memchr::memchr_iter(b'.', host.as_bytes()).filter(|dot| 0 < *dot);
        dots.filter_map(|dot| self.wildcards.get(&host[dot..]))
    }
}

impl Paths {
    /// Adds the route that stands right behind those that were added before.
    fn add(&mut self, path: &PathPattern, at: usize) {
        let range = match path {
            PathPattern::Exact(path) => self.exact.entry(path.as_str().into()).or_default(),
            PathPattern::Prefix(path) => self.prefixes.entry(path.as_str().into()).or_default(),
            PathPattern::Regex(_) => &mut self.expressions,
        };
        let start = if range.start == range.end { at } else { range.start };
        *range = start..at + 1;
    }

    /// Where the routes of this host stand whose path matches, in their order.
    fn candidates<'a, T>(
        &'a self,
        routes: &'a [(Rule, T)],
        path: &'a str,
    ) -> impl Iterator<Item = usize> + use<'a, T> {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(path) };
        let by_text = exact.into_iter().chain(self.prefixes_of(path)).cloned().flatten();
        by_text.chain(self.expressions.clone().filter(move |at| routes[*at].0.path.matches(path)))
    }

    /// The prefixes of a path, the longest first: the path itself, then cut at each slash from the
    /// end; "" is the prefix of all.
    fn prefixes_of<'a>(
        &'a self,
        path: &'a str,
    ) -> impl Iterator<Item = &'a Range<usize>> + use<'a> {
        let path = if self.prefixes.is_empty() { None } else { Some(path) };
        path.into_iter().flat_map(|path| {
            let cuts = memchr::memrchr_iter(b'/', path.as_bytes());
            let cuts = std::iter::once(path.len()).chain(cuts);
            cuts.filter_map(|cut| self.prefixes.get(&path[..cut]))
        })
    }
}

#[cfg(test)]
mod tests;
