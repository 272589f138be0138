//! Setting, adding and removing header fields: what requests and responses have in common.

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::yaml;

/// What the operator writes: `{ set: { name: value }, add: { … }, remove: [name] }`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Fields that replace all of their name.
    pub set: BTreeMap<Name, Value>,
    /// Fields that are added beside those of their name.
    pub add: BTreeMap<Name, Value>,
    /// Names whose fields are removed, before the others are set and added.
    pub remove: Vec<Name>,
}

/// The name of a field, in the case in which the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(HeaderValue);

/// Fields that frame a message or belong to one connection: Crestline alone writes them.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a name cannot be set, added or removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is no field name.
    #[error(
        "`{0}` is no name of a field\nhelp: names are letters, digits and any of !#$%&'*+-.^_`|~"
    )]
    NotAName(String),
    /// It is one of [`RESERVED`].
    #[error("`{0}` cannot be changed here: it frames the message\nhelp: {1}")]
    Reserved(String, &'static str),
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = HeaderName::from_str(text).map_err(|_| NameError::NotAName(text.to_owned()))?;
        if RESERVED.contains(&name.as_str()) {
            let help = match name.as_str() {
                "host" => "write `host:` on the route to change the host",
                _ => "remove it from this list: Crestline writes this field itself",
            };
            return Err(NameError::Reserved(text.to_owned(), help));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "the name of a field")
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let visible = text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
        if !visible || text.trim() != text {
            return Err(D::Error::custom(format!(
                "`{}` is no value of a field\nhelp: remove line breaks, control characters, and \
                 spaces at its ends",
                text.escape_debug()
            )));
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).map(Self).map_err(D::Error::custom)
    }
}

/// What runs: names and values made ready.
#[derive(Debug)]
pub struct Edits {
    remove: Box<[HeaderName]>,
    set: Box<[(Bytes, HeaderValue)]>,
    add: Box<[(Bytes, HeaderValue)]>,
}

impl Config {
    /// Makes the names and values ready.
    pub fn build(&self) -> Edits {
        let ready = |fields: &BTreeMap<Name, Value>| {
            let fields = fields.iter();
            fields.map(|(name, value)| (Bytes::from(name.0.clone()), value.0.clone())).collect()
        };
        let names = self.remove.iter().filter_map(|name| HeaderName::from_str(&name.0).ok());
        Edits { remove: names.collect(), set: ready(&self.set), add: ready(&self.add) }
    }
}

impl Edits {
    /// Applies the edits to a request.
    pub fn edit_request(&self, header: &mut RequestHeader) -> Result<()> {
        for name in &self.remove {
            header.remove_header(name);
        }
        for (name, value) in &self.set {
            header.insert_header(name.clone(), value.clone())?;
        }
        for (name, value) in &self.add {
            header.append_header(name.clone(), value.clone())?;
        }
        Ok(())
    }

    /// Applies the edits to a response.
    pub fn edit_response(&self, header: &mut ResponseHeader) -> Result<()> {
        for name in &self.remove {
            header.remove_header(name);
        }
        for (name, value) in &self.set {
            header.insert_header(name.clone(), value.clone())?;
        }
        for (name, value) in &self.add {
            header.append_header(name.clone(), value.clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits() -> Edits {
        let field = |name: &str, value: &'static str| {
            (name.parse().unwrap(), Value(HeaderValue::from_static(value)))
        };
        Config {
            set: BTreeMap::from([field("X-Edge", "crestline")]),
            add: BTreeMap::from([field("via-too", "b")]),
            remove: vec!["server".parse().unwrap()],
        }
        .build()
    }

    #[test]
    fn fields_are_removed_set_and_added() {
        let mut answer = ResponseHeader::build(200, None).unwrap();
        answer.append_header("server", "secret/1").unwrap();
        answer.append_header("x-edge", "forged").unwrap();
        answer.append_header("x-edge", "twice").unwrap();
        answer.append_header("via-too", "a").unwrap();
        edits().edit_response(&mut answer).unwrap();
        let values = |name| answer.headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("server"), [""; 0]);
        assert_eq!(values("x-edge"), ["crestline"]);
        assert_eq!(values("via-too"), ["a", "b"]);
    }

    #[test]
    fn a_field_that_frames_the_message_is_refused() {
        assert!(matches!("Content-Length".parse::<Name>(), Err(NameError::Reserved(..))));
        assert!(matches!("a b".parse::<Name>(), Err(NameError::NotAName(_))));
        let host = "host".parse::<Name>().unwrap_err().to_string();
        assert!(host.contains("write `host:` on the route"), "{host}");
    }
}
