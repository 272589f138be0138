//! How late the event loops are on which connections are served.
//!
//! A task there wakes at fixed times; how much later it runs is what each request has to wait for
//! its turn.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{self, Instant};

/// How often it wakes.
const BEAT: Duration = Duration::from_millis(50);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// The longest delay since it was last asked for, in microseconds.
static LATE: AtomicU64 = AtomicU64::new(0);
/// When the next beat is due, in microseconds since the start; `0` without any.
static DUE: AtomicU64 = AtomicU64::new(0);

fn micros(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*START).as_micros()).unwrap_or(u64::MAX)
}

/// Beats for ever. Runs where connections are served.
pub async fn beat() {
    loop {
        let due = Instant::now() + BEAT;
        DUE.store(micros(due).max(1), Relaxed);
        time::sleep_until(due).await;
        let late = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        LATE.fetch_max(late, Relaxed);
    }
}

/// The longest delay since this was last asked for; that of a beat that has not come counts.
pub(super) fn delay() -> Duration {
    let due = DUE.load(Relaxed);
    let overdue = if due == 0 { 0 } else { micros(Instant::now()).saturating_sub(due) };
    Duration::from_micros(LATE.swap(0, Relaxed).max(overdue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_held_up_is_late() {
        let pulse = tokio::spawn(beat());
        time::sleep(BEAT * 4).await;
        let _ = delay();
        time::advance(BEAT + Duration::from_millis(700)).await;
        let late = delay();
        assert!(Duration::from_millis(600) < late, "{late:?}");
        time::sleep(BEAT * 4).await;
        let calm = delay();
        assert!(calm < Duration::from_millis(100), "{calm:?}");
        pulse.abort();
        time::sleep(BEAT + Duration::from_millis(700)).await;
        let overdue = delay();
        assert!(Duration::from_millis(600) < overdue, "a beat that has not come: {overdue:?}");
    }
}
