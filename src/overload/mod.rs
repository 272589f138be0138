//! Whether the process has more to do than it can bear: too little memory is left, or its event
//! loops run late.
//!
//! New requests are shed first, so that those in flight come to their end. A sampler in the
//! background measures and judges ([`Sampler`]); a request reads one number ([`level`]). The admin
//! socket asks nobody here.

pub mod config;
mod gauge;
mod memory;
pub mod pulse;

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use log::{info, warn};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{
    metrics::{Family, Page},
    overload::{
        config::Config,
        gauge::{Gauge, HOLD, Pressure},
        memory::Memory,
    },
};

const LEVELS: Family<0> = Family::gauge(
    "crestline_overload_level",
    "0 while the process does what it is asked, 1 while it sheds new requests, 2 while it closes \
     connections as well",
    [],
);
const DELAYED: Family<0> = Family::gauge(
    "crestline_event_loop_delay_seconds",
    "How late the event loops of connections ran in the last tenth of a second, at most",
    [],
);
const USED: Family<0> = Family::gauge(
    "crestline_overload_memory_ratio",
    "The memory that the process has in use, as a share of its bound; 0 without a bound",
    [],
);

/// How often it is measured.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// So many seconds a client that was shed stays away: sooner, nothing is different.
pub const RETRY_AFTER: u64 = HOLD.as_secs();

/// How much there is to do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[schemars(rename = "Overload")]
pub enum Level {
    /// What can be done.
    #[default]
    Calm = 0,
    /// New requests are shed.
    Shedding = 1,
    /// Connections are closed as well, as soon as they have their answers.
    Critical = 2,
}

impl Level {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Shedding => "shedding",
            Self::Critical => "critical",
        }
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Calm as u8);
/// What was measured last, as the bits of seconds and of a share.
static DELAY: AtomicU64 = AtomicU64::new(0);
static MEMORY: AtomicU64 = AtomicU64::new(0);
/// Tells those who wait.
static CRITICAL: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// How much there is to do now.
pub fn level() -> Level {
    match LEVEL.load(Relaxed) {
        0 => Level::Calm,
        1 => Level::Shedding,
        _ => Level::Critical,
    }
}

/// Writes how much there is to do.
pub fn collect(page: &mut Page) {
    page.family(&LEVELS).add([], u32::from(LEVEL.load(Relaxed)));
    page.family(&DELAYED).add([], f64::from_bits(DELAY.load(Relaxed)));
    page.family(&USED).add([], f64::from_bits(MEMORY.load(Relaxed)));
}

/// Waits until connections are closed.
pub async fn critical() {
    let mut told = CRITICAL.subscribe();
    if told.wait_for(|critical| *critical).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Measures, and judges.
#[derive(Debug)]
pub struct Sampler {
    gauge: Gauge,
    memory: Memory,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { gauge: Gauge::default(), memory: Memory::of_this_process() }
    }
}

impl Sampler {
    /// Measures once, and lets all know.
    pub fn sample(&mut self, config: &Config, now: Instant) {
        let delay = pulse::delay();
        let memory = self.memory.share(config.memory);
        let bound = config.loop_delay.map(|bound| bound.0);
        let pressure = Pressure {
            memory: memory.unwrap_or(0.0),
            delay: bound.map_or(0.0, |bound| delay.as_secs_f64() / bound.as_secs_f64()),
        };
        DELAY.store(delay.as_secs_f64().to_bits(), Relaxed);
        MEMORY.store(pressure.memory.to_bits(), Relaxed);
        let before = self.gauge.level();
        let after = self.gauge.judge(pressure, now);
        if before == after {
            return;
        }
        LEVEL.store(after as u8, Relaxed);
        CRITICAL.send_replace(after == Level::Critical);
        let memory = memory.map_or("unbounded".to_owned(), |it| format!("{:.0}%", it * 100.0));
        let measured = format!("memory {memory} of its bound, event loops {delay:.1?} late");
        match after {
            Level::Calm => info!("overload: over; {measured}"),
            Level::Shedding => warn!("overload: new requests are shed; {measured}"),
            Level::Critical => {
                warn!("overload: new requests are shed and connections closed; {measured}");
            }
        }
    }
}
