//! Time: as a number, so that an atomic can hold it, in few bytes, and as an alarm that is cheap to
//! move.

use std::{
    num::NonZeroU32,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use tokio::time::{self, Instant, Sleep};

/// The first use.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since this process first asked, and never 0, which stands for "no time".
pub fn millis(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*EPOCH).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
}

/// Nanoseconds since then; enough for 584 years.
pub fn nanos(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*EPOCH).as_nanos()).unwrap_or(u64::MAX)
}

/// The first use, by the clock of the system.
static WALL: LazyLock<(SystemTime, Instant)> =
    LazyLock::new(|| (SystemTime::now(), Instant::now()));

/// Microseconds since 1970, which other processes can tell, too: by the clock of the system as it
/// stood when this process first asked, and never back from there.
pub fn stamp() -> u64 {
    let (wall, began) = *WALL;
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + began.elapsed();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A duration in four bytes, for what is kept of many requests: whole microseconds, and at most
/// 71 minutes, which stand for all that is longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Brief(NonZeroU32);

impl Brief {
    /// From one moment to a later one.
    pub fn between(from: Instant, to: Instant) -> Self {
        to.saturating_duration_since(from).into()
    }
}

impl From<Duration> for Brief {
    fn from(duration: Duration) -> Self {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(micros))
    }
}

impl From<Brief> for Duration {
    fn from(brief: Brief) -> Self {
        Self::from_micros((brief.0.get() - 1).into())
    }
}

/// An alarm that is moved with every request and rings for hardly any.
///
/// Moving it later is a store; the timer behind it wakes once in a while and is set again.
pub struct Alarm {
    due: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Alarm {
    /// Sets an alarm. Call it within a runtime.
    pub fn after(time: Duration) -> Self {
        let due = Instant::now() + time;
        Self { due, timer: Box::pin(time::sleep_until(due)) }
    }

    /// Moves the alarm.
    pub fn set(&mut self, time: Duration) {
        self.due = Instant::now() + time;
        if self.due < self.timer.deadline() {
            self.timer.as_mut().reset(self.due);
        }
    }

    /// Is ready when the alarm rings.
    pub fn poll_ring(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.timer.deadline() == self.due {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn a_brief_duration_keeps_its_microseconds() {
        for micros in [0, 1, 999, u64::from(u32::MAX) - 1] {
            let duration = Duration::from_micros(micros);
            assert_eq!(Duration::from(Brief::from(duration)), duration);
        }
        let longest = Duration::from(Brief::from(Duration::MAX));
        assert_eq!(longest.as_secs() / 60, 71);
        assert_eq!(size_of::<Option<Brief>>(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_at_the_last_time_that_it_was_set_to() {
        let start = Instant::now();
        let mut alarm = Alarm::after(Duration::from_secs(10));
        alarm.set(Duration::from_secs(75));
        poll_fn(|cx| alarm.poll_ring(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 75, "moved later");

        alarm.set(Duration::from_secs(60));
        alarm.set(Duration::from_secs(1));
        poll_fn(|cx| alarm.poll_ring(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 76, "moved earlier");
    }
}
