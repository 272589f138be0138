//! From what is written under `match:` to the rules of the table: one for each host of a route.
//!
//! Refuses what would do nothing: empty lists, what stands twice, and routes that no request
//! reaches because another takes all of theirs.

use std::fmt;

use crate::{
    config::route::{MatchConfig, RouteConfig},
    diagnostic::{Problem, Problems, Span},
    field::{self, Lookup},
    routing::{
        cover::{Covered, covered},
        host::HostPattern,
        method::Methods,
        pattern::PathPattern,
        rule::Rule,
        wanted::{ByName, Wanted},
    },
    yaml::Spanned,
};

/// Compiles what the routes of a file match, in the order of matching.
pub(super) fn compile(written: &[Option<RouteConfig>], problems: &mut Problems) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, config) in written.iter().enumerate() {
        let Some(RouteConfig { matches, .. }) = config else { continue };
        let rule = Rule {
            host: None,
            path: matches.path.value.clone(),
            methods: methods(matches, problems),
            headers: headers(matches.headers.as_ref(), problems),
            query: by_name(matches.query.as_ref(), "query", |name| name.0.clone(), problems),
            index,
        };
        let hosts = hosts(matches, problems);
        rules.extend(hosts.into_iter().map(|host| Rule { host, ..rule.clone() }));
    }
    rules.sort();
    for covered in covered(&rules) {
        problems.push(tell(&covered, written));
    }
    rules
}

fn hosts(config: &MatchConfig, problems: &mut Problems) -> Vec<Option<HostPattern>> {
    let Some(hosts) = &config.hosts else { return vec![None] };
    if hosts.is_empty() {
        let problem = Problem::error("this list of hosts is empty: nothing would match");
        problems.push(problem.at(hosts.span).help("leave `hosts` out to match any host"));
    }
    hosts.iter().map(|host| Some(host.value.clone())).collect()
}

fn methods(config: &MatchConfig, problems: &mut Problems) -> Option<Methods> {
    let methods = config.methods.as_ref()?;
    if methods.is_empty() {
        let problem = Problem::error("this list of methods is empty: nothing would match");
        problems.push(problem.at(methods.span).help("leave `methods` out to match any method"));
    }
    for (at, method) in methods.iter().enumerate() {
        if methods[..at].contains(method) {
            let problem = Problem::error(format!("`{}` stands twice in this list", method.value.0));
            problems.push(problem.at(method.span).help("remove one of them"));
        }
    }
    Some(methods.iter().map(|method| method.value.0.clone()).collect())
}

/// What is wanted of header fields, sorted by name; what no field can be goes to `problems`.
pub(super) fn headers(
    written: Option<&Spanned<ByName<Lookup>>>,
    problems: &mut Problems,
) -> Vec<(http::HeaderName, Wanted)> {
    let headers = written.map_or(&[][..], |headers| &headers.0);
    for (at, (name, wanted)) in headers.iter().enumerate() {
        let Lookup(header) = &name.value;
        if headers[..at].iter().any(|(other, _)| other == name) {
            let problem = Problem::error(format!("header `{header}` stands twice"));
            let help = "names of fields are compared without case: remove one of them";
            problems.push(problem.at(name.span).help(help));
        }
        if let Wanted::Equal(text) = &wanted.value
            && !field::is_value(text)
        {
            let message = format!("`{}` is no value of a field", text.escape_debug());
            problems.push(Problem::error(message).at(wanted.span).help(field::VALUE_HELP));
        }
    }
    by_name(written, "headers", |Lookup(name)| name.clone(), problems)
}

/// Sorts conditions by name, so that those of two routes can be compared.
fn by_name<N, M: fmt::Display>(
    written: Option<&Spanned<ByName<N>>>,
    key: &str,
    to_name: impl Fn(&N) -> M,
    problems: &mut Problems,
) -> Vec<(M, Wanted)> {
    let Some(written) = written else { return Vec::new() };
    if written.0.is_empty() {
        let problem = Problem::error(format!("`{key}` is empty: it asks for nothing"));
        let help = format!("leave `{key}` out, or write `{{ name: value }}`");
        problems.push(problem.at(written.span).help(help));
    }
    let conditions = written.0.iter();
    let mut conditions: Vec<_> =
        conditions.map(|(name, wanted)| (to_name(name), wanted.value.clone())).collect();
    conditions.sort_by_key(|(name, _)| name.to_string());
    conditions
}

/// Says of a route which other one takes its requests, and what to do.
fn tell(covered: &Covered<'_>, written: &[Option<RouteConfig>]) -> Problem {
    const REMOVE: &str = "remove one of them";
    let Covered { rule, by } = covered;
    let config = |rule: &Rule| written[rule.index].as_ref().expect("a rule is of a route");
    let (name, first) = (&config(rule).name.value, &config(by).name.value);
    let host = rule.host.as_ref();
    let (message, help) = if rule.index == by.index {
        let host = host.map_or(String::new(), ToString::to_string);
        (format!("route `{name}` names {host} twice"), REMOVE.to_owned())
    } else if rule.is_same(by) {
        let both = format!("routes `{first}` and `{name}`");
        (format!("{both} match the same requests: {rule}"), REMOVE.to_owned())
    } else {
        let host = host.map_or(String::new(), |host| format!(" for {host}"));
        let taken = format!("route `{first}` takes all its requests: {by}");
        let help = match (&by.path, &rule.path) {
            (PathPattern::Prefix(prefix), PathPattern::Regex(_)) => format!(
                "prefixes are asked before expressions: write the path of `{first}` as one, \
                 `{}`, in a route behind `{name}`",
                as_expression(prefix)
            ),
            (PathPattern::Exact(_), PathPattern::Regex(_)) => format!("remove `{name}`"),
            _ => format!("put `{name}` before `{first}`, or remove it"),
        };
        (format!("route `{name}` can never be reached{host}: {taken}"), help)
    };
    Problem::error(message).at(place(config(rule), host)).help(help)
}

/// The expression that takes what a prefix takes.
fn as_expression(prefix: &str) -> String {
    match prefix {
        "" => "~ ^/".to_owned(),
        prefix => format!("~ ^{}(/|$)", regex::escape(prefix)),
    }
}

/// Where a route says what it matches: at its host, else at what there is.
fn place(config: &RouteConfig, host: Option<&HostPattern>) -> Span {
    let hosts = config.matches.hosts.iter().flat_map(|hosts| hosts.iter().rev());
    let mut same = hosts.filter(|it| Some(&it.value) == host).map(|it| it.span);
    let path = config.matches.path.span;
    let written = [path, config.matches.span, config.name.span];
    let written = written.into_iter().find(|span| *span != Span::default());
    same.next().or(written).unwrap_or_default()
}
