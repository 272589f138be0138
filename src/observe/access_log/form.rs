//! The form of a line, compiled: its format, the fields that are added, and what is hidden.

use std::borrow::Cow;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::observe::access_log::{
    line,
    otlp::packed::{self, Packed},
    relay,
    secrets::Secrets,
    sink::{Json, Key, Logfmt},
    template::Template,
};

/// How a line is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    pub(super) format: Format,
    /// Fields of the request that are shown as well, in JSON and logfmt.
    pub(super) request: Vec<Extra>,
    /// Those of the answer.
    pub(super) response: Vec<Extra>,
    pub(super) secrets: Secrets,
    /// The share of good requests that have a line; 0 to 1.
    pub(super) sample: f64,
}

/// The format of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AccessLogFormat")]
pub enum Format {
    /// One JSON object a line, with all fields.
    #[default]
    Json,
    /// `key=value`, with all fields.
    Logfmt,
    /// The combined format of Apache and nginx.
    Combined,
    /// A line of your own, with fields in braces, such as
    /// `{client} {method} {path} {status} {total_ms} {request.x-tenant}`.
    Template(Template),
}

impl Form {
    /// All of every request, in this format; nothing is hidden.
    pub fn of(format: Format) -> Self {
        let secrets = Secrets::default();
        Self { format, request: Vec::new(), response: Vec::new(), secrets, sample: 1.0 }
    }

    /// Appends the line of a request, with its end.
    pub(super) fn write(&self, entry: &line::Entry<'_>, out: &mut Vec<u8>) {
        match &self.format {
            Format::Json => line::fields(entry, self, &mut Json(out)),
            Format::Logfmt => line::fields(entry, self, &mut Logfmt(out)),
            Format::Combined => line::combined(entry, self, out),
            Format::Template(template) => template.write(entry, &self.secrets, out),
        }
    }

    /// The same for a connection that was relayed.
    pub(super) fn write_relay(&self, entry: &relay::Entry<'_>, out: &mut Vec<u8>) {
        match &self.format {
            Format::Json => relay::fields(entry, &mut Json(out)),
            Format::Logfmt => relay::fields(entry, &mut Logfmt(out)),
            Format::Combined | Format::Template(_) => self.write(&entry.as_request(), out),
        }
    }

    /// A target without what is hidden.
    pub(super) fn shown<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        self.secrets.clean(target)
    }

    /// Appends the fields of a request, packed, and its line where that is of the operator's making.
    pub(super) fn pack(&self, entry: &line::Entry<'_>, out: &mut Vec<u8>) {
        packed::line(out, |out| {
            if self.has_own_line() {
                self.write(entry, out);
            }
        });
        line::fields(entry, self, &mut Packed(out));
    }

    /// The same for a connection that was relayed.
    pub(super) fn pack_relay(&self, entry: &relay::Entry<'_>, out: &mut Vec<u8>) {
        packed::line(out, |out| {
            if self.has_own_line() {
                self.write_relay(entry, out);
            }
        });
        relay::fields(entry, &mut Packed(out));
    }

    /// JSON and logfmt say no more than the fields themselves.
    fn has_own_line(&self) -> bool {
        matches!(self.format, Format::Combined | Format::Template(_))
    }

    /// Whether something has a line: all that went wrong, and a share of the rest.
    pub(super) fn shows(&self, is_good: bool) -> bool {
        !is_good || 1.0 <= self.sample || fastrand::f64() < self.sample
    }
}

/// A field of a message that is shown, and its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    pub(super) name: HeaderName,
    json: String,
    logfmt: String,
}

impl Extra {
    /// A field of the `request` or the `response`.
    pub(super) fn new(message: &str, name: HeaderName) -> Self {
        // A name has no byte that would have to be escaped in either form.
        let (json, logfmt) = (format!(",\"{message}.{name}\":"), format!(" {message}.{name}="));
        Self { name, json, logfmt }
    }

    pub(super) fn key(&self) -> Key<'_> {
        Key { json: &self.json, logfmt: &self.logfmt }
    }
}
