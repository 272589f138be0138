//! Reads one node as the type that serde asks for.
//!
//! What a type wants and what stands in the file are compared here, so that the message
//! can say both in words; a hand-written visitor gets the same words from its own
//! `expecting`.

use serde::de::{Deserializer, Expected, Visitor};

use super::access::{Items, Keys, WithSpan};
use super::choice::Choice;
use super::error::Error;
use super::node::{Entry, Node, Value, integer, shown};
use super::reader::{Place, Reader};
use super::spanned::SPANNED;
use super::text::SHORT;

/// One value on its way into a type.
#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'a> {
    pub(super) reader: &'a Reader,
    pub(super) place: &'a Place<'a>,
}

impl<'a> NodeDeserializer<'a> {
    /// The place of a value inside this one.
    pub(super) fn child(self, entry: &'a Entry) -> Place<'a> {
        let parent = self.place.path.as_str();
        let path =
            if parent.is_empty() { entry.key.clone() } else { format!("{parent}.{}", entry.key) };
        Place { node: &entry.value, entry: Some(entry), parent, path }
    }

    /// The place of an item of this list.
    pub(super) fn item(self, index: usize, node: &'a Node) -> Place<'a> {
        let parent = self.place.path.as_str();
        Place { node, entry: None, parent, path: format!("{parent}[{index}]") }
    }

    fn node(self) -> &'a Node {
        self.place.node
    }

    fn expected(self, wanted: &str) -> Error {
        let error = Error::expected(wanted, self.node().found());
        let is_absent = self.place.entry.is_none_or(|entry| entry.key_span == self.node().span);
        match self.node().raw.as_deref() {
            Some("") if !is_absent => error.help("what is filled in is empty: give it a value"),
            _ => error,
        }
    }

    fn text(self, wanted: &dyn Expected) -> Result<&'a str, Error> {
        self.node().text().ok_or_else(|| {
            let error = self.expected(&wanted.to_string());
            match self.place.entry {
                _ if self.node().raw.as_deref() == Some("~") => {
                    error.help("`~` alone is nothing: put the text in quotes")
                }
                Some(entry) if entry.key_span == self.node().span => {
                    error.help(format!("write one after `{}:`, or remove the key", entry.key))
                }
                _ => error,
            }
        })
    }

    fn entries(self) -> Result<&'a [Entry], Error> {
        match &self.node().value {
            Value::Mapping(entries) => Ok(entries),
            // An empty file has no keys, and lacks those that are needed.
            Value::Null if self.place.path.is_empty() => Ok(&[]),
            Value::Null => Err(self
                .expected("a mapping")
                .help("write its keys below it, indented further, or `{}` if it has none")),
            _ => Err(self.expected("a mapping")),
        }
    }

    fn items(self) -> Result<&'a [Node], Error> {
        match &self.node().value {
            Value::Sequence(items) => Ok(items),
            Value::Null => Err(self.expected("a list").help("write `[]` for an empty one")),
            Value::Mapping(entries) => Err(match entries.as_slice() {
                [] => self.expected("a list").help("write `[]` for an empty one"),
                [first, ..] => self
                    .expected("a list")
                    .help(format!("put a hyphen before each item: `- {}: …`", first.key)),
            }),
            _ => Err(self.expected("a list").help("put it in brackets: `[…]`")),
        }
    }

    fn integer<T: TryFrom<i128>>(self, min: i128, max: i128) -> Result<T, Error> {
        let raw = self.node().raw.as_deref().unwrap_or_default();
        let Some(value) = integer(raw) else {
            let error = self.expected("a whole number");
            let is_quoted = self.node().text().and_then(integer).is_some();
            return Err(if is_quoted { error.help("take the quotes away") } else { error });
        };
        let digits = raw.trim_start_matches(['+', '-']);
        let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_decimal && 1 < digits.len() && digits.starts_with('0') {
            return Err(leading_zero(raw, value));
        }
        T::try_from(value)
            .map_err(|_| Error::new(format!("{} is out of range: {min} to {max}", shown(raw))))
    }
}

/// Refuses `0660`: YAML 1.1 and most shells read it as octal, YAML 1.2 does not.
fn leading_zero(raw: &str, value: i128) -> Error {
    let error = Error::new(format!("`{raw}` begins with a zero"));
    match i128::from_str_radix(raw, 8) {
        Ok(octal) if 0 < octal && octal != value => {
            error.help(format!("write `{value}`, or `0o{octal:o}` if it is octal"))
        }
        _ => error.help(format!("write `{value}`")),
    }
}

/// Reads every integer type through `self.integer(min, max)`.
macro_rules! integers {
    () => {
        integers! {
            deserialize_i8 visit_i8 i8,
            deserialize_i16 visit_i16 i16,
            deserialize_i32 visit_i32 i32,
            deserialize_i64 visit_i64 i64,
            deserialize_u8 visit_u8 u8,
            deserialize_u16 visit_u16 u16,
            deserialize_u32 visit_u32 u32,
            deserialize_u64 visit_u64 u64,
        }
    };
    ($($method:ident $visit:ident $type:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.integer($type::MIN.into(), $type::MAX.into())?)
        }
    )*};
}

pub(super) use integers;

macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let text = self.text(&visitor)?;
            visitor.visit_str(text)
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node().value {
            Value::Null => visitor.visit_unit(),
            Value::Unfilled => Err(Error::LOST),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Sequence(_) => self.deserialize_seq(visitor),
            Value::Mapping(_) => self.deserialize_map(visitor),
        }
    }

    integers!();

    texts! {
        deserialize_str deserialize_string deserialize_identifier deserialize_char
        deserialize_bytes deserialize_byte_buf
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let error = self.expected("`true` or `false`");
        match (&self.node().value, self.node().text()) {
            (Value::Bool(value), _) => visitor.visit_bool(*value),
            (_, Some("yes" | "on")) => Err(error.help("write `true`")),
            (_, Some("no" | "off")) => Err(error.help("write `false`")),
            _ => Err(error),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node().value {
            Value::Int(value) => visitor.visit_i64(value),
            Value::Float(value) => visitor.visit_f64(value),
            _ => Err(self.expected("a number")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node().value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node().value {
            Value::Null => visitor.visit_unit(),
            _ => Err(self.expected("nothing")),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match (name, self.node().text()) {
            (SPANNED, _) => visitor.visit_seq(WithSpan::new(self.node().span, self)),
            (SHORT, Some(text)) => visitor.visit_str(text),
            (SHORT, None) if matches!(self.node().value, Value::Null) => {
                visitor.visit_str(self.text(&"a text or a mapping")?)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items::new(self, self.items()?))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let items = self.items()?;
        if items.len() != len {
            return Err(Error::expected(
                format_args!("a list of {len}"),
                format_args!("one of {}", items.len()),
            ));
        }
        visitor.visit_seq(Items::new(self, items))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Keys::new(self, self.entries()?))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = self.entries()?;
        for entry in entries.iter().filter(|entry| !fields.contains(&entry.key.as_str())) {
            self.reader.tell_unknown(entry, &self.place.path, fields);
        }
        visitor.visit_map(Keys::new(self, entries))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Choice::of(self, variants)?)
    }

    /// Passes over a value that its type does not know, which is a mistake of the operator.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Some(entry) = self.place.entry {
            self.reader.tell_unknown(entry, self.place.parent, &[]);
        }
        visitor.visit_unit()
    }
}
