//! What an upstream makes of how attempts end: the one place that ejects.
//!
//! A failed attempt may eject at once, by failures in a row; the window of a backend is judged in
//! the background, beside those of the others.
//!
//! INVARIANT: who ejects holds [`Account::ejecting`](super::Account) from the counting of the
//! ejected to the end, so that no two who eject at a time are more than may be.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use log::{info, warn};
use tokio::time::{self, Instant};

use crate::upstream::{
    Upstream,
    backend::Member,
    ejection::{
        Rules,
        observed::{SLICES, Shown},
        outliers::Outliers,
    },
    outcome::Outcome,
    set::Set,
};

impl Upstream {
    /// Learns how an attempt ended: ejection counts, and a suspicious end is checked at once.
    /// Answers whether the backend was ejected for it.
    pub fn report(&self, member: &Member, outcome: Outcome, now: Instant) -> bool {
        let state = &member.state;
        if outcome.is_suspicious() {
            state.suspicion.notify_one();
        }
        if outcome.is_failure() {
            state.count_failure();
            state.troubles.attempt_failed(outcome);
        }
        let Some(rules) = &self.parts.ejection else { return false };
        let (is_failure, is_success) = (outcome.is_failure(), outcome.is_success());
        if (is_failure || is_success)
            && self.parts.outliers.is_some()
            && let Some(observed) = state.observed()
        {
            observed.count(is_failure);
        }
        if is_success && state.gate.succeeded(now) {
            state.comeback.begin(now);
            info!("ejection: {} {} returned", self.name(), state.name());
        }
        if is_failure {
            let set = self.set.load();
            let (mut held, mut room) = (None, Room { upstream: self, set: &set, rules });
            let ejected = state.gate.failed(now, rules, || room.take(&mut held));
            if let Some((penalty, failures)) = ejected {
                state.count_ejection();
                let (upstream, backend) = (self.name(), state.name());
                warn!(
                    "ejection: {upstream} {backend} ejected for {penalty:?} \
                     ({failures} failures in a row, the last: {outcome})"
                );
                return true;
            }
        }
        false
    }

    /// Learns how long an attempt took to its answer, or to its failure.
    pub fn report_latency(&self, member: &Member, outcome: Outcome, took: Duration, now: Instant) {
        if self.parts.plan.balance.is_by_latency() {
            if outcome.is_failure() {
                member.state.latency.fail(took, now);
            } else if outcome.is_success() {
                member.state.latency.observe(took, now);
            } else if outcome == Outcome::Outrun {
                member.state.latency.exceed(took, now);
            }
        }
        let compares = self.parts.outliers.is_some_and(|rules| rules.latency_factor.is_some());
        let is_answer = matches!(outcome, Outcome::Status(_));
        if compares
            && is_answer
            && let Some(observed) = member.state.observed()
        {
            observed.time(took);
        }
    }

    /// Judges the windows of its backends, slice by slice; returns at once if it has no such rule.
    ///
    /// Cancel-safe. One at a time may run for the same backends.
    pub async fn judge_outliers(&self) {
        let (Some(rules), Some(outliers)) = (&self.parts.ejection, &self.parts.outliers) else {
            return;
        };
        let mut slices = time::interval(outliers.window.div_f64(SLICES as f64));
        slices.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            slices.tick().await;
            self.end_slice(Instant::now(), rules, outliers);
        }
    }

    pub(super) fn end_slice(&self, now: Instant, rules: &Rules, outliers: &Outliers) {
        let set = self.set.load();
        let members = set.members();
        let shown: Vec<Shown> = members.iter().map(|member| shown(member)).collect();
        for (member, reason) in members.iter().zip(outliers.judge(&shown)) {
            let Some(reason) = reason else { continue };
            let (mut held, mut room) = (None, Room { upstream: self, set: &set, rules });
            let state = &member.state;
            if let Some(penalty) = state.gate.eject(now, rules, || room.take(&mut held)) {
                state.count_ejection();
                let (upstream, backend) = (self.name(), state.name());
                warn!("ejection: {upstream} {backend} ejected for {penalty:?} ({reason})");
            }
        }
    }
}

/// What the window of a backend shows; of one that is ejected, nothing.
fn shown(member: &Member) -> Shown {
    let Some(observed) = member.state.observed() else { return Shown::default() };
    if member.state.gate.is_ejected() {
        observed.forget();
        return Shown::default();
    }
    observed.end_slice()
}

/// Room for one more that is ejected.
struct Room<'a> {
    upstream: &'a Upstream,
    set: &'a Set,
    rules: &'a Rules,
}

impl<'a> Room<'a> {
    /// Whether there is room; nobody else takes it while the guard is held.
    fn take(&mut self, held: &mut Option<MutexGuard<'a, ()>>) -> bool {
        let ejecting = &self.upstream.account.ejecting;
        *held = Some(ejecting.lock().unwrap_or_else(PoisonError::into_inner));
        self.set.ejected() < self.rules.ejected_max(self.set.members().len())
    }
}
