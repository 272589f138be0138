//! The retry budget: retries help one request and, in a storm, kill everything.
//!
//! An upstream may spend a share of its requests on retries, and a few a second always.
//! The path counts requests on its own sharded counter; only a retry takes the lock around this.

use std::time::Duration;

use tokio::time::Instant;

/// The time over which requests and retries are weighed against each other, and for which the
/// floor may be saved up.
pub const WINDOW: Duration = Duration::from_secs(10);

/// How much retries may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Of the requests, 0 to 1.
    pub share: f64,
    /// Allowed beside the share.
    pub per_second: f64,
}

impl Share {
    /// The floor of a whole window; at least one, or it would never be granted.
    fn floor_max(&self) -> f64 {
        (self.per_second * WINDOW.as_secs_f64()).max(1.0)
    }
}

/// The account of one upstream.
#[derive(Debug)]
pub struct RetryBudget {
    window_start: Instant,
    requests_at_start: u64,
    requests_before: u64,
    retries: u64,
    retries_before: u64,
    /// Spent of the floor, and not regained yet.
    overdraft: f64,
    overdraft_at: Instant,
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
            overdraft: 0.0,
            overdraft_at: now,
        }
    }

    /// Spends one retry, or refuses it. `requests` is the count since the upstream began.
    pub fn withdraw(&mut self, now: Instant, requests: u64, share: &Share) -> bool {
        self.roll(now, requests, share);
        let recent = requests.saturating_sub(self.requests_at_start) + self.requests_before;
        let retries = self.retries + self.retries_before + 1;
        if retries as f64 <= recent as f64 * share.share {
            self.retries += 1;
            return true;
        }
        if self.overdraft + 1.0 <= share.floor_max() {
            self.overdraft += 1.0;
            return true;
        }
        false
    }

    fn roll(&mut self, now: Instant, requests: u64, share: &Share) {
        let elapsed = now.saturating_duration_since(self.overdraft_at).as_secs_f64();
        self.overdraft = (self.overdraft - elapsed * share.per_second).max(0.0);
        self.overdraft_at = now;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARE: Share = Share { share: 0.2, per_second: 10.0 };

    #[test]
    fn a_quiet_upstream_may_retry_ten_times_a_second() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        assert!((0..100).all(|_| budget.withdraw(now, 0, &SHARE)), "ten seconds' worth at once");
        assert!(!budget.withdraw(now, 0, &SHARE));
        assert!((0..10).all(|_| budget.withdraw(now + Duration::from_secs(1), 0, &SHARE)));
        assert!(!budget.withdraw(now + Duration::from_secs(1), 0, &SHARE));
    }

    #[test]
    fn a_busy_upstream_may_retry_a_fifth() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let granted = (0..9_999).filter(|_| budget.withdraw(now, 10_000, &SHARE)).count();
        assert_eq!(granted, 2_000 + 100);
    }

    #[test]
    fn without_a_share_only_the_floor_is_left() {
        let (now, share) = (Instant::now(), Share { share: 0.0, per_second: 1.0 / 60.0 });
        let mut budget = RetryBudget::new(now);
        let granted = (0..1_000).filter(|_| budget.withdraw(now, 10_000, &share)).count();
        assert_eq!(granted, 1);
        assert!(!budget.withdraw(now + Duration::from_secs(59), 20_000, &share));
        assert!(budget.withdraw(now + Duration::from_secs(61), 20_000, &share));
    }

    proptest! {
        /// Whatever the order of events, no window grants more than its share and its floor.
        #[test]
        fn the_budget_is_never_overdrawn(
            steps in prop::collection::vec((0u64..2_000, 0u64..50, 1usize..200), 1..60),
            percent in 0u32..=100,
            per_second in 1u32..50,
        ) {
            let part = f64::from(percent) / 100.0;
            let share = Share { share: part, per_second: f64::from(per_second) };
            let start = Instant::now();
            let (mut now, mut requests, mut granted) = (start, 0, 0);
            let mut budget = RetryBudget::new(start);
            for (millis, more, tries) in steps {
                now += Duration::from_millis(millis);
                requests += more;
                granted += (0..tries).filter(|_| budget.withdraw(now, requests, &share)).count() as u64;
            }
            let seconds = (now - start).as_secs_f64();
            let floor = f64::from(per_second) * (10.0 + seconds);
            // Requests of one window are weighed in it and in the next one.
            prop_assert!(granted as f64 <= floor + 2.0 * requests as f64 * part + 1e-6);
        }
    }
}
