//! What is sent beside requests, by tasks and over connections of its own: copies, renewals, and
//! what is fetched once more.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version, header};
use pingora::{Error, ErrorType, Result};
use pingora_cache::{CacheMeta, filters};
use pingora_core::{
    connectors::http::Connector, protocols::http::client::HttpSession, upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::{
    panics,
    proxy::{context::Context, failure, hop_by_hop, select, translate},
    upstream::{
        backend::InFlight,
        link::{self, config::Http},
        outcome::Outcome,
    },
};

/// Does something beside requests; a panic ends that alone.
pub(crate) fn spawn(what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(panic) = panics::catch(Box::pin(work)).await {
            panic.count_task();
            log::error!("{what}: panicked: {panic}");
        }
    });
}

/// The head by which an answer to a request is fetched that is to be kept, or renewed if there is
/// one; what depends on the backend is in it if one has a place for the request.
pub(crate) fn head(
    session: &Session,
    ctx: &Context,
    meta: Option<&CacheMeta>,
) -> Result<RequestHeader> {
    let Some(route) = &ctx.route else {
        return Error::e_explain(ErrorType::InternalError, "a request without a route");
    };
    let sent = session.req_header();
    let mut head = sent.clone();
    hop_by_hop::strip(&mut head)?;
    if sent.version == Version::HTTP_2 {
        head.insert_header(header::HOST, select::authority(sent))?;
    }
    let is_http2 = route.upstream.link().http() == Http::Two;
    head.set_version(if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 });
    head.set_method(Method::GET);
    filters::upstream::request_filter(&mut head, meta);
    translate::request(sent, &mut head, ctx)?;
    Ok(head)
}

/// An exchange that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) why: Box<Error>,
    /// How it ended for the backend.
    pub(crate) outcome: Outcome,
}

/// Of an exchange whose answer has begun.
impl From<Box<Error>> for Failed {
    fn from(why: Box<Error>) -> Self {
        let outcome = failure::of_exchange(&why, false, true);
        Self { why, outcome }
    }
}

impl From<Failed> for Box<Error> {
    fn from(failed: Failed) -> Self {
        failed.why
    }
}

/// Sends a request to a backend and waits for the head of its answer: the exchange as it is then,
/// and the status. No step may take longer than `within`.
pub(crate) async fn ask(
    connector: &Connector,
    peer: &HttpPeer,
    place: &InFlight,
    head: RequestHeader,
    body: Bytes,
    within: Duration,
) -> Result<(HttpSession, u16), Failed> {
    let asked = Instant::now();
    let (mut session, is_reused) = connector.get_http_session(peer).await.map_err(|why| {
        let outcome = Outcome::of_connecting(&why);
        Failed { why, outcome }
    })?;
    let status = send(&mut session, peer, head, body, within).await.map_err(|why| {
        let outcome = failure::of_exchange(&why, is_reused, false);
        Failed { why, outcome }
    })?;
    let now = Instant::now();
    place.took(now.saturating_duration_since(asked), now);
    Ok((session, status))
}

/// Ends an exchange: its connection is used again if all of the answer was read.
pub(crate) async fn end(
    connector: &Connector,
    peer: &HttpPeer,
    mut session: HttpSession,
    idle: Duration,
) {
    if session.response_done() {
        connector.release_http_session(session, peer, Some(idle)).await;
    } else {
        session.shutdown().await;
    }
}

async fn send(
    session: &mut HttpSession,
    peer: &HttpPeer,
    mut head: RequestHeader,
    body: Bytes,
    within: Duration,
) -> Result<u16> {
    session.set_read_timeout(Some(within));
    session.set_write_timeout(Some(within));
    translate::frame(&mut head, session, peer)?;
    if body.is_empty() {
        link::send(session, head).await?;
    } else {
        session.write_request_header(Box::new(head)).await?;
        session.write_request_body(body, false).await?;
        session.finish_request_body().await?;
    }
    loop {
        session.read_response_header().await.map_err(Error::into_up)?;
        let status = session.response_header().map_or(0, |answer| answer.status.as_u16());
        if 200 <= status {
            return Ok(status);
        }
    }
}
