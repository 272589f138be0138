//! What a route wants of a header field or of a parameter of the query.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData, str::FromStr};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::{
    routing::expression::{Expression, ExpressionError},
    yaml::{self, Spanned},
};

/// What is wanted of the values of one name: a text (or `= text`), `~ regex`, `"*"` for any
/// value, `"!"` for none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", rename = "Wanted", example = &"2", example = &"~ ^v[0-9]+$")]
#[schemars(extend("type" = ["string", "number", "boolean"], "pattern" = r"^([^*!]|[*!]$|$)"))]
pub enum Wanted {
    /// One is this text.
    Equal(String),
    /// One matches this.
    Regex(Expression),
    /// There is one.
    Present,
    /// There is none.
    Absent,
}

/// Why nothing can be wanted so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// It begins with a sign that stands alone.
    #[error(
        "`{0}` begins with a sign that stands alone\nhelp: write `= {0}` if this text is wanted; `*` is any value, `!` is none"
    )]
    Sign(String),
    /// It is no regular expression.
    #[error(transparent)]
    Regex(#[from] ExpressionError),
}

impl FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let rest = |sign: char| text.strip_prefix(sign).map(str::trim_start);
        if let Some(text) = rest('=') {
            return Ok(Self::Equal(text.to_owned()));
        }
        if let Some(regex) = rest('~') {
            return Ok(Self::Regex(regex.parse()?));
        }
        match text {
            "*" => Ok(Self::Present),
            "!" => Ok(Self::Absent),
            _ if text.starts_with(['*', '!']) => Err(WantedError::Sign(text.to_owned())),
            _ => Ok(Self::Equal(text.to_owned())),
        }
    }
}

impl Wanted {
    /// Whether the values of a name are as wanted: where there are several, any of them.
    pub fn is_met_by<'a>(&self, mut values: impl Iterator<Item = Cow<'a, [u8]>>) -> bool {
        match self {
            Self::Equal(text) => values.any(|value| *value == *text.as_bytes()),
            Self::Regex(regex) => values.any(|value| regex.is_match(&value)),
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
        }
    }

    /// Whether all values that are as wanted here are so there too, as far as can be told.
    pub fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Equal(_) | Self::Regex(_), Self::Present) => true,
            (Self::Equal(text), Self::Regex(regex)) => regex.is_match(text.as_bytes()),
            _ => self == other,
        }
    }
}

impl fmt::Display for Wanted {
    /// As the operator writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(text) if text.starts_with(['=', '~', '*', '!']) => write!(f, "= {text}"),
            Self::Equal(text) => f.write_str(text),
            Self::Regex(regex) => write!(f, "~ {regex}"),
            Self::Present => f.write_str("*"),
            Self::Absent => f.write_str("!"),
        }
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a text, `= text`, `~ regex`, `\"*\"` or `\"!\"`")
    }
}

/// What is wanted, by name, as the operator writes it: `{ x-version: "2" }`.
///
/// A list, so that a name that stands twice, in other letters, can be told.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(with = "BTreeMap<String, Wanted>", extend("minProperties" = 1))]
pub struct ByName<N>(pub Vec<(Spanned<N>, Spanned<Wanted>)>);

impl<'de, N: Deserialize<'de>> Deserialize<'de> for ByName<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ByNameVisitor(PhantomData))
    }
}

struct ByNameVisitor<N>(PhantomData<N>);

impl<'de, N: Deserialize<'de>> Visitor<'de> for ByNameVisitor<N> {
    type Value = ByName<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping from names to what is wanted")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<ByName<N>, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            all.push(entry);
        }
        Ok(ByName(all))
    }
}

/// The name of a parameter of the query, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Parameter(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Wanted {
        text.parse().unwrap()
    }

    fn is_met(text: &str, values: &[&str]) -> bool {
        wanted(text).is_met_by(values.iter().map(|value| value.as_bytes().into()))
    }

    #[test]
    fn signs_say_what_is_wanted() {
        assert_eq!(wanted("2"), Wanted::Equal("2".to_owned()));
        assert_eq!(wanted("= ~2"), Wanted::Equal("~2".to_owned()));
        assert_eq!(wanted("=2"), wanted("2"));
        assert_eq!(wanted("~^2"), wanted("~ ^2"));
        assert_eq!((wanted("*"), wanted("!")), (Wanted::Present, Wanted::Absent));
        assert_eq!("*.js".parse::<Wanted>(), Err(WantedError::Sign("*.js".to_owned())));
        assert_eq!("~".parse::<Wanted>(), Err(WantedError::Regex(ExpressionError::Empty)));
        for text in ["2", "= =2", "~ ^2", "*", "!", ""] {
            assert_eq!(wanted(text).to_string(), text, "printed as it is written");
        }
    }

    #[test]
    fn any_of_several_values_will_do() {
        assert!(is_met("2", &["1", "2"]) && !is_met("2", &["1", "22"]) && !is_met("2", &[]));
        assert!(is_met("~ 2", &["1", "22"]) && !is_met("~ ^2$", &["1", "22"]));
        assert!(is_met("*", &[""]) && !is_met("*", &[]));
        assert!(is_met("!", &[]) && !is_met("!", &[""]));
    }

    #[test]
    fn the_narrower_implies_the_wider() {
        for (narrow, wide) in [("2", "*"), ("~ 2", "*"), ("2", "~ ^[0-9]$"), ("!", "!")] {
            assert!(wanted(narrow).implies(&wanted(wide)), "{narrow} {wide}");
            assert!(narrow == wide || !wanted(wide).implies(&wanted(narrow)), "{wide} {narrow}");
        }
        assert!(!wanted("2").implies(&wanted("3")) && !wanted("!").implies(&wanted("*")));
    }
}
