//! Fields of a line in JSON, or in logfmt: the same fields, in the same order.

use std::{fmt::Display, io::Write, net::IpAddr, time::Duration};

use crate::observe::access_log::{escape, stamp::Stamp};

/// A key with all that stands around it in either form, so that it is copied at once.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    /// `,"name":`
    pub(super) json: &'a str,
    /// ` name=`
    pub(super) logfmt: &'a str,
}

impl<'a> Key<'a> {
    /// The name alone.
    pub(super) fn name(self) -> &'a str {
        self.logfmt.trim_start_matches(' ').trim_end_matches('=')
    }
}

macro_rules! key {
    ($name:literal) => {
        $crate::observe::access_log::sink::Key {
            json: concat!(",\"", $name, "\":"),
            logfmt: concat!(" ", $name, "="),
        }
    };
}
pub(super) use key;

/// What takes the fields of a line.
pub(super) trait Sink {
    /// Where the bytes go.
    fn out(&mut self) -> &mut Vec<u8>;

    /// Begins a line, whose first field is the time.
    fn begin(&mut self);

    /// Ends it.
    fn end(&mut self);

    /// Begins a field.
    fn key(&mut self, key: Key<'_>);

    /// A field with a text that somebody else may have written.
    fn text(&mut self, key: Key<'_>, value: &[u8]);

    /// A field with a text of ours, in which nothing needs escaping.
    fn ours(&mut self, key: Key<'_>, value: &dyn Display);

    /// A field with a number.
    fn number(&mut self, key: Key<'_>, value: u64) {
        self.key(key);
        escape::number(self.out(), value);
    }

    /// A field with milliseconds, if they are known.
    fn millis(&mut self, key: Key<'_>, value: Option<Duration>) {
        if let Some(value) = value {
            self.key(key);
            escape::millis(self.out(), value);
        }
    }

    /// A field that is only there if it holds.
    fn flag(&mut self, key: Key<'_>, holds: bool) {
        if holds {
            self.key(key);
            self.out().extend_from_slice(b"true");
        }
    }

    /// The address of a client.
    fn client(&mut self, key: Key<'_>, client: Option<IpAddr>);

    /// Those of the fields that are known.
    fn known<const N: usize>(&mut self, fields: [(Key<'_>, Option<&str>); N]) {
        for (key, value) in fields {
            if let Some(value) = value {
                self.text(key, value.as_bytes());
            }
        }
    }
}

/// A line that is one object of JSON.
pub(super) struct Json<'a>(pub(super) &'a mut Vec<u8>);

impl Sink for Json<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        self.0
    }

    fn begin(&mut self) {
        self.0.extend_from_slice(b"{\"time\":\"");
        Stamp::Iso.write(self.0);
        self.0.push(b'"');
    }

    fn end(&mut self) {
        self.0.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: Key<'_>) {
        self.0.extend_from_slice(key.json.as_bytes());
    }

    fn text(&mut self, key: Key<'_>, value: &[u8]) {
        self.key(key);
        self.0.push(b'"');
        escape::json(self.0, value);
        self.0.push(b'"');
    }

    fn ours(&mut self, key: Key<'_>, value: &dyn Display) {
        self.key(key);
        let written = write!(self.0, "\"{value}\"");
        debug_assert!(written.is_ok(), "memory takes every byte");
    }

    fn client(&mut self, key: Key<'_>, client: Option<IpAddr>) {
        self.key(key);
        self.0.push(b'"');
        escape::client(self.0, client);
        self.0.push(b'"');
    }
}

/// A line of `key=value`, with quotes where a value needs them.
pub(super) struct Logfmt<'a>(pub(super) &'a mut Vec<u8>);

impl Sink for Logfmt<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        self.0
    }

    fn begin(&mut self) {
        self.0.extend_from_slice(b"time=");
        Stamp::Iso.write(self.0);
    }

    fn end(&mut self) {
        self.0.push(b'\n');
    }

    fn key(&mut self, key: Key<'_>) {
        self.0.extend_from_slice(key.logfmt.as_bytes());
    }

    fn text(&mut self, key: Key<'_>, value: &[u8]) {
        let is_bare =
            |byte: &u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\' | b'=');
        self.key(key);
        if !value.is_empty() && value.iter().all(is_bare) {
            self.0.extend_from_slice(value);
        } else {
            self.0.push(b'"');
            escape::json(self.0, value);
            self.0.push(b'"');
        }
    }

    fn ours(&mut self, key: Key<'_>, value: &dyn Display) {
        self.key(key);
        let written = write!(self.0, "{value}");
        debug_assert!(written.is_ok(), "memory takes every byte");
    }

    fn client(&mut self, key: Key<'_>, client: Option<IpAddr>) {
        self.key(key);
        escape::client(self.0, client);
    }
}
