//! The retry budget: retries help one request and, in a storm, kill everything.
//!
//! An upstream may spend a fifth of its requests on retries, and ten a second always.
//! The path counts requests on its own sharded counter; only a retry takes the lock here.

use std::time::Duration;

use tokio::time::Instant;

/// Retries that requests of the last windows allow: one for each five.
pub const REQUESTS_PER_RETRY: u64 = 5;
/// Retries per second that are always allowed.
pub const RETRIES_PER_SECOND_MIN: u64 = 10;
/// The time over which requests and retries are weighed against each other.
pub const WINDOW: Duration = Duration::from_secs(10);

const FLOOR_MAX: f64 = (RETRIES_PER_SECOND_MIN * WINDOW.as_secs()) as f64;

/// The account of one upstream.
#[derive(Debug)]
pub struct RetryBudget {
    window_start: Instant,
    requests_at_start: u64,
    requests_before: u64,
    retries: u64,
    retries_before: u64,
    floor: f64,
    floor_at: Instant,
}

impl RetryBudget {
    /// Opens an account with its floor full.
    pub fn new(now: Instant) -> Self {
        Self {
            window_start: now,
            requests_at_start: 0,
            requests_before: 0,
            retries: 0,
            retries_before: 0,
            floor: FLOOR_MAX,
            floor_at: now,
        }
    }

    /// Spends one retry, or refuses it. `requests` is the count since the upstream began.
    pub fn withdraw(&mut self, now: Instant, requests: u64) -> bool {
        self.roll(now, requests);
        let recent = requests.saturating_sub(self.requests_at_start) + self.requests_before;
        if (self.retries + self.retries_before) * REQUESTS_PER_RETRY < recent {
            self.retries += 1;
            return true;
        }
        if 1.0 <= self.floor {
            self.floor -= 1.0;
            return true;
        }
        false
    }

    fn roll(&mut self, now: Instant, requests: u64) {
        let elapsed = now.saturating_duration_since(self.floor_at).as_secs_f64();
        self.floor = (self.floor + elapsed * RETRIES_PER_SECOND_MIN as f64).min(FLOOR_MAX);
        self.floor_at = now;

        let windows = now.saturating_duration_since(self.window_start).div_duration_f64(WINDOW);
        if windows < 1.0 {
            return;
        }
        let fresh = windows < 2.0;
        self.requests_before =
            if fresh { requests.saturating_sub(self.requests_at_start) } else { 0 };
        self.retries_before = if fresh { self.retries } else { 0 };
        self.retries = 0;
        self.requests_at_start = requests;
        self.window_start = now;
    }
}

/// The pause before retry number `retry` (from 1): 10 ms that double, half of it by chance, so
/// that the victims of one failure do not come back in step.
pub fn backoff(retry: usize) -> Duration {
    const FIRST: Duration = Duration::from_millis(10);
    let full = FIRST * (1 << (retry.saturating_sub(1)).min(5));
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quiet_upstream_may_retry_ten_times_a_second() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        assert!((0..100).all(|_| budget.withdraw(now, 0)), "ten seconds' worth at once");
        assert!(!budget.withdraw(now, 0));
        assert!((0..10).all(|_| budget.withdraw(now + Duration::from_secs(1), 0)));
        assert!(!budget.withdraw(now + Duration::from_secs(1), 0));
    }

    #[test]
    fn a_busy_upstream_may_retry_a_fifth() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let granted = (0..9_999).filter(|_| budget.withdraw(now, 10_000)).count();
        assert_eq!(granted, 2_000 + 100);
    }

    #[test]
    fn the_pause_doubles_and_is_never_above_its_step() {
        for retry in 1..=5 {
            let step = Duration::from_millis(10 << (retry - 1));
            let pause = backoff(retry);
            assert!(step / 2 <= pause && pause <= step, "{retry}: {pause:?}");
        }
    }

    proptest! {
        /// Whatever the order of events, no window grants more than its fifth and its floor.
        #[test]
        fn the_budget_is_never_overdrawn(
            steps in prop::collection::vec((0u64..2_000, 0u64..50, 1usize..200), 1..60)
        ) {
            let start = Instant::now();
            let (mut now, mut requests, mut granted) = (start, 0, 0);
            let mut budget = RetryBudget::new(start);
            for (millis, more, tries) in steps {
                now += Duration::from_millis(millis);
                requests += more;
                granted += (0..tries).filter(|_| budget.withdraw(now, requests)).count() as u64;
            }
            let seconds = (now - start).as_secs_f64();
            let floor = 100.0 + 10.0 * seconds;
            // Requests of one window are weighed in it and in the next one.
            let share = 2.0 * (requests as f64 / 5.0) + 2.0 + seconds / 10.0;
            prop_assert!(granted as f64 <= floor + share);
        }
    }
}
