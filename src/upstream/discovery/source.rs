//! What every source of backends has in common: what it gives, how it fails, and how long it is
//! let alone after that.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::upstream::{config::Address, target::Target};

/// So many backends may a source give; an answer with more is refused whole.
pub const BACKENDS_MAX: usize = 10_000;

/// The pause after the first failure in a row, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A backend as a source gives it; a name is resolved by who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it listens.
    pub address: Address,
    /// What else is known of it.
    pub target: Target,
}

/// Why a source gave nothing, in words for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// One with these words.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All backends that a source knows of, or why it knows none.
pub type Answer = Result<Vec<Found>, Failure>;

/// Where backends come from.
#[async_trait]
pub trait Source: Send {
    /// Waits for the next answer: at first what there is, then what there is after a change, and
    /// now and then the same again, which says that the source is still in touch.
    ///
    /// After a failure it is asked again, later each time, and begins anew.
    async fn next(&mut self) -> Answer;
}

/// A source, and what logs and `status` call it.
pub type Named = (String, Box<dyn Source>);

/// Refuses an answer that is too large.
pub fn bounded(found: Vec<Found>) -> Answer {
    match found.len() {
        0..=BACKENDS_MAX => Ok(found),
        many => Err(Failure(format!("{many} backends, of which {BACKENDS_MAX} are allowed"))),
    }
}

/// The pauses after failures in a row: twice as long each time, with full jitter in the upper
/// half, so that a thousand proxies do not ask at once when an API comes back.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one failure more.
    pub fn pause(&mut self) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// All is well again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_are_short_again_after_a_success() {
        let mut backoff = Backoff::default();
        for longest in [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000] {
            let longest = Duration::from_millis(longest);
            let pause = backoff.pause();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
        }
        (0..10_000).for_each(|_| assert!(backoff.pause() <= PAUSE_MAX));
        backoff.reset();
        assert!(backoff.pause() <= PAUSE_MIN);
    }

    #[test]
    fn an_answer_has_a_bound() {
        let found = Found { address: "127.0.0.1:1".parse().unwrap(), target: Target::of(1) };
        assert!(bounded(vec![found.clone(); BACKENDS_MAX]).is_ok());
        let why = bounded(vec![found; BACKENDS_MAX + 1]).unwrap_err();
        assert_eq!(why.to_string(), "10001 backends, of which 10000 are allowed");
    }
}
