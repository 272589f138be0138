//! A line as the operator composes it: `{client} {method} {path} {status} {total_ms}`.
//!
//! It is compiled once. What was sent by others is escaped as in the combined format, and what is
//! not known is `-`.

use std::{io::Write, str::FromStr, time::Duration};

use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::suggest_among,
    observe::access_log::{escape, line::Entry, secrets::Secrets, stamp::Stamp},
    yaml,
};

/// A line with its fields.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "AccessLogTemplate")]
#[schemars(example = &"{client} {method} {path} {status} {total_ms}")]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
    Request(HeaderName),
    Response(HeaderName),
}

macro_rules! fields {
    ($($Name:ident = $word:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Field { $($Name,)* }

        impl Field {
            const WORDS: &[&str] = &[$($word,)*];

            fn of(name: &str) -> Option<Self> {
                match name { $($word => Some(Self::$Name),)* _ => None }
            }
        }
    };
}

// The names are those of the fields in JSON.
fields! {
    Attempts = "attempts",
    Backend = "backend",
    Bytes = "bytes",
    Client = "client",
    ConnectMs = "connect_ms",
    FirstByteMs = "first_byte_ms",
    Host = "host",
    Id = "id",
    Method = "method",
    Path = "path",
    Protocol = "protocol",
    Reason = "reason",
    Referer = "referer",
    Route = "route",
    Sni = "sni",
    SpanId = "span_id",
    Status = "status",
    Time = "time",
    TlsCipher = "tls_cipher",
    TlsVersion = "tls_version",
    TotalMs = "total_ms",
    TraceId = "trace_id",
    Upstream = "upstream",
    User = "user",
    UserAgent = "user_agent",
    Via = "via",
}

/// The beginnings of the others.
const NAMED: [&str; 2] = ["request.NAME", "response.NAME"];

/// Why a text is no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTemplate {
    /// A field that there is not.
    #[error("unknown field `{{{name}}}`\nhelp: {help}; write `{{{{` for a brace")]
    Unknown {
        /// As it was written.
        name: String,
        /// What is known.
        help: String,
    },
    /// A brace that is not closed.
    #[error("a field is not closed\nhelp: write `}}` after its name, or `{{{{` for a brace")]
    Open,
    /// Two lines, or none.
    #[error(
        "this is no line\nhelp: write one line, such as `{{client}} {{method}} {{path}} {{status}}`"
    )]
    NoLine,
}

impl FromStr for Template {
    type Err = NoTemplate;

    fn from_str(written: &str) -> Result<Self, NoTemplate> {
        if written.trim().is_empty()
            || written.chars().any(|letter| letter.is_control() && letter != '\t')
        {
            return Err(NoTemplate::NoLine);
        }
        let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), written);
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            if let Some(after) = after.strip_prefix('{') {
                text.push('{');
                rest = after;
                continue;
            }
            let (name, after) = after.split_once('}').ok_or(NoTemplate::Open)?;
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(part(name)?);
            rest = after;
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self(parts))
    }
}

fn part(name: &str) -> Result<Part, NoTemplate> {
    let header = |name: &str| name.parse::<HeaderName>().ok();
    let known = match name.split_once('.') {
        Some(("request", name)) => header(name).map(Part::Request),
        Some(("response", name)) => header(name).map(Part::Response),
        _ => Field::of(name).map(Part::Field),
    };
    known.ok_or_else(|| {
        let help = suggest_among("Known here", name, Field::WORDS.iter().chain(&NAMED).copied());
        NoTemplate::Unknown { name: name.to_owned(), help }
    })
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a line such as `{client} {method} {path} {status}`")
    }
}

impl Template {
    /// Appends the line of a request, with its end.
    pub(super) fn write(&self, entry: &Entry<'_>, secrets: &Secrets, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Field(field) => field.write(entry, secrets, out),
                Part::Request(name) => header(entry.request, name, secrets, out),
                Part::Response(name) => header(entry.response, name, secrets, out),
            }
        }
        out.push(b'\n');
    }
}

fn header(sent: Option<&HeaderMap>, name: &HeaderName, secrets: &Secrets, out: &mut Vec<u8>) {
    let value = sent.and_then(|sent| sent.get(name));
    known(value.map(|value| secrets.shown(name, value)), out);
}

fn known(value: Option<&[u8]>, out: &mut Vec<u8>) {
    escape::hex(out, value.filter(|value| !value.is_empty()).unwrap_or(b"-"));
}

fn millis(value: Option<Duration>, out: &mut Vec<u8>) {
    match value {
        Some(value) => escape::millis(out, value),
        None => out.push(b'-'),
    }
}

impl Field {
    fn write(self, entry: &Entry<'_>, secrets: &Secrets, out: &mut Vec<u8>) {
        let text = |value: Option<&'_ str>, out: &mut Vec<u8>| {
            known(value.map(str::as_bytes), out);
        };
        match self {
            Self::Attempts => escape::number(out, entry.attempts as u64),
            Self::Backend => text(entry.backend, out),
            Self::Bytes => escape::number(out, entry.bytes),
            Self::Client => escape::client(out, entry.client),
            Self::ConnectMs => millis(entry.connect, out),
            Self::FirstByteMs => millis(entry.first_byte, out),
            Self::Host => text(Some(entry.host), out),
            Self::Id => known(Some(entry.id), out),
            Self::Method => text(Some(entry.method), out),
            Self::Path => known(Some(&secrets.clean(entry.target)), out),
            Self::Protocol => text(Some(entry.protocol), out),
            Self::Reason => text(Some(entry.reason.as_str()), out),
            Self::Referer => {
                let referer = entry.referer.map(|referer| secrets.clean(referer));
                known(referer.as_deref(), out);
            }
            Self::Route => text(entry.route, out),
            Self::Sni => text(entry.tls.sni, out),
            Self::SpanId => {
                known(entry.traced.map(|traced| traced.span.hex()).as_ref().map(|id| &id[..]), out);
            }
            Self::Status => escape::number(out, u64::from(entry.status)),
            Self::Time => Stamp::Iso.write(out),
            Self::TlsCipher => text(entry.tls.cipher, out),
            Self::TlsVersion => text(entry.tls.version, out),
            Self::TotalMs => escape::millis(out, entry.total),
            Self::TraceId => {
                known(
                    entry.traced.map(|traced| traced.trace.hex()).as_ref().map(|id| &id[..]),
                    out,
                );
            }
            Self::Upstream => text(entry.upstream, out),
            Self::User => known(entry.user, out),
            Self::UserAgent => known(entry.user_agent, out),
            Self::Via if entry.attempts == 0 => out.push(b'-'),
            Self::Via => {
                let written = write!(out, "{}", entry.via);
                debug_assert!(written.is_ok(), "memory takes every byte");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(written: &str) -> String {
        written.parse::<Template>().unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_template_is_refused_with_help() {
        assert!(refused("{pth}").contains("did you mean `path`?"));
        assert!(refused("{request.a b}").starts_with("unknown field `{request.a b}`"));
        assert!(refused("{path").starts_with("a field is not closed"));
        for no_line in ["", " ", "{path}\n{host}"] {
            assert!(refused(no_line).starts_with("this is no line"), "{no_line:?}");
        }
        let braces: Template = "{{{path}}".parse().unwrap();
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(braces.0, [text("{"), Part::Field(Field::Path), text("}")]);
    }
}
