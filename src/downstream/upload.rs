//! A request over HTTP/2 whose client has more to say: a body, or a WebSocket.
//!
//! Pingora reads the bodies of HTTP/2 without a clock. So it is given such a stream as a session
//! of ours, which asks Pingora's own and keeps the times: between two pieces, and on average. A
//! request that is complete with its fields stays Pingora's own session, and costs nothing more.
//!
//! Once the answer has begun, the two sides converse: a client need not send at any rate, and is
//! silent for too long only if the origin is silent as well.

mod websocket;

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use pingora_core::{
    Error, ErrorType, Result,
    protocols::{
        Digest,
        http::{
            HttpTask, ServerSession,
            custom::{CustomMessageWrite, server::Session},
            v2::server::HttpSession,
        },
        l4::socket::SocketAddr,
    },
};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    clock::Alarm,
    downstream::{
        connection::Connection, error::BodyTooSlow, pace::Pace, upload::websocket::WebSocket,
    },
};

/// Such a request on its stream.
pub struct Upload {
    inner: HttpSession,
    connection: Arc<Connection>,
    wait: Wait,
    /// What else is known where the client asked for a WebSocket.
    websocket: Option<Box<WebSocket>>,
}

/// The time that a client has.
#[derive(Default)]
struct Wait {
    pace: Pace,
    /// Between two pieces; `None` is for ever.
    patience: Option<Duration>,
    /// Rings when the client was waited for too long; set only while it is waited for.
    silence: Option<Alarm>,
}

/// Gives Pingora a session: its own, if that has no more to come.
pub fn session_of(session: ServerSession) -> ServerSession {
    let ServerSession::H2(mut inner) = session else { return session };
    let asks_for_websocket = websocket::is_asked_for(inner.req_header());
    if !asks_for_websocket && inner.is_body_done() {
        return ServerSession::H2(inner);
    }
    let connection = inner.digest().and_then(Connection::of).cloned();
    let Some(connection) = connection else { return ServerSession::H2(inner) };
    let websocket = asks_for_websocket.then(|| Box::new(WebSocket::open(inner.req_header_mut())));
    ServerSession::Custom(Box::new(Upload { inner, connection, wait: Wait::default(), websocket }))
}

/// Whether a request came on a stream of HTTP/2, be it Pingora's own session or one of these.
pub fn is_stream(session: &ServerSession) -> bool {
    session.is_http2() || session.is_custom()
}

/// Whether a request on a stream of HTTP/2 asks for a WebSocket.
pub fn asks_for_websocket(session: &ServerSession) -> bool {
    session.is_custom() && session.is_upgrade_req()
}

impl Wait {
    /// Is ready when the client was waited for too long.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.pace.waits();
        let Some(patience) = self.patience else { return Poll::Pending };
        self.silence.get_or_insert_with(|| Alarm::after(patience)).poll_ring(cx)
    }

    /// Begins anew.
    fn restart(&mut self) {
        self.pace.rests();
        self.silence = None;
    }
}

impl Upload {
    /// Reads the next piece, within the time that the client has.
    async fn read(&mut self) -> Result<Option<Bytes>> {
        let Self { inner, wait, websocket, .. } = self;
        let is_answered = inner.response_written().is_some();
        let piece = {
            let mut reading = pin!(inner.read_body_bytes());
            poll_fn(|cx| {
                if websocket.as_ref().is_some_and(|websocket| websocket.poll_left(cx).is_ready()) {
                    return Poll::Ready(Some(Ok(None)));
                }
                match reading.as_mut().poll(cx) {
                    Poll::Ready(piece) => Poll::Ready(Some(piece)),
                    Poll::Pending => {
                        ready!(wait.poll_over(cx));
                        Poll::Ready(None)
                    }
                }
            })
            .await
        };
        let Some(piece) = piece else {
            let why = "the client fell silent";
            return Err(Error::explain(ErrorType::ReadTimedout, why).into_down());
        };
        let piece = piece?;
        self.wait.silence = None;
        if is_answered {
            self.wait.restart();
        } else if let Some(piece) = &piece {
            let advanced = self.wait.pace.advance(piece.len(), &self.connection.bounds);
            advanced.map_err(too_slow)?;
        }
        Ok(piece)
    }

    /// Whether the origin has yet to say whether it takes the WebSocket. Until then its request
    /// has neither a body nor an end: Pingora would take an end that it meets after the origin's
    /// 101 for the end of the WebSocket.
    fn is_asking(&self) -> bool {
        self.websocket.as_ref().is_some_and(|websocket| websocket.is_asking())
    }

    /// Whether bytes pass as they come.
    fn is_tunnel(&self) -> bool {
        self.websocket.as_ref().is_some_and(|websocket| websocket.is_open())
    }

    /// Writes what the origin sends through a WebSocket, and the end of it.
    async fn write_through(&mut self, data: &Bytes, end: bool) -> Result<()> {
        let Some(websocket) = &mut self.websocket else { return Ok(()) };
        let (data, is_last) = websocket.pass(data);
        if !data.is_empty() {
            self.inner.write_body(data, false).await?;
        }
        if is_last {
            return self.leave().await;
        }
        if end { self.inner.finish() } else { Ok(()) }
    }

    /// Says the last word to the client of a WebSocket.
    async fn leave(&mut self) -> Result<()> {
        match self.websocket.as_mut().and_then(|websocket| websocket.leave()) {
            Some(goodbye) => self.inner.write_body(goodbye, true).await,
            None => Ok(()), // it is the client that leaves, or it was told already
        }
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "errors of Pingora travel in boxes")]
fn too_slow(slow: BodyTooSlow) -> Box<Error> {
    Error::because(ErrorType::ReadError, "a body over HTTP/2", std::io::Error::from(slow))
        .into_down()
}

#[async_trait]
impl Session for Upload {
    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_asking() || self.is_body_done() {
            return self.inner.read_body_or_idle(true).await;
        }
        let piece = self.read().await?;
        if piece.is_none() && self.is_tunnel() {
            self.leave().await?;
        }
        Ok(piece)
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner.drain_request_body().await
    }

    async fn write_response_header(
        &mut self,
        header: Box<ResponseHeader>,
        end: bool,
    ) -> Result<()> {
        self.wait.restart();
        let Some(websocket) = &mut self.websocket else {
            return self.inner.write_response_header(header, end);
        };
        let header = websocket.answer(header, self.connection.drain());
        self.inner.write_response_header(header, end)
    }

    async fn write_response_header_ref(
        &mut self,
        header: &ResponseHeader,
        end: bool,
    ) -> Result<()> {
        self.write_response_header(Box::new(header.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        let written = self.inner.write_body(data, end).await;
        self.wait.restart();
        written
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        if self.websocket.is_none() {
            let written = self.inner.response_duplex_vec(tasks).await;
            self.wait.restart();
            return written;
        }
        let mut is_over = false;
        for task in tasks {
            is_over |= match task {
                HttpTask::Header(header, end) => {
                    self.write_response_header(header, end).await?;
                    end
                }
                HttpTask::UpgradedBody(data, end) => {
                    self.write_through(&data.unwrap_or_default(), end).await?;
                    end
                }
                task => self.inner.response_duplex_vec(vec![task]).await?,
            };
        }
        self.wait.restart();
        if is_over {
            self.inner.finish()?;
        }
        Ok(is_over)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.wait.patience = timeout;
        self.wait.restart();
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.wait.patience
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.inner.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        match &self.websocket {
            Some(websocket) if websocket.is_asking() => false,
            Some(websocket) if !websocket.is_open() => true,
            _ => self.inner.is_body_done(),
        }
    }

    fn is_body_empty(&mut self) -> bool {
        self.websocket.is_some() || self.inner.is_body_empty()
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner.finish()
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        if self.is_asking() { Some(Bytes::new()) } else { self.inner.get_retry_buffer() }
    }

    fn is_upgrade_req(&self) -> bool {
        self.websocket.is_some()
    }

    fn was_upgraded(&self) -> bool {
        self.is_tunnel()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None // HTTP knows no such messages
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
