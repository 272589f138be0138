//! The fields of a line, packed: a request copies them, and no more.
//!
//! A payload is the length of the line, the line, and the fields: each a kind, the length of its
//! name, its name, and its value.

use std::{fmt::Display, io::Write, net::IpAddr, time::Duration};

use crate::observe::access_log::{
    escape,
    sink::{Key, Sink},
};

const TEXT: u8 = 0;
const NUMBER: u8 = 1;
const MICROS: u8 = 2;
const FLAG: u8 = 3;

/// Takes the fields of a line.
pub(in crate::observe::access_log) struct Packed<'a>(
    pub(in crate::observe::access_log) &'a mut Vec<u8>,
);

/// Appends the beginning of a payload, with the line that `write` appends.
pub(in crate::observe::access_log) fn line(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    sized(out, write);
}

/// Appends some bytes behind their length.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

impl Packed<'_> {
    fn begin_field(&mut self, kind: u8, key: Key<'_>) {
        self.0.push(kind);
        self.key(key);
    }

    fn fixed(&mut self, kind: u8, key: Key<'_>, value: u64) {
        self.begin_field(kind, key);
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

impl Sink for Packed<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        self.0
    }

    /// The time stands in the frame.
    fn begin(&mut self) {}

    fn end(&mut self) {}

    fn key(&mut self, key: Key<'_>) {
        let name = key.name().as_bytes();
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(&name[..usize::from(length)]);
    }

    fn text(&mut self, key: Key<'_>, value: &[u8]) {
        self.begin_field(TEXT, key);
        sized(self.0, |out| out.extend_from_slice(value));
    }

    fn ours(&mut self, key: Key<'_>, value: &dyn Display) {
        self.begin_field(TEXT, key);
        sized(self.0, |out| {
            let written = write!(out, "{value}");
            debug_assert!(written.is_ok(), "memory takes every byte");
        });
    }

    fn number(&mut self, key: Key<'_>, value: u64) {
        self.fixed(NUMBER, key, value);
    }

    fn millis(&mut self, key: Key<'_>, value: Option<Duration>) {
        if let Some(value) = value {
            self.fixed(MICROS, key, u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn flag(&mut self, key: Key<'_>, holds: bool) {
        if holds {
            self.begin_field(FLAG, key);
        }
    }

    fn client(&mut self, key: Key<'_>, client: Option<IpAddr>) {
        self.begin_field(TEXT, key);
        sized(self.0, |out| escape::client(out, client));
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Whatever somebody sent: it need not be UTF-8.
    Text(&'a [u8]),
    Number(u64),
    Micros(u64),
    Flag,
}

/// Takes the line off a payload; what is left are its fields.
pub(super) fn split(payload: &[u8]) -> (&[u8], Fields<'_>) {
    let mut rest = payload;
    let line = take_sized(&mut rest).unwrap_or_default();
    (line, Fields { rest })
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, more) = rest.split_first_chunk::<4>()?;
    let (bytes, more) = more.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = more;
    Some(bytes)
}

/// Fields, one after another.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (name, mut rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let value = match *kind {
            TEXT => Value::Text(take_sized(&mut rest)?),
            FLAG => Value::Flag,
            kind => {
                let (bytes, more) = rest.split_first_chunk::<8>()?;
                rest = more;
                let number = u64::from_le_bytes(*bytes);
                if kind == NUMBER { Value::Number(number) } else { Value::Micros(number) }
            }
        };
        self.rest = rest;
        Some((str::from_utf8(name).ok()?, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::access_log::sink::key;

    #[test]
    fn fields_come_out_as_they_went_in() {
        let mut out = Vec::new();
        line(&mut out, |out| out.extend_from_slice(b"a line\n"));
        let mut packed = Packed(&mut out);
        packed.begin();
        packed.text(key!("path"), b"/\n\xff");
        packed.ours(key!("via"), &"a:200");
        packed.number(key!("status"), 200);
        packed.millis(key!("total_ms"), Some(Duration::from_micros(1_042)));
        packed.millis(key!("connect_ms"), None);
        packed.flag(key!("tls_resumed"), true);
        packed.flag(key!("other"), false);
        packed.client(key!("client"), Some([192, 0, 2, 1].into()));
        packed.end();
        let (line, fields) = split(&out);
        assert_eq!(line, b"a line\n");
        let fields: Vec<_> = fields.collect();
        assert_eq!(
            fields,
            [
                ("path", Value::Text(b"/\n\xff")),
                ("via", Value::Text(b"a:200")),
                ("status", Value::Number(200)),
                ("total_ms", Value::Micros(1_042)),
                ("tls_resumed", Value::Flag),
                ("client", Value::Text(b"192.0.2.1")),
            ]
        );
        for end in 0..out.len() {
            split(&out[..end]).1.for_each(drop); // cut off anywhere, it ends
        }
    }
}
