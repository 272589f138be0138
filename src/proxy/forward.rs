//! What the origin is told beside the request itself: who asked, by which way, under which id.
//!
//! Fields by which a client could pose as a proxy are removed first, unless it is one that the
//! configuration trusts. Pingora has removed hop-by-hop fields before.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{COOKIE, FORWARDED, HOST, VIA},
};
use pingora::{Error, ErrorType, Result};

use crate::{
    downstream::connection::{Connection, contains},
    observe::{
        request_id::{self, LENGTH_MAX, X_REQUEST_ID},
        traced::{SpanId, TraceId},
    },
    tls::identity::Identity,
    traces::w3c::{self, TRACEPARENT, TRACESTATE},
};

// Made once: a name that is given as text is parsed and copied at every use.
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");
/// How Crestline names itself on the way.
pub(crate) static VIA_CRESTLINE: HeaderValue = HeaderValue::from_static("1.1 crestline");

/// The fields that [`introduce`] adds, that of a trace, and one or two of a policy.
const ADDED: usize = 8;

/// The id of a request: that of a trusted proxy if it is short and plain, else a new one.
pub(crate) fn id_of(headers: &HeaderMap, connection: &Connection) -> HeaderValue {
    if !connection.is_trusted {
        return request_id::new();
    }
    let given = headers.get(&X_REQUEST_ID);
    let plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=LENGTH_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    given.filter(plain).cloned().unwrap_or_else(request_id::new)
}

/// The client: the peer, or what the nearest trusted proxies say, from the right to the left.
pub(crate) fn client_of(headers: &HeaderMap, connection: &Connection) -> Option<IpAddr> {
    if !connection.is_trusted {
        return connection.client;
    }
    let fields = headers.get_all(&X_FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
    let mut client = connection.client;
    for entry in fields.flat_map(|field| field.rsplit(|byte| *byte == b',')) {
        let entry = str::from_utf8(entry.trim_ascii()).unwrap_or_default();
        let Ok(address) = entry.parse::<IpAddr>() else { break };
        client = Some(address.to_canonical());
        if !contains(&connection.trusted, address.to_canonical()) {
            break;
        }
    }
    client
}

/// Removes what a client may not say, and what origins misread. What tells of a client's
/// certificate comes from the handshake alone: no proxy is trusted to say it.
pub(crate) fn cleanse(headers: &mut HeaderMap, connection: &Connection, vouched: &[HeaderName]) {
    for name in vouched {
        headers.remove(name);
    }
    while let Some(name) = headers.keys().find(|name| is_forged(name, connection)) {
        let name = name.clone();
        headers.remove(&name);
    }
}

/// Underscores become dashes in CGI variables, so that `x_forwarded_for` could pose as the field
/// with dashes; `Proxy` becomes a variable that sets a proxy (httpoxy).
fn is_forged(name: &HeaderName, connection: &Connection) -> bool {
    let text = name.as_str();
    let is_claim =
        |name: &str| name.starts_with("x-forwarded-") || name == "x-real-ip" || name == "forwarded";
    text.contains('_') || text == "proxy" || (!connection.is_trusted && is_claim(text))
}

/// Tells the origin who asked for which host, who the client is by its certificate, and the id.
pub(crate) fn introduce(
    headers: &mut HeaderMap,
    connection: &Connection,
    id: &HeaderValue,
    host: Option<&HeaderValue>,
) -> Result<()> {
    let client = connection.tls.as_ref().and_then(|tls| tls.client.as_deref());
    headers.reserve(ADDED + client.map_or(0, Identity::count));
    if let Some(client) = client {
        client.tell(headers);
    }
    // What a stranger claimed is gone already.
    if connection.is_trusted && headers.contains_key(&X_FORWARDED_FOR) {
        let list = appended(headers.get_all(&X_FORWARDED_FOR), &connection.client_value)?;
        headers.insert(&X_FORWARDED_FOR, list);
    } else {
        headers.insert(&X_FORWARDED_FOR, connection.client_value.clone());
    }
    headers.entry(&X_FORWARDED_PROTO).or_insert_with(|| scheme(connection).clone());
    if let Some(host) = host {
        headers.entry(&X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    headers.insert(&X_REQUEST_ID, id.clone());
    Ok(())
}

/// Lets a trace go on as it came, or begins one, where nothing is traced here.
pub(crate) fn continue_trace(headers: &mut HeaderMap) {
    if w3c::read(headers).is_none() {
        let value = w3c::value(TraceId::random(), SpanId::random(), w3c::SAMPLED);
        headers.insert(&TRACEPARENT, value);
        headers.remove(&TRACESTATE); // it belongs to the trace that is not continued
    }
}

fn appended<'a>(
    fields: impl IntoIterator<Item = &'a HeaderValue>,
    last: &'a HeaderValue,
) -> Result<HeaderValue> {
    let mut list = Vec::new();
    for value in fields.into_iter().chain([last]) {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(value.as_bytes());
    }
    valid(&list)
}

/// Values of ours are valid; what a client sent was a value before.
fn valid(bytes: &[u8]) -> Result<HeaderValue> {
    HeaderValue::from_bytes(bytes)
        .map_err(|why| Error::because(ErrorType::InvalidHTTPHeader, "a field of ours", why))
}

/// Adds `Forwarded` (RFC 7239) with the same facts.
pub(crate) fn add_forwarded(
    headers: &mut HeaderMap,
    connection: &Connection,
    host: Option<&HeaderValue>,
) -> Result<()> {
    let client = match connection.client {
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        Some(IpAddr::V4(address)) => address.to_string(),
        None => "unknown".to_owned(),
    };
    let host = host.and_then(|host| host.to_str().ok());
    let escaped = |host: &str| host.replace('\\', "\\\\").replace('"', "\\\"");
    let host = host.map_or_else(String::new, |host| format!(";host=\"{}\"", escaped(host)));
    let proto = if connection.is_secure() { "https" } else { "http" };
    headers.append(FORWARDED, valid(format!("for={client};proto={proto}{host}").as_bytes())?);
    Ok(())
}

/// How the client reached this proxy, or the load balancer that introduced it.
fn scheme(connection: &Connection) -> &'static HeaderValue {
    if connection.is_secure() { &HTTPS } else { &HTTP }
}

/// Adds `Via` (RFC 9110 §7.6.3).
pub(crate) fn add_via(headers: &mut HeaderMap) {
    headers.append(VIA, VIA_CRESTLINE.clone());
}

/// Joins the crumbs into which HTTP/2 may cut a cookie (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap, version: Version) -> Result<()> {
    if version != Version::HTTP_2 || headers.get_all(COOKIE).iter().nth(1).is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let whole = valid(&crumbs.join(&b"; "[..]))?;
    headers.insert(COOKIE, whole);
    Ok(())
}

/// Gives an HTTP/1.0 request without `Host` the one that the origin knows.
pub(crate) fn ensure_host(headers: &mut HeaderMap, fallback: &HeaderValue) {
    headers.entry(HOST).or_insert_with(|| fallback.clone());
}

#[cfg(test)]
mod tests;
