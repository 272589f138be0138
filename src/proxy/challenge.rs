//! The page by which a CA sees that a name is ours (RFC 8555 §8.3), before any route is asked.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    Method,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use pingora::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::{
    observe::request_id::X_REQUEST_ID,
    proxy::{context::Context, respond},
    reason::Reason,
    snapshot::Live,
};

/// How the paths begin that a CA asks for: all that most requests cost.
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The page, while an order waits for it to be asked for. Without TLS only: that is where a CA
/// asks.
pub(crate) fn page(live: &Live, request: &RequestHeader, ctx: &Context) -> Option<Arc<str>> {
    let path = request.uri.path();
    if !path.starts_with(WELL_KNOWN) || ctx.connection.as_ref()?.tls.is_some() {
        return None;
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return None;
    }
    live.load().acme.as_ref()?.challenges().page(path)
}

/// Answers with it.
pub(crate) async fn send(session: &mut Session, ctx: &mut Context, page: &str) -> Result<()> {
    ctx.reason = Some(Reason::AcmeChallenge);
    respond::keep_or_close(session, ctx);
    let mut header = ResponseHeader::build(200, Some(3))?;
    header.insert_header(CONTENT_TYPE, "application/octet-stream")?;
    header.insert_header(CONTENT_LENGTH, page.len().to_string())?;
    header.insert_header(&X_REQUEST_ID, ctx.id.clone())?;
    let has_body = session.req_header().method != Method::HEAD;
    session.write_response_header(Box::new(header), !has_body).await?;
    if has_body {
        session.write_response_body(Some(Bytes::copy_from_slice(page.as_bytes())), true).await?;
    }
    Ok(())
}
