//! A WebSocket on a stream of HTTP/2 (RFC 8441), which is one over HTTP/1.1 toward the origin.
//!
//! Fields are put into the words of HTTP/1.1 where the request begins, and back into those of
//! HTTP/2 where the origin agrees; from then on bytes pass as they come. When the grace period of
//! a stop is over, the client is told at the next border of a frame (1001), as over HTTP/1.1.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use h2::ext::Protocol;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    drain::{Drain, Tunnel},
    http1::websocket::{Borders, GOING_AWAY},
};

/// What is written in `:protocol` and in `Upgrade`.
const WEBSOCKET: &str = "websocket";

/// A WebSocket that was asked for, and what has passed to its client.
#[derive(Default)]
pub(super) struct WebSocket {
    /// Counts it while it is open.
    open: Option<Tunnel>,
    borders: Borders,
    is_answered: bool,
    has_left: bool,
}

/// Whether a request is an extended `CONNECT` that asks for one.
pub(super) fn is_asked_for(request: &RequestHeader) -> bool {
    let protocol = || request.extensions.get::<Protocol>();
    request.method == Method::CONNECT
        && protocol().is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

impl WebSocket {
    /// Puts the request into the words of HTTP/1.1.
    pub(super) fn open(request: &mut RequestHeader) -> Self {
        let blank = Request::new(()).into_parts().0;
        let mut parts: Parts = mem::replace(request, blank.into()).into();
        let host = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
            parts.headers.insert(HOST, host);
        }
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map_or_else(Uri::default, Uri::from);
        (parts.method, parts.version) = (Method::GET, Version::HTTP_11);
        // It proves to a client that its server knows of WebSockets; over HTTP/2 nobody asks.
        let key = BASE64_STANDARD.encode(fastrand::u128(..).to_be_bytes());
        if let Ok(key) = HeaderValue::try_from(key) {
            parts.headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        *request = parts.into();
        let mut borders = Borders::default();
        borders.advance(b"\r\n\r\n"); // it waits for the end of a head, which does not come here
        Self { borders, ..Self::default() }
    }

    /// Whether the origin has yet to say whether it agrees.
    pub(super) fn is_asking(&self) -> bool {
        !self.is_answered
    }

    /// Whether the origin has agreed.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Puts the origin's answer into the words of HTTP/2.
    pub(super) fn answer(
        &mut self,
        mut header: Box<ResponseHeader>,
        drain: &Arc<Drain>,
    ) -> Box<ResponseHeader> {
        self.is_answered |=
            !header.status.is_informational() || header.status == StatusCode::SWITCHING_PROTOCOLS;
        if header.status == StatusCode::SWITCHING_PROTOCOLS && header.set_status(200).is_ok() {
            header.remove_header(&SEC_WEBSOCKET_ACCEPT);
            self.open = Some(drain.tunnel());
        }
        header
    }

    /// Takes what the origin sends: how much of it passes, and whether the client is left then.
    pub(super) fn pass(&mut self, data: &Bytes) -> (Bytes, bool) {
        if self.has_left {
            return (Bytes::new(), false);
        }
        let is_told = self.open.as_ref().is_some_and(Tunnel::is_told);
        let most = if is_told && self.borders.at_border() {
            0
        } else if is_told {
            self.borders.to_border(data)
        } else {
            data.len()
        };
        let passed = data.slice(..most);
        self.borders.advance(&passed);
        (passed, is_told && self.borders.at_border())
    }

    /// Is ready when the client is to be left, and between two frames; the task is woken when
    /// that begins.
    pub(super) fn poll_left(&self, cx: &Context<'_>) -> Poll<()> {
        let is_told = self.open.as_ref().is_some_and(|open| open.poll_told(cx));
        if self.has_left || is_told && self.borders.at_border() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// The last word, which may be empty, where the client is to be left and was not yet; nothing
    /// may follow it.
    pub(super) fn leave(&mut self) -> Option<Bytes> {
        let is_told = self.open.as_ref().is_some_and(Tunnel::is_told);
        let is_due = is_told && !mem::replace(&mut self.has_left, true);
        let has_closed = self.borders.has_closed();
        is_due.then(|| Bytes::from_static(if has_closed { &[] } else { &GOING_AWAY }))
    }
}
