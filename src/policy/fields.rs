//! Setting, adding, renaming and removing header fields: what requests and responses have in
//! common.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    field::Name,
    policy::{
        exchange::Facts,
        template::{FieldTemplate, FieldValue},
    },
};

/// Edits of header fields: `{ set: { name: value }, add: { … }, rename: { … }, remove: [name] }`.
/// Fields are removed first, then renamed, then set, then added. Values may have variables, such
/// as `{client}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "FieldEdits")]
pub struct Config {
    /// Fields that replace all of their name. Default: `{}`.
    pub set: BTreeMap<Name, FieldTemplate>,
    /// Fields that are added beside those of their name. Default: `{}`.
    pub add: BTreeMap<Name, FieldTemplate>,
    /// Old names and new ones: all fields of the old name are given the new one, instead of those
    /// that have it already. Default: `{}`.
    pub rename: BTreeMap<Name, Name>,
    /// Names whose fields are removed. Default: `[]`.
    pub remove: Vec<Name>,
}

/// What runs: names, in the case in which they were written, and values made ready.
#[derive(Debug)]
pub struct Edits {
    remove: Box<[HeaderName]>,
    rename: Box<[(HeaderName, Bytes)]>,
    set: Box<[(Bytes, FieldValue)]>,
    add: Box<[(Bytes, FieldValue)]>,
}

/// A head whose fields are edited.
pub trait Head {
    /// The fields as they are.
    fn fields(&self) -> &HeaderMap;
    /// Removes all fields of a name.
    fn remove(&mut self, name: &HeaderName);
    /// Replaces all fields of a name by one.
    fn set(&mut self, name: Bytes, value: HeaderValue) -> Result<()>;
    /// Adds a field.
    fn add(&mut self, name: Bytes, value: HeaderValue) -> Result<()>;
}

macro_rules! heads {
    ($($Header:ty),*) => {$(
        impl Head for $Header {
            fn fields(&self) -> &HeaderMap {
                &self.headers
            }

            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }

            fn set(&mut self, name: Bytes, value: HeaderValue) -> Result<()> {
                self.insert_header(name, value)
            }

            fn add(&mut self, name: Bytes, value: HeaderValue) -> Result<()> {
                self.append_header(name, value).map(drop)
            }
        }
    )*};
}

heads!(RequestHeader, ResponseHeader);

impl Config {
    /// The values that are set and added.
    pub fn values(&self) -> impl Iterator<Item = &FieldTemplate> {
        self.set.values().chain(self.add.values())
    }

    /// Makes the names and values ready.
    pub fn build(&self) -> Edits {
        let ready = |fields: &BTreeMap<Name, FieldTemplate>| {
            fields.iter().map(|(name, value)| (name.to_bytes(), value.build())).collect()
        };
        let renamed = self.rename.iter().map(|(old, new)| (old.to_header(), new.to_bytes()));
        Edits {
            remove: self.remove.iter().map(Name::to_header).collect(),
            rename: renamed.collect(),
            set: ready(&self.set),
            add: ready(&self.add),
        }
    }
}

impl Edits {
    /// Applies the edits to a head; `status` is that of an answer.
    pub fn edit(&self, head: &mut impl Head, facts: &Facts<'_>, status: Option<u16>) -> Result<()> {
        for name in &self.remove {
            head.remove(name);
        }
        for (old, new) in &self.rename {
            rename(head, old, new)?;
        }
        for (name, value) in &self.set {
            head.set(name.clone(), value.of(facts, status))?;
        }
        for (name, value) in &self.add {
            head.add(name.clone(), value.of(facts, status))?;
        }
        Ok(())
    }
}

fn rename(head: &mut impl Head, old: &HeaderName, new: &Bytes) -> Result<()> {
    let values: Vec<_> = head.fields().get_all(old).iter().cloned().collect();
    head.remove(old);
    for (at, value) in values.into_iter().enumerate() {
        if at == 0 {
            head.set(new.clone(), value)?;
        } else {
            head.add(new.clone(), value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Given;

    fn edits(yaml: &str) -> Edits {
        serde_json::from_str::<Config>(yaml).unwrap().build()
    }

    #[test]
    fn fields_are_removed_renamed_set_and_added() {
        let mut answer = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("server", "secret/1"),
            ("x-edge", "forged"),
            ("x-edge", "twice"),
            ("via-too", "a"),
            ("x-old", "1"),
            ("x-old", "2"),
            ("x-new", "0"),
        ] {
            answer.append_header(name, value).unwrap();
        }
        let edits = edits(
            r#"{"set": {"X-Edge": "crestline {status}"}, "add": {"via-too": "b"},
                "rename": {"x-old": "x-new", "x-none": "via-too"}, "remove": ["server"]}"#,
        );
        edits.edit(&mut answer, &Given::request("GET", "/").facts(), Some(200)).unwrap();
        let values = |name| answer.headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("server"), [""; 0]);
        assert_eq!(values("x-edge"), ["crestline 200"]);
        assert_eq!(values("via-too"), ["a", "b"]);
        assert_eq!(values("x-old"), [""; 0]);
        assert_eq!(values("x-new"), ["1", "2"]);
    }
}
