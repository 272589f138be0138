//! How long an origin may be silent, kept by the stream that Pingora polls while it waits.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::{
    clock::Alarm,
    downstream::{connection::Connection, error::OriginSilent},
};

/// The two times that an origin has.
#[derive(Default)]
pub(super) struct Silence {
    patience: Option<Alarm>,
    limit: Option<Alarm>,
}

impl Silence {
    /// Is ready when the origin has said nothing since the wait began.
    pub(super) fn poll_patience(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<OriginSilent> {
        let Some(patience) = connection.patience() else { return Poll::Pending };
        let begins = connection.wait_begins();
        match &mut self.patience {
            None => self.patience = Some(Alarm::after(patience)),
            Some(alarm) if begins => alarm.set(patience),
            Some(_) => {}
        }
        if let Some(alarm) = &mut self.patience {
            ready!(alarm.poll_ring(cx));
        }
        connection.await_origin(None);
        Poll::Ready(OriginSilent)
    }

    /// Is ready when the head of an answer should be here.
    pub(super) fn poll_limit(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<OriginSilent> {
        let Some(left) = connection.limit() else { return Poll::Pending };
        if left != Duration::ZERO {
            let alarm = match &mut self.limit {
                Some(alarm) => {
                    alarm.set(left);
                    alarm
                }
                none => none.insert(Alarm::after(left)),
            };
            ready!(alarm.poll_ring(cx));
        }
        connection.set_limit(None);
        Poll::Ready(OriginSilent)
    }
}
