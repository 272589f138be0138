//! Paths that a route names: `/api/` for all below, `= /health` for this one alone.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    routing::path::{Canonical, canonicalize},
    yaml,
};

/// A path that a route names, in canonical form.
///
/// The order is the order of matching: exact before prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", example = &"/api/", example = &"= /health")]
#[schemars(extend("pattern" = r"^(=\s*)?/[^\s?*#\\]*$"))]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// This path and all below it, on segment borders; without its final `/`, so that all is "".
    Prefix(String),
}

/// Why a path cannot be matched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with `/`.
    #[error("`{0}` is no path\nhelp: paths begin with `/`; `= /path` matches that path alone")]
    NotAPath(String),
    /// It has a query.
    #[error("`{0}` has a query\nhelp: paths match with any query: write the part before the `?`")]
    HasQuery(String),
    /// It is a regular expression.
    #[error("`{0}` is a regular expression\nhelp: this version matches prefixes and `= /path`")]
    Regex(String),
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

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (exact, path) = match text.strip_prefix('=') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        let owned = || text.to_owned();
        let bad = |byte: u8| !byte.is_ascii_graphic();
        match () {
            () if path.starts_with('~') => return Err(PatternError::Regex(owned())),
            () if !path.starts_with('/') => return Err(PatternError::NotAPath(owned())),
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
