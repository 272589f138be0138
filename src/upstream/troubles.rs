//! What last went wrong with a backend, kept for those who look.
//!
//! INVARIANT: a request that fails never waits here. Of attempts that fail in the same moment, one
//! is remembered.

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::upstream::outcome::Outcome;

/// The last failure of an attempt, and of a check.
#[derive(Debug, Default)]
pub struct Troubles {
    attempt: Mutex<Option<(SystemTime, Outcome)>>,
    check: Mutex<Option<(SystemTime, String)>>,
}

impl Troubles {
    /// Remembers how an attempt failed.
    pub fn attempt_failed(&self, outcome: Outcome) {
        if let Ok(mut attempt) = self.attempt.try_lock() {
            *attempt = Some((SystemTime::now(), outcome));
        }
    }

    /// Remembers why a check failed.
    pub fn check_failed(&self, why: &str) {
        let mut check = self.check.lock().unwrap_or_else(PoisonError::into_inner);
        *check = Some((SystemTime::now(), why.to_owned()));
    }

    /// When an attempt last failed, and how.
    pub fn attempt(&self) -> Option<(SystemTime, Outcome)> {
        *self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a check last failed, and why.
    pub fn check(&self) -> Option<(SystemTime, String)> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_kind_is_remembered_and_nobody_waits() {
        let troubles = Troubles::default();
        assert!(troubles.attempt().is_none() && troubles.check().is_none());
        troubles.attempt_failed(Outcome::Refused);
        troubles.attempt_failed(Outcome::Reset);
        troubles.check_failed("connection refused");
        assert_eq!(troubles.attempt().map(|(_, outcome)| outcome), Some(Outcome::Reset));
        assert_eq!(troubles.check().map(|(_, why)| why).as_deref(), Some("connection refused"));

        let held = troubles.attempt.lock().unwrap();
        troubles.attempt_failed(Outcome::Timeout); // returns
        drop(held);
        assert_eq!(troubles.attempt().map(|(_, outcome)| outcome), Some(Outcome::Reset));
    }
}
