//! The recorder: the last requests that failed or were refused, and the slowest, each with its
//! story, so that an id in an error page leads to what happened.
//!
//! A good request that is not slow costs two loads here, and two looks at the clock before. Whoever
//! is kept takes the lock of its thread's shard, which nobody else takes but an operator who reads.
//!
//! INVARIANT: memory is bounded: each list has its length, each text in a record its own.

mod record;
mod slowest;

use std::{
    borrow::Cow,
    collections::VecDeque,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use schemars::JsonSchema;
use tokio::time::Instant;

pub use self::record::{
    Connection, Event, Record, Step, TARGET_MAX, Tried, WORD_MAX, millis, shown,
};
use self::slowest::Slowest;
use crate::{
    clock, counter,
    observe::access_log::{AccessLog, line::Entry},
    reason::{Class, Reason},
};

/// So many requests that failed are kept.
pub const FAILED_MAX: usize = 500;
/// So many that were refused.
pub const REFUSED_MAX: usize = 200;
/// So many of the slowest.
pub const SLOW_MAX: usize = 100;

/// Why a request is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename = "RequestKind", rename_all = "snake_case")]
pub enum Kind {
    /// It failed, or the origin answered it with 5xx.
    Failed,
    /// It was refused by a rule: of the protocol, of a route, or of a policy.
    Refused,
    /// It was good, and waited longer than others for the head of its answer.
    Slow,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "failed" => Ok(Self::Failed),
            "refused" => Ok(Self::Refused),
            "slow" => Ok(Self::Slow),
            _ => Err(format!("no kind `{word}`: there are `failed`, `refused` and `slow`")),
        }
    }
}

/// Keeps requests for as long as the process runs.
#[derive(Debug)]
pub struct Recorder {
    shards: Box<[Shard]>,
}

/// What one thread keeps, alone on its lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Who waits no longer is not among the slowest; nanoseconds.
    floor: AtomicU64,
    /// When the slowest begin anew, in milliseconds of [`clock`].
    turns_at: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    failed: VecDeque<Arc<Record>>,
    refused: VecDeque<Arc<Record>>,
    slow: Slowest,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { shards: (0..counter::shards()).map(|_| Shard::default()).collect() }
    }
}

impl Recorder {
    /// Why a request that has ended now should be kept; `None` if it should not.
    pub fn wants(&self, entry: &Entry<'_>, now: Instant) -> Option<Kind> {
        match entry.reason.class() {
            Class::Failed => Some(Kind::Failed),
            Class::Refused => Some(Kind::Refused),
            Class::Good if entry.reason == Reason::Ok && 500 <= entry.status => Some(Kind::Failed),
            // A tunnel has no end of its own.
            Class::Good if entry.status == 101 || entry.reason == Reason::Closed => None,
            Class::Good => {
                let waited = entry.first_byte.unwrap_or(entry.total);
                self.shard().may_be_slow(waited, now).then_some(Kind::Slow)
            }
        }
    }

    /// Keeps a request, and forgets the oldest one, or the fastest, if there is no room.
    pub fn keep(&self, kind: Kind, record: Record, now: Instant) {
        let (shard, record) = (self.shard(), Arc::new(record));
        let mut kept = shard.lock();
        match kind {
            Kind::Failed => push(&mut kept.failed, record, FAILED_MAX),
            Kind::Refused => push(&mut kept.refused, record, REFUSED_MAX),
            Kind::Slow => {
                kept.slow.keep(record, now);
                shard.floor.store(kept.slow.floor(), Relaxed);
                shard.turns_at.store(kept.slow.turns_at(), Relaxed);
            }
        }
    }

    /// What is kept of a kind: the last first, of the slow ones the slowest.
    pub fn list(&self, kind: Kind, now: Instant) -> Vec<Arc<Record>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut kept = shard.lock();
            match kind {
                Kind::Failed => all.extend(kept.failed.iter().cloned()),
                Kind::Refused => all.extend(kept.refused.iter().cloned()),
                Kind::Slow => all.extend(kept.slow.list(now).cloned()),
            }
        }
        let max = match kind {
            Kind::Failed => FAILED_MAX,
            Kind::Refused => REFUSED_MAX,
            Kind::Slow => SLOW_MAX,
        };
        if kind == Kind::Slow {
            all.sort_by(|one, other| other.waited_ms().total_cmp(&one.waited_ms()));
        } else {
            all.sort_by_key(|record| std::cmp::Reverse(record.ended()));
        }
        all.truncate(max);
        all
    }

    /// The request with this id, if it is kept.
    pub fn find(&self, id: &str, now: Instant) -> Option<Arc<Record>> {
        self.shards.iter().find_map(|shard| {
            let mut kept = shard.lock();
            let Kept { failed, refused, slow } = &mut *kept;
            let mut all = failed.iter().chain(&*refused).chain(slow.list(now));
            all.find(|record| record.id == id).cloned()
        })
    }

    fn shard(&self) -> &Shard {
        &self.shards[counter::shard()]
    }
}

impl Shard {
    fn may_be_slow(&self, waited: Duration, now: Instant) -> bool {
        u128::from(self.floor.load(Relaxed)) < waited.as_nanos()
            || self.turns_at.load(Relaxed) <= clock::millis(now)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The target of a request as a record shows it: like the access log; without one, no parameters.
pub fn target<'a>(log: Option<&AccessLog>, target: &'a [u8]) -> Cow<'a, [u8]> {
    let path = || target.split(|byte| *byte == b'?').next().unwrap_or_default();
    log.map_or_else(|| Cow::Borrowed(path()), |log| log.shown(target))
}

fn push(list: &mut VecDeque<Arc<Record>>, record: Arc<Record>, max: usize) {
    if list.len() == max {
        list.pop_front();
    }
    list.push_back(record);
}

#[cfg(test)]
mod tests;
