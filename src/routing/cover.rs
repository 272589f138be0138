//! Routes that no request reaches, because one before them takes all of theirs.

use crate::routing::{pattern::PathPattern, rule::Rule, wanted::Wanted};

/// A rule that no request reaches.
#[derive(Clone, Copy, Debug)]
pub struct Covered<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// The one that takes its requests; it stands before.
    pub by: &'a Rule,
}

/// Finds the rules that no request reaches, among rules in their order.
///
/// What several rules take only together is not found; nor is what cannot be seen in the text of
/// an expression.
pub fn covered(rules: &[Rule]) -> impl Iterator<Item = Covered<'_>> {
    // A host that comes before another never holds it whole, so each is judged alone.
    let hosts = rules.chunk_by(|one, other| one.host == other.host);
    hosts.flat_map(|rules| {
        rules.iter().enumerate().filter_map(|(at, rule)| {
            let is_near = |before: &&Rule| before.path == rule.path || rule.is_by_expression();
            let before = rules[..at].iter().rev().take_while(is_near);
            before.filter(|by| by.covers(rule)).last().map(|by| Covered { rule, by })
        })
    })
}

impl Rule {
    /// Whether it takes all requests that the other takes, as far as can be told.
    pub fn covers(&self, other: &Self) -> bool {
        self.host == other.host
            && self.path.covers(&other.path)
            && match (&self.methods, &other.methods) {
                (None, _) => true,
                (Some(wide), Some(narrow)) => wide.contains_all(narrow),
                (Some(_), None) => false,
            }
            && is_implied(&self.headers, &other.headers)
            && is_implied(&self.query, &other.query)
    }

    /// Whether both ask for the same, wherever they stand.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.host, &self.path, &self.methods, &self.headers, &self.query)
            == (&other.host, &other.path, &other.methods, &other.headers, &other.query)
    }

    fn is_by_expression(&self) -> bool {
        matches!(self.path, PathPattern::Regex(_))
    }
}

/// Whether each of the wide conditions follows from one of the narrow ones.
fn is_implied<N: PartialEq>(wide: &[(N, Wanted)], narrow: &[(N, Wanted)]) -> bool {
    wide.iter().all(|(name, wide)| {
        narrow.iter().any(|(other, narrow)| name == other && narrow.implies(wide))
    })
}

impl PathPattern {
    /// Whether it takes all paths that the other takes, as far as can be told.
    fn covers(&self, other: &Self) -> bool {
        let beginning = match other {
            Self::Regex(regex) => regex.beginning(),
            _ => None,
        };
        match (self, beginning) {
            (Self::Exact(path), Some(begins)) => begins.is_whole && begins.text == *path,
            (Self::Prefix(_), Some(begins)) if begins.is_whole => self.matches(&begins.text),
            // The next slash behind the prefix must be seen, or it may be the middle of a name.
            (Self::Prefix(prefix), Some(begins)) if !prefix.is_empty() => {
                begins.text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
            }
            // All paths begin with a slash, but for the `*` of `OPTIONS`.
            (Self::Prefix(prefix), begins) if matches!(other, Self::Regex(_)) => {
                prefix.is_empty() && !begins.is_some_and(|begins| begins.text.starts_with('*'))
            }
            _ => self == other,
        }
    }
}
