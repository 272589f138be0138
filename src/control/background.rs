//! Everything that runs beside requests, as one Pingora background service.
//!
//! The service is ready, and listeners open, when every upstream had its first round: its names
//! looked up, each backend asked once. That is bounded by the timeouts of the checks.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use log::{info, warn};
use pingora_core::{
    server::ShutdownWatch,
    services::{ServiceReadyNotifier, background::BackgroundService},
};
use tokio::{
    runtime::Handle,
    time::{self, Instant},
};

use crate::{
    cache,
    control::{Control, lock, outlets, reminders, renewal, signals, tasks, watcher},
    overload::{self, Sampler},
};

/// How often the counts that a probation compares with are taken.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The service.
pub struct Background {
    control: Arc<Control>,
}

impl Background {
    /// The work that belongs to what `control` has charge of.
    pub fn new(control: Arc<Control>) -> Self {
        Self { control }
    }
}

#[async_trait]
impl BackgroundService for Background {
    async fn start_with_ready_notifier(
        &self,
        mut shutdown: ShutdownWatch,
        ready: ServiceReadyNotifier,
    ) {
        let control = &self.control;
        // Threads begin here, after the process may have forked.
        if let Err(why) = signals::listen(control.clone()) {
            warn!("signals: SIGHUP and SIGUSR1 are not answered: {why}");
        }
        let snapshot = control.live.load_full();
        outlets::start_first(&snapshot);
        snapshot.start_errands();
        let started = Instant::now();
        {
            let mut keepers = control.keepers.lock().await;
            let prepared = keepers.prepare(&snapshot.upstreams).await;
            keepers.settle(&snapshot.upstreams, prepared).await;
        }
        drop(snapshot);
        info!("upstreams: first round over after {:.0?}", started.elapsed());
        let _ = control.runtime.set(Handle::current());
        let again = control.clone();
        tokio::spawn(async move {
            tasks::keep("reload", || again.clone().reload_when_asked()).await;
        });
        let again = control.clone();
        tokio::spawn(async move { tasks::keep("watch", || watcher::run(again.clone())).await });
        let again = control.clone();
        tokio::spawn(async move { tasks::keep("sampler", || sample(again.clone())).await });
        let again = control.clone();
        tokio::spawn(async move { tasks::keep("overload", || weigh(again.clone())).await });
        let again = control.clone();
        tokio::spawn(async move {
            tasks::keep("reminders", || reminders::run(again.clone())).await;
        });
        let again = control.clone();
        let renewal =
            tokio::spawn(async move { tasks::keep("acme", || renewal::run(again.clone())).await });
        tokio::spawn(tasks::keep("cache", cache::keep_disk));
        ready.notify_ready();
        let _ = shutdown.wait_for(|stopping| *stopping).await;
        cache::store().leave_disk(); // a successor waits for it
        renewal.abort(); // its answers might not be found any longer; a successor orders
        // Checks go on while requests in flight finish: they may still need another backend.
        std::future::pending::<()>().await;
    }
}

/// Weighs what the process has to do.
async fn weigh(control: Arc<Control>) {
    let mut sampler = Sampler::default();
    loop {
        time::sleep(overload::SAMPLE_EVERY).await;
        let config = control.live.load().file.overload;
        sampler.sample(&config, Instant::now());
    }
}

async fn sample(control: Arc<Control>) {
    loop {
        time::sleep(SAMPLE_EVERY).await;
        let snapshot = control.live.load();
        lock(&control.recent).sample(snapshot.version, snapshot.tally.get());
    }
}
