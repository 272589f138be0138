//! What is done beside requests for as long as a policy is there: asking a service again and again.
//!
//! An errand begins when its configuration comes into force, never when it is only checked, and
//! ends with the last policy that has it. One that panics begins again.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use tokio::{
    task::{self, AbortHandle},
    time,
};

use crate::panics;

/// The pause before an errand that panicked begins again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Somebody who has errands.
pub trait Errand: Send + Sync {
    /// Begins, unless it has begun already. Call it within a runtime.
    fn start(self: Arc<Self>);
}

/// The task of an errand, which ends when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Task(OnceLock<AbortHandle>);

impl Task {
    /// Lets `turn` be done again and again, each time after the pause that it told, for as long as
    /// its owner lives.
    pub(super) fn run<T, F>(
        &self,
        owner: &Arc<T>,
        turn: impl Fn(Arc<T>) -> F + Send + Sync + 'static,
    ) where
        T: Send + Sync + 'static,
        F: Future<Output = Duration> + Send + 'static,
    {
        let owner = Arc::downgrade(owner);
        self.0.get_or_init(|| task::spawn(turns(owner, turn)).abort_handle());
    }
}

async fn turns<T, F>(owner: Weak<T>, turn: impl Fn(Arc<T>) -> F)
where
    F: Future<Output = Duration>,
{
    while let Some(owner) = owner.upgrade() {
        let done = panics::catch(turn(owner)).await;
        let pause = done.unwrap_or_else(|panic| {
            panic.count_task();
            log::error!("what a policy does beside requests panicked: {panic}");
            AGAIN_AFTER
        });
        time::sleep(pause).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// The pause after so many failures in a row, at most a minute; a little different for each, so
/// that many do not ask in the same moment.
pub(super) fn pause(failures: u32) -> Duration {
    let base = Duration::from_secs(5) * 2_u32.pow(failures.saturating_sub(1).min(4));
    varied(base.min(Duration::from_secs(60)))
}

/// A time, a little shorter by chance.
pub(super) fn varied(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.1 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[derive(Default)]
    struct Counts {
        turns: AtomicU32,
        task: Task,
    }

    impl Errand for Counts {
        fn start(self: Arc<Self>) {
            self.task.run(&self, |this| async move {
                assert_ne!(this.turns.fetch_add(1, Relaxed), 1, "the second turn panics");
                Duration::from_secs(1)
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_errand_is_done_until_its_owner_is_gone() {
        let counts = Arc::new(Counts::default());
        counts.clone().start();
        counts.clone().start();
        time::sleep(Duration::from_secs(30)).await;
        let turns = counts.turns.load(Relaxed);
        assert!((20..30).contains(&turns), "one task, which went on after its panic: {turns}");
        let weak = Arc::downgrade(&counts);
        drop(counts);
        assert!(weak.upgrade().is_none(), "nobody else keeps it");
    }

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let within = |failures, seconds| {
            let whole = Duration::from_secs(seconds);
            let pause = pause(failures);
            assert!(whole.mul_f64(0.9) <= pause && pause <= whole, "{failures}: {pause:?}");
        };
        for (failures, seconds) in [(1, 5), (2, 10), (4, 40), (5, 60), (99, 60)] {
            within(failures, seconds);
        }
    }
}
