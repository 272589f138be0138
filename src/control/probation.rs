//! Probation: a reload that is taken back by itself when too many requests fail after it.
//!
//! What is compared is the share of answers with a status from 500 on: among the requests that
//! the new configuration routed, and among those of the last minute before. `Terms::exceeded`
//! is the judgement, pure; the rest watches and acts.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use log::{error, info, warn};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{self, Instant},
};

use crate::{
    control::{Control, Goal, lock},
    observe::tally::Count,
    snapshot::Snapshot,
    units::Percent,
};

/// So many answers are needed for a judgement before the time is over.
const ANSWERS_MIN: u64 = 20;
/// How often the counts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What counts as "before": so many seconds.
const BEFORE_SECONDS: usize = 60;

/// What a change on probation must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it is on probation.
    pub lasts: Duration,
    /// By how much the share of failures may rise.
    pub tolerate: Percent,
}

/// How a probation stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
#[schemars(rename = "Probation")]
pub enum Standing {
    /// It goes on.
    Running {
        /// The version on probation.
        version: u64,
    },
    /// The version stays.
    Passed {
        /// The version that was on probation.
        version: u64,
    },
    /// The version before is in force again.
    TakenBack {
        /// The version that was on probation.
        version: u64,
        /// In words.
        told: String,
    },
    /// It failed, and stays all the same: going back was refused.
    Stays {
        /// The version that was on probation.
        version: u64,
        /// In words.
        told: String,
    },
    /// Another change came before the end.
    Overtaken {
        /// The version that was on probation.
        version: u64,
    },
}

impl Standing {
    /// How a probation stands. When nobody is left to tell its outcome, another change came.
    pub fn of(told: &watch::Receiver<Self>) -> Self {
        let is_last = told.has_changed().is_err(); // asked first: what is read then is the last word
        match told.borrow().clone() {
            Self::Running { version } if is_last => Self::Overtaken { version },
            standing => standing,
        }
    }

    /// The version that is or was on probation.
    pub fn version(&self) -> u64 {
        match self {
            Self::Running { version }
            | Self::Passed { version }
            | Self::TakenBack { version, .. }
            | Self::Stays { version, .. }
            | Self::Overtaken { version } => *version,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { version } => write!(f, "v{version} is on probation"),
            Self::Passed { version } => write!(f, "v{version} passed its probation"),
            Self::TakenBack { version, told } => write!(f, "v{version} was taken back: {told}"),
            Self::Stays { version, told } => {
                write!(f, "v{version} failed its probation and stays: {told}")
            }
            Self::Overtaken { version } => {
                write!(f, "v{version} was overtaken by another change")
            }
        }
    }
}

/// The probation that goes on, or the last one.
#[derive(Default)]
pub(super) struct Probation {
    standing: Option<watch::Receiver<Standing>>,
    task: Option<AbortHandle>,
}

/// The counts of the last minute, one for each second.
#[derive(Debug, Default)]
pub(super) struct Recent {
    version: u64,
    counts: VecDeque<Count>,
}

impl Recent {
    /// Takes the count of this second.
    pub(super) fn sample(&mut self, version: u64, count: Count) {
        if self.version != version {
            *self = Self { version, counts: VecDeque::new() };
        }
        if BEFORE_SECONDS <= self.counts.len() {
            self.counts.pop_front();
        }
        self.counts.push_back(count);
    }

    /// The count of the last minute, or of the time since the version came into force.
    fn until(&self, version: u64, now: Count) -> Count {
        let first = self
            .counts
            .front()
            .filter(|_| self.version == version && BEFORE_SECONDS <= self.counts.len());
        now.since(first.copied().unwrap_or_default())
    }
}

impl Terms {
    /// Whether more fail than is tolerated. Few answers say nothing before the time is over.
    fn exceeded(&self, before: Count, since: Count, is_over: bool) -> bool {
        let enough = ANSWERS_MIN <= since.answers || (is_over && 0 < since.answers);
        enough && before.share() + self.tolerate.as_fraction() < since.share()
    }
}

impl Control {
    /// How the last probation stands, if there was one; changes can be waited for.
    pub fn probation(&self) -> Option<watch::Receiver<Standing>> {
        lock(&self.probation).standing.clone()
    }

    pub(super) fn begin_probation(
        self: &Arc<Self>,
        old: &Snapshot,
        new: &Arc<Snapshot>,
        terms: Option<Terms>,
    ) {
        let before = lock(&self.recent).until(old.version, old.tally.get());
        let mut probation = lock(&self.probation);
        if let Some(task) = probation.task.take() {
            task.abort(); // its sender is dropped with it: who waits for the outcome sees that
        }
        let Some(terms) = terms else { return };
        let (sender, standing) = watch::channel(Standing::Running { version: new.version });
        let back_to = old.version;
        let (this, new) = (self.clone(), new.clone());
        let watching = tokio::spawn(async move {
            let told = watch_over(&new, terms, before).await;
            let version = new.version;
            let Some(told) = told else {
                let passed = Standing::Passed { version };
                info!("reload: {passed}");
                sender.send_replace(passed);
                return;
            };
            // In a task of its own, since this one is ended by the change that it asks for.
            tokio::spawn(async move { this.take_back(version, back_to, told, sender).await });
        });
        *probation = Probation { standing: Some(standing), task: Some(watching.abort_handle()) };
    }

    async fn take_back(
        self: Arc<Self>,
        version: u64,
        back_to: u64,
        told: String,
        sender: watch::Sender<Standing>,
    ) {
        let mut keepers = self.keepers.lock().await;
        if self.live.load().version != version {
            return; // another change was faster: this one is no longer in force
        }
        warn!("reload: v{version} failed its probation: {told}");
        let end = match self.make(&mut keepers, Goal::Version(back_to), None).await {
            Ok(receipt) => Standing::TakenBack { version, told: format!("{told}; {receipt}") },
            Err(why) => Standing::Stays { version, told: format!("{told}; going back: {why}") },
        };
        if matches!(end, Standing::Stays { .. }) {
            error!("reload: {end}");
        }
        sender.send_replace(end);
    }
}

/// Watches until the time is over, or too many requests failed; then tells so.
async fn watch_over(new: &Snapshot, terms: Terms, before: Count) -> Option<String> {
    let end = Instant::now() + terms.lasts;
    loop {
        let is_over = end <= Instant::now();
        let since = new.tally.get();
        if terms.exceeded(before, since, is_over) {
            let percent = |count: Count| format!("{:.0} %", count.share() * 100.0);
            return Some(format!(
                "{} of its {} answers were 5xx, against {} before (tolerated: {} more)",
                percent(since),
                since.answers,
                percent(before),
                terms.tolerate
            ));
        }
        if is_over {
            return None;
        }
        time::sleep_until(end.min(Instant::now() + LOOK_EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { lasts: Duration::from_secs(30), tolerate: Percent::new(5) };

    fn count(answers: u64, failures: u64) -> Count {
        Count { answers, failures }
    }

    #[test]
    fn what_failed_before_is_not_held_against_the_change() {
        assert!(!TERMS.exceeded(count(100, 0), count(100, 5), true), "just what is tolerated");
        assert!(TERMS.exceeded(count(100, 0), count(100, 6), false));
        assert!(!TERMS.exceeded(count(100, 50), count(100, 55), true));
        assert!(TERMS.exceeded(count(100, 50), count(100, 56), true));
    }

    #[test]
    fn few_answers_decide_only_at_the_end() {
        assert!(!TERMS.exceeded(count(100, 0), count(19, 19), false));
        assert!(TERMS.exceeded(count(100, 0), count(20, 20), false));
        assert!(TERMS.exceeded(count(100, 0), count(1, 1), true));
        assert!(!TERMS.exceeded(count(0, 0), count(0, 0), true), "nothing came");
    }

    #[test]
    fn before_is_the_last_minute_or_what_there_was() {
        let mut recent = Recent::default();
        assert_eq!(recent.until(1, count(7, 1)), count(7, 1), "all since the version came");
        for second in 0..100 {
            recent.sample(1, count(second * 10, 0));
        }
        assert_eq!(recent.until(1, count(1000, 600)), count(600, 600));
        assert_eq!(recent.until(2, count(3, 1)), count(3, 1), "of another version");
    }
    #[test]
    fn an_outcome_that_nobody_is_left_to_tell_is_that_another_change_came() {
        let (sender, told) = watch::channel(Standing::Running { version: 2 });
        assert_eq!(Standing::of(&told), Standing::Running { version: 2 });
        drop(sender);
        assert_eq!(Standing::of(&told), Standing::Overtaken { version: 2 });

        let (sender, told) = watch::channel(Standing::Running { version: 3 });
        sender.send_replace(Standing::Passed { version: 3 });
        drop(sender);
        assert_eq!(Standing::of(&told), Standing::Passed { version: 3 });
    }
}
