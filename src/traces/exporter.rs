//! Brings spans to their receiver: a bounded queue, and a thread that empties it.
//!
//! A request appends its story to the queue of its thread's shard, which nobody else locks but the
//! exporter's thread, for the moment in which it takes what waits.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use log::{error, warn};
use prost::Message;
use tokio::{sync::Notify, time::Instant};

use crate::{
    counter,
    otlp::{
        config::Receiver,
        courier::{Courier, Fate, Parcel, Signal},
        proto::{Resource, ResourceSpans, ScopeSpans, Traces},
        resource::{resource, scope},
    },
    traces::finished::Finished,
};

/// The most requests whose spans wait in one shard.
const WAITING_MAX: usize = 1_024;
/// The most that travel together: requests, and bytes. Receivers of gRPC take 4 MiB.
const REQUESTS_MAX: usize = 512;
const BYTES_MAX: usize = 1024 * 1024;
/// How often it is looked whether it is time to send.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the last spans may take, looking up the receiver's name included.
const FINISH_MAX: Duration = Duration::from_secs(8);

/// Exports the spans of requests to one receiver.
#[derive(Debug)]
pub struct Exporter {
    receiver: Receiver,
    shards: Box<[Shard]>,
    finish: AtomicBool,
    /// Whether anything was dropped since the thread looked.
    has_dropped: AtomicBool,
    abandoned: Notify,
    running: Mutex<Option<Running>>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Vec<Finished>>);

/// The thread, and what tells that it is through.
#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

/// An exporter as configurations and requests hold it: when the last of them lets go, no more
/// spans will come.
#[derive(Debug)]
pub struct Outlet(Arc<Exporter>);

impl Outlet {
    /// An outlet to a receiver.
    pub fn new(receiver: Receiver) -> Arc<Self> {
        Arc::new(Self(Exporter::new(receiver)))
    }

    /// Who exports.
    pub fn exporter(&self) -> &Arc<Exporter> {
        &self.0
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.abandoned.notify_one();
    }
}

impl Exporter {
    /// An exporter that only keeps; [`Self::start`] begins the sending.
    fn new(receiver: Receiver) -> Arc<Self> {
        Arc::new(Self {
            receiver,
            shards: (0..counter::shards()).map(|_| Shard::default()).collect(),
            finish: AtomicBool::new(false),
            has_dropped: AtomicBool::new(false),
            abandoned: Notify::new(),
            running: Mutex::default(),
        })
    }

    /// Who gets the spans.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Takes the story of a request, or drops it where too many wait.
    pub fn offer(&self, request: Finished) {
        let spans = request.count();
        let mut waiting = self.shards[counter::shard()].lock();
        if waiting.len() < WAITING_MAX {
            waiting.push(request);
        } else {
            drop(waiting);
            Signal::Traces.lose(spans);
            self.has_dropped.store(true, Relaxed);
        }
    }

    /// Starts the thread. Call it after the process has forked.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let worker = Worker::new(self.clone());
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("traces".to_owned()).spawn(move || {
            let _end = end;
            worker.run();
        })?;
        *lock(&self.running) = Some(Running { thread, ended });
        Ok(())
    }

    /// Waits until nobody is left who would give it more.
    pub async fn is_abandoned(&self) {
        self.abandoned.notified().await;
    }

    /// Has what waits sent, and the thread end, without waiting for it.
    pub fn begin_finish(&self) {
        self.finish.store(true, Release);
    }

    /// The same, and waits for that, up to a bound.
    pub fn finish(&self) {
        self.begin_finish();
        let Some(Running { thread, ended }) = lock(&self.running).take() else { return };
        if ended.recv_timeout(FINISH_MAX) == Err(RecvTimeoutError::Timeout) {
            error!("traces: left without the last spans, which took longer than {FINISH_MAX:?}");
        } else if thread.join().is_err() {
            error!("traces: the exporter had died");
        }
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Vec<Finished>> {
        lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread of an exporter works with.
struct Worker {
    exporter: Arc<Exporter>,
    courier: Courier,
    resource: Resource,
    /// What was taken out of the shards.
    batch: VecDeque<Finished>,
    /// What is on its way.
    parcel: Option<Parcel>,
    sent_at: Instant,
    has_told: bool,
}

impl Worker {
    fn new(exporter: Arc<Exporter>) -> Self {
        let receiver = &exporter.receiver;
        let courier = Courier::new(receiver.clone(), Signal::Traces);
        let resource = resource(&receiver.service_name, &receiver.resource);
        let (batch, sent_at) = (VecDeque::new(), Instant::now());
        Self { exporter, courier, resource, batch, parcel: None, sent_at, has_told: false }
    }

    fn run(mut self) {
        let mut is_last = false;
        while !is_last {
            thread::sleep(LOOK_EVERY);
            is_last = self.exporter.finish.load(Acquire);
            if is_last || self.is_due() {
                self.send_all();
            }
            self.tell_drops();
        }
        self.lose_the_rest();
    }

    fn is_due(&self) -> bool {
        let waiting = || self.exporter.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
        self.parcel.is_some()
            || self.exporter.receiver.every <= self.sent_at.elapsed()
            || REQUESTS_MAX <= waiting()
    }

    /// Sends all that waits, as far as the receiver takes it.
    fn send_all(&mut self) {
        self.sent_at = Instant::now();
        for index in 0..self.exporter.shards.len() {
            loop {
                if REQUESTS_MAX <= self.batch.len() && !self.send_batch() {
                    return;
                }
                let room = REQUESTS_MAX.saturating_sub(self.batch.len());
                let mut waiting = self.exporter.shards[index].lock();
                let taken = room.min(waiting.len());
                self.batch.extend(waiting.drain(..taken));
                if waiting.is_empty() {
                    break;
                }
            }
        }
        self.send_batch();
    }

    /// Sends what was taken; answers whether nothing of it is left.
    fn send_batch(&mut self) -> bool {
        loop {
            let Some(parcel) = self.parcel.take().or_else(|| self.pack()) else { return true };
            if self.courier.deliver(&parcel, &self.exporter.finish) == Fate::Waits {
                self.parcel = Some(parcel);
                return false;
            }
        }
    }

    /// Makes a parcel of what was taken first; `None` if nothing was.
    fn pack(&mut self) -> Option<Parcel> {
        let (mut spans, mut size) = (Vec::new(), 0);
        while size < BYTES_MAX
            && let Some(request) = self.batch.pop_front()
        {
            for span in request.spans() {
                size += span.encoded_len();
                spans.push(span);
            }
        }
        if spans.is_empty() {
            return None;
        }
        let count = spans.len() as u64;
        let scopes = vec![ScopeSpans { scope: Some(scope()), spans }];
        let resource = Some(self.resource.clone());
        let message = Traces { resources: vec![ResourceSpans { resource, scopes }] };
        Some(self.courier.pack(&message.encode_to_vec(), count))
    }

    /// Counts what is left when the exporter ends and its receiver takes nothing.
    fn lose_the_rest(&mut self) {
        let mut lost = self.parcel.take().map_or(0, |parcel| parcel.records());
        lost += self.batch.drain(..).map(|request| request.count()).sum::<u64>();
        for shard in &self.exporter.shards {
            lost += shard.lock().drain(..).map(|request| request.count()).sum::<u64>();
        }
        Signal::Traces.lose(lost);
        if 0 < lost {
            warn!("traces: {lost} spans were lost at the end, since the receiver takes none");
        }
    }

    /// Tells once that the queue is full, until it is not.
    fn tell_drops(&mut self) {
        let has_dropped = self.exporter.has_dropped.swap(false, Relaxed);
        if has_dropped && !self.has_told {
            warn!("traces: spans are dropped: the receiver is too slow");
        }
        self.has_told = has_dropped;
    }
}
