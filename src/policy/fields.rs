//! Setting, adding and removing header fields: what requests and responses have in common.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::field::{Name, Value};

/// Edits of header fields: `{ set: { name: value }, add: { … }, remove: [name] }`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "FieldEdits")]
pub struct Config {
    /// Fields that replace all of their name. Default: `{}`.
    pub set: BTreeMap<Name, Value>,
    /// Fields that are added beside those of their name. Default: `{}`.
    pub add: BTreeMap<Name, Value>,
    /// Names whose fields are removed, before the others are set and added. Default: `[]`.
    pub remove: Vec<Name>,
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
            fields.map(|(name, value)| (name.to_bytes(), value.0.clone())).collect()
        };
        let names = self.remove.iter().map(Name::to_header);
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
}
