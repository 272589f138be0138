//! What the origin is sent, and what the client is sent: heads, made of what arrived.

use std::mem;

use http::{HeaderMap, HeaderValue, Uri, Version, header, request::Parts as ReqParts};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::{protocols::http::client::HttpSession, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    downstream::connection::Connection,
    observe::request_id::X_REQUEST_ID,
    policy::{
        body::BodyFilters,
        contract::{Facts, Response},
    },
    proxy::{context::Context, forward, respond},
    snapshot::{Host, Route},
    upstream::{link::config::Http, outcome::NO_HTTP2},
};

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Makes what the origin is sent of what the client sent; `header` is what Pingora has made of
/// that so far.
pub(crate) fn request(
    sent: &RequestHeader,
    header: &mut RequestHeader,
    ctx: &Context,
) -> Result<()> {
    let (Some(connection), Some(route)) = (&ctx.connection, &ctx.route) else {
        return Error::e_explain(ErrorType::InternalError, "a request without a route");
    };
    if route.upstream.link().http() == Http::Two && header.version != Version::HTTP_2 {
        // Pingora takes what the handshake gave, which may be no word about HTTP/2.
        let why = "the origin speaks HTTP/1";
        return Err(Error::explain(ErrorType::Custom(NO_HTTP2), why).into_up());
    }
    if let Some(target) = ctx.notes.target.as_ref().or(ctx.target.as_ref()) {
        header.set_uri(target.clone());
    }
    // Names go on in lower case, as over HTTP/2: Pingora's second map, which keeps their case,
    // would cost more than all the rest of this.
    let mut parts: ReqParts = mem::replace(header, blank()).into();
    let is_http2 = [sent.version, parts.version] == [Version::HTTP_2; 2];
    let headers = &mut parts.headers;
    let host = begin(headers, sent.version, connection, route, ctx)?;
    match (&ctx.trace, &route.traces) {
        (Some(trace), Some(traces)) => traces.tell(trace, ctx.attempt.number, headers),
        _ => forward::continue_trace(headers),
    }
    if is_http2 && sent.headers.get(header::TE).is_some_and(|te| te == "trailers") {
        // gRPC asks for it; where there is a body, Pingora takes it off as of HTTP/1.
        headers.insert(header::TE, TRAILERS);
    }
    if route.forwarded {
        forward::add_forwarded(headers, connection, host.as_ref())?;
    }
    if route.via {
        forward::add_via(headers);
    }
    if let Some(in_flight) = &ctx.in_flight {
        self::host(headers, route, &in_flight.member().host);
    }
    *header = parts.into();
    match ctx.facts(sent) {
        Some(facts) => route.policies.on_upstream_request(header, &facts, &ctx.notes),
        None => Ok(()),
    }
}

/// Names the host that is asked, of which a backend has a name, too.
pub(crate) fn host(headers: &mut HeaderMap, route: &Route, backend: &HeaderValue) {
    match &route.host {
        Host::Pass => forward::ensure_host(headers, backend),
        Host::Upstream => drop(headers.insert(header::HOST, backend.clone())),
        Host::Replace(host) => drop(headers.insert(header::HOST, host.clone())),
    }
}

/// Makes what every origin is sent, whoever it is: without what no client may say, and with who
/// asks. Answers with the host that the client asked for.
fn begin(
    headers: &mut HeaderMap,
    version: Version,
    connection: &Connection,
    route: &Route,
    ctx: &Context,
) -> Result<Option<HeaderValue>> {
    let host = headers.get(header::HOST).cloned();
    forward::cleanse(headers, connection, &route.vouched);
    forward::introduce(headers, connection, &ctx.id, host.as_ref())?;
    forward::join_cookies(headers, version)?;
    Ok(host)
}

/// The fields that the origin would be sent, as far as they do not depend on a backend.
pub(crate) fn fields(sent: &RequestHeader, ctx: &Context) -> Result<HeaderMap> {
    let (Some(connection), Some(route)) = (&ctx.connection, &ctx.route) else {
        return Error::e_explain(ErrorType::InternalError, "a request without a route");
    };
    let mut parts: ReqParts = sent.clone().into();
    begin(&mut parts.headers, sent.version, connection, route, ctx)?;
    let mut header: RequestHeader = parts.into();
    if let Some(facts) = ctx.facts(sent) {
        let facts = Facts { backend: None, ..facts };
        route.policies.on_upstream_request(&mut header, &facts, &ctx.notes)?;
    }
    let parts: ReqParts = header.into();
    Ok(parts.headers)
}

/// Frames a head for the connection that carries it, where Pingora's proxy does not.
pub(crate) fn frame(
    head: &mut RequestHeader,
    session: &HttpSession,
    peer: &HttpPeer,
) -> Result<()> {
    head.remove_header(&header::TRANSFER_ENCODING);
    if !head.headers.contains_key(header::UPGRADE) {
        head.remove_header(&header::CONNECTION);
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let uri = if session.as_http2().is_some() {
        let host = head.remove_header(&header::HOST);
        let authority = host.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
        let scheme = if peer.is_tls() { "https" } else { "http" };
        head.set_version(Version::HTTP_2);
        Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build()
    } else {
        head.set_version(Version::HTTP_11);
        path.parse().map_err(http::Error::from)
    };
    head.set_uri(uri.or_err(ErrorType::InvalidHTTPHeader, "a target that is no URI")?);
    Ok(())
}

fn blank() -> RequestHeader {
    http::Request::new(()).into_parts().0.into()
}

/// Makes what the client is sent of what the origin answered.
pub(crate) fn response(
    sent: &RequestHeader,
    header: &mut ResponseHeader,
    ctx: &mut Context,
) -> Result<()> {
    respond::strip_hop_by_hop(header);
    if sent.version == Version::HTTP_10 {
        if header.version == Version::HTTP_2 && is_open_ended(header) {
            // Pingora would answer in chunks.
            let why = "an answer of HTTP/2 without a length, to a client of HTTP/1.0";
            return Err(Error::explain(ErrorType::HTTPStatus(505), why));
        }
        // HTTP/1.0 knows no chunks: the end of the connection ends the answer.
        header.remove_header(&header::TRANSFER_ENCODING);
    }
    if let Some(route) = &ctx.route {
        if route.via {
            header.append_header(header::VIA, forward::VIA_CRESTLINE.clone())?;
        }
        if let Some(facts) = ctx.facts(sent) {
            let (notes, mut filters) = (&ctx.notes, BodyFilters::default());
            let body = &mut filters;
            let mut response = Response { header, facts, notes, is_own: false, body };
            route.policies.on_response(&mut response)?;
            ctx.filters = filters;
        }
    }
    header.insert_header(&X_REQUEST_ID, ctx.id.clone())
}

fn is_open_ended(header: &ResponseHeader) -> bool {
    let has_body = !matches!(header.status.as_u16(), 204 | 304);
    has_body && !header.headers.contains_key(header::CONTENT_LENGTH)
}
