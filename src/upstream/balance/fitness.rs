//! How much of a pool is fit to serve, looked at now and then rather than for each request.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    clock,
    upstream::{
        backend::{Availability, Member},
        balance::pool::Pool,
    },
};

/// For so long what was seen holds.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The sum of the weights of those that are fit.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    looked: AtomicU64,
    weight: AtomicU64,
}

impl Fitness {
    /// The sum, at most [`LOOK_EVERY`] old. One thread looks; others go by what was seen before.
    pub(super) fn weight(&self, pool: &Pool, now: Instant) -> u64 {
        let (looked, now_millis) = (self.looked.load(Relaxed), clock::millis(now));
        let is_due =
            looked == 0 || u128::from(now_millis.saturating_sub(looked)) >= LOOK_EVERY.as_millis();
        if is_due && self.looked.compare_exchange(looked, now_millis, Relaxed, Relaxed).is_ok() {
            let weight = pool.iter().filter(|member| is_fit(member, now));
            let weight = weight.map(|member| u64::from(member.weight)).sum();
            self.weight.store(weight, Relaxed);
            return weight;
        }
        self.weight.load(Relaxed)
    }
}

fn is_fit(member: &Member, now: Instant) -> bool {
    matches!(member.availability(now), Availability::Ready | Availability::Trial)
}
