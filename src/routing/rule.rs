//! What one route asks of a request, and which of several routes comes first.
//!
//! [`Rule::verdict`] is the definition of matching and [`Rule`]'s `Ord` that of the order; a test
//! holds the [`Table`](super::table::Table), which is fast, against a scan by them.

use std::{
    cmp::{Ordering, Reverse},
    fmt,
};

use http::HeaderName;

use crate::routing::{
    host::HostPattern, method::Methods, pattern::PathPattern, request::RequestParts,
    verdict::Verdict, wanted::Wanted,
};

/// What a route asks of a request: one host (or any), one path, and conditions.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The host; `None` is any.
    pub host: Option<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// The methods; `None` is any.
    pub methods: Option<Methods>,
    /// What is wanted of header fields, by name; sorted, each name once.
    pub headers: Vec<(HeaderName, Wanted)>,
    /// What is wanted of the parameters of the query, by name; sorted, each name once.
    pub query: Vec<(String, Wanted)>,
    /// The place of its route in the file.
    pub index: usize,
}

impl Rule {
    /// The rule that takes every request.
    pub fn any() -> Self {
        Self {
            host: None,
            path: PathPattern::default(),
            methods: None,
            headers: Vec::new(),
            query: Vec::new(),
            index: 0,
        }
    }

    /// Whether it takes a request.
    pub fn matches(&self, request: &RequestParts<'_>) -> bool {
        self.verdict(request).is_match()
    }

    /// Whether it takes a request, or the first of its conditions that fails.
    pub fn verdict<'a>(&'a self, request: &RequestParts<'a>) -> Verdict<'a> {
        match (&self.host, &self.path) {
            (Some(host), _) if !host.matches(request.host) => Verdict::Host(host, *request),
            (_, path) if !path.matches(request.path) => Verdict::Path(path),
            _ => self.verdict_of_conditions(request),
        }
    }

    /// The verdict on a request whose host and path match.
    ///
    /// The method is asked last, so that a rule which fails by it takes the request in all else:
    /// then the answer is `405`, unless another takes it whole.
    pub(super) fn verdict_of_conditions<'a>(&'a self, request: &RequestParts<'a>) -> Verdict<'a> {
        for (name, wanted) in &self.headers {
            if !wanted.is_met_by(request.header(name)) {
                return Verdict::Header(name, wanted, *request);
            }
        }
        for (name, wanted) in &self.query {
            if !wanted.is_met_by(request.parameter(name)) {
                return Verdict::Query(name, wanted, *request);
            }
        }
        match &self.methods {
            Some(methods) if !methods.contains(request.method) => {
                Verdict::Method(methods, request.method)
            }
            _ => Verdict::Matches,
        }
    }

    /// What decides between two rules, the weightiest first.
    ///
    /// Host by host, path by path: rules of one host stand together, and in them those of one path.
    fn rank(&self) -> impl Ord + use<'_> {
        let host = match &self.host {
            Some(HostPattern::Exact(_)) => (0, Reverse(0)),
            Some(HostPattern::Below(suffix)) => (1, Reverse(suffix.len())),
            None => (2, Reverse(0)),
        };
        let path = match &self.path {
            PathPattern::Exact(_) => (0, Reverse(0), 0),
            PathPattern::Prefix(prefix) => (1, Reverse(prefix.len()), 0),
            PathPattern::Regex(_) => (2, Reverse(0), self.index),
        };
        let conditions = (
            self.methods.as_ref().map_or(usize::MAX, Methods::len),
            Reverse(self.headers.len()),
            Reverse(self.query.len()),
        );
        (host, &self.host, path, &self.path, conditions, self.index)
    }
}

impl Ord for Rule {
    /// The rule that is asked first is the smaller one.
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Rule {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rule {
    /// Two are equal that have one place in the order.
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rule {}

impl fmt::Display for Rule {
    /// `a.test, /api/, GET or HEAD, x-version: 2, ?page: *`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => host.fmt(f)?,
            None => f.write_str("any host")?,
        }
        write!(f, ", {}", self.path)?;
        if let Some(methods) = &self.methods {
            write!(f, ", {methods}")?;
        }
        for (name, wanted) in &self.headers {
            write!(f, ", {name}: {wanted}")?;
        }
        for (name, wanted) in &self.query {
            write!(f, ", ?{name}: {wanted}")?;
        }
        Ok(())
    }
}
