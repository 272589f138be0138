//! Why a route takes a request or does not, in words for the operator.

use std::{borrow::Cow, fmt};

use http::{HeaderName, Method};

use crate::routing::{
    host::HostPattern, method::Methods, pattern::PathPattern, request::RequestParts, wanted::Wanted,
};

/// That a rule takes a request, or the first of its conditions that fails.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// It takes the request.
    Matches,
    /// All but the method is as wanted: these methods are, and not this one.
    Method(&'a Methods, &'a Method),
    /// A parameter of the query is not as wanted.
    Query(&'a str, &'a Wanted, RequestParts<'a>),
    /// A header field is not as wanted.
    Header(&'a HeaderName, &'a Wanted, RequestParts<'a>),
    /// The path is another.
    Path(&'a PathPattern),
    /// The host is another.
    Host(&'a HostPattern, RequestParts<'a>),
}

impl Verdict<'_> {
    /// Whether the request is taken.
    pub fn is_match(&self) -> bool {
        matches!(self, Self::Matches)
    }

    /// How far the request is from being taken; 0 if it is.
    pub(super) fn distance(&self) -> u8 {
        match self {
            Self::Matches => 0,
            Self::Method(..) => 1,
            Self::Query(..) => 2,
            Self::Header(..) => 3,
            Self::Path(_) => 4,
            Self::Host(..) => 5,
        }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matches => f.write_str("it matches"),
            Self::Method(wanted, method) => write!(f, "method is {method}, not {wanted}"),
            Self::Query(name, wanted, request) => {
                lack(f, "parameter", name, wanted, request.parameter(name))
            }
            Self::Header(name, wanted, request) => {
                lack(f, "header", name.as_str(), wanted, request.header(name))
            }
            Self::Path(PathPattern::Exact(path)) => write!(f, "path is not {path}"),
            Self::Path(path @ PathPattern::Prefix(_)) => write!(f, "path is not below {path}"),
            Self::Path(path @ PathPattern::Regex(_)) => write!(f, "path does not match `{path}`"),
            Self::Host(wanted, request) if request.host.is_empty() => {
                write!(f, "host is missing, wanted {wanted}")
            }
            Self::Host(wanted, request) => write!(f, "host is {}, not {wanted}", request.host),
        }
    }
}

/// Writes ``header x-version is `1` and 2 more, wanted `2` ``.
fn lack<'a>(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    name: &str,
    wanted: &Wanted,
    mut values: impl Iterator<Item = Cow<'a, [u8]>>,
) -> fmt::Result {
    match values.next() {
        None => write!(f, "{kind} {name} is absent")?,
        Some(first) => write!(f, "{kind} {name} is `{}`", first.escape_ascii())?,
    }
    match values.count() {
        0 => {}
        more => write!(f, " and {more} more")?,
    }
    match wanted {
        Wanted::Present => f.write_str(", wanted any value"),
        Wanted::Absent => f.write_str(", wanted none"),
        wanted => write!(f, ", wanted `{wanted}`"),
    }
}
