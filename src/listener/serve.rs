//! An accepted connection: reads request heads, and lets Pingora answer one request after another.
//!
//! Pingora reads heads without an overall deadline and forgives much. So the head is read and
//! vetted here, within bounds, and Pingora gets it whole. Between requests nothing of Pingora is
//! alive: an idle connection is this future, its socket, and no buffer.

use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use futures::{FutureExt, future::FusedFuture};
use pingora_core::{
    apps::{HttpServerApp, ServerApp},
    protocols::{Shutdown, http::ServerSession},
    server::ShutdownWatch,
};
use pingora_timeout::timeout;
use tokio::{sync::watch, time};

use crate::{
    clock::Alarm,
    downstream::{
        connection::Connection,
        refused,
        stream::{Body, Downstream},
    },
    http1::{
        chunked::ChunkGuard,
        head::{Head, HeadReader},
        refusal::Refusal,
    },
    http2::PREFACE,
    listener::{refuse::Refuser, streams::Streams},
    overload,
    reason::Reason,
};

/// How long an idle connection is kept once the listeners are closed: a request that is on its
/// way arrives within this time, and is answered.
const CLOSE_IDLE_AFTER: Duration = Duration::from_millis(500);

/// A client of HTTP/2 that answers no ping keeps its connection this long beyond its last answer.
const QUIET: Duration = Duration::from_secs(2);
/// How often that is looked at.
const QUIET_EVERY: Duration = Duration::from_millis(100);

/// The client did not finish its request head in time.
const HEADER_TIMEOUT: Refusal = Refusal { status: 408, reason: Reason::HeaderTimeout };

/// What a connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// That, or HTTP/2 with prior knowledge.
    Either,
    /// HTTP/2, as was agreed on in the handshake.
    Http2,
}

/// Serves a connection until it closes.
pub(crate) async fn serve<A>(
    (app, streams): (&Arc<A>, &Arc<Streams<A>>),
    mut stream: Box<Downstream>,
    speaks: Speaks,
    refuser: &Refuser,
    shutdown: &ShutdownWatch,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    // Requests that are on their way are still answered, with `Connection: close`.
    let mut closing = pin!(leaving(shutdown).fuse());
    let idle_timeout = stream.connection().bounds.idle_timeout;
    let mut alarm = Alarm::after(stream.connection().bounds.header_timeout);
    let mut is_first = true;
    loop {
        let head = match next_request(&mut stream, speaks, &mut alarm, &mut closing).await {
            Next::Request(head) => head,
            Next::Http2 => {
                // In a box, so that idle connections that speak HTTP/1 do not hold its room.
                return Box::pin(serve_http2(streams, stream, shutdown)).await;
            }
            Next::Refused(refusal) => {
                return Box::pin(refuser.refuse(&mut stream, refusal)).await;
            }
            next @ (Next::Overdue | Next::Gone) => {
                if is_first && matches!(next, Next::Overdue) {
                    refused::count(Reason::Silent);
                }
                return Shutdown::shutdown(&mut *stream).await;
            }
        };
        is_first = false;
        match one_request(app, stream, head, shutdown).await {
            Some(kept) => stream = kept,
            None => return,
        }
        alarm.set(idle_timeout);
    }
}

/// Lets Pingora speak HTTP/2 until the connection closes.
async fn serve_http2<A>(
    streams: &Arc<Streams<A>>,
    mut stream: Box<Downstream>,
    shutdown: &ShutdownWatch,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    stream.set_http2();
    let connection = stream.connection().clone();
    // It leaves at a stop, and where memory is short.
    let (leave, leaving) = watch::channel(false);
    let told = async {
        tokio::select! {
            () = close(shutdown) => {}
            () = overload::critical() => {}
        }
        leave.send_replace(true);
        pending::<()>().await;
    };
    // Pingora sends both GOAWAYs, and waits for ever for the answer between them.
    tokio::select! {
        _ = streams.process_new(stream, &leaving) => {}
        () = told => {}
        () = abandoned(&connection, &leaving) => {}
        () = gives_way(&connection) => {}
    }
}

/// Waits until the listeners are closed, and what is on its way had time to arrive.
pub(super) async fn leaving(shutdown: &ShutdownWatch) {
    close(shutdown).await;
    time::sleep(CLOSE_IDLE_AFTER).await;
}

/// Waits until the listeners are closed.
async fn close(shutdown: &ShutdownWatch) {
    let _ = shutdown.clone().wait_for(|closing| *closing).await;
}

/// Waits until the connection is to leave, and nothing has been in flight for a while.
async fn abandoned(connection: &Connection, shutdown: &ShutdownWatch) {
    close(shutdown).await;
    let mut quiet = Duration::ZERO;
    while quiet < QUIET {
        time::sleep(QUIET_EVERY).await;
        quiet = if connection.is_busy() { Duration::ZERO } else { quiet + QUIET_EVERY };
    }
}

/// Waits until the connection is called while it has nothing to do.
async fn gives_way(connection: &Connection) {
    let Some(waiting) = connection.waiting() else { return pending().await };
    loop {
        waiting.called().await;
        if !connection.is_busy() {
            return;
        }
        time::sleep(QUIET_EVERY).await; // an answer is still on its way out
    }
}

enum Next {
    Request(BytesMut),
    Http2,
    Refused(Refusal),
    /// Not one byte came in time.
    Overdue,
    Gone,
}

/// Waits for a request head: any byte of it within the idle time, all of it within the header
/// timeout. A client that never sent a byte is not answered, since it may be a probe.
async fn next_request(
    stream: &mut Downstream,
    speaks: Speaks,
    alarm: &mut Alarm,
    closing: &mut Pin<&mut impl FusedFuture<Output = ()>>,
) -> Next {
    if stream.pending().is_empty() {
        let begins = poll_fn(|cx| {
            if let Poll::Ready(filled) = stream.poll_fill(cx) {
                return Poll::Ready(if matches!(filled, Ok(1..)) {
                    Ok(())
                } else {
                    Err(Next::Gone)
                });
            }
            let is_due = closing.is_terminated() || closing.as_mut().poll(cx).is_ready();
            // What the kernel has, the runtime may not have noticed yet: it will wake this task.
            if (is_due && !stream.has_arrived()) || is_called(stream, cx) {
                return Poll::Ready(Err(Next::Gone));
            }
            alarm.poll_ring(cx).map(|()| Err(Next::Overdue))
        });
        if let Err(next) = begins.await {
            return next;
        }
    }
    // Most heads arrive in one piece: no timer is set for them.
    match try_head(stream, speaks, &mut HeadReader::new()) {
        Tried::Done(next) => return next,
        Tried::NeedsMore => {}
    }
    stream.connection().begin_waiting(); // others have done so for longer
    let header_timeout = stream.connection().bounds.header_timeout;
    match timeout(header_timeout, slow_head(stream, speaks)).await {
        Ok(next) => next,
        Err(_) if speaks == Speaks::Http2 => Next::Gone,
        Err(_) => Next::Refused(HEADER_TIMEOUT),
    }
}

enum Tried {
    Done(Next),
    NeedsMore,
}

async fn slow_head(stream: &mut Downstream, speaks: Speaks) -> Next {
    let mut reader = HeadReader::new();
    loop {
        match try_head(stream, speaks, &mut reader) {
            Tried::Done(next) => return next,
            Tried::NeedsMore => {}
        }
        let filled = poll_fn(|cx| match stream.poll_fill(cx) {
            Poll::Pending if is_called(stream, cx) => Poll::Ready(Ok(0)),
            polled => polled,
        });
        match filled.await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Next::Gone,
        }
    }
}

/// Whether the connection is to give way to another one; its task is woken when it is.
fn is_called(stream: &Downstream, cx: &mut Context<'_>) -> bool {
    let waiting = stream.connection().waiting();
    waiting.is_some_and(|waiting| waiting.poll_called(cx).is_ready())
}

fn try_head(stream: &mut Downstream, speaks: Speaks, reader: &mut HeadReader) -> Tried {
    if speaks != Speaks::Http1 {
        let known = stream.pending().len().min(PREFACE.len());
        if stream.pending()[..known] == PREFACE[..known] {
            let whole = known == PREFACE.len();
            return if whole { Tried::Done(Next::Http2) } else { Tried::NeedsMore };
        }
        if speaks == Speaks::Http2 {
            return Tried::Done(Next::Gone); // not what it agreed to
        }
    }
    match reader.advance(stream.pending(), &stream.connection().bounds.head) {
        Ok(None) => Tried::NeedsMore,
        Ok(Some(head)) => {
            let body = match body_of(&head, &stream.pending()[head.len..]) {
                Ok(body) => body,
                Err(refusal) => return Tried::Done(Next::Refused(refusal)),
            };
            let bytes = stream.take_head(head.start, head.len, body);
            Tried::Done(Next::Request(head.edits.apply(bytes, head.start)))
        }
        Err(refusal) => Tried::Done(Next::Refused(refusal)),
    }
}

/// Frames the body, and looks at what has come of it: a request that begins with a bad chunk is
/// refused before any backend hears of it.
fn body_of(head: &Head, arrived: &[u8]) -> Result<Body, Refusal> {
    if !head.chunked {
        return Ok(Body::Length(head.content_length.unwrap_or(0)));
    }
    ChunkGuard::new().advance(arrived)?;
    Ok(Body::Chunked(ChunkGuard::new()))
}

/// Hands a request to Pingora; returns the connection if it may carry another.
async fn one_request<A>(
    app: &Arc<A>,
    stream: Box<Downstream>,
    head: BytesMut,
    shutdown: &ShutdownWatch,
) -> Option<Box<Downstream>>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let mut session = ServerSession::new_http1(stream);
    session.set_pipelined_prefix(head);
    let (stream, _) = app.process_new_http(session, shutdown).await?.consume();
    stream.into_any().downcast().ok()
}
