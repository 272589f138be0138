//! HTTP/2 on a downstream connection: bytes pass as they come, while a guard looks on.
//!
//! A client that goes too far is told so (`GOAWAY`, `ENHANCE_YOUR_CALM`), and is not listened to
//! any more. Answers that are on their way still reach it for a moment; then the connection ends.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use log::debug;
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    clock::Alarm,
    downstream::{
        refused,
        stream::{LINGER, LINGER_BYTES},
    },
    http2::{
        PREFACE,
        guard::{Abuse, Guard},
    },
};

/// What is thrown away is read in pieces of this size.
const PIECE: usize = 4 * 1024;

/// What is kept of a connection that speaks HTTP/2.
pub(super) struct Http2 {
    guard: Guard,
    /// How long the fields of a request may take.
    header_timeout: Duration,
    /// Rings when fields that began have not ended; set only while they have not.
    fields: Option<Alarm>,
    leaving: Option<Leaving>,
}

/// A client that is not listened to any more.
struct Leaving {
    why: Abuse,
    until: Alarm,
    bytes_left: u64,
}

impl Http2 {
    /// Begins to look on; nothing was read yet.
    pub(super) fn new(header_timeout: Duration) -> Self {
        Self { guard: Guard::new(PREFACE.len()), header_timeout, fields: None, leaving: None }
    }

    /// Whether the client is not listened to any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Looks at what a read came to. If that is too much, none of it is passed on.
    pub(super) fn look(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        read: Poll<io::Result<()>>,
        fresh: &[u8],
    ) -> Poll<io::Result<()>> {
        let judged = match &read {
            Poll::Ready(Ok(())) => {
                self.fields = self.fields.take().filter(|_| self.guard.is_in_fields());
                self.guard.receive(fresh)
            }
            Poll::Pending if self.guard.is_in_fields() => {
                let patience = self.header_timeout;
                let alarm = self.fields.get_or_insert_with(|| Alarm::after(patience));
                match alarm.poll_ring(cx) {
                    Poll::Ready(()) => Err(Abuse::Fields),
                    Poll::Pending => Ok(()),
                }
            }
            _ => Ok(()),
        };
        match judged {
            Ok(()) => read,
            Err(why) => self.leave(inner, cx, why),
        }
    }

    /// Looks at what was written.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        self.guard.send(bytes);
    }

    /// Says the last word, and begins to wait for the end.
    fn leave(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        why: Abuse,
    ) -> Poll<io::Result<()>> {
        debug!("http2: a connection ends: {why}");
        refused::count(why.reason());
        let (until, bytes_left) = (Alarm::after(LINGER), LINGER_BYTES);
        self.leaving = Some(Leaving { why, until, bytes_left });
        if let Some(goaway) = self.guard.goaway() {
            match Pin::new(&mut *inner).poll_write(cx, &goaway)? {
                Poll::Ready(written) if written == goaway.len() => {}
                // Part of a frame must not be followed by another.
                _ => return Poll::Ready(Err(io::Error::other(why))),
            }
            let _ = Pin::new(&mut *inner).poll_flush(cx)?;
        }
        self.poll_end(inner, cx)
    }

    /// Throws away what the client sends until it leaves, or its time is over. What was not read
    /// would make the kernel reset the connection, and the last word would be lost.
    pub(super) fn poll_end(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(Leaving { why, until, bytes_left }) = &mut self.leaving else {
            return Poll::Pending;
        };
        let mut space = [0; PIECE];
        loop {
            let mut piece = ReadBuf::new(&mut space);
            match Pin::new(&mut *inner).poll_read(cx, &mut piece)? {
                Poll::Ready(()) if piece.filled().is_empty() => break,
                Poll::Ready(()) => {
                    *bytes_left = bytes_left.saturating_sub(piece.filled().len() as u64);
                    if *bytes_left == 0 {
                        break;
                    }
                }
                Poll::Pending => {
                    ready!(until.poll_ring(cx));
                    break;
                }
            }
        }
        Poll::Ready(Err(io::Error::other(*why)))
    }
}
