//! Values written as one word.
//!
//! [`text`] is for types that are always one word; [`Short`] for those that may be.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The name by which our deserializer knows a [`Short`].
pub(super) const SHORT: &str = "$crestline::yaml::Short";

/// A value that may also be written in short, as the one word that its `FromStr` takes.
///
/// A word goes to [`FromStr`], a list or mapping to [`Deserialize`], each with all its
/// strictness. The field says that there are two forms; `T` knows only itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Short<T>(pub T);

/// What the word of a [`Short`] may be: tells schemas what `FromStr` takes.
pub trait Word {
    /// The schema of the word; [`words`] makes it of a list.
    fn word(generator: &mut SchemaGenerator) -> Schema;
}

/// The schema of a choice among words, each with its meaning.
pub fn words(words: &[(&str, &str)]) -> Schema {
    let word =
        |&(word, meaning): &(&str, &str)| json_schema!({ "const": word, "description": meaning });
    json_schema!({ "anyOf": words.iter().map(word).collect::<Vec<_>>() })
}

impl<T> Deref for Short<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T> Deserialize<'de> for Short<T>
where
    T: Deserialize<'de> + FromStr<Err: Display>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SHORT, ShortVisitor(PhantomData))
    }
}

impl<T: JsonSchema + Word> JsonSchema for Short<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Short{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [T::word(generator), generator.subschema_for::<T>()] })
    }
}

/// Reads a type from its text; `expected` names it in messages, with an article.
///
/// This is the body of a `Deserialize` for a type that is always one word. The message of
/// its error may end in `"\nhelp: …"`.
pub fn text<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    deserializer.deserialize_str(TextVisitor(expected, PhantomData))
}

struct ShortVisitor<T>(PhantomData<T>);

impl<'de, T> Visitor<'de> for ShortVisitor<T>
where
    T: Deserialize<'de> + FromStr<Err: Display>,
{
    type Value = Short<T>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a word or a mapping")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Short<T>, E> {
        text.parse().map(Short).map_err(E::custom)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, full: D) -> Result<Short<T>, D::Error> {
        T::deserialize(full).map(Short)
    }
}

struct TextVisitor<T>(&'static str, PhantomData<T>);

impl<T: FromStr<Err: Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}
