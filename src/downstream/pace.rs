//! How fast a request's body comes: a byte now and then would keep a connection, and the origin
//! behind it, for ever.
//!
//! Only the time counts in which the client was waited for: what an origin does not read is not
//! the client's fault. No clock is asked while bytes are there.

use std::time::Duration;

use tokio::time::Instant;

use crate::downstream::{config::Bounds, error::BodyTooSlow};

/// What has come of the current body, and how long it was waited for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    since: Option<Instant>,
    received: u64,
}

impl Pace {
    /// Nothing has come, and the client is waited for.
    pub(super) fn waits(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// The client is not waited for any more.
    pub(super) fn rests(&mut self) {
        self.since = None;
    }

    /// So many bytes have come.
    pub(super) fn advance(&mut self, bytes: usize, bounds: &Bounds) -> Result<(), BodyTooSlow> {
        self.received += bytes as u64;
        let Some(since) = self.since.take() else { return Ok(()) };
        self.waited += since.elapsed();
        let wanted = u128::from(bounds.body_rate) * self.waited.as_millis() / 1_000;
        let is_slow = bounds.body_timeout < self.waited && u128::from(self.received) < wanted;
        if is_slow { Err(BodyTooSlow) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many pieces of this size, each after such a wait, a body is accepted; 1,000 at most.
    async fn pieces(size: usize, wait: Duration) -> usize {
        let (bounds, mut pace) = (Bounds::default(), Pace::default());
        let mut pieces = 0;
        while pieces < 1_000 {
            pace.waits();
            tokio::time::advance(wait).await;
            pace.waits();
            if pace.advance(size, &bounds).is_err() {
                break;
            }
            pieces += 1;
        }
        pieces
    }

    #[tokio::test(start_paused = true)]
    async fn a_drip_is_given_up_when_its_patience_is_over() {
        assert_eq!(pieces(1, Duration::from_millis(500)).await, 60, "30 s of half a second");
        assert_eq!(pieces(119, Duration::from_millis(500)).await, 60);
        assert_eq!(pieces(120, Duration::from_millis(500)).await, 1_000, "240 bytes a second");
        assert_eq!(pieces(1, Duration::from_millis(1)).await, 1_000, "a second is no time");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waited_for_the_client_does_not_count() {
        let (bounds, mut pace) = (Bounds::default(), Pace::default());
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(60)).await;
            assert!(pace.advance(1, &bounds).is_ok());
        }
    }
}
