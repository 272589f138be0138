//! So many bytes in a second for the body of an answer, or for all answers of a client together.

use std::{hash::RandomState, sync::Arc, time::Duration};

use bytes::Bytes;
use pingora::Result;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    clock,
    policy::{
        allowance::Table,
        body::BodyFilter,
        contract::{Build, Hooks, Response, Written},
        key::{self, Key},
        rate_limit,
    },
    units::ByteSize,
    yaml::Spanned,
};

/// The lowest rate: a piece of 64 KiB, which is what is read at a time, waits 16 s then.
const RATE_MIN: u64 = 4096;

/// So many bytes of bodies in a second toward the client, such as `{ per_request: 1MiB }`: for each
/// answer, for all answers of a client (or whatever `by` names) together, or both. At least
/// `4KiB`. Crestline's own answers, those of `files` among them, are not slowed. What was sent
/// outlives reloads, but not an upgrade.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Bandwidth")]
pub struct Config {
    /// Bytes in a second for each answer. Default: no bound.
    #[serde(default)]
    pub per_request: Option<Spanned<ByteSize>>,
    /// Bytes in a second for all answers of the same key together. Default: no bound.
    #[serde(default)]
    pub per_key: Option<Spanned<ByteSize>>,
    /// What answers are told apart by for `per_key`. Default: `[client]`.
    #[serde(default = "key::client")]
    pub by: key::Written,
    /// How many bytes of each answer are sent at full speed before `per_request` holds.
    /// Default: `0B`.
    #[serde(default)]
    pub after: ByteSize,
    /// How many keys are remembered at a time, each in 16 bytes. Where there are more, those that
    /// took least are forgotten. Default: `65536`.
    #[serde(default = "rate_limit::keys_default", deserialize_with = "rate_limit::keys")]
    #[schemars(range(min = 64, max = 4_194_304))]
    pub keys_max: usize,
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    per_request: Option<Rate>,
    per_key: Option<Rate>,
    key: Key,
    after: u64,
    counts: Arc<Counts>,
}

/// What was sent, over reloads.
#[derive(Debug)]
struct Counts {
    keys_max: usize,
    table: Table,
}

/// Bytes in a second; never zero.
#[derive(Clone, Copy, Debug)]
struct Rate(u64);

impl Rate {
    /// How long so many bytes take, in nanoseconds.
    fn time_of(self, bytes: u64) -> u64 {
        let time = u128::from(bytes) * 1_000_000_000 / u128::from(self.0);
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

impl Config {
    /// Finds what was sent before.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if self.per_request.is_none() && self.per_key.is_none() {
            cx.problem("`bandwidth` bounds nothing", "write `per_request: 1MiB`, or `per_key`");
            return None;
        }
        let mut rate = |written: &Option<Spanned<ByteSize>>| {
            let written = written.as_ref()?;
            if written.value.0 < RATE_MIN {
                let message = format!("`{}` in a second is too little", written.value);
                cx.problem_at(written.span, message, "write at least `4KiB`");
            }
            Some(Rate(written.value.0.max(RATE_MIN)))
        };
        let (per_request, per_key) = (rate(&self.per_request), rate(&self.per_key));
        let key = Key::build(&self.by, cx)?;
        let keys_max = self.keys_max;
        let counts = cx.state(
            |old: &Counts| old.keys_max == keys_max,
            || Counts { keys_max, table: Table::new(keys_max, RandomState::new()) },
        );
        Some(Policy { per_request, per_key, key, after: self.after.0, counts })
    }
}

impl Written for Config {}

impl Hooks for Policy {
    fn on_response(&self, response: &mut Response<'_>) -> Result<()> {
        if response.is_own {
            return Ok(());
        }
        let (per_request, free) = (self.per_request, self.after);
        let key = self.per_key.map(|rate| Share {
            rate,
            tag: self.counts.table.tag(&self.key, &response.facts),
            counts: self.counts.clone(),
            unsent: 0,
        });
        response.body.push(Brake { per_request, free, due: 0, key });
        Ok(())
    }
}

/// Holds the body of one answer back.
struct Brake {
    per_request: Option<Rate>,
    /// Bytes that are left at full speed.
    free: u64,
    /// When what was sent is due at the rate of this answer, in nanoseconds.
    due: u64,
    key: Option<Share>,
}

/// What an answer has of the rate of its key.
struct Share {
    rate: Rate,
    tag: u64,
    counts: Arc<Counts>,
    /// The time of the piece that is not known to be sent.
    unsent: u64,
}

impl Share {
    /// How long to wait before so many bytes are sent; those before them were.
    fn wait(&mut self, bytes: u64, now: u64) -> u64 {
        self.unsent = self.rate.time_of(bytes);
        self.counts.table.charge(self.tag, self.unsent, now)
    }
}

impl Drop for Share {
    /// A client that leaves owes nothing for what it was not sent.
    fn drop(&mut self) {
        if 0 < self.unsent {
            self.counts.table.give_back(self.tag, self.unsent);
        }
    }
}

impl Brake {
    /// How long to wait before so many bytes are sent.
    fn wait(&mut self, bytes: u64, now: u64) -> Duration {
        let mut wait = 0;
        if let Some(rate) = self.per_request {
            let free = self.free.min(bytes);
            self.free -= free;
            self.due = self.due.max(now).saturating_add(rate.time_of(bytes - free));
            wait = self.due - now;
        }
        if let Some(share) = &mut self.key {
            wait = wait.max(share.wait(bytes, now));
        }
        Duration::from_nanos(wait)
    }
}

impl BodyFilter for Brake {
    fn pass(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<Duration> {
        let wait = match body {
            Some(piece) if !piece.is_empty() => {
                self.wait(piece.len() as u64, clock::nanos(Instant::now()))
            }
            _ => Duration::ZERO,
        };
        if let Some(share) = self.key.as_mut().filter(|_| is_last) {
            share.unsent = 0;
        }
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{build, problems};

    const SECOND: u64 = 1_000_000_000;

    fn brake(policy: &Policy, tag: u64) -> Brake {
        let counts = || policy.counts.clone();
        let key = policy.per_key.map(|rate| Share { rate, tag, counts: counts(), unsent: 0 });
        Brake { per_request: policy.per_request, free: policy.after, due: 0, key }
    }

    #[test]
    fn an_answer_has_so_many_bytes_in_a_second() {
        let config = "{ per_request: 64KiB, after: 100KiB }";
        let policy = build(config, |config: &Config, cx| config.build(cx));
        let mut brake = brake(&policy, 1);
        assert_eq!(brake.wait(100 << 10, SECOND), Duration::ZERO);
        assert_eq!(brake.wait(64 << 10, SECOND), Duration::from_secs(1));
        assert_eq!(brake.wait(32 << 10, 2 * SECOND), Duration::from_millis(500));
        assert_eq!(
            brake.wait(32 << 10, 9 * SECOND),
            Duration::from_millis(500),
            "nothing is saved"
        );
    }

    #[test]
    fn the_answers_of_a_key_share_its_rate() {
        let policy = build("{ per_key: 64KiB }", |config: &Config, cx| config.build(cx));
        let (mut first, mut second) = (brake(&policy, 1), brake(&policy, 1));
        assert_eq!(first.wait(64 << 10, SECOND), Duration::from_secs(1));
        assert_eq!(second.wait(64 << 10, SECOND), Duration::from_secs(2));
        assert_eq!(brake(&policy, 2).wait(64 << 10, SECOND), Duration::from_secs(1));
    }

    #[test]
    fn who_leaves_owes_nothing_for_what_was_not_sent() {
        let policy = build("{ per_key: 64KiB }", |config: &Config, cx| config.build(cx));
        for _ in 0..1_000 {
            brake(&policy, 1).wait(64 << 10, SECOND);
        }
        assert_eq!(brake(&policy, 1).wait(64 << 10, SECOND), Duration::from_secs(1));
        let mut whole = brake(&policy, 2);
        whole.wait(64 << 10, SECOND);
        whole.pass(&mut None, true).unwrap();
        drop(whole);
        assert_eq!(brake(&policy, 2).wait(64 << 10, SECOND), Duration::from_secs(2), "it was sent");
    }

    #[test]
    fn what_bounds_nothing_or_everything_is_refused() {
        let told = |yaml: &str| problems(yaml, |config: &Config, cx| config.build(cx));
        assert_eq!(told("{}"), ["`bandwidth` bounds nothing"]);
        assert_eq!(told("{ per_key: 1KiB }"), ["`1KiB` in a second is too little"]);
    }
}
