//! Texts with variables, such as `https://{host}{path}`: read once, filled in for each request.
//!
//! `{name}` is a variable, `{{` a brace. A brace that no name follows is a brace as well, so that
//! JSON in a header field needs no care. An unknown variable is refused when the file is read.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    field::{VALUE_HELP, is_value},
    policy::{
        exchange::Facts,
        variable::{Unknown, Variable},
    },
};

/// A text in which variables stand.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "Template", example = &"https://{host}{path}")]
#[schemars(extend("type" = ["string", "number", "boolean"]))]
pub struct Template {
    written: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

impl FromStr for Template {
    type Err = Unknown;

    fn from_str(written: &str) -> Result<Self, Unknown> {
        let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), written);
        while let Some(at) = rest.find('{') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                text.push('{');
                rest = after;
            } else if let Some((name, after)) = name_in_braces(rest) {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Variable(name.parse()?));
                rest = after;
            } else {
                text.push('{');
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self { written: written.to_owned(), parts })
    }
}

/// What looks like the name of a variable, with its closing brace.
fn name_in_braces(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.split_once('}')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    (begins && name.bytes().all(is_plain)).then_some((name, after))
}

impl Template {
    /// The text, if it has no variables.
    pub fn plain(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// Fills the variables in; one without a value is filled in with nothing.
    pub fn render(&self, facts: &Facts<'_>, status: Option<u16>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.written.len() * 2);
        self.render_each(facts, status, &mut out, |value, out| out.extend_from_slice(value));
        out
    }

    /// The same, with what each variable stands for put in by `put`.
    pub fn render_each(
        &self,
        facts: &Facts<'_>,
        status: Option<u16>,
        out: &mut Vec<u8>,
        put: impl Fn(&[u8], &mut Vec<u8>),
    ) {
        let mut value = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => {
                    value.clear();
                    variable.write(facts, status, &mut value);
                    put(&value, out);
                }
            }
        }
    }

    /// The same, with what stands between the variables made anew by `texts`; `None` if that
    /// makes nothing.
    pub fn render_with(
        &self,
        facts: &Facts<'_>,
        status: Option<u16>,
        texts: &impl Fn(&str) -> Option<String>,
    ) -> Option<Vec<u8>> {
        texts("")?;
        let mut out = Vec::with_capacity(self.written.len() * 2);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(texts(text)?.as_bytes()),
                Part::Variable(variable) => variable.write(facts, status, &mut out),
            }
        }
        Some(out)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// The value of a header field, in which variables may stand: one line, without spaces at its
/// ends. Numbers and booleans are taken as they are written.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct FieldTemplate(Template);

impl<'de> Deserialize<'de> for FieldTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !is_value(&text) {
            let text = text.escape_debug();
            let message = format!("`{text}` is no value of a field\nhelp: {VALUE_HELP}");
            return Err(D::Error::custom(message));
        }
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

impl FieldTemplate {
    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.variables()
    }

    /// Makes the value ready.
    pub fn build(&self) -> FieldValue {
        let plain = self.0.plain().map(|text| Bytes::from(text.to_owned()));
        match plain.and_then(|text| HeaderValue::from_maybe_shared(text).ok()) {
            Some(value) => FieldValue::Ready(value),
            None => FieldValue::Filled(self.0.clone()),
        }
    }
}

/// The value of a field that is set.
#[derive(Clone, Debug)]
pub enum FieldValue {
    /// The same for all.
    Ready(HeaderValue),
    /// Another for each request; this costs an allocation.
    Filled(Template),
}

impl FieldValue {
    /// The value for a request. What a client sent may hold no byte that ends a field, since it
    /// came in one.
    pub fn of(&self, facts: &Facts<'_>, status: Option<u16>) -> HeaderValue {
        match self {
            Self::Ready(value) => value.clone(),
            Self::Filled(template) => {
                let text = template.render(facts, status);
                let text = Bytes::from(text.trim_ascii().to_vec());
                HeaderValue::from_maybe_shared(text)
                    .unwrap_or_else(|_| HeaderValue::from_static(""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{self, Given};

    fn rendered(written: &str) -> String {
        let given = Given::request("GET", "/a/b?page=2&name=x%20y")
            .field("host", "shop.test:8443")
            .field("cookie", "a=1; theme=dark");
        let template: Template = written.parse().unwrap();
        String::from_utf8(template.render(&given.facts(), Some(404))).unwrap()
    }

    #[test]
    fn variables_are_filled_in() {
        assert_eq!(rendered("https://{host}{path}"), "https://shop.test/a/b");
        assert_eq!(
            rendered("{scheme}://{authority}{uri}"),
            "http://shop.test:8443/a/b?page=2&name=x%20y"
        );
        assert_eq!(rendered("{method} {query.page} {query.name}"), "GET 2 x y");
        assert_eq!(rendered("{cookie.theme}/{header.cookie}"), "dark/a=1; theme=dark");
        assert_eq!(rendered("{client} {route} {upstream}"), "192.0.2.7 shop app");
        assert_eq!(rendered("{status}{header.x-none}{cookie.none}!"), "404!");
        assert_eq!(rendered("{id}"), tests::ID);
    }

    #[test]
    fn other_braces_are_braces() {
        assert_eq!(rendered(r#"{"group":"nel"}"#), r#"{"group":"nel"}"#);
        assert_eq!(rendered("{{path}"), "{path}");
        assert_eq!(rendered("a { b } {}"), "a { b } {}");
        assert_eq!(rendered(""), "");
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest() {
        let why = "{pth}".parse::<Template>().unwrap_err().to_string();
        assert!(why.contains("unknown variable `{pth}`"), "{why}");
        assert!(why.contains("did you mean `{path}`?"), "{why}");
        let why = "{header.a b}".parse::<Template>();
        assert!(why.is_ok(), "it is no variable, having a space");
    }
}
