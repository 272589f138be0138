//! Time as a number, so that an atomic can hold it.

use std::{sync::LazyLock, time::Duration};

use tokio::time::Instant;

/// The first use.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since this process first asked, and never 0, which stands for "no time".
pub fn millis(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*EPOCH).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
}

/// The instant of a number that [`millis`] made, to the millisecond.
pub fn instant(millis: u64) -> Instant {
    *EPOCH + Duration::from_millis(millis.saturating_sub(1))
}
