//! Answers to the client: our own, and what is taken off the origin's.

use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use pingora::{Error, ErrorType, OrErr as _, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::task;

use crate::{
    downstream::{refused, stream::Downstream, upload::is_stream},
    observe::request_id::X_REQUEST_ID,
    overload::{self, Level},
    policy::{body::BodyFilters, contract::Response},
    proxy::context::Context,
    reason::Reason,
    reply::{FileBody, Form, Page, Reply},
};

/// Sends an answer of our own, in the form that the client asked for.
pub(crate) async fn send(session: &mut Session, ctx: &mut Context, reply: Reply) -> Result<()> {
    // Who sends a bad request may mean another one by the rest; who sends too much, more of it.
    if matches!(reply.status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE) {
        session.set_keepalive(None);
    }
    keep_or_close(session, ctx);
    let Reply { status, fields, page, file } = reply;
    if let Some(file) = file {
        return Box::pin(send_file(session, ctx, status, fields, *file)).await;
    }
    let page = page.or_else(|| own_page(session, ctx, status)).unwrap_or_else(|| {
        let form = Form::asked_for(&session.req_header().headers);
        Page { content_type: Some(form.content_type()), body: form.body(status, &ctx.id) }
    });
    let mut header = ResponseHeader::build(status, Some(6 + fields.len()))?;
    // Without a body there is nothing to tell the type of: caches would take it for that of theirs.
    let may_have_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(content_type) = page.content_type.filter(|_| may_have_body) {
        header.insert_header(CONTENT_TYPE, content_type)?;
    }
    for (name, value) in fields {
        header.append_header(name, value)?;
    }
    dress(session, ctx, &mut header)?;
    if may_have_body {
        header.insert_header(CONTENT_LENGTH, page.body.len().to_string())?;
    }
    header.insert_header(&X_REQUEST_ID, ctx.id.clone())?;
    let has_body = may_have_body && session.req_header().method != http::Method::HEAD;
    session.write_response_header(Box::new(header), !has_body).await?;
    if has_body {
        session.write_response_body(Some(page.body), true).await?;
    }
    Ok(())
}

/// A file is read in pieces of so many bytes.
const FILE_PIECE: u64 = 64 * 1024;

/// Sends a file as it is read, on threads that may wait for the disk.
async fn send_file(
    session: &mut Session,
    ctx: &mut Context,
    status: StatusCode,
    fields: Vec<(HeaderName, HeaderValue)>,
    file: FileBody,
) -> Result<()> {
    let FileBody { content_type, file, mut from, length } = file;
    let mut header = ResponseHeader::build(status, Some(6 + fields.len()))?;
    header.insert_header(CONTENT_TYPE, content_type)?;
    for (name, value) in fields {
        header.insert_header(name, value)?;
    }
    dress(session, ctx, &mut header)?;
    header.insert_header(CONTENT_LENGTH, length.to_string())?;
    header.insert_header(&X_REQUEST_ID, ctx.id.clone())?;
    let has_body = session.req_header().method != http::Method::HEAD && 0 < length;
    session.write_response_header(Box::new(header), !has_body).await?;
    let end = from + length;
    while has_body && from < end {
        let (file, count) = (file.clone(), FILE_PIECE.min(end - from));
        let read = task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(count).unwrap_or_default()];
            file.read_exact_at(&mut piece, from).map(|()| Bytes::from(piece))
        });
        // One that became shorter meanwhile breaks the connection: its length was told.
        let piece = read.await.or_err(ErrorType::InternalError, "reading a file")?;
        let piece = piece.or_err(ErrorType::FileReadError, "a file")?;
        from += count;
        session.write_response_body(Some(piece), from == end).await?;
    }
    Ok(())
}

/// Lets the policies of the route change an answer of our own.
fn dress(session: &Session, ctx: &Context, header: &mut ResponseHeader) -> Result<()> {
    let (Some(facts), Some(route)) = (ctx.facts(session.req_header()), &ctx.route) else {
        return Ok(());
    };
    let (notes, body) = (&ctx.notes, &mut BodyFilters::default());
    route.policies.on_response(&mut Response { header, facts, notes, is_own: true, body })
}

/// Answers a request for which the process has no room.
pub(crate) async fn shed(session: &mut Session, ctx: &mut Context) -> Result<()> {
    ctx.reason = Some(Reason::Overloaded);
    refused::count(Reason::Overloaded);
    send(session, ctx, Reply::unavailable(overload::RETRY_AFTER)).await
}

/// The page that the route has for a status.
fn own_page(session: &Session, ctx: &Context, status: StatusCode) -> Option<Page> {
    let facts = ctx.facts(session.req_header())?;
    ctx.route.as_ref()?.policies.page(status, &facts)
}

/// Lets the client know that its connection is not kept, once the process is leaving or short of
/// memory.
pub(crate) fn keep_or_close(session: &mut Session, ctx: &Context) {
    let is_leaving =
        ctx.connection.as_ref().is_some_and(|connection| connection.drain().is_leaving());
    if is_leaving || overload::level() == Level::Critical {
        session.set_keepalive(None);
    }
}

/// The most that the fields of an answer may take together, and how many there may be.
const FIELDS_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 200;

/// Refuses an answer whose head is out of all bounds.
pub(crate) fn bound(header: &ResponseHeader) -> Result<()> {
    let fields = header.headers.iter();
    let bytes: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if FIELDS_BYTES_MAX < bytes || FIELDS_MAX < header.headers.len() {
        let why = "the head of the answer is too large";
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up());
    }
    Ok(())
}

/// Resets the connection of a client that has part of an answer which only the connection's end
/// would end: closed in the usual way, the part would look complete.
pub(crate) fn break_off(session: &Session) {
    let Some(answer) = session.response_written() else { return };
    let has_end = |name| answer.headers.contains_key(name);
    let is_stream = is_stream(session.as_downstream());
    if is_stream || has_end(CONTENT_LENGTH) || has_end(TRANSFER_ENCODING) {
        return; // the client sees that the end is missing
    }
    let stream = session.stream().and_then(|stream| stream.as_any().downcast_ref::<Downstream>());
    if let Some(Err(why)) = stream.map(Downstream::reset_on_close) {
        log::warn!("a broken answer may look complete to its client: {why}");
    }
}

/// Removes the fields that belong to the connection with the origin (RFC 9110 §7.6.1).
/// `Connection` itself and the framing are Pingora's to write.
pub(crate) fn strip_hop_by_hop(header: &mut ResponseHeader) {
    let nominates = nominates(header);
    while let Some(name) = header.headers.keys().find(|name| is_hop_by_hop(name, header, nominates))
    {
        let name = name.clone();
        header.remove_header(&name);
    }
}

/// Whether `Connection` names other fields. What nearly every origin sends names none.
fn nominates(header: &ResponseHeader) -> bool {
    let usual =
        |value: &HeaderValue| matches!(value.as_bytes(), b"keep-alive" | b"close" | b"Keep-Alive");
    !header.headers.get_all(CONNECTION).iter().all(usual)
}

fn is_hop_by_hop(name: &HeaderName, header: &ResponseHeader, nominates: bool) -> bool {
    match name.as_str() {
        "connection" | "content-length" | "transfer-encoding" => false,
        "keep-alive" | "proxy-connection" | "te" | "trailer" => true,
        "upgrade" => header.status != StatusCode::SWITCHING_PROTOCOLS,
        name => nominates && is_nominated(name, header),
    }
}

fn is_nominated(name: &str, header: &ResponseHeader) -> bool {
    let values = header.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut nominations = values.flat_map(|value| value.split(','));
    nominations.any(|nominated| nominated.trim().eq_ignore_ascii_case(name))
}
