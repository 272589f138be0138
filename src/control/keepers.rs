//! Background work of the upstreams: discovery and checks, one task for each upstream, which owns
//! those that follow its sources and those that watch its backends.
//!
//! A configuration that is about to come into force brings new backends, which are probed before
//! they take requests ([`Keepers::prepare`]). Backends that are known already are left to the
//! tasks of the configuration in force until it is replaced ([`Keepers::settle`]): what a new
//! check thinks of them must not change what runs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use log::warn;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::{self, Instant},
};

use crate::{
    control::{lock, tasks},
    upstream::{
        Upstream,
        backend::{BackendState, Member, Probe},
        health::{self, Checks},
    },
};

/// A source that does not answer holds a start or a reload up for no longer than this.
const DISCOVERY_MAX: Duration = Duration::from_secs(2);
/// What a round of checks may take beyond their timeout.
const SLACK: Duration = Duration::from_millis(100);
/// What changes within so short a time becomes one new set.
const SETTLE: Duration = Duration::from_millis(50);

type Upstreams = BTreeMap<String, Arc<Upstream>>;

/// The tasks of the upstreams in force, by name.
#[derive(Default)]
pub(super) struct Keepers {
    running: HashMap<String, Keeper>,
}

/// The task of one upstream. It ends when this is dropped.
struct Keeper {
    upstream: Arc<Upstream>,
    in_force: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The tasks of upstreams that are not in force yet.
pub(super) struct Prepared {
    fresh: HashMap<String, Keeper>,
}

impl Keepers {
    /// Starts the work of upstreams that do not run yet, and returns when each of their new
    /// backends is in service or did not answer well, or when that takes too long. Runs in the runtime that is to do
    /// the work.
    pub(super) async fn prepare(&self, upstreams: &Upstreams) -> Prepared {
        let (first_round, mut rest) = mpsc::channel(1);
        let mut fresh = HashMap::new();
        let mut longest = Duration::ZERO;
        for (name, upstream) in upstreams {
            if self.running.get(name).is_some_and(|known| Arc::ptr_eq(&known.upstream, upstream)) {
                continue;
            }
            longest =
                longest.max(upstream.checks().map_or(Duration::ZERO, |checks| checks.timeout));
            fresh.insert(name.clone(), Keeper::start(upstream.clone(), first_round.clone()));
        }
        drop(first_round);
        if !fresh.is_empty() {
            let _ = time::timeout(DISCOVERY_MAX + longest + SLACK, rest.recv()).await;
            for keeper in fresh.values() {
                tell_of_silence(&keeper.upstream);
            }
        }
        Prepared { fresh }
    }

    /// Lets the prepared tasks take over, and ends those of upstreams that are no longer in force.
    ///
    /// INVARIANT: one task at a time watches a backend. Each keeps its own count of answers, and
    /// two that take turns in writing what they found could leave it wrong for ever.
    pub(super) async fn settle(&mut self, upstreams: &Upstreams, prepared: Prepared) {
        self.running.retain(|name, _| upstreams.contains_key(name));
        for (name, keeper) in prepared.fresh {
            if let Some(old) = self.running.remove(&name) {
                old.end().await;
            }
            keeper.upstream.take_over();
            keeper.in_force.send_replace(true);
            self.running.insert(name, keeper);
        }
    }
}

impl Keeper {
    fn start(upstream: Arc<Upstream>, first_round: mpsc::Sender<()>) -> Self {
        let (in_force, watched) = watch::channel(false);
        let task = tokio::spawn(keep(upstream.clone(), first_round, watched));
        Self { upstream, in_force, task }
    }

    /// Ends the task, and returns when nothing of it runs any longer.
    async fn end(self) {
        drop(self.in_force);
        let _ = self.task.await;
    }
}

/// Says which sources were waited for in vain; requests go on without what they may give.
fn tell_of_silence(upstream: &Upstream) {
    for feed in upstream.feeds().iter().filter(|feed| feed.is_awaited()) {
        let (name, label) = (upstream.name(), feed.label());
        warn!("discovery: {name} {label} has not answered yet, and is waited for no longer");
    }
}

/// Keeps one upstream until its keeper is gone.
async fn keep(
    upstream: Arc<Upstream>,
    first_round: mpsc::Sender<()>,
    in_force: watch::Receiver<bool>,
) {
    let watches = Mutex::new(Watches::default());
    let (mut keeper, judging) = (in_force.clone(), in_force.clone());
    let mut first_round = Some(first_round);
    let mut following = JoinSet::new();
    for feed in upstream.feeds() {
        let feed = feed.clone();
        following.spawn(async move { tasks::keep("discovery", || feed.follow()).await });
    }
    let tended = tasks::keep("upstreams", || {
        // Whoever waits for the first round waits for one start alone.
        tend(&upstream, &watches, first_round.take(), in_force.clone())
    });
    let judged = tasks::keep("outliers", || judge(&upstream, judging.clone()));
    tokio::select! {
        ((), ()) = async { tokio::join!(tended, judged) } => {}
        () = async { while keeper.changed().await.is_ok() {} } => {}
    }
    let mut tasks = mem::take(&mut lock(&watches).tasks);
    tasks.shutdown().await;
    following.shutdown().await;
}

/// Judges what traffic shows of the backends, once the upstream is in force.
async fn judge(upstream: &Upstream, mut in_force: watch::Receiver<bool>) {
    if in_force.wait_for(|in_force| *in_force).await.is_ok() {
        upstream.judge_outliers().await;
    }
}

/// Puts what sources find in force, and watches the backends that there are. Holds `first_round`
/// until each source has answered, well or badly, and each new backend was asked.
async fn tend(
    upstream: &Upstream,
    watches: &Mutex<Watches>,
    mut first_round: Option<mpsc::Sender<()>>,
    mut in_force: watch::Receiver<bool>,
) {
    loop {
        let is_awaiting = upstream.is_awaiting();
        let due = upstream.refresh().await;
        let all = *in_force.borrow_and_update();
        lock(watches).reconcile(upstream, all, first_round.as_ref());
        if !is_awaiting {
            first_round = None;
        }
        tokio::select! {
            () = upstream.changed() => if first_round.is_none() {
                time::sleep(SETTLE).await;
            },
            () = until(due) => {}
            changed = in_force.changed() => if changed.is_err() { return },
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The tasks that watch the backends of one upstream, by address and name.
#[derive(Default)]
struct Watches {
    tasks: JoinSet<()>,
    by_name: HashMap<(String, Option<Arc<str>>), AbortHandle>,
}

impl Watches {
    /// Starts a watch for each new backend, and stops those of backends that are gone. Those that
    /// were known before this upstream follow when `all` are to be watched.
    fn reconcile(
        &mut self,
        upstream: &Upstream,
        all: bool,
        first_round: Option<&mpsc::Sender<()>>,
    ) {
        let Some(checks) = upstream.checks() else { return };
        while self.tasks.try_join_next().is_some() {} // those that were stopped before
        let members = upstream.members();
        let present: HashSet<_> = members.iter().map(|member| of(member)).collect();
        self.by_name.retain(|known, watch| {
            let stays = present.contains(known);
            if !stays {
                watch.abort();
            }
            stays
        });
        let (unused, _) = mpsc::channel(1);
        for member in members.into_iter().filter(|member| all || is_new(&member.state)) {
            self.by_name.entry(of(&member)).or_insert_with(|| {
                let token = first_round.unwrap_or(&unused).clone();
                let (upstream, checks) = (upstream.name().clone(), checks.clone());
                self.tasks.spawn(watch_over(upstream, member, checks, token))
            });
        }
    }
}

fn of(member: &Member) -> (String, Option<Arc<str>>) {
    (member.state.name().to_owned(), member.target.name.clone())
}

/// Watches a backend; a check that panics says nothing of it, and the next one may.
async fn watch_over(
    upstream: Arc<str>,
    member: Arc<Member>,
    checks: Arc<Checks>,
    first_round: mpsc::Sender<()>,
) {
    let (unused, _) = mpsc::channel(1);
    let mut first_round = Some(first_round);
    let begin = || {
        let token = first_round.take().unwrap_or_else(|| unused.clone());
        let (state, target) = (member.state.clone(), member.target.clone());
        health::watch(upstream.clone(), state, target, checks.clone(), token)
    };
    tasks::keep("health", begin).await;
}

fn is_new(state: &BackendState) -> bool {
    state.probe() == Probe::Pending
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{
        config::{File, source::Loaded},
        diagnostic::Problems,
        snapshot::{self, Snapshot},
    };

    fn compiled(text: &str, predecessor: Option<&Snapshot>) -> Snapshot {
        let mut problems = Problems::default();
        let loaded = Loaded::of(text, &mut problems);
        let file = File::read(&loaded, &mut problems).map(Arc::new);
        let compiled =
            file.map(|file| snapshot::assemble(file, predecessor, &mut problems)).unwrap();
        assert!(!problems.has_errors(), "{problems:?}");
        compiled
    }

    fn probes(snapshot: &Snapshot) -> Vec<Probe> {
        let members = snapshot.upstreams["app"].members();
        members.iter().map(|member| member.state.probe()).collect()
    }

    /// Backends that take connections, as `app` with more keys.
    fn app(backends: &[TcpListener], more: &str) -> String {
        let mut addresses: Vec<_> =
            backends.iter().map(|backend| backend.local_addr().unwrap()).collect();
        addresses.sort();
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        format!("upstreams: {{ app: {{ backends: [{}], {more} }} }}", addresses.join(", "))
    }

    #[tokio::test]
    async fn an_upstream_that_is_equal_is_left_alone() {
        let backends = [TcpListener::bind("127.0.0.1:0").unwrap()];
        let first = compiled(&app(&backends, ""), None);
        let mut keepers = Keepers::default();
        let prepared = keepers.prepare(&first.upstreams).await;
        assert_eq!(probes(&first), [Probe::Passing]);
        keepers.settle(&first.upstreams, prepared).await;

        let second = compiled(&app(&backends, ""), Some(&first));
        let prepared = keepers.prepare(&second.upstreams).await;
        assert!(prepared.fresh.is_empty());
        keepers.settle(&second.upstreams, prepared).await;
        assert!(!keepers.running["app"].task.is_finished());
    }

    /// Whatever it wrote, it wrote before.
    #[tokio::test]
    async fn the_task_of_before_has_ended_when_the_next_one_begins() {
        let backends = [TcpListener::bind("127.0.0.1:0").unwrap()];
        let first = compiled(&app(&backends, ""), None);
        let mut keepers = Keepers::default();
        let prepared = keepers.prepare(&first.upstreams).await;
        keepers.settle(&first.upstreams, prepared).await;

        let second = compiled(&app(&backends, "retries: 1"), Some(&first));
        let prepared = keepers.prepare(&second.upstreams).await;
        let old = Arc::downgrade(&first.upstreams["app"]);
        drop(first);
        assert!(old.upgrade().is_some(), "it is kept until the next one is in force");
        keepers.settle(&second.upstreams, prepared).await;
        assert!(old.upgrade().is_none());
        assert!(Arc::ptr_eq(&keepers.running["app"].upstream, &second.upstreams["app"]));
    }

    #[tokio::test]
    async fn what_is_prepared_and_refused_leaves_no_task() {
        let backends = [TcpListener::bind("127.0.0.1:0").unwrap()];
        let first = compiled(&app(&backends, ""), None);
        let keepers = Keepers::default();
        let prepared = keepers.prepare(&first.upstreams).await;
        let upstream = Arc::downgrade(&first.upstreams["app"]);
        drop((first, prepared));
        let gone = async {
            while upstream.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        };
        time::timeout(Duration::from_secs(20), gone).await.expect("its end");
    }

    #[tokio::test]
    async fn preparing_waits_until_new_backends_are_in_service() {
        let backends = [TcpListener::bind("127.0.0.1:0").unwrap()];
        let several = compiled(&app(&backends, "health_check: { healthy_after: 3 }"), None);
        let keepers = Keepers::default();
        let _prepared = keepers.prepare(&several.upstreams).await;
        assert_eq!(probes(&several), [Probe::Passing]);
    }
}
