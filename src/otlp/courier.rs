//! Brings parcels of records to a receiver, one at a time.
//!
//! INVARIANT: a call lasts no longer than the timeout of one attempt, and while its owner finishes
//! only a moment; nothing is tried again that is older than `KEPT_MAX`.

use std::{
    io,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use log::{error, info, warn};
use tokio::{
    runtime::{Builder, Runtime},
    time::{self, Instant},
};

use crate::{
    client::channel::Channel,
    metrics::{Family, Page},
    otlp::{
        config::{Protocol, Receiver},
        exchange::{self, Outcome},
        grpc,
    },
};

/// How long a parcel is tried again.
const KEPT_MAX: Duration = Duration::from_secs(60);
/// How long the last attempt may take once the owner finishes.
const LAST: Duration = Duration::from_secs(2);
/// The pauses between attempts: the first one, and the longest. A receiver may ask for more.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
const ASKED_MAX: Duration = Duration::from_secs(60);

const SENT: Family<1> = Family::counter(
    "crestline_otlp_sent_total",
    "Log records and spans that a receiver of OpenTelemetry has taken, by signal",
    ["signal"],
);
const DROPPED: Family<1> = Family::counter(
    "crestline_otlp_dropped_total",
    "Log records and spans that were lost, because their receiver was too slow, or took them not, by signal",
    ["signal"],
);

/// A kind of records, which has a way of its own to a receiver, and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Records of a log.
    Logs,
    /// Spans of traces.
    Traces,
}

/// What was taken, and what was lost, over all configurations.
struct Counts {
    taken: AtomicU64,
    lost: AtomicU64,
}

static COUNTS: [Counts; 2] =
    [const { Counts { taken: AtomicU64::new(0), lost: AtomicU64::new(0) } }; 2];

impl Signal {
    const ALL: [Self; 2] = [Self::Logs, Self::Traces];

    /// What stands for it in metrics and messages.
    fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
        }
    }

    /// Where it goes over HTTP, behind the path of the endpoint.
    fn path(self) -> &'static str {
        match self {
            Self::Logs => "/v1/logs",
            Self::Traces => "/v1/traces",
        }
    }

    /// The call that takes it.
    fn method(self) -> &'static str {
        match self {
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        }
    }

    fn counts(self) -> &'static Counts {
        &COUNTS[self as usize]
    }

    /// Counts records that were lost before they came to a courier, or behind its back.
    pub fn lose(self, records: u64) {
        self.counts().lost.fetch_add(records, Relaxed);
    }
}

/// Writes what is known of all couriers.
pub fn collect(page: &mut Page) {
    let mut sent = page.family(&SENT);
    for signal in Signal::ALL {
        sent.add([signal.as_str()], signal.counts().taken.load(Relaxed));
    }
    let mut dropped = page.family(&DROPPED);
    for signal in Signal::ALL {
        dropped.add([signal.as_str()], signal.counts().lost.load(Relaxed));
    }
}

/// Records that travel together.
pub struct Parcel {
    body: Bytes,
    records: u64,
    since: Instant,
}

impl Parcel {
    /// How many there are.
    pub fn records(&self) -> u64 {
        self.records
    }
}

/// What became of a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is to be tried again.
    Waits,
    /// It is gone, and so many of its records were lost.
    Gone(u64),
}

/// Who brings parcels to a receiver. Make one anywhere; it works on a thread of its owner, outside
/// of any runtime.
pub struct Courier {
    receiver: Receiver,
    signal: Signal,
    path: String,
    channel: Channel,
    runtime: Option<Runtime>,
    again_at: Instant,
    pause: Duration,
    failing: bool,
}

impl Courier {
    /// A courier that connects with the first parcel.
    pub fn new(receiver: Receiver, signal: Signal) -> Self {
        let path = match receiver.protocol {
            Protocol::Http => format!("{}{}", receiver.path, signal.path()),
            Protocol::Grpc => signal.method().to_owned(),
        };
        let channel = receiver.channel();
        let (runtime, again_at, pause) = (None, Instant::now(), PAUSES.0);
        Self { receiver, signal, path, channel, runtime, again_at, pause, failing: false }
    }

    /// Makes a parcel of a message with so many records.
    pub fn pack(&self, message: &[u8], records: u64) -> Parcel {
        let body = match self.receiver.protocol {
            Protocol::Http => Bytes::copy_from_slice(message),
            Protocol::Grpc => grpc::framed(message),
        };
        Parcel { body, records, since: Instant::now() }
    }

    /// Brings a parcel to the receiver, unless it is too early to try again. Who finishes tries a
    /// last time.
    pub fn deliver(&mut self, parcel: &Parcel, finish: &AtomicBool) -> Fate {
        if Instant::now() < self.again_at && !finish.load(Acquire) {
            return Fate::Waits;
        }
        match self.attempt(parcel, finish) {
            Outcome::Taken { rejected, why } => {
                let rejected = rejected.min(parcel.records);
                self.signal.counts().taken.fetch_add(parcel.records - rejected, Relaxed);
                self.taken(rejected, &why);
                Fate::Gone(rejected)
            }
            Outcome::Never { why } => {
                self.fails(&why);
                self.lost(parcel)
            }
            Outcome::Later { why, after } => {
                self.fails(&why);
                self.wait(after);
                if parcel.since.elapsed() < KEPT_MAX { Fate::Waits } else { self.lost(parcel) }
            }
        }
    }

    fn attempt(&mut self, parcel: &Parcel, finish: &AtomicBool) -> Outcome {
        let runtime = match self.runtime.take().map_or_else(runtime, Ok) {
            Ok(runtime) => runtime,
            Err(why) => return Outcome::Later { why: why.to_string(), after: None },
        };
        let Receiver { protocol, headers, timeout, .. } = &self.receiver;
        let sent = exchange::send(
            &mut self.channel,
            *protocol,
            &self.path,
            headers,
            &parcel.body,
            *timeout,
        );
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = sent => outcome,
                () = is_over(finish) => {
                    Outcome::Later { why: "no answer before the end".to_owned(), after: None }
                }
            }
        });
        self.runtime = Some(runtime);
        outcome
    }

    fn wait(&mut self, asked: Option<Duration>) {
        let pause = self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.again_at =
            Instant::now() + asked.map_or(pause, |asked| asked.min(ASKED_MAX).max(pause));
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    fn taken(&mut self, rejected: u64, why: &str) {
        let (to, signal) = (self.channel.endpoint(), self.signal.as_str());
        if 0 < rejected {
            self.signal.lose(rejected);
            if !self.failing {
                warn!("otlp: {rejected} {signal} were lost at {to}: {why}");
            }
        } else if self.failing {
            info!("otlp: {signal} are taken again at {to}");
        }
        self.failing = 0 < rejected;
        self.pause = PAUSES.0;
    }

    fn fails(&mut self, why: &str) {
        if !self.failing {
            let (to, signal) = (self.channel.endpoint(), self.signal.as_str());
            error!("otlp: {signal} are not taken at {to}: {why}");
        }
        self.failing = true;
    }

    fn lost(&self, parcel: &Parcel) -> Fate {
        self.signal.lose(parcel.records);
        Fate::Gone(parcel.records)
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Waits until the owner has finished for a while.
async fn is_over(finish: &AtomicBool) {
    while !finish.load(Acquire) {
        time::sleep(Duration::from_millis(50)).await;
    }
    time::sleep(LAST).await;
}
