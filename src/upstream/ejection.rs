//! Ejection: a backend that fails real requests is left alone for a while.
//!
//! [`Ejection`] is the state machine, pure: state, event and time in, state out.
//! [`Gate`] stands before it on the request path: a healthy backend costs one atomic load there,
//! and the lock is taken only around failures.
//!
//! INVARIANT: ejection knows nothing of probes and drains; `backend.rs` derives one answer from all three.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock;

/// The longest penalty, however often a backend relapses.
pub const EJECT_FOR_MAX: Duration = Duration::from_secs(300);

/// When a backend is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// So many failures in a row eject.
    pub consecutive_failures: u32,
    /// The first penalty; each relapse doubles it, up to [`EJECT_FOR_MAX`].
    pub eject_for: Duration,
    /// The share of an upstream's backends that may be ejected at a time, 0 to 1.
    pub max_ejected: f64,
}

impl Rules {
    /// How many of `members` backends may be ejected at a time.
    pub fn ejected_max(&self, members: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count is between 0 and the count"
        )]
        let max = (members as f64 * self.max_ejected).floor() as usize;
        max.min(members)
    }
}

/// The history of one backend as far as ejection cares.
#[derive(Debug, Default)]
pub struct Ejection {
    streak: u32,
    relapses: u32,
    until: Option<Instant>,
    forgiven_at: Option<Instant>,
}

impl Ejection {
    /// Counts a failure; returns the penalty if it ejects.
    ///
    /// `room` tells whether another backend of the upstream may be ejected now.
    pub fn failed(&mut self, now: Instant, rules: &Rules, room: bool) -> Option<Duration> {
        match self.until {
            Some(until) if now < until => return None, // a straggler from before
            Some(_) => {}                              // the trial failed
            None => {
                self.streak = self.streak.saturating_add(1);
                if self.streak < rules.consecutive_failures || !room {
                    return None;
                }
                if self.forgiven_at.is_none_or(|at| at <= now) {
                    self.relapses = 0;
                }
            }
        }
        let penalty = rules.eject_for.saturating_mul(1 << self.relapses.min(16)).min(EJECT_FOR_MAX);
        self.relapses = self.relapses.saturating_add(1);
        self.until = Some(now + penalty);
        Some(penalty)
    }

    /// Counts a success; returns true if it ends an ejection.
    pub fn succeeded(&mut self, now: Instant) -> bool {
        self.streak = 0;
        match self.until {
            Some(until) if until <= now => {
                self.until = None;
                self.forgiven_at = Some(now + EJECT_FOR_MAX);
                true
            }
            _ => false,
        }
    }

    /// Failures since the last success.
    pub fn streak(&self) -> u32 {
        self.streak
    }

    /// The end of the penalty, if the backend is ejected or on trial.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// An [`Ejection`] as a successor is told of it: its clock is another one, so times are told as
/// how long they are away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    streak: u32,
    relapses: u32,
    /// The rest of the penalty; nothing is left of it on trial.
    ejected_for_ms: Option<u64>,
    /// When relapses will be forgotten, after an ejection that has ended.
    forgiven_in_ms: Option<u64>,
}

impl Past {
    fn of(ejection: &Ejection, now: Instant) -> Self {
        let rest = |at: Instant| {
            let rest = at.saturating_duration_since(now).as_millis();
            u64::try_from(rest).unwrap_or(u64::MAX)
        };
        Self {
            streak: ejection.streak,
            relapses: ejection.relapses,
            ejected_for_ms: ejection.until.map(rest),
            forgiven_in_ms: ejection.forgiven_at.map(rest),
        }
    }

    /// What was told is bounded as if it had been observed here.
    fn to_ejection(&self, now: Instant) -> Ejection {
        let at = |rest: u64| now + Duration::from_millis(rest).min(EJECT_FOR_MAX);
        Ejection {
            streak: self.streak,
            relapses: self.relapses,
            until: self.ejected_for_ms.map(at),
            forgiven_at: self.forgiven_in_ms.map(at),
        }
    }
}

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
    pub fn failed(&self, now: Instant, rules: &Rules, room: bool) -> Option<(Duration, u32)> {
        let mut ejection = self.ejection.lock().unwrap_or_else(PoisonError::into_inner);
        let penalty = ejection.failed(now, rules, room);
        self.publish(&ejection);
        if penalty.is_some() {
            self.leave_trial(); // a long answer of the last trial may still hold it
        }
        penalty.map(|penalty| (penalty, ejection.streak()))
    }

    /// Counts a success; returns true if it ends an ejection.
    pub fn succeeded(&self, now: Instant) -> bool {
        if self.streak.load(Relaxed) == 0 && !self.is_ejected() {
            return false;
        }
        let mut ejection = self.ejection.lock().unwrap_or_else(PoisonError::into_inner);
        let returned = ejection.succeeded(now);
        self.publish(&ejection);
        returned
    }

    /// Forgets all failures: the upstream does not eject any longer.
    pub fn forgive(&self) {
        let mut ejection = self.ejection.lock().unwrap_or_else(PoisonError::into_inner);
        *ejection = Ejection::default();
        self.publish(&ejection);
        self.leave_trial();
    }

    /// The end of the penalty, if the backend is ejected or on trial.
    pub fn ejected_until(&self) -> Option<Instant> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner).until()
    }

    /// What a successor must know; `None` if there is nothing to tell.
    pub fn past(&self, now: Instant) -> Option<Past> {
        let ejection = self.ejection.lock().unwrap_or_else(PoisonError::into_inner);
        let past = Past::of(&ejection, now);
        (past != Past::default()).then_some(past)
    }

    /// Goes on where a predecessor was.
    pub fn recall(&self, past: &Past, now: Instant) {
        let mut ejection = self.ejection.lock().unwrap_or_else(PoisonError::into_inner);
        *ejection = past.to_ejection(now);
        self.publish(&ejection);
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

    fn eject(ejection: &mut Ejection, now: Instant) -> Duration {
        (0..3).find_map(|_| ejection.failed(now, &RULES, true)).expect("three failures eject")
    }

    #[test]
    fn three_failures_in_a_row_eject_and_a_success_between_forgives() {
        let (mut ejection, now) = (Ejection::default(), Instant::now());
        assert_eq!(ejection.failed(now, &RULES, true), None);
        assert_eq!(ejection.failed(now, &RULES, true), None);
        assert!(!ejection.succeeded(now));
        assert_eq!(ejection.failed(now, &RULES, true), None);
        assert_eq!(ejection.failed(now, &RULES, true), None);
        assert_eq!(ejection.failed(now, &RULES, true), Some(RULES.eject_for));
    }

    #[test]
    fn a_relapse_doubles_the_penalty_up_to_five_minutes() {
        let (mut ejection, mut now) = (Ejection::default(), Instant::now());
        let mut penalty = eject(&mut ejection, now);
        for _ in 0..8 {
            now += penalty;
            let next = ejection.failed(now, &RULES, true).expect("the trial failed");
            assert_eq!(next, (penalty * 2).min(EJECT_FOR_MAX));
            penalty = next;
        }
        assert_eq!(penalty, EJECT_FOR_MAX);
    }

    #[test]
    fn a_passed_trial_returns_the_backend_and_time_forgives_the_past() {
        let (mut ejection, mut now) = (Ejection::default(), Instant::now());
        now += eject(&mut ejection, now);
        assert!(ejection.succeeded(now));
        assert_eq!(ejection.until(), None);
        assert_eq!(eject(&mut ejection, now), RULES.eject_for * 2, "a relapse soon after");
        now += RULES.eject_for * 2;
        assert!(ejection.succeeded(now));
        now += EJECT_FOR_MAX;
        assert_eq!(eject(&mut ejection, now), RULES.eject_for, "long after");
    }

    #[test]
    fn stragglers_do_not_lengthen_a_penalty() {
        let (mut ejection, now) = (Ejection::default(), Instant::now());
        let penalty = eject(&mut ejection, now);
        assert_eq!(ejection.failed(now + penalty / 2, &RULES, true), None);
        assert_eq!(ejection.until(), Some(now + penalty));
        assert!(!ejection.succeeded(now + penalty / 2), "nor shorten it");
    }

    #[test]
    fn without_room_nothing_is_ejected() {
        let (mut ejection, now) = (Ejection::default(), Instant::now());
        assert!((0..9).all(|_| ejection.failed(now, &RULES, false).is_none()));
        assert_eq!((RULES.ejected_max(1), RULES.ejected_max(2), RULES.ejected_max(3)), (0, 1, 1));
    }

    #[test]
    fn one_request_at_a_time_is_on_trial() {
        let (gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.entry(now), Entry::Open);
        let (penalty, streak) =
            (0..3).find_map(|_| gate.failed(now, &RULES, true)).expect("ejected");
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
        let (penalty, _) = (0..3).find_map(|_| old.failed(now, &RULES, true)).expect("ejected");
        let told = serde_json::to_string(&old.past(now + penalty / 4)).unwrap();

        let (new, later) = (Gate::default(), now + penalty * 9);
        new.recall(&serde_json::from_str::<Past>(&told).unwrap(), later);
        assert_eq!(new.ejected_until(), Some(later + penalty * 3 / 4), "the rest of it");
        assert_eq!(new.entry(later), Entry::Closed);
        let trial = later + penalty;
        assert_eq!(new.entry(trial), Entry::Trial);
        assert_eq!(new.failed(trial, &RULES, true), Some((penalty * 2, 3)), "a relapse");

        let past = old.past(now + penalty).expect("on trial");
        let new = Gate::default();
        new.recall(&past, later);
        assert_eq!(new.entry(later + Duration::from_millis(1)), Entry::Trial);
    }

    #[test]
    fn a_long_answer_of_one_trial_does_not_keep_the_next_one_away() {
        let (gate, now) = (Gate::default(), Instant::now());
        let (penalty, _) = (0..3).find_map(|_| gate.failed(now, &RULES, true)).expect("ejected");
        let after = now + penalty + Duration::from_millis(1);
        assert!(gate.take_trial(), "a stream that goes on for hours");
        assert!(gate.succeeded(after));

        let (penalty, _) = (0..3).find_map(|_| gate.failed(after, &RULES, true)).expect("again");
        assert_eq!(gate.entry(after + penalty + Duration::from_millis(1)), Entry::Trial);
    }
}
