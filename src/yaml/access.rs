//! How serde walks through lists and mappings.
//!
//! Every part is read through [`Reader::within`](super::reader::Reader::within), so that a
//! problem is told at the innermost value that has it, and parts that are left out are
//! passed over here.

use std::slice;

use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::de::{NodeDeserializer, integers};
use super::error::Error;
use super::node::{Entry, Node, integer, shown};
use super::spanned::SPANNED;
use crate::diagnostic::Span;

/// The items of a list.
pub(super) struct Items<'a> {
    list: NodeDeserializer<'a>,
    rest: std::iter::Enumerate<slice::Iter<'a, Node>>,
}

/// The keys of a mapping, each before its value.
pub(super) struct Keys<'a> {
    mapping: NodeDeserializer<'a>,
    rest: slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

/// The three parts of a [`Spanned`](super::Spanned): start, end, value.
pub(super) struct WithSpan<D> {
    bounds: std::array::IntoIter<usize, 2>,
    value: Option<D>,
}

/// A key on its way into a type.
#[derive(Clone, Copy)]
pub(super) struct KeyDeserializer<'a> {
    pub(super) key: &'a str,
    pub(super) span: Span,
}

impl<'a> Items<'a> {
    pub(super) fn new(list: NodeDeserializer<'a>, items: &'a [Node]) -> Self {
        Self { list, rest: items.iter().enumerate() }
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let reader = self.list.reader;
        match self.rest.find(|(_, node)| !reader.passes_over(node)) {
            Some((index, node)) => {
                let place = self.list.item(index, node);
                reader.within(&place, |deserializer| seed.deserialize(deserializer)).map(Some)
            }
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

impl<'a> Keys<'a> {
    pub(super) fn new(mapping: NodeDeserializer<'a>, entries: &'a [Entry]) -> Self {
        Self { mapping, rest: entries.iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Keys<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let reader = self.mapping.reader;
        self.current = self.rest.find(|entry| !reader.passes_over(&entry.value));
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key = KeyDeserializer { key: &entry.key, span: entry.key_span };
        seed.deserialize(key).map(Some).map_err(|error| {
            reader.tell_key(error, entry, &self.mapping.place.path);
            Error::TOLD
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let entry = self.current.take().ok_or_else(|| Error::new("a value comes after its key"))?;
        let place = self.mapping.child(entry);
        self.mapping.reader.within(&place, |deserializer| seed.deserialize(deserializer))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

impl<D> WithSpan<D> {
    pub(super) fn new(span: Span, value: D) -> Self {
        Self { bounds: [span.start, span.end].into_iter(), value: Some(value) }
    }
}

impl<'de, D: Deserializer<'de, Error = Error>> SeqAccess<'de> for WithSpan<D> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        match (self.bounds.next(), self.value.take()) {
            (Some(bound), value) => {
                self.value = value;
                seed.deserialize(bound.into_deserializer()).map(Some)
            }
            (None, Some(value)) => seed.deserialize(value).map(Some),
            (None, None) => Ok(None),
        }
    }
}

impl KeyDeserializer<'_> {
    fn integer<T: TryFrom<i128>>(self, min: i128, max: i128) -> Result<T, Error> {
        let value = integer(self.key)
            .ok_or_else(|| Error::expected("a whole number as key", shown(self.key)))?;
        T::try_from(value)
            .map_err(|_| Error::new(format!("{} is out of range: {min} to {max}", shown(self.key))))
    }
}

impl<'de> Deserializer<'de> for KeyDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.key)
    }

    integers!();

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match name {
            SPANNED => visitor.visit_seq(WithSpan::new(self.span, self)),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.key.into_deserializer())
    }

    forward_to_deserialize_any! {
        bool f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}
