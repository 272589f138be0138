//! Paths that a route names: `/api/` for all below, `= /health` for this one alone.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer};

use crate::{
    routing::path::{Canonical, canonicalize},
    yaml,
};

/// A path that a route names, in canonical form.
///
/// The order is the order of matching: exact before prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
        if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
            return Err(PatternError::NotAPath(text.to_owned()));
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
