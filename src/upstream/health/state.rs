//! How many answers in a row change the health of a backend: a state machine, pure.

use crate::upstream::backend::Probe;

/// So many equal answers in a row change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good answers until an unhealthy backend is healthy.
    pub healthy_after: u32,
    /// Bad answers until a healthy backend is unhealthy.
    pub unhealthy_after: u32,
}

/// The state of one backend's checks.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    probe: Probe,
    leaning: Probe,
    streak: u32,
}

/// When the next check is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: the last answer began a change that more answers must confirm.
    Soon,
    /// After the interval.
    Later,
}

impl Health {
    /// The state before the first check, or as it was carried over.
    pub fn new(probe: Probe) -> Self {
        Self { probe, leaning: probe, streak: 0 }
    }

    /// What is established.
    pub fn probe(&self) -> Probe {
        self.probe
    }

    /// Takes one answer. Returns what changed, if it did, and when to ask again.
    pub fn observe(&mut self, good: bool, thresholds: Thresholds) -> (Option<Probe>, Next) {
        let (toward, needed) = if good {
            (Probe::Passing, thresholds.healthy_after)
        } else {
            (Probe::Failing, thresholds.unhealthy_after)
        };
        if toward != self.leaning {
            self.leaning = toward;
            self.streak = 0;
        }
        if toward == self.probe {
            return (None, Next::Later);
        }
        self.streak += 1;
        if self.streak < needed {
            return (None, Next::Soon);
        }
        *self = Self::new(toward);
        (Some(toward), Next::Later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Thresholds = Thresholds { healthy_after: 2, unhealthy_after: 2 };

    #[test]
    fn a_change_needs_its_answers_in_a_row_and_they_are_asked_for_at_once() {
        let mut health = Health::new(Probe::Passing);
        assert_eq!(health.observe(false, TWO), (None, Next::Soon));
        assert_eq!(health.observe(true, TWO), (None, Next::Later), "the streak broke");
        assert_eq!(health.observe(false, TWO), (None, Next::Soon));
        assert_eq!(health.observe(false, TWO), (Some(Probe::Failing), Next::Later));
        assert_eq!(health.observe(true, TWO), (None, Next::Soon));
        assert_eq!(health.observe(true, TWO), (Some(Probe::Passing), Next::Later));
    }

    #[test]
    fn the_first_answer_counts_like_any_other() {
        let once = Thresholds { healthy_after: 1, unhealthy_after: 2 };
        let mut health = Health::new(Probe::Pending);
        assert_eq!(health.observe(false, once), (None, Next::Soon));
        assert_eq!(health.observe(true, once).0, Some(Probe::Passing));
        assert_eq!(health.observe(false, once), (None, Next::Soon), "counted from one again");
        assert_eq!(health.observe(false, once).0, Some(Probe::Failing));
    }
}
