//! One direction of a relay: bytes are read when there are some, and written at once.
//!
//! INVARIANT: nothing is held but what the other side did not take, never more than [`CHUNK`]
//! bytes, and nothing while there is nothing to pass.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is read at once: the most that a direction ever holds.
pub(super) const CHUNK: usize = 16 * 1024;

/// A direction.
#[derive(Default)]
pub(super) struct Flow {
    /// What was read and not yet written, from `written` on.
    held: Vec<u8>,
    written: usize,
    /// Whether something written may wait in a buffer on its way.
    is_unflushed: bool,
    stage: Stage,
    /// Bytes that were read.
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The sender ended; the receiver is still to be told.
    Ending,
    Over,
}

/// What broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The side that sends.
    Reading,
    /// The side that receives. The other direction may still bring what it said before.
    Writing,
}

impl Flow {
    /// Whether there is nothing more to come.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Passes what there is; is ready when the sender has ended and the receiver was told.
    /// `has_moved` is set if anything was read or written.
    pub(super) fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        has_moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while !self.is_over() {
            while self.written < self.held.len() {
                let written = Pin::new(&mut *to).poll_write(cx, &self.held[self.written..]);
                self.written += ready!(self.took(written))?;
                *has_moved = true;
            }
            self.held.clear();
            self.written = 0;
            if self.stage == Stage::Ending {
                let told = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.stage = Stage::Over;
                // A receiver that is gone already has missed nothing, unless something waits still.
                let is_lost = told.is_err() && self.is_unflushed;
                return Poll::Ready(if is_lost { Err(Broken::Writing) } else { Ok(()) });
            }
            if self.poll_read(from, to, cx)?.is_pending() {
                self.held = Vec::new();
                return self.poll_flush(to, cx);
            }
            *has_moved = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes what came; what is not taken is held.
    fn poll_read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let mut space = [MaybeUninit::uninit(); CHUNK];
        let mut read = ReadBuf::uninit(&mut space);
        if ready!(Pin::new(from).poll_read(cx, &mut read)).is_err() {
            self.stage = Stage::Over;
            return Poll::Ready(Err(Broken::Reading));
        }
        let read = read.filled();
        if read.is_empty() {
            self.stage = Stage::Ending;
            return Poll::Ready(Ok(()));
        }
        self.bytes += read.len() as u64;
        let written = Pin::new(to).poll_write(cx, read);
        let taken = match self.took(written) {
            Poll::Ready(taken) => taken?,
            Poll::Pending => 0,
        };
        self.held.extend_from_slice(&read[taken..]);
        Poll::Ready(Ok(()))
    }

    /// Sends what waits in a buffer on its way.
    fn poll_flush(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        if self.is_unflushed {
            let flushed = ready!(Pin::new(to).poll_flush(cx));
            if flushed.is_err() {
                self.stage = Stage::Over;
                return Poll::Ready(Err(Broken::Writing));
            }
            self.is_unflushed = false;
        }
        Poll::Pending
    }

    /// Notes how a write went.
    fn took(&mut self, written: Poll<io::Result<usize>>) -> Poll<Result<usize, Broken>> {
        written.map(|written| {
            if let Ok(taken @ 1..) = written {
                self.is_unflushed = true;
                return Ok(taken);
            }
            self.stage = Stage::Over;
            Err(Broken::Writing)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_whole_and_the_end_after_them() {
        const ALL: usize = 1_000_000;
        let (mut sender, mut from) = duplex(CHUNK);
        let (mut to, mut receiver) = duplex(1_000);
        let send = async {
            let bytes: Vec<u8> = (0..=250).cycle().take(ALL).collect();
            sender.write_all(&bytes).await.unwrap();
            sender.shutdown().await.unwrap();
        };
        let receive = async {
            let mut bytes = Vec::new();
            receiver.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let mut flow = Flow::default();
        let pass = poll_fn(|cx| {
            let polled = flow.poll(&mut from, &mut to, &mut false, cx);
            assert!(flow.held.len() <= CHUNK);
            polled
        });
        let ((), received, passed) = tokio::join!(send, receive, pass);
        assert_eq!(passed, Ok(()));
        assert_eq!((received.len(), flow.bytes), (ALL, ALL as u64));
        assert!(received.iter().copied().eq((0..=250).cycle().take(ALL)));
        assert!(flow.is_over());
    }

    #[tokio::test]
    async fn nothing_is_held_while_there_is_nothing_to_pass() {
        let (mut sender, mut from) = duplex(CHUNK);
        let (mut to, mut receiver) = duplex(10);
        let mut flow = Flow::default();
        sender.write_all(&[7; 100]).await.unwrap();
        let mut poll = async |flow: &mut Flow| {
            let mut has_moved = false;
            let polled =
                poll_fn(|cx| Poll::Ready(flow.poll(&mut from, &mut to, &mut has_moved, cx)));
            (polled.await.is_pending(), has_moved)
        };
        assert_eq!(poll(&mut flow).await, (true, true));
        assert_eq!(flow.held.len() - flow.written, 90);
        let mut taken = [0; 100];
        for _ in 0..10 {
            receiver.read_exact(&mut taken[..10]).await.unwrap();
            poll(&mut flow).await;
        }
        assert_eq!(flow.held.capacity(), 0);
        assert_eq!(poll(&mut flow).await, (true, false));
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_breaks_it() {
        let (mut sender, mut from) = duplex(100);
        let (mut to, receiver) = duplex(10);
        drop(receiver);
        sender.write_all(b"x").await.unwrap();
        let mut flow = Flow::default();
        let broken = poll_fn(|cx| flow.poll(&mut from, &mut to, &mut false, cx)).await;
        assert_eq!(broken, Err(Broken::Writing));
        assert!(flow.is_over());
    }
}
