//! Fields by which a browser is told to be careful.
//!
//! What the origin says in one of them stays: it knows its pages.

use http::{
    HeaderName, HeaderValue,
    header::{
        CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use pingora::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    field::Value,
    policy::contract::{Build, Hooks, Response, Written},
    units::{self, Duration},
};

/// Fields by which a browser is told to be careful, where the origin does not say them itself.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SecurityHeaders")]
pub struct Config {
    /// That the site is to be asked over TLS only (RFC 6797); said over TLS alone.
    /// Default: not said.
    pub hsts: Option<Hsts>,
    /// `X-Content-Type-Options: nosniff`. Default: `true`.
    pub nosniff: bool,
    /// Who may show pages within theirs: `deny`, `same_origin` or `any`. Default: `deny`.
    pub frame: Frame,
    /// How much others are told of where a reader came from (`Referrer-Policy`).
    /// Default: `strict-origin-when-cross-origin`.
    pub referrer: Value,
    /// The `Content-Security-Policy`. Default: none.
    pub csp: Option<Value>,
}

/// How long, and for what, browsers insist on TLS.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Hsts")]
pub struct Hsts {
    /// How long they do, from each answer on. Default: `365d`.
    #[serde(deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub max_age: Duration,
    /// Whether they do for the hosts below this one, too. Default: `false`.
    pub include_subdomains: bool,
    /// Whether the site may be put on the lists that browsers ship. Default: `false`.
    pub preload: bool,
}

/// Who may show pages within theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// Nobody.
    #[default]
    Deny,
    /// Pages of the same origin.
    SameOrigin,
    /// Anybody: nothing is said.
    Any,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hsts: None,
            nosniff: true,
            frame: Frame::default(),
            referrer: Value(HeaderValue::from_static("strict-origin-when-cross-origin")),
            csp: None,
        }
    }
}

impl Default for Hsts {
    fn default() -> Self {
        let max_age = Duration::from_secs(365 * 24 * 60 * 60);
        Self { max_age, include_subdomains: false, preload: false }
    }
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    fields: Box<[(HeaderName, HeaderValue)]>,
    hsts: Option<HeaderValue>,
}

/// Lists of browsers take a site only if it promises this much (hstspreload.org).
const PRELOAD_AGE_MIN: u64 = 365 * 24 * 60 * 60;

impl Config {
    /// Makes the fields ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let mut fields = Vec::new();
        if self.nosniff {
            fields.push((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
        }
        let frame = match self.frame {
            Frame::Deny => Some("DENY"),
            Frame::SameOrigin => Some("SAMEORIGIN"),
            Frame::Any => None,
        };
        fields.extend(frame.map(|frame| (X_FRAME_OPTIONS, HeaderValue::from_static(frame))));
        fields.push((REFERRER_POLICY, self.referrer.0.clone()));
        fields.extend(self.csp.as_ref().map(|csp| (CONTENT_SECURITY_POLICY, csp.0.clone())));
        let hsts = match &self.hsts {
            Some(hsts) => Some(hsts.value(cx)?),
            None => None,
        };
        Some(Policy { fields: fields.into(), hsts })
    }
}

impl Hsts {
    fn value(&self, cx: &mut Build<'_>) -> Option<HeaderValue> {
        let seconds = self.max_age.0.as_secs();
        if self.preload && (seconds < PRELOAD_AGE_MIN || !self.include_subdomains) {
            let help = "give `max_age: 365d` or more and `include_subdomains: true` with it";
            cx.problem("no list of a browser's would take this `preload`", help);
            return None;
        }
        let mut text = format!("max-age={seconds}");
        if self.include_subdomains {
            text.push_str("; includeSubDomains");
        }
        if self.preload {
            text.push_str("; preload");
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
    }
}

impl Written for Config {}

impl Hooks for Policy {
    fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
        // Browsers ignore it in plaintext, where anybody could say it (RFC 6797 §7.2).
        let hsts = self.hsts.as_ref().filter(|_| response.facts.connection.is_secure());
        let hsts = hsts.map(|value| (&STRICT_TRANSPORT_SECURITY, value));
        let fields = self.fields.iter().map(|(name, value)| (name, value)).chain(hsts);
        for (name, value) in fields {
            if !response.header.headers.contains_key(name) {
                response.header.insert_header(name, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pingora_http::ResponseHeader;

    use super::*;
    use crate::policy::tests::{Given, build, problems};

    #[test]
    fn what_the_origin_does_not_say_is_said() {
        let config = "{ hsts: {}, csp: \"default-src 'self'\" }";
        let policy = build(config, |config: &Config, cx| config.build(cx));
        let mut answer = ResponseHeader::build(200, None).unwrap();
        answer.insert_header(X_FRAME_OPTIONS, "SAMEORIGIN").unwrap();
        Given::request("GET", "/").answered(&policy, &mut answer);
        let get = |name: HeaderName| answer.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(get(X_FRAME_OPTIONS), Some("SAMEORIGIN"), "the origin's stays");
        assert_eq!(get(X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
        assert_eq!(get(REFERRER_POLICY), Some("strict-origin-when-cross-origin"));
        assert_eq!(get(CONTENT_SECURITY_POLICY), Some("default-src 'self'"));
        assert_eq!(get(STRICT_TRANSPORT_SECURITY), None, "not in plaintext");
    }

    #[test]
    fn a_promise_is_put_into_words() {
        let hsts = |yaml| build(yaml, |config: &Hsts, cx| config.value(cx));
        assert_eq!(hsts("{}"), "max-age=31536000");
        let all = "{ max_age: 730d, include_subdomains: true, preload: true }";
        assert_eq!(hsts(all), "max-age=63072000; includeSubDomains; preload");
        let told = problems("{ preload: true }", |config: &Hsts, cx| config.value(cx));
        assert_eq!(told, ["no list of a browser's would take this `preload`"]);
    }
}
