//! Requests that may be answered with what is kept.

use http::{HeaderMap, HeaderName, Method, header};

use crate::policy::{
    cache::{Directives, Rules},
    contract::{Facts, Notes},
};

/// Fields by which some origins are talked into another answer, which others would then be given.
/// Who sends one is answered by the origin.
const MISLEADING: [&str; 11] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-http-host-override",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-middleware-prefetch",
];

/// What is made of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// The origin answers, for this reason.
    Bypass(&'static str),
    /// The origin answers, and what is kept of the URL is not good any more if it succeeds.
    Change,
    /// It may be answered with what is kept.
    Use(Use),
}

/// How a request is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Whether the origin may know who asks, so that its answer is for that one alone unless it
    /// says otherwise.
    pub is_known: bool,
    /// Whether the client wants what is kept, or nothing.
    pub only_if_cached: bool,
    /// What else the client wants, where that counts.
    pub(super) wanted: Option<Box<Directives>>,
}

impl Rules {
    /// Judges a request. `knows_clients` says that a policy of the route tells who asks.
    pub fn ask(
        &self,
        facts: &Facts<'_>,
        notes: &Notes,
        has_body: bool,
        knows_clients: bool,
    ) -> Ask {
        let (method, headers) = (&facts.header.method, facts.headers());
        if !matches!(*method, Method::GET | Method::HEAD) {
            let is_safe = matches!(*method, Method::OPTIONS | Method::TRACE);
            return if is_safe { Ask::Bypass("method") } else { Ask::Change };
        }
        if has_body {
            return Ask::Bypass("body");
        }
        if headers.contains_key(header::UPGRADE) {
            return Ask::Bypass("upgrade");
        }
        if MISLEADING.iter().any(|name| headers.contains_key(*name)) {
            return Ask::Bypass("field");
        }
        // What these ask can only be answered by who has the newest.
        let conditions = [header::IF_MATCH, header::IF_UNMODIFIED_SINCE];
        if conditions.iter().any(|name| headers.contains_key(name)) {
            return Ask::Bypass("condition");
        }
        if self.bypass_cookies.iter().any(|name| has_cookie(headers, name)) {
            return Ask::Bypass("cookie");
        }
        let wanted = wanted(headers);
        if self.honour_client && wanted.no_store {
            return Ask::Bypass("no-store");
        }
        let is_known = knows_clients
            || headers.contains_key(header::AUTHORIZATION)
            || !notes.to_origin.is_empty()
            || facts.connection.tls.as_ref().is_some_and(|tls| tls.client.is_some());
        let only_if_cached = wanted.only_if_cached;
        let counts = self.honour_client && wanted.is_there;
        Ask::Use(Use { is_known, only_if_cached, wanted: counts.then(|| wanted.into()) })
    }
}

/// What a client wants by `Cache-Control`, or by `Pragma` where there is none.
fn wanted(headers: &HeaderMap) -> Directives {
    let mut wanted = Directives::of(headers);
    let pragma = headers.get(header::PRAGMA).filter(|_| !wanted.is_there);
    if pragma.is_some_and(|pragma| pragma.as_bytes().eq_ignore_ascii_case(b"no-cache")) {
        (wanted.no_cache, wanted.is_there) = (true, true);
    }
    wanted
}

fn has_cookie(headers: &HeaderMap, name: &str) -> bool {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.any(|pair| {
        let named = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        named.trim_ascii() == name.as_bytes()
    })
}

/// The fields of a request, beside those that `Vary` names, that make another answer of it: what
/// trusted proxies say of the request that they got.
pub fn told_by_proxies<'a>(
    facts: &Facts<'a>,
) -> impl Iterator<Item = (&'a HeaderName, &'a http::HeaderValue)> {
    let is_trusted = facts.connection.is_trusted;
    let fields = facts.headers().iter().filter(move |_| is_trusted);
    fields.filter(|(name, _)| {
        let name = name.as_str();
        name == "forwarded" || name.starts_with("x-forwarded-") && name != "x-forwarded-for"
    })
}
