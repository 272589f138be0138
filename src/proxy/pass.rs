//! Passes on an answer that Pingora's client got, as Pingora's proxy would.

use bytes::Bytes;
use http::{Method, Version, header};
use pingora::{Error, ErrorType, Result};
use pingora_core::protocols::http::{HttpTask, client::HttpSession};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time;

use crate::proxy::{Proxy, caught::Phases, context::Context};

/// Passes an answer on whose head is here, to its end.
pub(crate) async fn on(
    proxy: &Proxy,
    session: &mut Session,
    ctx: &mut Context,
    origin: &mut HttpSession,
) -> Result<()> {
    let Some(mut head) = origin.response_header().cloned() else {
        return Error::e_explain(ErrorType::InternalError, "an answer without a head");
    };
    // In the order of Pingora's proxy.
    let is_http2 = origin.as_http2().is_some();
    if !is_http2 {
        frame(session, &mut head)?;
    }
    proxy.upstream_response_filter(session, &head, ctx)?;
    proxy.response_filter(session, &mut head, ctx)?;
    if is_http2 {
        head.set_version(Version::HTTP_11);
        frame(session, &mut head)?;
    }
    let is_tunnel = is_tunnel(origin);
    if let (Some(connection), Some(route)) = (&ctx.connection, &ctx.route) {
        connection.await_origin(None); // the time between its bytes is kept here
        let timeouts = route.upstream.timeouts();
        let between = if is_tunnel { timeouts.tunnel } else { timeouts.between_bytes };
        origin.set_read_timeout(Some(between));
    }
    if is_tunnel {
        send(session, HttpTask::Header(Box::new(head), false)).await?;
        return tunnel(session, origin).await;
    }
    let is_whole = origin.response_done();
    send(session, HttpTask::Header(Box::new(head), is_whole)).await?;
    if is_whole {
        return Ok(());
    }
    while !origin.response_done() {
        let Some(piece) = origin.read_response_body().await.map_err(Error::into_up)? else {
            break;
        };
        if !piece.is_empty() {
            filtered(session, ctx, Some(piece), false).await?;
        }
    }
    filtered(session, ctx, None, true).await?;
    if let HttpSession::H2(stream) = origin
        && let Some(trailers) = stream.read_trailers().await.map_err(Error::into_up)?
    {
        send(session, HttpTask::Trailer(Some(Box::new(trailers)))).await?;
    }
    send(session, HttpTask::Done).await
}

/// Whether the origin has agreed to an upgrade.
pub(crate) fn is_tunnel(origin: &HttpSession) -> bool {
    matches!(origin, HttpSession::H1(origin) if origin.was_upgraded())
}

/// Passes bytes both ways, until one side has closed its own.
async fn tunnel(session: &mut Session, origin: &mut HttpSession) -> Result<()> {
    let HttpSession::H1(origin) = origin else { return Ok(()) };
    origin.maybe_upgrade_body_writer();
    loop {
        tokio::select! {
            piece = session.as_downstream_mut().read_request_body() => {
                let Some(piece) = piece.map_err(Error::into_down)? else {
                    return send(session, HttpTask::UpgradedBody(None, true)).await;
                };
                origin.write_body(&piece).await.map_err(Error::into_up)?;
            }
            piece = origin.read_body_bytes() => {
                let piece = piece.map_err(Error::into_up)?;
                let is_last = piece.is_none();
                send(session, HttpTask::UpgradedBody(piece, is_last)).await?;
                if is_last {
                    return Ok(());
                }
            }
        }
    }
}

/// Passes a piece on as the policies of the route leave it.
async fn filtered(
    session: &mut Session,
    ctx: &mut Context,
    mut body: Option<Bytes>,
    is_last: bool,
) -> Result<()> {
    if let Some(pause) = ctx.filters.pass(&mut body, is_last)? {
        time::sleep(pause).await;
    }
    match body.filter(|piece| !piece.is_empty()) {
        Some(piece) => send(session, HttpTask::Body(Some(piece), false)).await,
        None => Ok(()),
    }
}

/// An answer without a length goes on in chunks.
fn frame(session: &Session, head: &mut ResponseHeader) -> Result<()> {
    let has_body = session.req_header().method != Method::HEAD
        && !matches!(head.status.as_u16(), 101 | 204 | 304);
    let is_framed = head.headers.contains_key(header::TRANSFER_ENCODING)
        || head.headers.contains_key(header::CONTENT_LENGTH);
    if has_body && !is_framed {
        head.set_version(Version::HTTP_11);
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}

async fn send(session: &mut Session, task: HttpTask) -> Result<()> {
    session.write_response_tasks(vec![task]).await.map_err(Error::into_down)?;
    Ok(())
}
