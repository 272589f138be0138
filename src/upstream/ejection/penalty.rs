//! The penalty of one backend: a state machine, pure.
//!
//! Failures in a row eject by themselves; other rules say when. Each relapse doubles the penalty,
//! a trial ends it, and time forgives.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

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
    /// `room` tells whether another backend of the upstream may be ejected now; it is asked only
    /// if one would be.
    pub fn failed(
        &mut self,
        now: Instant,
        rules: &Rules,
        room: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        match self.until {
            Some(until) if now < until => None, // a straggler from before
            Some(_) => Some(self.penalize(now, rules)), // the trial failed
            None => {
                self.streak = self.streak.saturating_add(1);
                if self.streak < rules.consecutive_failures {
                    return None;
                }
                self.eject(now, rules, room)
            }
        }
    }

    /// Ejects, whatever the rule, unless that is done already; returns the penalty.
    pub fn eject(
        &mut self,
        now: Instant,
        rules: &Rules,
        room: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        if self.until.is_some() || !room() {
            return None;
        }
        if self.forgiven_at.is_none_or(|at| at <= now) {
            self.relapses = 0;
        }
        Some(self.penalize(now, rules))
    }

    fn penalize(&mut self, now: Instant, rules: &Rules) -> Duration {
        let penalty = rules.eject_for.saturating_mul(1 << self.relapses.min(31)).min(EJECT_FOR_MAX);
        self.relapses = self.relapses.saturating_add(1);
        self.until = Some(now + penalty);
        penalty
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
    pub(super) fn of(ejection: &Ejection, now: Instant) -> Self {
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
    pub(super) fn to_ejection(&self, now: Instant) -> Ejection {
        let at = |rest: u64| now + Duration::from_millis(rest).min(EJECT_FOR_MAX);
        Ejection {
            streak: self.streak,
            relapses: self.relapses,
            until: self.ejected_for_ms.map(at),
            forgiven_at: self.forgiven_in_ms.map(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules =
        Rules { consecutive_failures: 3, eject_for: Duration::from_secs(10), max_ejected: 0.5 };

    fn eject(ejection: &mut Ejection, now: Instant) -> Duration {
        (0..3).find_map(|_| ejection.failed(now, &RULES, || true)).expect("three failures eject")
    }

    #[test]
    fn three_failures_in_a_row_eject_and_a_success_between_forgives() {
        let (mut ejection, now) = (Ejection::default(), Instant::now());
        assert_eq!(ejection.failed(now, &RULES, || true), None);
        assert_eq!(ejection.failed(now, &RULES, || true), None);
        assert!(!ejection.succeeded(now));
        assert_eq!(ejection.failed(now, &RULES, || true), None);
        assert_eq!(ejection.failed(now, &RULES, || true), None);
        assert_eq!(ejection.failed(now, &RULES, || true), Some(RULES.eject_for));
    }

    #[test]
    fn a_relapse_doubles_the_penalty_up_to_five_minutes() {
        let (mut ejection, mut now) = (Ejection::default(), Instant::now());
        let mut penalty = eject(&mut ejection, now);
        for _ in 0..8 {
            now += penalty;
            let next = ejection.failed(now, &RULES, || true).expect("the trial failed");
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
        assert_eq!(ejection.failed(now + penalty / 2, &RULES, || true), None);
        assert_eq!(ejection.until(), Some(now + penalty));
        assert!(!ejection.succeeded(now + penalty / 2), "nor shorten it");
    }

    #[test]
    fn without_room_nothing_is_ejected() {
        let (mut ejection, now) = (Ejection::default(), Instant::now());
        assert!((0..9).all(|_| ejection.failed(now, &RULES, || false).is_none()));
        assert_eq!((RULES.ejected_max(1), RULES.ejected_max(2), RULES.ejected_max(3)), (0, 1, 1));
    }

    proptest! {
        /// A penalty is twice the last one, up to the longest, or the first one again.
        #[test]
        fn a_penalty_doubles_and_has_a_bound(
            first in 1u64..300_000,
            events in prop::collection::vec((any::<bool>(), 0u64..400_000), 1..100),
        ) {
            let eject_for = Duration::from_millis(first);
            let rules = Rules { consecutive_failures: 1, eject_for, max_ejected: 1.0 };
            let (mut ejection, mut now) = (Ejection::default(), Instant::now());
            let mut last: Option<Duration> = None;
            for (fails, millis) in events {
                now += Duration::from_millis(millis);
                if !fails {
                    ejection.succeeded(now);
                } else if let Some(penalty) = ejection.failed(now, &rules, || true) {
                    let doubled = last.map_or(eject_for, |last| (last * 2).min(EJECT_FOR_MAX));
                    prop_assert!(penalty == doubled || penalty == eject_for);
                    prop_assert!(penalty <= EJECT_FOR_MAX);
                    prop_assert_eq!(ejection.until(), Some(now + penalty));
                    last = Some(penalty);
                }
            }
        }
    }
}
