//! The slowest requests of the last ten to twenty minutes.

use std::{mem, sync::Arc};

use tokio::time::{Duration, Instant};

use crate::{
    clock,
    observe::recorder::{SLOW_MAX, record::Record},
};

/// After so long the slowest begin anew; those before stay for as long again.
pub(super) const SLOW_FOR: Duration = Duration::from_secs(600);

/// Two lists: one that fills, and the one before it.
#[derive(Debug, Default)]
pub(super) struct Slowest {
    current: Vec<Arc<Record>>,
    previous: Vec<Arc<Record>>,
    turns_at: Option<Instant>,
}

impl Slowest {
    /// Keeps a request, if it is slower than one that is kept.
    pub(super) fn keep(&mut self, record: Arc<Record>, now: Instant) {
        self.turn(now);
        if self.current.len() < SLOW_MAX {
            self.current.push(record);
        } else if let Some(fastest) = self.fastest()
            && self.current[fastest].waited_ms() < record.waited_ms()
        {
            self.current[fastest] = record;
        }
    }

    /// Nanoseconds that a request must have waited longer than to be kept.
    pub(super) fn floor(&self) -> u64 {
        let fastest = self.fastest().filter(|_| self.current.len() == SLOW_MAX);
        fastest.map_or(0, |fastest| self.current[fastest].waited_nanos())
    }

    /// When the list begins anew, in milliseconds of [`clock`].
    pub(super) fn turns_at(&self) -> u64 {
        self.turns_at.map_or(0, clock::millis)
    }

    /// All that are kept.
    pub(super) fn list(&mut self, now: Instant) -> impl Iterator<Item = &Arc<Record>> {
        self.turn(now);
        self.current.iter().chain(&self.previous)
    }

    fn turn(&mut self, now: Instant) {
        let Some(turns_at) = self.turns_at.filter(|at| now < *at + SLOW_FOR) else {
            (self.current, self.previous) = (Vec::new(), Vec::new());
            self.turns_at = Some(now + SLOW_FOR);
            return;
        };
        if turns_at <= now {
            self.previous = mem::take(&mut self.current);
            self.turns_at = Some(turns_at + SLOW_FOR);
        }
    }

    fn fastest(&self) -> Option<usize> {
        let waited = |index: &usize| self.current[*index].waited_ms();
        (0..self.current.len()).min_by(|one, other| waited(one).total_cmp(&waited(other)))
    }
}
