//! What happens now, second by second: `GET /v1/live`, as server-sent events.
//!
//! One sampler looks once a second, whoever watches; with nobody there it only keeps the figures
//! of the last minutes. Who begins to watch is told everything once (`start`), and then what has
//! changed (`second`); when the configuration does, or the set of backends, everything again.
//!
//! INVARIANT: what a watcher was told is what the sampler remembers as told, so that changes since
//! then are all that it lacks. One that is too slow is told everything again, and costs nothing
//! meanwhile.

mod figures;
mod rows;
mod sampler;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::{self, Instant, MissedTickBehavior},
};

pub use figures::{Pulse, RouteFigures, Second, Start, Tick};

use crate::{
    admin::{live::sampler::Sampler, status::Status},
    control::{Control, tasks},
    drain::Drain,
    handover::predecessor::Predecessor,
};

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(1);
/// After so many of them, everything is told again: ages, and what only grows.
const WHOLE_EVERY: u32 = 60;
/// Watchers at a time: half of the connections that there may be, so that commands get through.
const WATCHERS_MAX: usize = 16;
/// So many events wait for a watcher that is slow.
const BEHIND_MAX: usize = 4;

/// The sampler, and those who watch.
pub struct Live {
    control: Arc<Control>,
    drain: Arc<Drain>,
    handover: Arc<Predecessor>,
    sampling: Mutex<Sampling>,
    news: broadcast::Sender<Bytes>,
    places: Arc<Semaphore>,
    has_begun: AtomicBool,
}

struct Sampling {
    sampler: Sampler,
    /// What those who watch were told last; `None` while nobody does.
    told: Option<Told>,
}

struct Told {
    status: Status,
    routes: Vec<RouteFigures>,
    /// How many events ago everything was told.
    age: u32,
}

impl Live {
    /// Prepares to look at a process.
    pub fn new(control: Arc<Control>, drain: Arc<Drain>, handover: Arc<Predecessor>) -> Arc<Self> {
        Arc::new(Self {
            control,
            drain,
            handover,
            sampling: Mutex::new(Sampling { sampler: Sampler::default(), told: None }),
            news: broadcast::Sender::new(BEHIND_MAX),
            places: Arc::new(Semaphore::new(WATCHERS_MAX)),
            has_begun: AtomicBool::new(false),
        })
    }

    /// Begins to look, on the runtime of whoever calls first.
    pub(in crate::admin) fn begin(self: &Arc<Self>) {
        if !self.has_begun.swap(true, Relaxed) {
            let live = self.clone();
            tokio::spawn(async move { tasks::keep("live", || live.look_for_ever()).await });
        }
    }

    async fn look_for_ever(&self) {
        let mut looks = time::interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look(Instant::now(), SystemTime::now());
        }
    }

    fn look(&self, now: Instant, at: SystemTime) {
        let snapshot = self.control.live().load_full();
        let mut sampling = self.sampling();
        let second = sampling.sampler.look(&snapshot, now, at);
        if self.news.receiver_count() == 0 {
            sampling.told = None;
            return;
        }
        let (status, routes) = self.rows(&sampling.sampler);
        let event =
            match sampling.told.as_ref().and_then(|told| told.tick(second, &status, &routes)) {
                Some(tick) => event("second", &tick),
                None => event("start", &sampling.sampler.start(&status, &routes)),
            };
        let age = sampling.told.as_ref().map_or(0, |told| (told.age + 1) % WHOLE_EVERY);
        sampling.told = Some(Told { status, routes, age });
        // Nobody is there any more: nothing is lost.
        let _ = self.news.send(event);
    }

    /// Takes a place among those who watch; `None` if there is none.
    pub(in crate::admin) fn watch(self: &Arc<Self>) -> Option<Watcher> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (first, news) = self.join();
        Some(Watcher { live: self.clone(), first: Some(first), news, _place: place })
    }

    /// Everything, and what follows.
    fn join(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let mut sampling = self.sampling();
        let Sampling { sampler, told } = &mut *sampling;
        let told = told.get_or_insert_with(|| {
            let (status, routes) = self.rows(sampler);
            Told { status, routes, age: 0 }
        });
        (event("start", &sampler.start(&told.status, &told.routes)), self.news.subscribe())
    }

    fn rows(&self, sampler: &Sampler) -> (Status, Vec<RouteFigures>) {
        let routes = sampler.routes(&self.control.live().load());
        (Status::of(&self.control, &self.drain), routes)
    }

    fn sampling(&self) -> MutexGuard<'_, Sampling> {
        self.sampling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// What is new; `None` if it is better told as a whole.
    fn tick(&self, second: Second, status: &Status, routes: &[RouteFigures]) -> Option<Tick> {
        if WHOLE_EVERY <= self.age + 1 || !rows::is_alike(&self.status, status) {
            return None;
        }
        Some(Tick {
            second,
            pulse: Pulse::of(status),
            upstreams: rows::upstreams(&self.status.upstreams, &status.upstreams)?,
            routes: rows::routes(&self.routes, routes)?,
        })
    }
}

/// Somebody who watches.
pub(in crate::admin) struct Watcher {
    live: Arc<Live>,
    first: Option<Bytes>,
    news: broadcast::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next event; `None` when a successor is to be watched instead.
    pub(in crate::admin) async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let news = tokio::select! {
            news = self.news.recv() => news,
            () = self.live.handover.handed_over() => return None,
        };
        match news {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let (whole, news) = self.live.join();
                self.news = news;
                Some(whole)
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// An event as it is sent: JSON has no line breaks that would end it.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}
