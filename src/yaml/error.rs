//! What goes wrong while one value is read.
//!
//! An error has no place of its own: it travels up to the value that is being read, which
//! tells it (see [`reader`](super::reader)).

use std::fmt::{self, Display, Formatter};

use serde::de::{self, Expected, Unexpected};

use super::node::shown;
use crate::diagnostic::{Span, suggest_among};

/// Why a value could not be read.
#[derive(Debug)]
pub struct Error(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    /// Already among the problems.
    Told,
    /// The value is worth nothing without a part that was left out.
    Lost,
    /// A mapping lacks a key.
    MissingKey(&'static str),
    /// A mapping has a key that its type does not know.
    UnknownKey { key: String, known: &'static [&'static str] },
    /// Anything else; at the value's own place unless it says another.
    Fault { message: String, help: Option<String>, span: Option<Span> },
}

impl Error {
    pub(super) const TOLD: Self = Self(Kind::Told);
    pub(super) const LOST: Self = Self(Kind::Lost);

    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(Kind::Fault { message: message.into(), help: None, span: None })
    }

    pub(super) fn expected(wanted: impl Display, found: impl Display) -> Self {
        Self::new(format!("expected {}, found {found}", in_words(&wanted.to_string())))
    }

    pub(super) fn help(mut self, line: impl Into<String>) -> Self {
        if let Kind::Fault { help, .. } = &mut self.0 {
            *help = Some(line.into());
        }
        self
    }

    pub(super) fn at(mut self, place: Span) -> Self {
        if let Kind::Fault { span, .. } = &mut self.0 {
            *span = Some(place);
        }
        self
    }
}

impl de::Error for Error {
    fn custom<T: Display>(text: T) -> Self {
        let text = text.to_string();
        match text.split_once("\nhelp: ") {
            Some((message, help)) => Self::new(message).help(help),
            None => Self::new(text),
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::expected(wanted, found(unexpected))
    }

    fn invalid_value(unexpected: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::expected(wanted, found(unexpected))
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value {}", shown(word))).help(suggest_among(
            "Known here",
            word,
            known.iter().copied(),
        ))
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self(Kind::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self(Kind::MissingKey(key))
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Told | Kind::Lost => f.write_str("a part of it has a problem told already"),
            Kind::MissingKey(key) => write!(f, "missing key `{key}`"),
            Kind::UnknownKey { key, .. } => write!(f, "unknown key `{key}`"),
            Kind::Fault { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

/// Says in an operator's words what serde's own visitors expect.
fn in_words(expected: &str) -> &str {
    match expected {
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "path string" => "a path",
        "IP address" => "an IP address",
        "socket address" => "an address with its port",
        _ if expected.starts_with("a nonzero") => "a whole number above zero",
        _ => expected,
    }
}

/// Says in an operator's words what a visitor did not expect.
fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Str("") => "an empty text".to_owned(),
        Unexpected::Str(text) => shown(text),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("`{value}`"),
        other => other.to_string(),
    }
}
