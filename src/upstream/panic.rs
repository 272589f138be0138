//! When no backend is fit: `on_no_healthy: any` tries those whose checks fail.
//!
//! A check may be wrong about all backends at once; then a request that is tried has a chance,
//! and one that is refused has none.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use log::{info, warn};
use tokio::time::Instant;

use crate::upstream::{
    Upstream,
    backend::{Availability, InFlight, Member},
    config::OnNoHealthy,
    set::Set,
};

impl Upstream {
    /// Takes any backend that is not draining, if this upstream does so and nobody is fit: a
    /// request that failed at all who are is not sent to others.
    pub(super) fn any_in_panic(
        &self,
        set: &Set,
        now: Instant,
        wanted: impl Fn(&Member) -> bool,
    ) -> Option<InFlight> {
        if self.parts.on_no_healthy == OnNoHealthy::Fail || has_fit(set, now) {
            return None;
        }
        let taken = set.any(&wanted, |member| match member.availability(now) {
            Availability::Draining => None,
            _ => InFlight::take(member, Availability::Unhealthy),
        })?;
        if !self.panics.swap(true, Relaxed) {
            warn!("health: no backend of {} is fit: all are tried", self.name());
        }
        Some(taken)
    }

    /// Notes that a fit backend was found.
    pub(super) fn calm_down(&self, set: &Set, now: Instant) {
        if self.panics.load(Relaxed) && has_fit(set, now) && self.panics.swap(false, Relaxed) {
            info!("health: a backend of {} is fit again", self.name());
        }
    }
}

fn has_fit(set: &Set, now: Instant) -> bool {
    let is_fit = |member: &Arc<Member>| {
        let availability = member.availability(now);
        matches!(availability, Availability::Ready | Availability::Trial | Availability::Full)
    };
    set.members().iter().any(is_fit)
}
