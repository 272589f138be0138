//! Background work of the upstreams: discovery and checks, as a Pingora background service.
//!
//! The service is ready, and listeners open, when every upstream had its first round: its names
//! looked up, each backend asked once. That is bounded by the timeouts of the checks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use log::{error, info};
use pingora_core::{
    server::ShutdownWatch,
    services::{ServiceReadyNotifier, background::BackgroundService},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{self, Instant},
};

use crate::{
    observe::access_log::AccessLog,
    upstream::{Upstream, health},
};

/// A lookup that hangs holds the start up for no longer than this.
const DISCOVERY_MAX: Duration = Duration::from_secs(2);
/// What a round of checks may take beyond their timeout.
const SLACK: Duration = Duration::from_millis(100);

/// Everything that runs beside requests.
pub struct Background {
    upstreams: Vec<Arc<Upstream>>,
    access_log: Option<Arc<AccessLog>>,
}

impl Background {
    /// The work of these upstreams, and the writer of the access log.
    pub fn new(upstreams: Vec<Arc<Upstream>>, access_log: Option<Arc<AccessLog>>) -> Self {
        Self { upstreams, access_log }
    }
}

#[async_trait]
impl BackgroundService for Background {
    async fn start_with_ready_notifier(
        &self,
        mut shutdown: ShutdownWatch,
        ready: ServiceReadyNotifier,
    ) {
        // Threads begin here, after the process may have forked.
        if let Some(log) = &self.access_log
            && let Err(why) = log.start()
        {
            error!("access log: nothing is written: {why}");
        }
        let started = Instant::now();
        let (first_round, mut rest) = mpsc::channel(1);
        let mut keepers = JoinSet::new();
        for upstream in &self.upstreams {
            keepers.spawn(keep(upstream.clone(), first_round.clone()));
        }
        drop(first_round);
        let checks = self.upstreams.iter().filter_map(|upstream| upstream.checks());
        let longest = checks.map(|checks| checks.timeout).max().unwrap_or_default();
        let _ = time::timeout(DISCOVERY_MAX + longest + SLACK, rest.recv()).await;
        info!("upstreams: first round over after {:.0?}", started.elapsed());
        ready.notify_ready();
        let _ = shutdown.wait_for(|stopping| *stopping).await;
        // Checks go on while requests in flight finish: they may still need another backend.
        while keepers.join_next().await.is_some() {}
    }
}

/// Keeps one upstream: looks its names up when they are due, and watches the backends that there
/// are. Holds `first_round` until each of them was asked once.
async fn keep(upstream: Arc<Upstream>, first_round: mpsc::Sender<()>) {
    let mut watches = Watches::default();
    let mut first_round = Some(first_round);
    loop {
        let due = upstream.discover().await;
        watches.reconcile(&upstream, first_round.take().as_ref());
        let Some(due) = due else { break };
        time::sleep_until(due).await;
    }
    watches.run().await;
}

/// The tasks that watch the backends of one upstream, by address.
#[derive(Default)]
struct Watches {
    tasks: JoinSet<()>,
    by_name: HashMap<String, AbortHandle>,
}

impl Watches {
    /// Starts a watch for each new backend, and stops those of backends that are gone.
    fn reconcile(&mut self, upstream: &Upstream, first_round: Option<&mpsc::Sender<()>>) {
        let Some(checks) = upstream.checks() else { return };
        while self.tasks.try_join_next().is_some() {} // those that were stopped before
        let members = upstream.members();
        self.by_name.retain(|name, watch| {
            let stays = members.iter().any(|member| member.state.name() == name);
            if !stays {
                watch.abort();
            }
            stays
        });
        let (unused, _) = mpsc::channel(1);
        for member in members {
            let name = member.state.name().to_owned();
            self.by_name.entry(name).or_insert_with(|| {
                let token = first_round.unwrap_or(&unused).clone();
                let state = member.state.clone();
                self.tasks.spawn(health::watch(
                    upstream.name().clone(),
                    state,
                    checks.clone(),
                    token,
                ))
            });
        }
    }

    async fn run(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
