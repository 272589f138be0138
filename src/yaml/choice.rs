//! How an enum is written: as a bare word, or as a mapping with one key.

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, VariantAccess, Visitor};

use super::access::KeyDeserializer;
use super::de::NodeDeserializer;
use super::error::Error;
use super::node::{Entry, Value, shown};
use crate::diagnostic::suggest_among;

/// The variant of an enum: a bare word, or the one key of a mapping.
pub(super) struct Choice<'a> {
    whole: NodeDeserializer<'a>,
    word: &'a str,
    entry: Option<&'a Entry>,
}

impl<'a> Choice<'a> {
    /// Finds the variant that a node names.
    pub(super) fn of(
        whole: NodeDeserializer<'a>,
        variants: &'static [&'static str],
    ) -> Result<Self, Error> {
        let node = whole.place.node;
        let known = |word| suggest_among("Known here", word, variants.iter().copied());
        match (&node.value, node.text()) {
            (_, Some(word)) if variants.contains(&word) => Ok(Self { whole, word, entry: None }),
            (_, Some(word)) => Err(Error::unknown_variant(word, variants)),
            (Value::Mapping(entries), _) => match entries.as_slice() {
                [entry] if whole.reader.passes_over(&entry.value) => Err(Error::LOST),
                [entry] if variants.contains(&entry.key.as_str()) => {
                    Ok(Self { whole, word: &entry.key, entry: Some(entry) })
                }
                [entry] => Err(Error::new(format!("unknown key {}", shown(&entry.key)))
                    .at(entry.key_span)
                    .help(known(&entry.key))),
                [] => Err(Error::expected("one key", "none").help(known(""))),
                many => Err(too_many_keys(many, variants)),
            },
            _ => {
                Err(Error::expected("a word or a mapping with one key", node.found())
                    .help(known("")))
            }
        }
    }
}

fn too_many_keys(entries: &[Entry], variants: &[&str]) -> Error {
    let keys: Vec<_> = entries.iter().map(|entry| shown(&entry.key)).collect();
    let error = Error::expected("one key", format_args!("{}: {}", keys.len(), keys.join(", ")));
    let is_variant = |entry: &Entry| variants.contains(&entry.key.as_str());
    match entries {
        [choice, inner @ ..] if is_variant(choice) && !inner.iter().any(is_variant) => {
            error.help(format!("indent the others further if they belong to `{}`", choice.key))
        }
        _ => error.help(suggest_among("Choose one", "", variants.iter().copied())),
    }
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let span = self.entry.map_or(self.whole.place.node.span, |entry| entry.key_span);
        Ok((seed.deserialize(KeyDeserializer { key: self.word, span })?, self))
    }
}

impl Choice<'_> {
    /// Reads what stands under the key; a bare word has nothing there.
    fn content<T>(
        self,
        read: impl FnOnce(NodeDeserializer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(entry) = self.entry else {
            return Err(Error::new(format!("`{}` needs a value", self.word))
                .help(format!("write `{}: …`", self.word)));
        };
        self.whole.reader.within(&self.whole.child(entry), read)
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.entry {
            Some(entry) if entry.value.value != Value::Null => {
                Err(Error::new(format!("`{}` takes no value", self.word))
                    .at(entry.value.span)
                    .help(format!("write the word alone: `{}`", self.word)))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.content(|deserializer| seed.deserialize(deserializer))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.content(|deserializer| deserializer.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.content(|deserializer| deserializer.deserialize_struct("", fields, visitor))
    }
}
