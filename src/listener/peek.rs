//! The beginning of a handshake, looked at and put back: which name does the client ask for?
//!
//! What was read is read again by whoever takes the connection: the origin that it is relayed to,
//! or the handshake that is made here.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pingora_core::{
    protocols::{Stream, l4::stream::Stream as Socket},
    server::ShutdownWatch,
};
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    downstream::connection::Connection,
    listener::serve::leaving,
    reason::Reason,
    tls::hello::{Hello, Seen},
};

/// So much is read at once.
const READ_AT_ONCE: usize = 4 * 1024;

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// A handshake; the name that it asks for.
    Tls(Option<Box<str>>),
    /// Anything else.
    Otherwise,
}

impl Begins {
    /// The name that is asked for.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Tls(name) => name.as_deref(),
            Self::Otherwise => None,
        }
    }

    /// The same.
    pub(super) fn into_name(self) -> Option<Box<str>> {
        match self {
            Self::Tls(name) => name,
            Self::Otherwise => None,
        }
    }
}

/// Looks at what a client begins with, within the time for a handshake.
///
/// # Errors
/// The reason if it is refused; `None` if it is gone, or gives way.
pub(super) async fn look(
    stream: Stream,
    connection: &Connection,
    shutdown: &ShutdownWatch,
) -> Result<(Stream, Begins), Option<Reason>> {
    // The accept loops make no other streams.
    let Ok(mut socket) = stream.into_any().downcast::<Socket>() else { return Err(None) };
    let mut hello = Hello::default();
    let read = async {
        loop {
            match poll_fn(|cx| poll_more(&mut socket, &mut hello, cx)).await {
                Ok(Some(Seen::NeedsMore)) => {}
                Ok(Some(Seen::Hello(name))) => return Ok(Begins::Tls(name)),
                Ok(Some(Seen::TooLong)) => return Err(Some(Reason::HelloTooLong)),
                Ok(None) if hello.bytes().is_empty() => return Err(None),
                // One that said something and closes its side may be answered all the same.
                Ok(Some(Seen::NoTls) | None) => return Ok(Begins::Otherwise),
                Err(_) => return Err(None),
            }
        }
    };
    let within = connection.bounds.handshake_timeout;
    let gives_way = async {
        match connection.waiting() {
            Some(waiting) => waiting.called().await,
            None => std::future::pending().await,
        }
    };
    let read = tokio::select! {
        read = timeout(within, read) => read,
        () = gives_way => return Err(None),
        () = leaving(shutdown) => return Err(None),
    };
    let Ok(begins) = read else {
        return Err(Some(if hello.bytes().is_empty() {
            Reason::Silent
        } else {
            Reason::HelloTimeout
        }));
    };
    let begins = begins?;
    socket.rewind(hello.bytes());
    Ok((socket, begins))
}

/// Reads what there is; `None` at the end. No buffer is held while waiting.
fn poll_more(
    socket: &mut Socket,
    hello: &mut Hello,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Seen>>> {
    let mut space = [MaybeUninit::uninit(); READ_AT_ONCE];
    let mut read = ReadBuf::uninit(&mut space);
    ready!(Pin::new(socket).poll_read(cx, &mut read))?;
    let read = read.filled();
    Poll::Ready(Ok((!read.is_empty()).then(|| hello.read(read))))
}
