//! The tree that a text becomes: values, each with its bytes.
//!
//! Plain scalars follow the core schema of YAML 1.2, so `off` and `yes` are texts, and
//! `true` and `0x1f` are not. Whatever a scalar was read as, its text as written is kept.

use std::borrow::Cow;

use crate::diagnostic::Span;

/// A found text is shown up to this many characters.
const SHOWN_MAX: usize = 60;

/// A value and the bytes it was written in.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// From the first byte to the last; for an absent value, its key.
    pub span: Span,
    /// What was written.
    pub value: Value,
    /// The text of a plain null, boolean or number as written; a string is its own text.
    pub raw: Option<String>,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    String(String),
    /// A text that could not be filled in, which is told already.
    Unfilled,
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order written; its keys are distinct.
    Mapping(Vec<Entry>),
}

/// One key of a mapping, and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as text.
    pub key: String,
    /// Where the key is.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Makes a node of a plain scalar, deciding what it means.
    pub fn plain(span: Span, raw: String) -> Self {
        match resolve(&raw) {
            Value::String(_) => Self { span, value: Value::String(raw), raw: None },
            value => Self { span, value, raw: Some(raw) },
        }
    }

    /// Answers the text of a scalar as written; a list, a mapping and nothing have none.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            Value::Null | Value::Unfilled | Value::Sequence(_) | Value::Mapping(_) => None,
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => self.raw.as_deref(),
        }
    }

    /// Finds the entry of a mapping.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Answers the entries of a mapping; anything else has none.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The same as JSON; what could not be filled in is nothing.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Unfilled => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::String(text) => text.as_str().into(),
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect()
            }
        }
    }

    /// Says what stands here, for the end of "expected …, found …".
    pub fn found(&self) -> Cow<'static, str> {
        match (&self.value, self.text()) {
            (Value::Sequence(_), _) => "a list".into(),
            (Value::Mapping(_), _) => "a mapping".into(),
            (Value::String(text), _) if text.is_empty() => "an empty text".into(),
            (Value::String(text), _) if !matches!(resolve(text), Value::String(_)) => {
                format!("the text `\"{text}\"`").into()
            }
            (_, Some(text)) => shown(text).into(),
            (_, None) => "nothing".into(),
        }
    }
}

/// Quotes a text for a message, cut to a sensible length.
pub(super) fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(SHOWN_MAX).collect();
    let rest = if cut.len() < text.trim_end().len() { "…" } else { "" };
    format!("`{cut}{rest}`")
}

/// Decides what a plain scalar means (YAML 1.2.2, section 10.3.2).
///
/// `.inf` and `.nan` stay texts: no setting wants them.
fn resolve(raw: &str) -> Value {
    match raw {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(int) = integer(raw).and_then(|int| i64::try_from(int).ok()) {
        return Value::Int(int);
    }
    let numeric = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let float = raw.chars().all(numeric).then(|| raw.parse().ok()).flatten();
    float.map_or_else(|| Value::String(raw.to_owned()), Value::Float)
}

/// Reads a whole number: decimal, `0x…` or `0o…`.
pub(super) fn integer(raw: &str) -> Option<i128> {
    let (digits, radix) = match raw.get(..2) {
        Some("0x") => (&raw[2..], 16),
        Some("0o") => (&raw[2..], 8),
        _ => (raw, 10),
    };
    let is_signed = digits.starts_with(['+', '-']);
    (radix == 10 || !is_signed).then(|| i128::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(raw: &str) -> Value {
        Node::plain(Span::default(), raw.to_owned()).value
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for raw in ["", "~", "null"] {
            assert_eq!(value(raw), Value::Null);
        }
        assert_eq!(value("True"), Value::Bool(true));
        let ints = [("42", 42), ("-7", -7), ("+7", 7), ("0x1f", 31), ("0o17", 15), ("007", 7)];
        for (raw, int) in ints {
            assert_eq!(value(raw), Value::Int(int), "{raw}");
        }
        for (raw, float) in [("1.5", 1.5), (".5", 0.5), ("1e3", 1e3), ("1.10", 1.1)] {
            assert_eq!(value(raw), Value::Float(float), "{raw}");
        }
    }

    #[test]
    fn all_else_is_text() {
        let texts = [
            "yes",
            "off",
            "nan",
            "inf",
            ".inf",
            "127.0.0.1",
            "5s",
            "1_000",
            "-",
            "+",
            "e",
            "0x",
            "0x-5",
            "12:30",
            "é1",
        ];
        for raw in texts {
            assert_eq!(value(raw), Value::String(raw.to_owned()));
        }
    }

    #[test]
    fn a_number_keeps_its_text() {
        let node = Node::plain(Span::default(), "1.10".to_owned());
        assert_eq!(node.text(), Some("1.10"));
    }

    #[test]
    fn a_number_beyond_the_widest_type_is_still_a_number() {
        assert_eq!(value("99999999999999999999"), Value::Float(1e20));
        assert_eq!(integer("99999999999999999999"), Some(99_999_999_999_999_999_999));
    }

    #[test]
    fn what_was_found_is_said_in_words() {
        let found =
            |value: Value| Node { span: Span::default(), value, raw: None }.found().into_owned();
        assert_eq!(found(Value::Null), "nothing");
        assert_eq!(found(Value::Sequence(Vec::new())), "a list");
        assert_eq!(found(Value::String("4".to_owned())), "the text `\"4\"`");
        assert_eq!(found(Value::String("x".repeat(99))), format!("`{}…`", "x".repeat(60)));
    }
}
