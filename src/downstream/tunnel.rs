//! A WebSocket on its way to the client, and how it is left when the process ends.
//!
//! Bytes pass as they come. Only when the grace period is over the origin's frames end at the
//! next border, a close frame (1001, "going away") follows, and the connection closes.
//!
//! INVARIANT: nothing is ever written into the middle of a frame, nor after a close frame.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    clock::Alarm,
    drain,
    http1::websocket::{Borders, GOING_AWAY},
};

/// How long a client may take to answer the close frame and to close its side.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a client still sends meanwhile is thrown away in pieces of this size.
const PIECE: usize = 4 * 1024;

/// A tunnel: what has passed, and how far its end has come.
pub(super) struct Tunnel {
    open: drain::Tunnel,
    borders: Borders,
    stage: Stage,
    patience: Option<Alarm>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// So much of the close frame is written.
    Saying(usize),
    Flushing,
    Closing,
    /// The client is heard out, so that the kernel does not reset what it has yet to read.
    Hearing,
    Over,
}

impl Tunnel {
    pub(super) fn new(open: drain::Tunnel) -> Self {
        Self { open, borders: Borders::default(), stage: Stage::Open, patience: None }
    }

    /// Whether the connection is being closed in order.
    pub(super) fn is_leaving(&self) -> bool {
        self.stage != Stage::Open
    }

    /// Writes what the origin sends; what comes after the end is taken and thrown away.
    pub(super) fn poll_write(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let is_told = self.open.is_told();
        if self.is_leaving() || is_told && self.borders.at_border() {
            if let Poll::Ready(Err(why)) = self.poll_goodbye(inner, cx) {
                return Poll::Ready(Err(why));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        let most = if is_told { self.borders.to_border(bytes) } else { bytes.len() };
        let written = ready!(Pin::new(inner).poll_write(cx, &bytes[..most]))?;
        self.borders.advance(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    /// Is ready when the tunnel was left; the task is woken when that begins.
    pub(super) fn poll_end(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let is_told = self.open.poll_told(cx);
        if self.is_leaving() || is_told && self.borders.at_border() {
            return self.poll_goodbye(inner, cx);
        }
        Poll::Pending
    }

    fn poll_goodbye(&mut self, inner: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let alarm = self.patience.get_or_insert_with(|| Alarm::after(FAREWELL));
        if alarm.poll_ring(cx).is_ready() {
            self.stage = Stage::Over;
        }
        loop {
            self.stage = match self.stage {
                Stage::Open if self.borders.has_closed() => Stage::Flushing,
                Stage::Open => Stage::Saying(0),
                Stage::Saying(sent) if sent == GOING_AWAY.len() => Stage::Flushing,
                Stage::Saying(sent) => {
                    let rest = &GOING_AWAY[sent..];
                    Stage::Saying(sent + ready!(Pin::new(&mut *inner).poll_write(cx, rest))?)
                }
                Stage::Flushing => {
                    ready!(Pin::new(&mut *inner).poll_flush(cx))?;
                    Stage::Closing
                }
                Stage::Closing => {
                    ready!(Pin::new(&mut *inner).poll_shutdown(cx))?;
                    Stage::Hearing
                }
                Stage::Hearing => {
                    let mut space = [0; PIECE];
                    let mut read = ReadBuf::new(&mut space);
                    match ready!(Pin::new(&mut *inner).poll_read(cx, &mut read)) {
                        Ok(()) if !read.filled().is_empty() => Stage::Hearing,
                        _ => Stage::Over,
                    }
                }
                Stage::Over => return Poll::Ready(Ok(())),
            };
        }
    }
}
