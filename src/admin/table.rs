//! All that the API answers: each path with its method, what it takes, and what it says.
//!
//! INVARIANT: requests are matched by this table, and the document at `/v1/openapi.json` is made
//! of it, so that neither knows a path that the other does not.

mod listed;

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

pub(super) use listed::TABLE;

/// What is done for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Alive,
    Ready,
    Metrics,
    Document,
    Status,
    Live,
    Upstreams,
    Routes,
    Requests,
    Request,
    DrainBackend,
    ReadyBackend,
    WeighBackend,
    Purge,
    Reload,
    Probation,
    Explain,
    LogLevels,
    SetLogLevels,
    Upgrade,
    Drain,
}

/// Makes the schema of a type, or a reference to it.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type.
pub(super) const fn of<T: JsonSchema>() -> SchemaOf {
    SchemaGenerator::subschema_for::<T>
}

/// One method of one path.
pub(super) struct Operation {
    /// In upper case.
    pub(super) method: &'static str,
    /// With `{names}` for what stands there. The last may have slashes.
    pub(super) path: &'static str,
    pub(super) act: Act,
    /// In a few words.
    pub(super) says: &'static str,
    /// What is to be known beside that.
    pub(super) more: &'static str,
    /// What is sent with it.
    pub(super) takes: Takes,
    /// How it answers, but for what any request may be refused for.
    pub(super) answers: &'static [Reply],
}

/// What is sent with a request.
pub(super) enum Takes {
    Nothing,
    /// Parameters behind the path: the fields of this type, of which none must be there.
    Query(SchemaOf),
    /// A body, which may be left out.
    MayBeBody(SchemaOf),
    /// A body.
    Body(SchemaOf),
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) says: &'static str,
    pub(super) body: Body,
}

/// The body of an answer.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// One value.
    Json(SchemaOf),
    /// A value in each line, as things happen.
    Lines(SchemaOf),
    /// Server-sent events, of these types.
    Events(&'static [(&'static str, SchemaOf)]),
    /// Texts of these types.
    Texts(&'static [&'static str]),
}

/// What stands in a path where the table has names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Named<'p> {
    pub(super) first: &'p str,
    pub(super) second: &'p str,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'p> {
    /// This.
    Act(Act, Named<'p>),
    /// The path is there, with these methods alone.
    Methods(Vec<&'static str>),
    /// Nothing.
    Nothing,
}

/// Finds what a request asks for.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let mut methods = Vec::new();
    for operation in TABLE {
        let Some(named) = names(operation.path, path) else { continue };
        if operation.method == method {
            return Found::Act(operation.act, named);
        }
        if !methods.contains(&operation.method) {
            methods.push(operation.method);
        }
    }
    if methods.is_empty() { Found::Nothing } else { Found::Methods(methods) }
}

/// What stands where a path of the table has names, of which there are two at most.
fn names<'p>(written: &str, path: &'p str) -> Option<Named<'p>> {
    let Some((before, first, rest)) = cut(written) else {
        return (written == path).then(Named::default);
    };
    debug_assert!(!first.is_empty());
    let path = path.strip_prefix(before)?;
    let named = match cut(rest) {
        None => Named { first: path.strip_suffix(rest)?, second: "-" },
        Some((between, _, end)) => {
            let (first, path) = path.split_once(between)?;
            Named { first, second: path.strip_suffix(end)? }
        }
    };
    (!named.first.is_empty() && !named.second.is_empty()).then_some(named)
}

/// What stands before the first name of a path, the name, and what follows.
pub(super) fn cut(written: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = written.split_once('{')?;
    let (name, rest) = rest.split_once('}')?;
    Some((before, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'p>(method: &str, path: &'p str) -> Found<'p> {
        find(&method.parse().unwrap(), path)
    }

    #[test]
    fn requests_are_found_by_path_and_method() {
        assert_eq!(found("GET", "/v1/status"), Found::Act(Act::Status, Named::default()));
        for path in ["/", "/v1", "/v1/status/", "/v1/statu", "/v1/backends", "/v1/backends/app"] {
            assert_eq!(found("GET", path), Found::Nothing, "{path}");
        }
        assert_eq!(found("POST", "/v1/status"), Found::Methods(vec!["GET"]));
        assert_eq!(found("GET", "/v1/backends/app/x"), Found::Methods(vec!["POST"]));
    }

    #[test]
    fn an_upstream_ends_at_the_first_slash_and_an_address_may_have_some() {
        let act = |path| match found("POST", path) {
            Found::Act(act, Named { first, second }) => Some((act, first, second)),
            _ => None,
        };
        let cases = [
            ("/v1/backends/app/[::1]:80/drain", (Act::DrainBackend, "app", "[::1]:80")),
            ("/v1/backends/app/unix:/run/a/drain", (Act::DrainBackend, "app", "unix:/run/a")),
            ("/v1/backends/app/a:1/ready", (Act::ReadyBackend, "app", "a:1")),
            ("/v1/backends/app/unix:/a/b", (Act::WeighBackend, "app", "unix:/a/b")),
        ];
        for (path, expected) in cases {
            assert_eq!(act(path), Some(expected), "{path}");
        }
        assert_eq!(act("/v1/backends//a/drain"), None);
    }

    #[test]
    fn no_line_hides_another() {
        for (index, operation) in TABLE.iter().enumerate() {
            let path = operation.path.replace(['{', '}'], "");
            let method = operation.method.parse().unwrap();
            let Found::Act(act, _) = find(&method, &path) else { panic!("{path}") };
            assert_eq!(act, operation.act, "{path}");
            let others = TABLE.iter().skip(index + 1);
            assert!(others.into_iter().all(|other| other.act != operation.act), "{path}");
        }
    }
}
