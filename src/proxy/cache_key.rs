//! What answers that are kept are found by: the URL, the route, and the variant.
//!
//! INVARIANT: two requests have one key only if the origin is asked the same by them, but for
//! fields that its `Vary` would name.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};
use pingora::{Error, ErrorType, Result};
use pingora_cache::{
    CacheKey, VarianceBuilder,
    key::{CacheHashKey, HashBinary},
};
use pingora_http::RequestHeader;

use crate::{
    cache::{self, Subject},
    policy::cache::told_by_proxies,
    proxy::{cached, context::Context, select, translate},
};

/// Fields by which a client may have enough before an answer is whole.
const PARTIAL: [HeaderName; 3] = [header::RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];

/// The key of a request: its route, and its URL as the origin is asked for it. Clients that are
/// known have keys of their own.
pub(crate) fn key(request: &RequestHeader, ctx: &Context) -> Result<CacheKey> {
    key_for(request, ctx, cached::is_known(ctx))
}

/// The same for a client that is known, or for one that is not.
pub(crate) fn key_for(request: &RequestHeader, ctx: &Context, is_known: bool) -> Result<CacheKey> {
    let (Some(route), Some(facts)) = (&ctx.route, ctx.facts(request)) else {
        return Error::e_explain(ErrorType::InternalError, "a request without a route");
    };
    let length_max = route.policies.cache().map_or(0, |rules| rules.object_max);
    let (scheme, host) = (facts.scheme(), select::authority(request));
    let target = ctx.target.as_ref().unwrap_or(&request.uri);
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    let mut url = String::with_capacity(scheme.len() + 3 + host.len() + target.len());
    url.extend([scheme, "://", host]);
    url.make_ascii_lowercase();
    url.push_str(target);
    let mut primary = Vec::with_capacity(url.len() + route.name.len() + 4);
    // None of these has a zero byte, but for the name of the route, which comes last.
    primary.extend_from_slice(url.as_bytes());
    primary.push(0);
    if let Some(asked) = &ctx.notes.target {
        primary.extend_from_slice(asked.to_string().as_bytes());
    }
    primary.push(0);
    for (name, value) in told_by_proxies(&facts) {
        primary.extend_from_slice(name.as_str().as_bytes());
        primary.push(b'=');
        primary.extend_from_slice(value.as_bytes());
        primary.push(0);
    }
    primary.push(0);
    primary.push(u8::from(is_known));
    primary.extend_from_slice(route.name.as_bytes());
    let mut key = CacheKey::new(primary, "");
    key.set_primary_bin_override(key.primary_bin());
    key.extensions.insert(Arc::new(Subject {
        route: route.name.as_str().into(),
        url: url.into(),
        length_max,
        wants_all: !PARTIAL.iter().any(|name| request.headers.contains_key(name)),
        asked: cache::store().now(),
    }));
    Ok(key)
}

/// Which variant of an answer a request is for, by the fields that its `Vary` names, as the origin
/// is sent them; `None` if there is but one.
pub(crate) fn variance(
    answer: &HeaderMap,
    request: &RequestHeader,
    ctx: &Context,
) -> Option<HashBinary> {
    answer.get(header::VARY)?;
    // If the fields cannot be made, the request fails for that when it is sent.
    let sent = translate::fields(request, ctx).unwrap_or_else(|_| request.headers.clone());
    vary(answer, &sent)
}

/// The same, with the fields at hand.
pub(crate) fn vary(answer: &HeaderMap, sent: &HeaderMap) -> Option<HashBinary> {
    let values = answer.get_all(header::VARY).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim);
    let mut builder = VarianceBuilder::new();
    for name in names.filter(|name| !name.is_empty()) {
        builder.add_owned_name_value(name.to_ascii_lowercase(), normal(name, sent));
    }
    builder.finalize()
}

/// The value of a field without what makes no difference: how it was cut and spaced.
fn normal(name: &str, sent: &HeaderMap) -> Vec<u8> {
    let mut all = Vec::new();
    for value in sent.get_all(name) {
        for part in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if !part.is_empty() {
                all.extend_from_slice(part);
                all.push(b',');
            }
        }
    }
    if ["accept-encoding", "accept-language"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
        all.make_ascii_lowercase();
    }
    all
}
