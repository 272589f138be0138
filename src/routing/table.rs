//! The table of routes: a host lookup, then a path lookup, neither of which allocates.
//!
//! Of all routes that match, the most specific takes the request: an exact host before a wildcard,
//! a longer wildcard before a shorter one, any host last; then an exact path before the longest
//! prefix. [`Rule`]'s `Ord` is that order, and a test holds the lookup against a scan by it.

use std::{cmp::Reverse, collections::HashMap};

use crate::routing::{host::HostPattern, pattern::PathPattern};

/// What one route matches: one host (or any) and one path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The host; `None` is any.
    pub host: Option<HostPattern>,
    /// The path.
    pub path: PathPattern,
}

impl Rule {
    /// Whether a request matches: the definition, which the table must agree with.
    pub fn matches(&self, host: &str, path: &str) -> bool {
        let host_matches = match &self.host {
            None => true,
            Some(HostPattern::Exact(exact)) => exact == host,
            Some(HostPattern::Below(suffix)) => suffix.len() < host.len() && host.ends_with(suffix),
        };
        host_matches
            && match &self.path {
                PathPattern::Exact(exact) => exact == path,
                PathPattern::Prefix(prefix) => path
                    .strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            }
    }

    fn specificity(&self) -> impl Ord + use<> {
        let host = match &self.host {
            Some(HostPattern::Exact(_)) => (0, Reverse(0)),
            Some(HostPattern::Below(suffix)) => (1, Reverse(suffix.len())),
            None => (2, Reverse(0)),
        };
        let path = match &self.path {
            PathPattern::Exact(_) => (0, Reverse(0)),
            PathPattern::Prefix(prefix) => (1, Reverse(prefix.len())),
        };
        (host, path)
    }
}

impl Ord for Rule {
    /// The more specific rule is the smaller one.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.specificity()
            .cmp(&other.specificity())
            .then_with(|| self.host.cmp(&other.host))
            .then_with(|| self.path.cmp(&other.path))
    }
}

impl PartialOrd for Rule {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Routes by host and path.
#[derive(Debug)]
pub struct Table<T> {
    hosts: HashMap<Box<str>, Paths<T>>,
    /// By suffix, which begins with a dot.
    wildcards: HashMap<Box<str>, Paths<T>>,
    any: Paths<T>,
}

#[derive(Debug)]
struct Paths<T> {
    exact: HashMap<Box<str>, T>,
    prefixes: HashMap<Box<str>, T>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), prefixes: HashMap::new() }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { hosts: HashMap::new(), wildcards: HashMap::new(), any: Paths::default() }
    }
}

impl<T> Table<T> {
    /// Adds a route. Returns the one that was there for the same requests, which stays.
    ///
    /// # Errors
    /// If a rule with the same host and path is in the table.
    pub fn insert(&mut self, rule: &Rule, route: T) -> Result<(), &T> {
        let paths = match &rule.host {
            None => &mut self.any,
            Some(HostPattern::Exact(host)) => self.hosts.entry(host.as_str().into()).or_default(),
            Some(HostPattern::Below(suffix)) => {
                self.wildcards.entry(suffix.as_str().into()).or_default()
            }
        };
        let (map, key) = match &rule.path {
            PathPattern::Exact(path) => (&mut paths.exact, path),
            PathPattern::Prefix(path) => (&mut paths.prefixes, path),
        };
        match map.entry(key.as_str().into()) {
            std::collections::hash_map::Entry::Occupied(taken) => Err(taken.into_mut()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(route);
                Ok(())
            }
        }
    }

    /// Finds the route of a request. `host` is lower case and without port, `path` canonical.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let exact = self.hosts.get(host).and_then(|paths| paths.find(path));
        exact.or_else(|| self.find_below(host, path)).or_else(|| self.any.find(path))
    }

    fn find_below(&self, host: &str, path: &str) -> Option<&T> {
        if self.wildcards.is_empty() {
            return None;
        }
        // Longest first; a dot at the very beginning leaves no name for the wildcard.
        let dots = memchr::memchr_iter(b'.', host.as_bytes()).filter(|dot| 0 < *dot);
        dots.filter_map(|dot| self.wildcards.get(&host[dot..])).find_map(|paths| paths.find(path))
    }
}

impl<T> Paths<T> {
    fn find(&self, path: &str) -> Option<&T> {
        if !self.exact.is_empty()
            && let Some(route) = self.exact.get(path)
        {
            return Some(route);
        }
        if self.prefixes.is_empty() {
            return None;
        }
        // The path itself, then cut at each slash from the end; "" is the prefix of all.
        let cuts = memchr::memrchr_iter(b'/', path.as_bytes());
        std::iter::once(path.len()).chain(cuts).find_map(|cut| self.prefixes.get(&path[..cut]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(host: Option<&str>, path: &str) -> Rule {
        Rule { host: host.map(|host| host.parse().unwrap()), path: path.parse().unwrap() }
    }

    fn table(rules: &[Rule]) -> Table<usize> {
        let mut table = Table::default();
        for (index, rule) in rules.iter().enumerate() {
            table.insert(rule, index).unwrap();
        }
        table
    }

    #[test]
    fn the_most_specific_route_takes_the_request() {
        let rules = [
            rule(None, "/"),
            rule(None, "/api/"),
            rule(None, "= /api/v1"),
            rule(Some("*.test"), "/"),
            rule(Some("*.a.test"), "/"),
            rule(Some("b.a.test"), "/only/"),
        ];
        let table = table(&rules);
        let cases = [
            ("x", "/", 0),
            ("x", "/apix", 0),
            ("x", "/api", 1),
            ("x", "/api/", 1),
            ("x", "/api/v1/", 1),
            ("x", "/api/v1", 2),
            ("c.test", "/api", 3),
            ("test", "/", 0),
            ("c.a.test", "/", 4),
            ("b.a.test", "/only/this", 5),
            ("b.a.test", "/other", 4),
        ];
        for (host, path, expected) in cases {
            assert_eq!(table.find(host, path), Some(&expected), "{host}{path}");
        }
    }

    #[test]
    fn a_second_route_for_the_same_requests_is_told_the_first() {
        let mut table = table(&[rule(Some("a.test"), "/api/")]);
        assert_eq!(table.insert(&rule(Some("A.test"), "/api"), 7), Err(&0));
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let host = prop::option::of(prop_oneof!["(\\*\\.)?[ab](\\.[ab]){0,2}", Just("*.b".into())]);
        let path = "(= )?(/[ab]{0,2}){1,3}";
        (host, path).prop_map(|(host, path)| rule(host.as_deref(), &path))
    }

    proptest! {
        /// The table agrees with a scan of all rules in their order.
        #[test]
        fn the_table_agrees_with_a_linear_scan(
            rules in prop::collection::hash_set(any_rule(), 0..20),
            host in "[ab](\\.[ab]){0,3}",
            path in "(/[ab]{0,2}){1,4}",
        ) {
            let mut rules: Vec<Rule> = rules.into_iter().collect();
            rules.sort();
            let scanned = rules.iter().position(|rule| rule.matches(&host, &path));
            prop_assert_eq!(table(&rules).find(&host, &path).copied(), scanned);
        }
    }
}
