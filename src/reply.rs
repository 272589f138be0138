//! Answers that Crestline gives itself: errors, in the form that the client asked for.
//!
//! They name the status and the request id, and never an address, a version or an internal
//! message.

use std::{fs::File, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT, ALLOW, RETRY_AFTER},
};
use serde::Serialize;

/// When to come back after a `503`: by then, checks have looked again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The methods that would do where it is not a route that refuses one: all that are common.
pub const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

/// An answer of our own, before it is put into the client's form.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Fields that belong to it (`Allow`, `Retry-After`, `Location`).
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Its body; `None` for that of an error with its status.
    pub page: Option<Page>,
    /// A file that is its body instead.
    pub file: Option<Box<FileBody>>,
}

/// A file, or a part of one, that is sent as it is read.
#[derive(Clone, Debug)]
pub struct FileBody {
    /// Its media type.
    pub content_type: HeaderValue,
    /// The open file.
    pub file: Arc<File>,
    /// Where the part begins, in bytes.
    pub from: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// A body, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its media type; `None` where there is nothing to tell the type of.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// An error with this status; a number that is none becomes `500`.
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let fields = match status {
            StatusCode::SERVICE_UNAVAILABLE => vec![(RETRY_AFTER, RETRY_AFTER_SECONDS)],
            _ => Vec::new(),
        };
        Self { status, fields, page: None, file: None }
    }

    /// The same answer with one more field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// The same answer with this body.
    #[must_use]
    pub fn showing(self, page: Page) -> Self {
        Self { page: Some(page), ..self }
    }

    /// `503`, with the seconds after which to come back.
    pub fn unavailable(seconds: u64) -> Self {
        let fields = vec![(RETRY_AFTER, HeaderValue::from(seconds))];
        Self { fields, ..Self::status(503) }
    }

    /// `405`, with the methods that would do.
    pub fn method_not_allowed(allowed: HeaderValue) -> Self {
        Self::status(405).with(ALLOW, allowed)
    }
}

/// The form of an error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For programs that ask for nothing in particular, and for people with curl.
    Text,
    /// For programs that ask for JSON.
    Json,
    /// For browsers.
    Html,
}

impl Form {
    /// Chooses by the `Accept` field: the first of the forms that it names, else text.
    pub fn asked_for(headers: &HeaderMap) -> Self {
        let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        ranges
            .flat_map(|value| value.split(','))
            .find_map(|range| {
                let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
                let refused = parameters.split(';').any(|parameter| {
                    matches!(parameter.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
                });
                match media.trim() {
                    _ if refused => None,
                    "text/html" | "application/xhtml+xml" => Some(Self::Html),
                    "application/json" | "application/problem+json" => Some(Self::Json),
                    "text/plain" => Some(Self::Text),
                    media if media.ends_with("+json") => Some(Self::Json),
                    _ => None,
                }
            })
            .unwrap_or(Self::Text)
    }

    /// The media type of the form.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json",
            Self::Html => "text/html; charset=utf-8",
        })
    }

    /// The body of an error.
    pub fn body(self, status: StatusCode, id: &HeaderValue) -> Bytes {
        let reason = status.canonical_reason().unwrap_or("Error");
        let id = id.to_str().unwrap_or_default();
        let code = status.as_u16();
        Bytes::from(match self {
            Self::Text => format!("{code} {reason}\nrequest id: {id}\n"),
            Self::Json => json(code, reason, id),
            Self::Html => format!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
                 <title>{code} {reason}</title></head>\n\
                 <body><h1>{code} {reason}</h1><p>Request id: <code>{}</code></p></body></html>\n",
                escape_html(id)
            ),
        })
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    status: u16,
    error: &'a str,
    request_id: &'a str,
}

fn json(status: u16, error: &str, request_id: &str) -> String {
    let body = serde_json::to_string(&Problem { status, error, request_id });
    body.unwrap_or_default() + "\n"
}

/// An id from a trusted proxy may hold anything visible.
fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &'static str) -> Form {
        Form::asked_for(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn the_client_gets_the_form_that_it_asks_for() {
        assert_eq!(Form::asked_for(&HeaderMap::new()), Form::Text);
        assert_eq!(asked("*/*"), Form::Text);
        assert_eq!(asked("text/html,application/xhtml+xml,*/*;q=0.8"), Form::Html);
        assert_eq!(asked("application/json"), Form::Json);
        assert_eq!(asked("application/vnd.api+json; q=0.9"), Form::Json);
        assert_eq!(asked("text/html;q=0, application/json"), Form::Json);
    }

    #[test]
    fn bodies_name_the_status_and_the_id_and_nothing_else() {
        let id = HeaderValue::from_static("a\"<b>");
        let body = |form: Form| form.body(StatusCode::BAD_GATEWAY, &id);
        assert_eq!(body(Form::Text), "502 Bad Gateway\nrequest id: a\"<b>\n");
        let parsed: serde_json::Value = serde_json::from_slice(&body(Form::Json)).unwrap();
        assert_eq!(parsed["status"], 502);
        assert_eq!(parsed["request_id"], "a\"<b>");
        assert!(body(Form::Html).windows(16).any(|window| window == b"a&quot;&lt;b&gt;"));
    }

    #[test]
    fn an_exhausted_upstream_tells_when_to_come_back() {
        assert_eq!(Reply::status(503).fields, [(RETRY_AFTER, RETRY_AFTER_SECONDS)]);
        assert_eq!(Reply::status(502).fields, []);
    }
}
