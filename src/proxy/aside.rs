//! What is sent beside requests, by tasks and over connections of its own: copies, and renewals.

use std::time::Duration;

use bytes::Bytes;
use pingora::Result;
use pingora_core::{
    connectors::http::Connector, protocols::http::client::HttpSession, upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use tokio::time::Instant;

use crate::{panics, proxy::translate, upstream::backend::InFlight};

/// Does something beside requests; a panic ends that alone.
pub(crate) fn spawn(what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(panic) = panics::catch(Box::pin(work)).await {
            panic.count_task();
            log::error!("{what}: panicked: {panic}");
        }
    });
}

/// Sends a request to a backend and waits for the head of its answer: the exchange as it is then,
/// and the status. No step may take longer than `within`.
pub(crate) async fn ask(
    connector: &Connector,
    peer: &HttpPeer,
    place: &InFlight,
    mut head: RequestHeader,
    body: Bytes,
    within: Duration,
) -> Result<(HttpSession, u16)> {
    let asked = Instant::now();
    let (mut session, _) = connector.get_http_session(peer).await?;
    session.set_read_timeout(Some(within));
    session.set_write_timeout(Some(within));
    translate::frame(&mut head, &session, peer)?;
    session.write_request_header(Box::new(head)).await?;
    if !body.is_empty() {
        session.write_request_body(body, false).await?;
    }
    session.finish_request_body().await?;
    let status = loop {
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |answer| answer.status.as_u16());
        if 200 <= status {
            break status;
        }
    };
    let now = Instant::now();
    place.took(now.saturating_duration_since(asked), now);
    Ok((session, status))
}
