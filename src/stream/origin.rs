//! A connection to an origin, as bytes pass over it.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pingora_core::protocols::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::{downstream::socket::duplicate, upstream::link::dial::Socket};

/// A connection to an origin. In plaintext there is no buffer between us and the kernel.
pub(super) enum Origin {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Stream),
}

impl Origin {
    /// Lets the origin see that the client's side broke, and did not end in order.
    pub(super) fn abort(&self) {
        match self {
            Self::Tcp(socket) => abort(socket.as_raw_fd()),
            Self::Unix(_) => {}
            Self::Tls(stream) => abort(stream.id()),
        }
    }

    fn as_read(&mut self) -> &mut (dyn AsyncRead + Unpin) {
        match self {
            Self::Tcp(socket) => socket,
            Self::Unix(socket) => socket,
            Self::Tls(stream) => stream,
        }
    }

    fn as_write(&mut self) -> &mut (dyn AsyncWrite + Unpin) {
        match self {
            Self::Tcp(socket) => socket,
            Self::Unix(socket) => socket,
            Self::Tls(stream) => stream,
        }
    }
}

impl From<Socket> for Origin {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(socket) => Self::Tcp(socket),
            Socket::Unix(socket) => Self::Unix(socket),
        }
    }
}

/// Makes the kernel reset a connection when it is closed.
pub(super) fn abort(socket: RawFd) {
    // One that is gone already, or of another kind, is closed as it is.
    let _ = duplicate(socket).and_then(|socket| socket.set_linger(Some(Duration::ZERO)));
}

impl AsyncRead for Origin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.as_read()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Origin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.as_write()).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.as_write()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.as_write()).poll_shutdown(cx)
    }
}
