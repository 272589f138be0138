//! Counts that several processes share, in Redis: one round trip for each request.
//!
//! While the store is away, each process counts for itself, and says so once; a trial each second
//! finds out when it is back, so that its absence costs no other request any time.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration as Time,
};

use aws_lc_rs::digest;
use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{self, Instant};

use crate::{
    clock,
    policy::{
        allowance::Standing,
        contract::{Build, Facts},
        key::Key,
        meter::Meter,
        rate_limit::{Outcome, window::Window},
    },
    units::{self, Duration},
    yaml::Spanned,
};

/// How long a store that failed is left alone.
const PAUSE_MILLIS: u64 = 1_000;
/// Questions that wait for their turn on the connection.
const QUEUE: usize = 1_024;

/// Where several processes share their counts.
///
/// What the operator writes under `store:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateStore")]
pub struct Config {
    /// A Redis or Valkey from version 5 on: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or
    /// `redis+unix:///run/redis.sock`. It is spoken to in plaintext.
    pub redis: Spanned<String>,
    /// How long a request waits for it; after that, and for a second, this process counts for
    /// itself. Default: `50ms`.
    #[serde(default = "timeout", deserialize_with = "units::positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub timeout: Duration,
    /// What the counts are called there, by which processes, or routes, share them.
    /// Default: the name of the route.
    #[serde(default)]
    pub name: Option<String>,
}

fn timeout() -> Duration {
    Duration(Time::from_millis(50))
}

/// The store, as long as its configuration stays.
pub struct Store {
    client: Client,
    /// Its place, without a password.
    place: String,
    timeout: Time,
    name: Option<String>,
    script: Script,
    connection: OnceLock<ConnectionManager>,
    /// When it is asked again, in milliseconds; 0 while it is there.
    away_until: AtomicU64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.place).finish()
    }
}

impl Config {
    /// Reads the address; nothing is connected yet.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Store> {
        let url = self.redis.value.as_str();
        let is_known = ["redis://", "redis+unix://", "unix://"].iter().any(|s| url.starts_with(s));
        let help = "write `redis://HOST:PORT/DATABASE` or `redis+unix:///run/redis.sock`";
        if !is_known {
            // What is written may hold a password, and is not repeated.
            cx.problem_at(self.redis.span, "this is no address of a Redis", help);
            return None;
        }
        let client = match Client::open(url) {
            Ok(client) => client,
            Err(why) => {
                let message = format!("this is no address of a Redis: {why}");
                cx.problem_at(self.redis.span, message, help);
                return None;
            }
        };
        Some(Store {
            place: client.get_connection_info().addr().to_string(),
            client,
            timeout: self.timeout.0,
            name: self.name.clone(),
            script: Script::new(include_str!("take.lua")),
            connection: OnceLock::new(),
            away_until: AtomicU64::new(0),
        })
    }
}

impl Store {
    /// Takes one request of the allowance that all share; `None` if the store does not answer in
    /// time, or is known to be away.
    pub(super) async fn take(
        &self,
        key: &Key,
        windows: &[Window],
        facts: &Facts<'_>,
        meter: &Meter,
    ) -> Option<Outcome> {
        if !self.is_worth_asking() {
            return None;
        }
        match time::timeout(self.timeout, self.ask(key, windows, facts)).await {
            Ok(Ok(outcome)) => {
                self.came_back(facts, meter);
                Some(outcome)
            }
            Ok(Err(why)) => self.went(&why.to_string(), facts, meter),
            Err(_) => self.went("no answer in time", facts, meter),
        }
    }

    /// While it is away, one request each second finds out.
    fn is_worth_asking(&self) -> bool {
        let until = self.away_until.load(Relaxed);
        if until == 0 {
            return true;
        }
        let now = clock::millis(Instant::now());
        let next = now + PAUSE_MILLIS;
        until <= now && self.away_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok()
    }

    async fn ask(
        &self,
        key: &Key,
        windows: &[Window],
        facts: &Facts<'_>,
    ) -> redis::RedisResult<Outcome> {
        let mut connection = self.connection()?;
        let mut asked = self.script.prepare_invoke();
        let name = self.name.as_deref().unwrap_or(facts.route);
        let digest = digest_of(key, facts);
        for (index, Window { pace, .. }) in windows.iter().enumerate() {
            // The braces keep all windows of a key on one node of a cluster.
            asked.key(format!("crestline:{name}:{{{digest:032x}}}:{index}"));
            asked.arg(pace.interval as f64 / 1e3).arg(pace.burst);
        }
        let answer: (u8, usize, u32, u64, u64) = asked.invoke_async(&mut connection).await?;
        let (is_within, window, left, whole_after, again_after) = answer;
        Ok(Outcome {
            window: window.min(windows.len() - 1),
            standing: Standing { left, whole_after: Time::from_micros(whole_after) },
            again_after: (is_within == 0).then(|| Time::from_micros(again_after.max(1))),
        })
    }

    fn connection(&self) -> redis::RedisResult<ConnectionManager> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection.clone());
        }
        let config =
            ConnectionManagerConfig::new().set_number_of_retries(0).set_pipeline_buffer_size(QUEUE);
        let made = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(self.connection.get_or_init(|| made).clone())
    }

    fn went(&self, why: &str, facts: &Facts<'_>, meter: &Meter) -> Option<Outcome> {
        meter.store_failures.increment();
        self.away_until.store(clock::millis(Instant::now()) + PAUSE_MILLIS, Relaxed);
        if !meter.store_is_away.swap(true, Relaxed) {
            log::warn!(
                "the store of `rate_limit` on route `{}`, {}, went away: {why}; this process counts for itself meanwhile",
                facts.route,
                self.place,
            );
        }
        None
    }

    fn came_back(&self, facts: &Facts<'_>, meter: &Meter) {
        let is_away = &meter.store_is_away;
        if is_away.load(Relaxed) && is_away.swap(false, Relaxed) {
            self.away_until.store(0, Relaxed);
            let (place, route) = (&self.place, facts.route);
            log::info!("the store of `rate_limit` on route `{route}`, {place}, came back");
        }
    }
}

/// What stands for a key in the store: nobody reads there who asked.
fn digest_of(key: &Key, facts: &Facts<'_>) -> u128 {
    let mut text = Vec::with_capacity(64);
    key.write(facts, &mut text);
    let digest = digest::digest(&digest::SHA256, &text);
    digest.as_ref().iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}
