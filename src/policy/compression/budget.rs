//! How much of the processors compression may take.
//!
//! What was spent is paid off at the share that is allowed. A small debt lowers the level of what
//! begins, a larger one lets bodies pass as they are.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::units::Percent;

/// The debt from which on the level is the lowest.
const DEBT_LOW: u64 = 100_000_000;
/// The debt from which on nothing is compressed.
const DEBT_MAX: u64 = 500_000_000;

/// What compression may take, and has taken.
#[derive(Debug)]
pub(super) struct Budget {
    /// Thousandths of one processor.
    share: u64,
    /// When all that was spent will be paid off, in nanoseconds.
    paid_at: AtomicU64,
}

/// How much there is for an answer that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    Little,
    None,
}

impl Budget {
    /// A share of all processors together.
    pub(super) fn new(share: Percent) -> Self {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        Self { share: (u64::from(share.get()) * 10 * cores).max(1), paid_at: AtomicU64::new(0) }
    }

    /// What is there at a time.
    pub(super) fn room(&self, now: u64) -> Room {
        match self.paid_at.load(Relaxed).saturating_sub(now) {
            debt if DEBT_MAX <= debt => Room::None,
            debt if DEBT_LOW <= debt => Room::Little,
            _ => Room::Enough,
        }
    }

    /// Counts what was spent.
    pub(super) fn spend(&self, spent: Duration, now: u64) {
        let spent = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        let debt = spent.saturating_mul(1000) / self.share;
        let paid = |paid_at: u64| Some(paid_at.max(now).saturating_add(debt));
        let _ = self.paid_at.fetch_update(Relaxed, Relaxed, paid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_spends_more_than_the_share_has_less_room() {
        let budget = Budget { share: 500, paid_at: AtomicU64::new(0) };
        let mut now = 1_000_000_000;
        assert_eq!(budget.room(now), Room::Enough);
        budget.spend(Duration::from_millis(49), now);
        assert_eq!(budget.room(now), Room::Enough);
        budget.spend(Duration::from_millis(1), now);
        assert_eq!(budget.room(now), Room::Little);
        budget.spend(Duration::from_millis(200), now);
        assert_eq!(budget.room(now), Room::None);
        now += 450_000_000;
        assert_eq!(budget.room(now), Room::Enough, "it was paid off");
        assert!(0 < Budget::new(Percent::new(0)).share);
    }
}
