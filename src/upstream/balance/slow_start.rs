//! Slow start: a backend that comes back is given its share bit by bit.
//!
//! Caches are cold and pools are empty after a restart. From the moment of its return the share
//! of a backend grows from [`FLOOR`] to all of it, in a straight line: a choice that falls on it
//! stands with that chance, and else goes on to the next backend. The same holds for each
//! algorithm; only where requests are bound to a backend by a key it is the key that decides, so
//! that a key does not go to and fro.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::clock;

/// The share of its share that a backend begins with.
pub const FLOOR: f64 = 0.05;

/// What a backend gets of its share, `since` after it came back; both in milliseconds of
/// [`clock`], and never 0 but for a backend that has always been there.
pub fn share(lasts: Duration, since: u64, now: u64) -> f64 {
    if since == 0 {
        return 1.0;
    }
    let passed = now.saturating_sub(since) as f64 / (lasts.as_secs_f64() * 1_000.0).max(1.0);
    (FLOOR + (1.0 - FLOOR) * passed).min(1.0)
}

/// When a backend came back.
#[derive(Debug, Default)]
pub struct Comeback {
    /// Milliseconds of [`clock`]; 0 if it has always been there.
    since: AtomicU64,
    /// It is away, and its next good check is its return.
    is_away: AtomicBool,
}

impl Comeback {
    /// It is out of service, or was not known before.
    pub fn leave(&self) {
        self.is_away.store(true, Relaxed);
    }

    /// It may be back; it is if it was away.
    pub fn arrive(&self, now: Instant) {
        if self.is_away.load(Relaxed) && self.is_away.swap(false, Relaxed) {
            self.begin(now);
        }
    }

    /// It is back.
    pub fn begin(&self, now: Instant) {
        self.since.store(clock::millis(now), Relaxed);
    }

    /// What it gets of its share now.
    pub fn share(&self, lasts: Duration, now: Instant) -> f64 {
        match self.since.load(Relaxed) {
            0 => 1.0,
            since => share(lasts, since, clock::millis(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backend_that_was_never_away_has_all_of_its_share() {
        let (comeback, now, lasts) = (Comeback::default(), Instant::now(), Duration::from_secs(30));
        comeback.arrive(now);
        assert!((comeback.share(lasts, now) - 1.0).abs() < f64::EPSILON);
        comeback.leave();
        comeback.arrive(now);
        assert!((comeback.share(lasts, now) - FLOOR).abs() < 1e-9);
        comeback.arrive(now + lasts);
        assert!((comeback.share(lasts, now + lasts) - 1.0).abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn the_share_grows_from_the_floor_to_all(
            lasts in 1u64..1_000_000, since in 1u64..1_000_000, early in 0u64..2_000_000, later in 0u64..1_000_000,
        ) {
            let at = |now| share(Duration::from_millis(lasts), since, now);
            prop_assert!(at(early) <= at(early + later));
            prop_assert!((at(since) - FLOOR).abs() < 1e-9);
            prop_assert!((at(since + lasts) - 1.0).abs() < 1e-9);
            prop_assert!(FLOOR <= at(early) && at(early) <= 1.0);
        }
    }
}
