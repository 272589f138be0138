//! Where settings were written, so that `explain` can say so.

use std::collections::BTreeMap;

use crate::{
    diagnostic::Span,
    yaml::{Entry, Node, Value},
};

/// Where settings were written, by their path. Equal to any other: moving a setting about in its
/// file changes nothing.
#[derive(Debug, Default)]
pub struct Places(BTreeMap<String, Written>);

/// Where a setting was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Its key.
    pub key: Span,
    /// Its value; elsewhere if that is repeated by an alias.
    pub value: Span,
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Places {
    /// Where a setting was written; `None` if it has its default.
    pub fn find(&self, path: &str) -> Option<Written> {
        self.0.get(path).copied()
    }

    /// Notes where the settings of those entries of the top level were written that have places.
    pub(super) fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut places = Self::default();
        for entry in entries.filter(|entry| ["listeners", "upstreams"].contains(&&*entry.key)) {
            places.note(&entry.key, &entry.value);
        }
        places
    }

    fn note(&mut self, path: &str, node: &Node) {
        match &node.value {
            Value::Mapping(entries) => {
                for entry in entries {
                    let path = format!("{path}.{}", entry.key);
                    self.note(&path, &entry.value);
                    let written = Written { key: entry.key_span, value: entry.value.span };
                    self.0.insert(path, written);
                }
            }
            Value::Sequence(items) if path == "listeners" => {
                for (index, item) in items.iter().enumerate() {
                    self.note(&format!("{path}[{index}]"), item);
                }
            }
            _ => {}
        }
    }
}
