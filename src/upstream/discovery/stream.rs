//! Events that an API tells as they happen, one a line, on an answer that does not end.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::{self, Instant};

use crate::{
    client::answer::Answer,
    upstream::discovery::{
        api,
        source::{Backoff, Failure},
    },
};

/// The largest event; together, what is heard at a time is hardly more.
const EVENT_BYTES_MAX: usize = 4 << 20;
/// Events within so short a time are heard together.
const SETTLE: Duration = Duration::from_millis(20);
/// They are, for no longer than this.
const TOGETHER_MAX: Duration = Duration::from_millis(500);
/// A stream that was open for so long was a good one.
const LASTING: Duration = Duration::from_secs(30);

/// An answer whose body is events.
pub struct Stream {
    answer: Answer,
    /// Why it ended, where that is still to be told.
    ended: Option<String>,
}

/// What a stream told.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Events, in their order; at least one.
    Events(Vec<Bytes>),
    /// Nothing, for as long as was waited.
    Silence,
    /// That it is over, and why.
    End(String),
}

impl Stream {
    /// Takes a good answer; what another one says is the failure.
    pub async fn of(answer: Answer) -> Result<Self, Failure> {
        match answer.status {
            StatusCode::OK => Ok(Self { answer, ended: None }),
            _ => Err(api::refused(answer).await),
        }
    }

    /// Waits for events, and takes those that come with them.
    pub async fn hear(&mut self, patience: Duration) -> Heard {
        if let Some(why) = self.ended.take() {
            return Heard::End(why);
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut until = Instant::now() + patience;
        let mut latest = until;
        while bytes < EVENT_BYTES_MAX {
            let line = time::timeout_at(until, self.answer.line(EVENT_BYTES_MAX)).await;
            let ended = match line {
                Ok(Ok(Some(line))) => {
                    let now = Instant::now();
                    if events.is_empty() {
                        latest = now + TOGETHER_MAX;
                    }
                    until = latest.min(now + SETTLE);
                    bytes += line.len();
                    events.push(line);
                    continue;
                }
                Ok(Ok(None)) => "the stream ended".to_owned(),
                Ok(Err(why)) => why,
                Err(_) if events.is_empty() => return Heard::Silence,
                Err(_) => break,
            };
            if events.is_empty() {
                return Heard::End(ended);
            }
            self.ended = Some(ended);
            break;
        }
        Heard::Events(events)
    }
}

/// The pauses before a stream that ended is opened again: short after one that lasted, and longer
/// each time if they end at once, so that an API which cannot keep them is not stormed.
#[derive(Default)]
pub struct Reopening {
    backoff: Backoff,
    opened: Option<Instant>,
}

impl Reopening {
    /// Says that a stream was opened now.
    pub fn opened(&mut self) {
        self.opened = Some(Instant::now());
    }

    /// Waits before the next one is.
    pub async fn pause(&mut self) {
        if self.opened.take().is_some_and(|opened| LASTING <= opened.elapsed()) {
            self.backoff.reset();
        }
        time::sleep(self.backoff.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn streams_that_end_at_once_are_opened_ever_later_until_one_lasts() {
        let mut reopening = Reopening::default();
        let mut pauses = Vec::new();
        for lasting in [0, 0, 0, 0, 60] {
            reopening.opened();
            time::sleep(Duration::from_secs(lasting)).await;
            let before = Instant::now();
            reopening.pause().await;
            pauses.push(before.elapsed());
        }
        for (pause, longest) in pauses.iter().zip([500, 1_000, 2_000, 4_000, 500]) {
            let (shortest, longest) =
                (Duration::from_millis(longest / 2), Duration::from_millis(longest + 2));
            assert!(shortest <= *pause && *pause <= longest, "{pauses:?}");
        }
    }
}
