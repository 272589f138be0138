//! What the origin is told beside the request itself: who asked, by which way, under which id.
//!
//! Fields by which a client could pose as a proxy are removed first, unless it is one that the
//! configuration trusts. Pingora has removed hop-by-hop fields before.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{COOKIE, FORWARDED, HOST, VIA},
};
use pingora::Result;
use pingora_http::RequestHeader;

use crate::{
    downstream::connection::{Connection, contains},
    observe::request_id::{self, LENGTH_MAX, X_REQUEST_ID},
};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const TRACEPARENT: &str = "traceparent";
const HTTP: HeaderValue = HeaderValue::from_static("http");
/// How Crestline names itself on the way.
pub(crate) const VIA_CRESTLINE: HeaderValue = HeaderValue::from_static("1.1 crestline");

/// The id of a request: that of a trusted proxy if it is short and plain, else a new one.
pub(crate) fn id_of(headers: &HeaderMap, connection: &Connection) -> HeaderValue {
    let given = headers.get(X_REQUEST_ID).filter(|_| connection.is_trusted);
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
    let fields = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let mut client = connection.client;
    for entry in fields.rev().flat_map(|field| field.rsplit(',')) {
        let Ok(address) = entry.trim().parse::<IpAddr>() else { break };
        client = Some(address.to_canonical());
        if !contains(&connection.trusted, address.to_canonical()) {
            break;
        }
    }
    client
}

/// Removes what a client may not say, and what origins misread.
pub(crate) fn cleanse(header: &mut RequestHeader, connection: &Connection) {
    while let Some(name) = header.headers.keys().find(|name| is_forged(name, connection)) {
        let name = name.clone();
        header.remove_header(&name);
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

/// Tells the origin who asked for which host, and the id.
pub(crate) fn introduce(
    header: &mut RequestHeader,
    connection: &Connection,
    id: &HeaderValue,
    host: Option<&HeaderValue>,
) -> Result<()> {
    let client = match header.headers.get(X_FORWARDED_FOR) {
        None => connection.client_value.clone(),
        Some(_) => appended(header.headers.get_all(X_FORWARDED_FOR), &connection.client_value)?,
    };
    header.insert_header("X-Forwarded-For", client)?;
    if !header.headers.contains_key("x-forwarded-proto") {
        header.insert_header("X-Forwarded-Proto", HTTP)?;
    }
    if let Some(host) = host
        && !header.headers.contains_key("x-forwarded-host")
    {
        header.insert_header("X-Forwarded-Host", host.clone())?;
    }
    header.insert_header("X-Request-Id", id.clone())?;
    if !header.headers.get(TRACEPARENT).is_some_and(is_traceparent) {
        header.insert_header(TRACEPARENT, new_traceparent())?;
    }
    Ok(())
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
    HeaderValue::from_bytes(&list).map_err(|why| {
        pingora::Error::because(pingora::ErrorType::InvalidHTTPHeader, "a forwarded list", why)
    })
}

/// Adds `Forwarded` (RFC 7239) with the same facts.
pub(crate) fn add_forwarded(
    header: &mut RequestHeader,
    connection: &Connection,
    host: Option<&HeaderValue>,
) -> Result<()> {
    let client = match connection.client {
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        Some(IpAddr::V4(address)) => address.to_string(),
        None => "unknown".to_owned(),
    };
    let host = host.and_then(|host| host.to_str().ok());
    let host = host.map_or_else(String::new, |host| format!(";host=\"{host}\""));
    header.append_header(FORWARDED, format!("for={client};proto=http{host}"))?;
    Ok(())
}

/// Adds `Via` (RFC 9110 §7.6.3).
pub(crate) fn add_via(header: &mut RequestHeader) -> Result<()> {
    header.append_header(VIA, VIA_CRESTLINE)?;
    Ok(())
}

/// Joins the crumbs into which HTTP/2 may cut a cookie (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(header: &mut RequestHeader, version: Version) -> Result<()> {
    if version != Version::HTTP_2 || header.headers.get_all(COOKIE).iter().nth(1).is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> =
        header.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let whole = crumbs.join(&b"; "[..]);
    header.insert_header(COOKIE, whole)
}

/// Gives an HTTP/1.0 request without `Host` the one that the origin knows.
pub(crate) fn ensure_host(header: &mut RequestHeader, fallback: &HeaderValue) -> Result<()> {
    if header.headers.contains_key(HOST) || header.uri.authority().is_some() {
        return Ok(());
    }
    header.insert_header(HOST, fallback.clone())
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, neither id all zeros (W3C Trace Context, §3.2).
fn is_traceparent(value: &HeaderValue) -> bool {
    let is_hex = |part: &[u8]| {
        part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && part.iter().any(|byte| *byte != b'0')
    };
    let mut parts = value.as_bytes().split(|byte| *byte == b'-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    version.len() == 2
        && version != b"ff"
        && version.iter().all(u8::is_ascii_hexdigit)
        && trace.len() == 32
        && is_hex(trace)
        && parent.len() == 16
        && is_hex(parent)
        && flags.len() == 2
        && flags.iter().all(u8::is_ascii_hexdigit)
        && (version != b"00" || parts.next().is_none())
}

/// A new trace, sampled.
fn new_traceparent() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    let mut random = [0u8; 24];
    fastrand::fill(&mut random);
    random[0] |= 1; // never all zeros
    random[16] |= 1;
    let places = (3..35).step_by(2).chain((36..52).step_by(2));
    for (place, byte) in places.zip(random) {
        text[place] = HEX[usize::from(byte >> 4)];
        text[place + 1] = HEX[usize::from(byte & 15)];
    }
    request_id::value(&text)
}

#[cfg(test)]
mod tests;
