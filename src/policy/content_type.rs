//! Media types of bodies that are taken; others get `415`.

use std::str::FromStr;

use http::{
    HeaderValue,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    policy::contract::{Build, Facts, Flow, Hooks, Request, Written},
    reason::Reason,
    reply::Reply,
    yaml::{self, Spanned},
};

/// Media types of request bodies that are taken, such as `[application/json, "image/*"]`. Others,
/// and bodies without a type, get `415`; requests without a body are taken.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub Spanned<Vec<MediaType>>);

/// A media type without parameters, or all of a kind.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "MediaType", example = &"application/json")]
#[schemars(extend("pattern" = "^[A-Za-z0-9!#$&^_.+-]+/([A-Za-z0-9!#$&^_.+-]+|\\*)$"))]
pub struct MediaType {
    kind: String,
    /// `None` for all of the kind.
    name: Option<String>,
}

/// What is no media type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no media type\nhelp: write `application/json`, or `image/*` for all of a kind; parameters are not compared"
)]
pub struct NoMediaType(String);

impl FromStr for MediaType {
    type Err = NoMediaType;

    fn from_str(text: &str) -> Result<Self, NoMediaType> {
        let wrong = || NoMediaType(text.to_owned());
        let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
        // RFC 6838 §4.2.
        let is_plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        let is_all = name == "*";
        if !is_plain(kind) || !(is_all || is_plain(name)) {
            return Err(wrong());
        }
        let name = (!is_all).then(|| name.to_ascii_lowercase());
        Ok(Self { kind: kind.to_ascii_lowercase(), name })
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a media type such as `application/json`")
    }
}

impl MediaType {
    fn takes(&self, kind: &str, name: &str) -> bool {
        kind.eq_ignore_ascii_case(&self.kind)
            && self.name.as_ref().is_none_or(|own| name.eq_ignore_ascii_case(own))
    }
}

/// The media type in the value of a `Content-Type`, without its parameters; empty if it is none.
pub(super) fn essence(value: Option<&HeaderValue>) -> &str {
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Whether it is one of these.
pub(super) fn is_among(essence: &str, types: &[MediaType]) -> bool {
    let (kind, name) = essence.split_once('/').unwrap_or_default();
    types.iter().any(|own| own.takes(kind, name))
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    types: Box<[MediaType]>,
}

impl Config {
    /// Makes the list ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if self.0.is_empty() {
            let help = "name at least one, such as `[application/json]`";
            cx.problem_at(self.0.span, "no body is taken", help);
            return None;
        }
        Some(Policy { types: self.0.iter().cloned().collect() })
    }
}

/// Whether a request has a body, or may have one: over HTTP/2 none is announced.
fn has_body(facts: &Facts<'_>) -> bool {
    let headers = facts.headers();
    let length = headers.get(CONTENT_LENGTH).map(|length| length != "0");
    length.unwrap_or_else(|| {
        headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(CONTENT_TYPE)
    })
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let facts = &request.facts;
        if !has_body(facts) {
            return Flow::Continue;
        }
        let mut written = facts.headers().get_all(CONTENT_TYPE).iter();
        // A second field could be the one that the origin reads.
        let is_taken = match (written.next(), written.next()) {
            (value @ Some(_), None) => is_among(essence(value), &self.types),
            _ => false,
        };
        if is_taken {
            return Flow::Continue;
        }
        request.notes.reason = Some(Reason::ContentTypeDenied);
        Flow::Respond(Reply::status(415))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build};

    #[test]
    fn only_bodies_of_these_types_are_taken() {
        let policy = build("[application/json, 'image/*']", |config: &Config, cx| config.build(cx));
        let sent =
            |of: &str| Given::request("POST", "/").field("content-type", of).refused(&policy);
        assert_eq!(sent("application/json"), None);
        assert_eq!(sent("Application/JSON; charset=utf-8"), None);
        assert_eq!(sent("image/png"), None);
        assert_eq!(sent("application/jsonx"), Some(415));
        assert_eq!(sent("text/html"), Some(415));
        assert_eq!(sent(""), Some(415));
        let untyped = Given::request("POST", "/").field("content-length", "5");
        assert_eq!(untyped.refused(&policy), Some(415));
        let twice = Given::request("POST", "/").field("content-type", "image/png");
        let twice = twice.field("content-type", "text/html");
        assert_eq!(twice.refused(&policy), Some(415));
        assert_eq!(Given::request("GET", "/").refused(&policy), None);
    }

    #[test]
    fn what_is_no_media_type_is_refused() {
        for text in ["json", "*/*", "a/b; c=d", "/b", "a/"] {
            assert_eq!(text.parse::<MediaType>(), Err(NoMediaType(text.to_owned())), "{text}");
        }
    }
}
