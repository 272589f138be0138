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
    "Records that a receiver of OpenTelemetry has taken, by signal",
    ["signal"],
);
const DROPPED: Family<1> = Family::counter(
    "crestline_otlp_dropped_total",
    "Records that were lost, because their receiver was too slow, or took them not, by signal",
    ["signal"],
);

/// What stands for records of a log beside the metrics.
const LOGS: &str = "logs";
/// Where they go over HTTP, behind the path of the endpoint.
const PATH: &str = "/v1/logs";
/// The call that takes them.
const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What was taken, and what was lost, over all configurations.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Counts records that were lost before they came to a courier.
pub fn lose(records: u64) {
    LOST.fetch_add(records, Relaxed);
}

/// Writes what is known of all couriers.
pub fn collect(page: &mut Page) {
    page.family(&SENT).add([LOGS], TAKEN.load(Relaxed));
    page.family(&DROPPED).add([LOGS], LOST.load(Relaxed));
}

/// Records that travel together.
pub struct Parcel {
    body: Bytes,
    records: u64,
    since: Instant,
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
    path: String,
    channel: Channel,
    runtime: Option<Runtime>,
    again_at: Instant,
    pause: Duration,
    failing: bool,
}

impl Courier {
    /// A courier that connects with the first parcel.
    pub fn new(receiver: Receiver) -> Self {
        let path = match receiver.protocol {
            Protocol::Http => format!("{}{PATH}", receiver.path),
            Protocol::Grpc => METHOD.to_owned(),
        };
        let channel = receiver.channel();
        let (runtime, again_at, pause) = (None, Instant::now(), PAUSES.0);
        Self { receiver, path, channel, runtime, again_at, pause, failing: false }
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
                TAKEN.fetch_add(parcel.records - rejected, Relaxed);
                self.taken(rejected, &why);
                Fate::Gone(rejected)
            }
            Outcome::Never { why } => {
                self.fails(&why);
                lost(parcel)
            }
            Outcome::Later { why, after } => {
                self.fails(&why);
                self.wait(after);
                if parcel.since.elapsed() < KEPT_MAX { Fate::Waits } else { lost(parcel) }
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
        let to = self.channel.endpoint();
        if 0 < rejected {
            lose(rejected);
            if !self.failing {
                warn!("otlp: {rejected} {LOGS} were lost at {to}: {why}");
            }
        } else if self.failing {
            info!("otlp: {LOGS} are taken again at {to}");
        }
        self.failing = 0 < rejected;
        self.pause = PAUSES.0;
    }

    fn fails(&mut self, why: &str) {
        if !self.failing {
            error!("otlp: {LOGS} are not taken at {}: {why}", self.channel.endpoint());
        }
        self.failing = true;
    }
}

fn lost(parcel: &Parcel) -> Fate {
    lose(parcel.records);
    Fate::Gone(parcel.records)
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
