//! A regular expression with what it captured put into a text: `^/u/([0-9]+)` to `/users/$1`.

use std::{borrow::Cow, str::FromStr};

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::yaml;

/// What one may take when it is compiled.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// A regular expression that is searched for in linear time.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(with = "String", rename = "CapturingPattern", example = &"^/u/([0-9]+)$")]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// Why a text is no expression that can be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is misspelt, or asks for what cannot be had in linear time.
    #[error(
        "`{0}` is no regular expression: {1}\nhelp: see https://docs.rs/regex for what it may have"
    )]
    Syntax(String, String),
    /// It takes too much memory.
    #[error(
        "`{0}` is too large: compiled, it takes more than 1 MiB\nhelp: count to less in `{{…}}`"
    )]
    TooLarge(String),
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let built = regex::RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).build();
        built.map(Self).map_err(|why| match why {
            regex::Error::CompiledTooBig(_) => PatternError::TooLarge(text.to_owned()),
            why => {
                let why = why.to_string();
                let last = why.lines().last().unwrap_or_default();
                let last = last.trim_start_matches("error: ").to_owned();
                PatternError::Syntax(text.to_owned(), last)
            }
        })
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a regular expression")
    }
}

impl Pattern {
    /// What is made of a text in which it is found: `to`, with `$1` and `${name}` replaced by
    /// what was captured. `None` if it is not found.
    pub fn rewritten(&self, text: &str, to: &str) -> Option<String> {
        let captures = self.0.captures(text)?;
        let mut out = String::with_capacity(to.len() + text.len());
        captures.expand(to, &mut out);
        Some(out)
    }

    /// A group that `to` names and the expression does not have.
    pub fn missing_group(&self, to: &str) -> Option<String> {
        let to: Cow<'_, str> = to.replace("$$", "").into();
        let groups = Regex::new(r"\$(?:\{([^}]*)\}|([0-9A-Za-z_]+))").ok()?;
        let names = groups
            .captures_iter(&to)
            .filter_map(|found| Some(found.get(1).or_else(|| found.get(2))?.as_str().to_owned()));
        names.into_iter().find(|name| match name.parse::<usize>() {
            Ok(number) => self.0.captures_len() <= number,
            Err(_) => !self.0.capture_names().flatten().any(|known| known == name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_captured_is_put_in() {
        let pattern: Pattern = "^/u/([0-9]+)(?:/(?P<rest>.*))?$".parse().unwrap();
        assert_eq!(pattern.rewritten("/u/7/a", "/users/$1/${rest}"), Some("/users/7/a".into()));
        assert_eq!(pattern.rewritten("/u/7", "/users/$1$$"), Some("/users/7$".into()));
        assert_eq!(pattern.rewritten("/v/7", "/users/$1"), None);
        assert_eq!(pattern.missing_group("/users/$1/${rest}$$2"), None);
        assert_eq!(pattern.missing_group("/users/$3"), Some("3".into()));
        assert_eq!(pattern.missing_group("/users/$1a"), Some("1a".into()), "it is read greedily");
    }

    #[test]
    fn what_cannot_be_searched_for_is_refused() {
        assert!(matches!("(a".parse::<Pattern>(), Err(PatternError::Syntax(..))));
        assert!(matches!(r"(a)\1".parse::<Pattern>(), Err(PatternError::Syntax(..))));
        assert!(matches!("(a{1000}){1000}".parse::<Pattern>(), Err(PatternError::TooLarge(_))));
    }
}
