//! Both directions of a relay, until the end.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    clock::Alarm,
    drain::Tunnel,
    reason::Reason,
    stream::flow::{Broken, Flow},
};

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides closed it.
    Closed,
    /// The client's side broke.
    ClientReset,
    /// The origin's side broke.
    OriginReset,
    /// Nothing passed for as long as the upstream allows.
    Idle,
    /// The process ends.
    Leaving,
}

impl End {
    /// The reason for the log.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Closed => Reason::Closed,
            Self::ClientReset => Reason::ClientReset,
            Self::OriginReset => Reason::OriginReset,
            Self::Idle => Reason::IdleTimeout,
            Self::Leaving => Reason::Leaving,
        }
    }
}

/// What passed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// Bytes from the client.
    pub(super) received: u64,
    /// Bytes from the origin.
    pub(super) sent: u64,
    /// When the first of them came.
    pub(super) first_byte: Option<Instant>,
}

/// Passes bytes both ways. When one side ends, the other is told, and may go on.
pub(super) async fn both_ways(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    origin: &mut (impl AsyncRead + AsyncWrite + Unpin),
    idle: Duration,
    tunnel: &Tunnel,
) -> (End, Passed) {
    let (mut up, mut down) = (Flow::default(), Flow::default());
    let (mut alarm, mut broken, mut first_byte) = (Alarm::after(idle), None, None);
    let end = poll_fn(|cx| {
        let mut has_moved = false;
        let polled = up.poll(client, origin, &mut has_moved, cx);
        if let Poll::Ready(Err(why)) = polled
            && let Some(end) = judge(why, [End::ClientReset, End::OriginReset], &mut broken)
        {
            return Poll::Ready(end);
        }
        let polled = down.poll(origin, client, &mut has_moved, cx);
        if let Poll::Ready(Err(why)) = polled
            && let Some(end) = judge(why, [End::OriginReset, End::ClientReset], &mut broken)
        {
            return Poll::Ready(end);
        }
        if first_byte.is_none() && 0 < down.bytes {
            first_byte = Some(Instant::now());
        }
        if up.is_over() && down.is_over() {
            return Poll::Ready(broken.unwrap_or(End::Closed));
        }
        if has_moved {
            alarm.set(idle);
        }
        poll_end(tunnel, &mut alarm, cx)
    });
    let end = end.await;
    (end, Passed { received: up.bytes, sent: down.bytes, first_byte })
}

/// What broke: at once the end if a side that sends did. One that only takes nothing more may
/// have said something before, which is passed on to its own end.
fn judge(why: Broken, [sender, receiver]: [End; 2], broken: &mut Option<End>) -> Option<End> {
    match why {
        Broken::Reading => Some(broken.unwrap_or(sender)),
        Broken::Writing => {
            broken.get_or_insert(receiver);
            None
        }
    }
}

fn poll_end(tunnel: &Tunnel, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<End> {
    if tunnel.poll_told(cx) {
        return Poll::Ready(End::Leaving);
    }
    alarm.poll_ring(cx).map(|()| End::Idle)
}
