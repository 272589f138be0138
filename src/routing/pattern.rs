//! Paths that a route names: `/api/` for all below, `= /health` for this one alone, `~ ^/v[0-9]+/`
//! for all that a regular expression finds.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    routing::{
        expression::{Expression, ExpressionError},
        path::{Canonical, canonicalize},
    },
    yaml,
};

/// A path that a route names, in canonical form.
///
/// The order is the order of matching: exact before prefix before regular expression.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", example = &"/api/", example = &"= /health", example = &"~ ^/v[0-9]+/")]
#[schemars(extend("pattern" = r"^((=\s*)?/[^\s?*#\\]*|~.*)$"))]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// This path and all below it, on segment borders; without its final `/`, so that all is "".
    Prefix(String),
    /// Every path in which this is found.
    Regex(Expression),
}

/// Why a path cannot be matched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with `/`.
    #[error("`{0}` is no path\nhelp: {1}")]
    NotAPath(String, String),
    /// It has a query.
    #[error("`{0}` has a query\nhelp: paths match with any query: write the part before the `?`")]
    HasQuery(String),
    /// It is no regular expression that can be used.
    #[error(transparent)]
    Regex(#[from] ExpressionError),
    /// It is an expression that finds nothing, since all paths begin with `/`.
    #[error("`{0}` would never match: all paths begin with `/`\nhelp: write `~ ^/{1}`")]
    Unrooted(String, String),
    /// It has a wildcard.
    #[error("`{0}` has a wildcard\nhelp: `/static/` alone matches all below it")]
    Wildcard(String),
    /// It holds what must be encoded.
    #[error("`{0}` holds what no request can hold\nhelp: write `{1}`")]
    NotEncoded(String, String),
    /// A request for it would be refused or rewritten, so that it could never match.
    #[error("`{0}` would never match: requests are matched in canonical form\nhelp: {1}")]
    NotCanonical(String, String),
}

const PATHS: &str = "paths begin with `/`; `= /path` matches that path alone, `~ ^/v[0-9]+/` a \
                     regular expression";

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if let Some(regex) = text.strip_prefix('~') {
            let regex: Expression = regex.trim_start().parse()?;
            check_beginning(text, &regex)?;
            return Ok(Self::Regex(regex));
        }
        let (exact, path) = match text.strip_prefix('=') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        let owned = || text.to_owned();
        let bad = |byte: u8| !byte.is_ascii_graphic();
        match () {
            () if !path.starts_with('/') => {
                let help = match path.strip_prefix('^') {
                    Some(_) => format!("write `~ {path}` for a regular expression"),
                    None => PATHS.to_owned(),
                };
                return Err(PatternError::NotAPath(owned(), help));
            }
            () if path.contains('?') => return Err(PatternError::HasQuery(owned())),
            () if path.contains('*') => return Err(PatternError::Wildcard(owned())),
            () if path.bytes().any(bad) => {
                return Err(PatternError::NotEncoded(owned(), encoded(path)));
            }
            () => {}
        }
        let refused = |help: String| PatternError::NotCanonical(text.to_owned(), help);
        match canonicalize(path) {
            Ok(Canonical::AsIs(_)) => {}
            Ok(Canonical::Rewritten(path)) => return Err(refused(format!("write `{path}`"))),
            Err(_) => return Err(refused("such a path is refused with 400".to_owned())),
        }
        Ok(if exact {
            Self::Exact(path.to_owned())
        } else {
            Self::Prefix(path.strip_suffix('/').unwrap_or(path).to_owned())
        })
    }
}

/// Refuses an expression that begins as no canonical path does.
fn check_beginning(text: &str, regex: &Expression) -> Result<(), PatternError> {
    let beginning = regex.beginning().map_or("", |beginning| beginning.text.as_str());
    let refused = |help: String| Err(PatternError::NotCanonical(text.to_owned(), help));
    // `*` is the path of `OPTIONS` for the whole server.
    if beginning.is_empty() || beginning.starts_with('*') {
        return Ok(());
    }
    if !beginning.starts_with('/') {
        let rest = regex.as_str().trim_start_matches('^').to_owned();
        return Err(PatternError::Unrooted(text.to_owned(), rest));
    }
    if beginning.contains('?') {
        return Err(PatternError::HasQuery(text.to_owned()));
    }
    // The last segment may go on, so that only those before it can be judged.
    let whole = &beginning[..=beginning.rfind('/').unwrap_or_default()];
    match canonicalize(whole) {
        Ok(Canonical::AsIs(_)) => Ok(()),
        Ok(Canonical::Rewritten(path)) => refused(format!("such paths come as `{path}`")),
        Err(_) => refused("such a path is refused with 400".to_owned()),
    }
}

impl PathPattern {
    /// Whether this takes a canonical path.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

/// What a client would send for a path with spaces or letters beyond ASCII.
fn encoded(path: &str) -> String {
    path.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_graphic() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "= {path}"),
            Self::Prefix(path) => write!(f, "{path}/"),
            Self::Regex(regex) => write!(f, "~ {regex}"),
        }
    }
}

impl Default for PathPattern {
    /// All paths.
    fn default() -> Self {
        Self::Prefix(String::new())
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a path such as `/api/`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_is_matched_alone_with_all_below_or_by_an_expression() {
        for (text, taken, not) in [
            ("= /a", ["/a", "/a"], ["/a/", "/a/b"]),
            ("/a/", ["/a", "/a/b"], ["/ab", "/"]),
            ("/", ["/", "//"], ["*", "x"]),
            ("~ ^/v[0-9]+/", ["/v1/", "/v12/x"], ["/v1", "/x/v1/"]),
            ("~b$", ["/b", "/a/b"], ["/b/", "/"]),
        ] {
            assert!(taken.iter().all(|path| pattern(text).matches(path)), "{text}");
            assert!(!not.iter().any(|path| pattern(text).matches(path)), "{text}");
        }
        assert_eq!(pattern("~^/v").to_string(), "~ ^/v");
    }

    #[test]
    fn an_expression_that_no_path_begins_with_is_refused() {
        let error = "~ ^api/".parse::<PathPattern>().unwrap_err();
        assert_eq!(error, PatternError::Unrooted("~ ^api/".to_owned(), "api/".to_owned()));
        for text in [r"~ ^/a\\b/", "~ ^/caf%65/", "~ ^/é/x", r"~ ^/a\.\./\.\./b"] {
            let error = text.parse::<PathPattern>().unwrap_err();
            assert!(matches!(error, PatternError::NotCanonical(..)), "{text}: {error}");
        }
        assert!(matches!(r"~ ^/s\?q".parse::<PathPattern>(), Err(PatternError::HasQuery(_))));
        for text in ["~ api/", r"~ ^\*$", "~ ^/a%4", r"~ ^/\.well-known/", r"~ ^/\."] {
            assert!(text.parse::<PathPattern>().is_ok(), "{text}");
        }
    }
}
