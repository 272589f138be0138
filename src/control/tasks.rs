//! The owner of what runs in the background: a task that panics begins again.
//!
//! A watcher that is gone would be noticed by nobody until it is needed. So a panic is told and
//! counted, and the task starts anew after a pause that doubles, so that a mistake that repeats
//! itself costs a line now and then, and not a processor.

use std::time::Duration;

use log::error;
use tokio::time::{self, Instant};

use crate::panics;

/// The pause before the second start, and the longest one.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// A task that ran for so long has begun well: the next pause is short again.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// Runs what `begin` makes, to its end; after a panic, makes it anew.
pub async fn keep<F: Future>(name: &str, mut begin: impl FnMut() -> F) -> F::Output {
    let mut pause = AGAIN_AFTER;
    loop {
        let started = Instant::now();
        let panic = match panics::catch(begin()).await {
            Ok(done) => return done,
            Err(panic) => panic,
        };
        panic.count_task();
        if WELL_AFTER < started.elapsed() {
            pause = AGAIN_AFTER;
        }
        error!("{name}: panicked, and begins again in {pause:?}: {panic}");
        time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panics::Panics;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again_until_it_ends_well() {
        let before = Panics::get().tasks;
        let mut starts = 0;
        let start = Instant::now();
        let end = keep("test", || {
            starts += 1;
            let nth = starts;
            async move {
                assert!(3 < nth, "start {nth}");
                nth
            }
        });
        assert_eq!(end.await, 4);
        assert_eq!(start.elapsed(), Duration::from_millis(100 + 200 + 400));
        assert!(before + 3 <= Panics::get().tasks);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_has_a_bound_and_is_short_again_after_a_good_time() {
        let mut pauses = Vec::new();
        let (mut last, mut starts) = (Instant::now(), 0);
        keep("test", || {
            pauses.push(last.elapsed());
            starts += 1;
            let (nth, runs) = (starts, if starts == 12 { 61 } else { 0 });
            last = Instant::now() + Duration::from_secs(runs);
            async move {
                time::sleep(Duration::from_secs(runs)).await;
                assert_eq!(nth, 14);
            }
        })
        .await;
        assert_eq!(pauses[11], AGAIN_MAX);
        assert_eq!(pauses[12], AGAIN_AFTER);
    }
}
