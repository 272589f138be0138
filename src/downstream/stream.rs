//! A downstream connection as Pingora reads it: one request at a time.
//!
//! The framing of a request is known before Pingora sees its first byte, so this stream hands out
//! exactly the bytes of that request and keeps what follows. That gives pipelining a bound and an
//! order, holds bytes sent before a `101` back until there is one, and lets a guard check every
//! chunk of a request body.
//!
//! INVARIANT: no byte beyond the current request's body is ever handed out, except in a tunnel.

mod facts;
mod silence;

use std::{
    fmt, io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::{Shutdown, Stream, raw_connect::ProxyDigest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time,
};

use crate::{
    clock::Alarm,
    downstream::{
        connection::Connection, error::BadBody, http2::Http2, pace::Pace, socket::duplicate,
        stream::silence::Silence, tunnel::Tunnel,
    },
    http1::chunked::ChunkGuard,
};

/// How much is read at once for a head, and kept beyond the current request.
const READ_AHEAD: usize = 4 * 1024;
/// How long, and for how much, a closing connection is read on so that the client can read its
/// answer before the kernel resets the connection over unread bytes.
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const LINGER_BYTES: u64 = 1024 * 1024;

/// What is left of the current request's body.
#[derive(Debug)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks, until the guard has seen the last one.
    Chunked(ChunkGuard),
}

/// A downstream connection, framed.
pub struct Downstream {
    inner: Stream,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    /// Bytes that were read and not handed out yet.
    pending: BytesMut,
    body: Body,
    pace: Pace,
    /// Where the client speaks HTTP/2, what is kept of that.
    http2: Option<Box<Http2>>,
    /// Whether the client closed its side while it waits for an answer.
    has_ended: bool,
    /// Rings when the client has taken nothing for too long; set only while a write waits.
    stall: Option<Alarm>,
    /// Whether bytes were written that may still wait in the buffer below.
    unflushed: bool,
    /// Keeps the times that [`Connection::await_origin`] and [`Connection::set_limit`] set.
    silence: Silence,
    /// What passes to the client once there is a tunnel.
    tunnel: Option<Box<Tunnel>>,
}

impl Downstream {
    /// Wraps an accepted connection.
    pub fn new(inner: Stream, connection: Arc<Connection>) -> Self {
        let digest = connection.clone().into_digest();
        let (pending, body) = (BytesMut::new(), Body::Length(0));
        Self {
            inner,
            connection,
            digest,
            pending,
            body,
            pace: Pace::default(),
            http2: None,
            has_ended: false,
            stall: None,
            unflushed: false,
            silence: Silence::default(),
            tunnel: None,
        }
    }

    /// What is known of the connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Bytes that arrived and belong to no request yet.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Puts bytes back that were read before there was this stream.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Waits for more bytes and appends them to [`Self::pending`]. Returns 0 at the end.
    ///
    /// Cancel-safe. No buffer is held while waiting.
    pub async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Takes a head off the pending bytes and frames what follows as its body.
    pub fn take_head(&mut self, start: usize, end: usize, body: Body) -> BytesMut {
        (self.body, self.pace) = (body, Pace::default());
        self.pending.advance(start);
        if self.pending.len() == end - start {
            return std::mem::take(&mut self.pending);
        }
        self.pending.split_to(end - start)
    }

    /// Makes the kernel reset the connection when it is closed, so that the client sees a break.
    ///
    /// # Errors
    /// If the kernel does not let this process duplicate its own socket.
    pub fn reset_on_close(&self) -> io::Result<()> {
        if self.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_leaving()) {
            return Ok(()); // its end was told in a frame
        }
        duplicate(self.inner.id())?.set_linger(Some(Duration::ZERO))
    }

    /// Whether the kernel has anything to read, be it the end.
    pub fn has_arrived(&self) -> bool {
        let Ok(socket) = duplicate(self.inner.id()) else { return false };
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| 0 < ready)
    }

    /// Whether the client has closed its side, or is gone; what it sent before may be unread.
    pub fn has_left(&self) -> bool {
        let Ok(socket) = duplicate(self.inner.id()) else { return false };
        let mut fds = [PollFd::new(&socket, PollFlags::RDHUP)]; // errors are always told
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| 0 < ready)
    }

    /// Lets bytes pass as they come, because the client speaks HTTP/2.
    pub fn set_http2(&mut self) {
        self.http2 = Some(Box::new(Http2::new(self.connection.bounds.header_timeout)));
    }

    /// Like [`Self::fill`], for those who wait for something else as well.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_AHEAD];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
        self.pending.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Gives a write that waits no longer than the listener allows, whatever is written: Pingora
    /// keeps that time for bodies only.
    fn within_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stall.take().is_some() {
                self.connection.set_stalled(false);
            }
            return written;
        }
        let patience = self.connection.bounds.write_timeout;
        let connection = &self.connection;
        let stall = self.stall.get_or_insert_with(|| {
            connection.set_stalled(true);
            Alarm::after(patience)
        });
        ready!(stall.poll_ring(cx));
        self.stall = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The tunnel, if there is one, and the stream that it writes to.
    fn tunnel(&mut self) -> (Option<&mut Tunnel>, &mut Stream) {
        if self.tunnel.is_none() && self.connection.is_tunnel() {
            self.tunnel = Some(Box::new(Tunnel::new(self.connection.drain().tunnel())));
        }
        (self.tunnel.as_deref_mut(), &mut self.inner)
    }

    /// Shows what was written to those who look on.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>, bufs: &[io::IoSlice<'_>]) {
        let (Some(http2), Poll::Ready(Ok(written))) = (&mut self.http2, written) else { return };
        let mut left = *written;
        for buf in bufs {
            let taken = left.min(buf.len());
            http2.wrote(&buf[..taken]);
            left -= taken;
        }
    }

    fn is_raw(&self) -> bool {
        self.http2.is_some() || self.connection.is_tunnel()
    }

    fn body_is_over(&self) -> bool {
        match &self.body {
            Body::Length(left) => *left == 0,
            Body::Chunked(guard) => guard.is_done(),
        }
    }

    /// Between the end of a request and the end of its answer only two things matter: that the
    /// connection breaks, and that the origin is silent for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(silent) = self.silence.poll_patience(&self.connection, cx) {
            return Poll::Ready(Err(silent.into()));
        }
        // A client that closed its side may still wait for its answer. Pingora would not poll again
        // if it knew, and nobody would keep the origin's time.
        while self.pending.len() < READ_AHEAD && !self.has_ended {
            self.has_ended = ready!(self.poll_fill(cx))? == 0;
        }
        Poll::Pending // enough is read ahead; the rest waits in the kernel
    }

    /// Hands out pending bytes as far as they belong to the body.
    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let most = self.pending.len().min(buf.remaining());
        let offered = &self.pending[..most];
        let taken = match &mut self.body {
            _ if self.http2.is_some() || self.connection.is_tunnel() => most,
            Body::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(most);
                *left -= taken as u64;
                taken
            }
            Body::Chunked(guard) => guard.advance(offered).map_err(BadBody)?,
        };
        buf.put_slice(&offered[..taken]);
        self.pending.advance(taken);
        if self.pending.is_empty() {
            self.pending = BytesMut::new(); // an idle connection holds no buffer
        }
        Ok(())
    }

    /// Reads body bytes straight into the reader's buffer.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_pending() {
            self.pace.waits();
        }
        ready!(polled)?;
        let read = &buf.filled()[before..];
        if !self.is_raw() {
            self.pace.advance(read.len(), &self.connection.bounds)?;
        }
        let taken = match &mut self.body {
            _ if self.http2.is_some() || self.connection.is_tunnel() => return Poll::Ready(Ok(())),
            Body::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= taken as u64;
                taken
            }
            Body::Chunked(guard) => guard.advance(read).map_err(BadBody)?,
        };
        self.pending.extend_from_slice(&read[taken..]);
        buf.set_filled(before + taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(tunnel) = &mut this.tunnel {
            let end = tunnel.poll_end(&mut this.inner, cx);
            if tunnel.is_leaving() {
                ready!(end)?;
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        if let Some(http2) = this.http2.as_mut().filter(|http2| http2.is_leaving()) {
            return http2.poll_end(&mut this.inner, cx);
        }
        // Pingora reads when it has no more to write. It does not flush answers that have a length.
        if self.unflushed && Pin::new(&mut self.inner).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        if !self.is_raw() {
            let this = &mut *self;
            if let Poll::Ready(silent) = this.silence.poll_limit(&this.connection, cx) {
                return Poll::Ready(Err(silent.into()));
            }
            if self.body_is_over() {
                return self.poll_idle(cx);
            }
        }
        let before = buf.filled().len();
        let read = if self.pending.is_empty() {
            self.poll_body(cx, buf)
        } else {
            Poll::Ready(self.hand_out(buf))
        };
        let this = &mut *self;
        let Some(http2) = &mut this.http2 else { return read };
        http2.look(&mut this.inner, cx, read, &buf.filled()[before..])
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        let written = match self.tunnel() {
            (Some(tunnel), inner) => tunnel.poll_write(inner, cx, buf),
            (None, inner) => Pin::new(inner).poll_write(cx, buf),
        };
        self.wrote(&written, &[io::IoSlice::new(buf)]);
        if written.is_ready() && self.connection.is_eager() {
            let _ = Pin::new(&mut self.inner).poll_flush(cx)?; // the next piece does the rest
        }
        self.within_stall(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.unflushed &= flushed.is_pending();
        self.within_stall(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        let written = match self.tunnel() {
            (Some(tunnel), inner) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                tunnel.poll_write(inner, cx, first.map_or(&[], |buf| buf))
            }
            (None, inner) => Pin::new(inner).poll_write_vectored(cx, bufs),
        };
        self.wrote(&written, bufs);
        self.within_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Downstream {
    async fn shutdown(&mut self) {
        // It flushes first, and the client may take nothing.
        let closed = time::timeout(LINGER, self.inner.shutdown()).await;
        if closed.is_ok() && !self.is_raw() && (!self.body_is_over() || !self.pending.is_empty()) {
            let mut rest = (&mut self.inner).take(LINGER_BYTES);
            let mut sink = tokio::io::sink();
            let _ = time::timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)).await;
        }
    }
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream").field("connection", &self.connection).finish_non_exhaustive()
    }
}
