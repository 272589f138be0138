//! The gate before a backend: its penalty as many threads see it.
//!
//! A healthy backend costs a request one atomic load here; the lock is taken only around failures.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    clock,
    upstream::ejection::penalty::{Ejection, Past, Rules},
};

/// What the gate says to a request that would enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Not ejected.
    Open,
    /// The penalty is over; one request at a time may try.
    Trial,
    /// Ejected, or on trial with the one request under way.
    Closed,
}

/// [`Ejection`] as many threads see it.
#[derive(Debug, Default)]
pub struct Gate {
    /// Milliseconds of [`clock`]; 0 while the backend serves.
    until: AtomicU64,
    streak: AtomicU32,
    trial_taken: AtomicBool,
    ejection: Mutex<Ejection>,
}

impl Gate {
    /// May a request enter at `now`?
    pub fn entry(&self, now: Instant) -> Entry {
        match self.until.load(Relaxed) {
            0 => Entry::Open,
            until if clock::millis(now) < until || self.trial_taken.load(Relaxed) => Entry::Closed,
            _ => Entry::Trial,
        }
    }

    /// Takes the one place on trial; false if another request was faster.
    pub fn take_trial(&self) -> bool {
        self.trial_taken.compare_exchange(false, true, Relaxed, Relaxed).is_ok()
    }

    /// Gives the place on trial back.
    pub fn leave_trial(&self) {
        self.trial_taken.store(false, Relaxed);
    }

    /// Whether the backend is ejected or on trial.
    pub fn is_ejected(&self) -> bool {
        self.until.load(Relaxed) != 0
    }

    /// Counts a failure; returns the penalty and the streak if it ejects.
    ///
    /// `room` tells whether another backend may be ejected now; it is asked only if one would be.
    pub fn failed(
        &self,
        now: Instant,
        rules: &Rules,
        room: impl FnOnce() -> bool,
    ) -> Option<(Duration, u32)> {
        let mut ejection = self.lock();
        let penalty = ejection.failed(now, rules, room);
        self.publish(&ejection);
        if penalty.is_some() {
            self.leave_trial(); // a long answer of the last trial may still hold it
        }
        penalty.map(|penalty| (penalty, ejection.streak()))
    }

    /// Ejects, whatever the rule, unless that is done already; returns the penalty.
    pub fn eject(
        &self,
        now: Instant,
        rules: &Rules,
        room: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        let mut ejection = self.lock();
        let penalty = ejection.eject(now, rules, room);
        self.publish(&ejection);
        penalty
    }

    /// Counts a success; returns true if it ends an ejection.
    pub fn succeeded(&self, now: Instant) -> bool {
        if self.streak.load(Relaxed) == 0 && !self.is_ejected() {
            return false;
        }
        let mut ejection = self.lock();
        let returned = ejection.succeeded(now);
        self.publish(&ejection);
        returned
    }

    /// Forgets all failures: the upstream does not eject any longer.
    pub fn forgive(&self) {
        let mut ejection = self.lock();
        *ejection = Ejection::default();
        self.publish(&ejection);
        self.leave_trial();
    }

    /// The end of the penalty, if the backend is ejected or on trial.
    pub fn ejected_until(&self) -> Option<Instant> {
        self.lock().until()
    }

    /// What a successor must know; `None` if there is nothing to tell.
    pub fn past(&self, now: Instant) -> Option<Past> {
        let ejection = self.lock();
        let past = Past::of(&ejection, now);
        (past != Past::default()).then_some(past)
    }

    /// Goes on where a predecessor was.
    pub fn recall(&self, past: &Past, now: Instant) {
        let mut ejection = self.lock();
        *ejection = past.to_ejection(now);
        self.publish(&ejection);
    }

    fn lock(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, ejection: &Ejection) {
        self.streak.store(ejection.streak(), Relaxed);
        self.until.store(ejection.until().map_or(0, clock::millis), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { consecutive_failures: 3, eject_for: Duration::from_secs(10), max_ejected: 0.5 };

    #[test]
    fn one_request_at_a_time_is_on_trial() {
        let (gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.entry(now), Entry::Open);
        let (penalty, streak) =
            (0..3).find_map(|_| gate.failed(now, &RULES, || true)).expect("ejected");
        assert_eq!((penalty, streak), (RULES.eject_for, 3));
        assert_eq!(gate.entry(now), Entry::Closed);
        // The clock of the gate counts whole milliseconds.
        let after = now + penalty + Duration::from_millis(1);
        assert_eq!(gate.entry(after), Entry::Trial);
        assert!(gate.take_trial());
        assert!(!gate.take_trial());
        assert_eq!(gate.entry(after), Entry::Closed);
        gate.leave_trial();
        assert!(gate.succeeded(after));
        assert_eq!(gate.entry(after), Entry::Open);
    }

    #[test]
    fn a_successor_goes_on_where_its_predecessor_was() {
        let (old, now) = (Gate::default(), Instant::now());
        assert_eq!(old.past(now), None, "nothing to tell");
        let (penalty, _) = (0..3).find_map(|_| old.failed(now, &RULES, || true)).expect("ejected");
        let told = serde_json::to_string(&old.past(now + penalty / 4)).unwrap();

        let (new, later) = (Gate::default(), now + penalty * 9);
        new.recall(&serde_json::from_str::<Past>(&told).unwrap(), later);
        assert_eq!(new.ejected_until(), Some(later + penalty * 3 / 4), "the rest of it");
        assert_eq!(new.entry(later), Entry::Closed);
        let trial = later + penalty;
        assert_eq!(new.entry(trial), Entry::Trial);
        assert_eq!(new.failed(trial, &RULES, || true), Some((penalty * 2, 3)), "a relapse");

        let past = old.past(now + penalty).expect("on trial");
        let new = Gate::default();
        new.recall(&past, later);
        assert_eq!(new.entry(later + Duration::from_millis(1)), Entry::Trial);
    }

    #[test]
    fn a_long_answer_of_one_trial_does_not_keep_the_next_one_away() {
        let (gate, now) = (Gate::default(), Instant::now());
        let (penalty, _) = (0..3).find_map(|_| gate.failed(now, &RULES, || true)).expect("ejected");
        let after = now + penalty + Duration::from_millis(1);
        assert!(gate.take_trial(), "a stream that goes on for hours");
        assert!(gate.succeeded(after));

        let (penalty, _) = (0..3).find_map(|_| gate.failed(after, &RULES, || true)).expect("again");
        assert_eq!(gate.entry(after + penalty + Duration::from_millis(1)), Entry::Trial);
    }
}
