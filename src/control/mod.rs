//! The slow path: all that changes while requests pass by.
//!
//! [`Control`] owns the change of configurations: it reads, compiles all, lets new backends be
//! probed, and swaps one pointer. One change is made at a time; whatever fails before the swap
//! leaves everything as it was.

pub mod background;
pub mod history;
pub mod hold;
mod keepers;
mod outlets;
pub mod probation;
pub mod receipt;
mod refusal;
pub mod reloads;
mod reminders;
mod renewal;
mod signals;
pub mod tasks;
mod watcher;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::SystemTime,
};

use log::{error, info, warn};
use tokio::{
    runtime::Handle,
    sync::{self, Notify},
    task,
};

pub use refusal::Refusal;

use crate::{
    cache,
    config::{
        self, File,
        source::{Texts, Watched},
    },
    control::{
        history::{History, Version},
        keepers::Keepers,
        outlets::Outlets,
        probation::{Probation, Recent, Terms},
        receipt::Receipt,
        reloads::Reloads,
    },
    diagnostic::{Color, Problem, Problems, Sources, render},
    observe::process_log,
    panics::{self, Panic},
    snapshot::{self, Live, Snapshot},
    systemd,
};

/// Where a process has its configuration from.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// The file, as an absolute path; `None` if it was started without one.
    pub path: Option<PathBuf>,
    /// What was read of it.
    pub texts: Texts,
    /// How it came to be in force, if not by a plain start.
    pub summary: Option<&'static str>,
}

/// The owner of all change.
pub struct Control {
    live: Live,
    path: Option<PathBuf>,
    /// Where the configuration was last read from, whether it could be used or not.
    watched: Mutex<Watched>,
    started: SystemTime,
    history: Mutex<History>,
    /// Held for the time of a change.
    keepers: sync::Mutex<Keepers>,
    probation: Mutex<Probation>,
    recent: Mutex<Recent>,
    outlets: Arc<Outlets>,
    /// The runtime of the background service, which does all the work.
    runtime: OnceLock<Handle>,
    reload_asked: Notify,
    /// Whether an upgrade is under way: nothing changes meanwhile.
    held: AtomicBool,
    /// What the files looked like when they were last read, whoever asked for it.
    looked: Mutex<Option<watcher::Looks>>,
    reloads: Reloads,
}

/// What a change leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// What the file says now.
    File,
    /// An earlier version.
    Version(u64),
}

impl Control {
    /// Takes charge of a configuration that is about to serve.
    pub fn new(live: Live, provenance: Provenance) -> Arc<Self> {
        let now = SystemTime::now();
        let first = live.load();
        process_log::follow(&first.file.process_log);
        cache::store().follow(&first.file.cache, &first.file.folder);
        let history = History::new(Version {
            number: first.version,
            since: now,
            file: first.file.clone(),
            texts: provenance.texts.clone(),
            summary: provenance.summary.unwrap_or("read at the start").to_owned(),
        });
        drop(first);
        Arc::new(Self {
            live,
            path: provenance.path,
            watched: Mutex::new(provenance.texts.watched),
            started: now,
            history: Mutex::new(history),
            keepers: sync::Mutex::default(),
            probation: Mutex::default(),
            recent: Mutex::default(),
            outlets: Arc::default(),
            runtime: OnceLock::new(),
            reload_asked: Notify::new(),
            held: AtomicBool::new(false),
            looked: Mutex::default(),
            reloads: Reloads::since(now),
        })
    }

    /// The snapshot in force.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The file that is read at a reload.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// When the process took charge.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// The versions that are kept, oldest first.
    pub fn versions(&self) -> Vec<Version> {
        lock(&self.history).all().cloned().collect()
    }

    /// What was read for a version; `None` if it is no longer kept.
    pub fn texts(&self, version: u64) -> Option<Texts> {
        lock(&self.history).find(version).map(|kept| kept.texts.clone())
    }

    /// Asks for a reload without waiting for it; several such wishes at a time are one.
    pub fn ask_for_reload(&self) {
        self.reload_asked.notify_one();
    }

    /// Changes the configuration in force, and tells what changed. With `terms`, the change is on
    /// probation: it is taken back if more requests fail than they allow.
    ///
    /// Goes on to its end even if the caller does not wait for it.
    ///
    /// # Errors
    /// If nothing was changed, and why.
    pub async fn change(
        self: &Arc<Self>,
        goal: Goal,
        terms: Option<Terms>,
    ) -> Result<Receipt, Refusal> {
        let runtime = self.runtime.get().ok_or(Refusal::NotServing)?;
        let this = self.clone();
        let changed = runtime.spawn(panics::catch(async move {
            let mut keepers = this.keepers.lock().await;
            if this.held.load(SeqCst) {
                return Err(Refusal::Upgrading);
            }
            this.make(&mut keepers, goal, terms).await
        }));
        changed.await.map_err(|_| Refusal::NotServing)?.unwrap_or_else(|panic| Err(panicked(panic)))
    }

    /// Makes a change, and lets the service manager know.
    async fn make(
        self: &Arc<Self>,
        keepers: &mut Keepers,
        goal: Goal,
        terms: Option<Terms>,
    ) -> Result<Receipt, Refusal> {
        let reloading = systemd::reloading();
        let made = self.make_untold(keepers, goal, terms).await;
        self.reloads.count(&made);
        reloading.ends_with(&match &made {
            Ok(receipt) => format!("serving {receipt}"),
            Err(_) => "serving; a reload was refused, and nothing was changed".to_owned(),
        });
        made
    }

    async fn make_untold(
        self: &Arc<Self>,
        keepers: &mut Keepers,
        goal: Goal,
        terms: Option<Terms>,
    ) -> Result<Receipt, Refusal> {
        let wanted = self.wanted(goal)?;
        let this = self.clone();
        let compiled = task::spawn_blocking(move || panics::catch_now(|| this.compile(wanted)));
        let compiled = compiled.await.map_err(|_| Refusal::NotServing)?;
        let (new, receipt, texts) = compiled.map_err(panicked)??;
        if let Some(acme) = &new.acme {
            acme.try_again(); // whoever reloads may have mended what was wrong
        }
        if receipt.from == receipt.to {
            return Ok(receipt);
        }
        let prepared = keepers.prepare(&new.upstreams).await;
        let new = Arc::new(new);
        outlets::start(&self.live.load(), &new)?;
        // Before it is in force, so that there is no moment in which nobody knows of its texts.
        lock(&self.history).push(Version {
            number: receipt.to,
            since: SystemTime::now(),
            file: new.file.clone(),
            texts,
            summary: receipt.to_string(),
        });
        new.start_errands();
        let before = self.live.swap(new.clone());
        keepers.settle(&new.upstreams, prepared).await;
        process_log::follow(&new.file.process_log);
        cache::store().follow(&new.file.cache, &new.file.folder);
        info!("reload: {receipt}");
        self.begin_probation(&before, &new, terms);
        self.outlets.retire(&before, &new);
        Ok(receipt)
    }

    /// What a change is made of; read in [`Self::compile`], off the runtime.
    fn wanted(&self, goal: Goal) -> Result<Wanted, Refusal> {
        match goal {
            Goal::File => self.path.clone().map(Wanted::File).ok_or(Refusal::NoFile),
            Goal::Version(number) => {
                let history = lock(&self.history);
                let found = history.find(number).cloned();
                let kept = || {
                    let kept: Vec<_> = history.all().map(|kept| kept.number.to_string()).collect();
                    kept.join(", ")
                };
                found.map(Wanted::Version).ok_or_else(|| Refusal::NoVersion(number, kept()))
            }
        }
    }

    fn compile(&self, wanted: Wanted) -> Result<Compiled, Refusal> {
        let old = self.live.load();
        let mut problems = Problems::default();
        let (file, texts, repeats) = match wanted {
            Wanted::File(path) => {
                config::source::check_is_lasting(&path).map_err(told)?;
                let before = watcher::look_at_all(&lock(&self.watched).clone());
                let loaded = config::load(&path, &mut problems);
                let file = File::read(&loaded, &mut problems).map(Arc::new);
                let mut texts = loaded.texts();
                texts.watched.add(file.iter().flat_map(|file| file.files()));
                lock(&self.watched).clone_from(&texts.watched);
                *lock(&self.looked) = Some(watcher::read_as(&before, &texts.watched));
                (file, texts, None)
            }
            Wanted::Version(version) => {
                problems.hide(version.texts.fills.clone());
                (Some(version.file), version.texts, Some(version.number))
            }
        };
        let shown = |problems: &Problems| render(problems, &texts.sources, Color::Never);
        let Some(file) = file else { return Err(Refusal::Problems(shown(&problems))) };
        let mut changes = receipt::changes(&old.file, &file);
        let mut new = snapshot::assemble(file.clone(), Some(&old), &mut problems);
        receipt::check(&old.file, &file, &mut problems);
        if problems.has_errors() {
            return Err(Refusal::Problems(shown(&problems)));
        }
        new.bind_as(&old);
        changes.extend(receipt::certificates(&old, &new));
        changes.extend(receipt::files(&old, &new));
        let to = if changes.is_empty() { old.version } else { new.version };
        let warnings = shown(&problems);
        Ok((new, Receipt { from: old.version, to, repeats, changes, warnings }, texts))
    }

    /// Writes and sends what waits to be kept, logged or exported: the last act of a process.
    pub fn finish(&self) {
        cache::store().finish();
        self.outlets.finish(&self.live.load());
    }

    /// Reloads whenever it is asked for without somebody who waits for the answer.
    async fn reload_when_asked(self: Arc<Self>) {
        loop {
            self.reload_asked.notified().await;
            self.reload_and_tell(Unchanged::Said).await;
        }
    }

    /// Reloads, and tells the process log what came of it.
    async fn reload_and_tell(self: &Arc<Self>, unchanged: Unchanged) {
        match self.change(Goal::File, None).await {
            Ok(receipt) if receipt.from != receipt.to => {
                if !receipt.warnings.is_empty() {
                    warn!("reload: with warnings\n{}", receipt.warnings);
                }
            }
            Ok(receipt) if unchanged == Unchanged::Said => info!("reload: {receipt}"),
            Ok(_) => {}
            Err(why) => error!("reload: nothing was changed\n{why}"),
        }
    }
}

/// Whether a reload that found nothing new is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unchanged {
    Said,
    Unsaid,
}

type Compiled = (Snapshot, Receipt, Texts);

enum Wanted {
    File(PathBuf),
    Version(Version),
}

/// Counts and tells a panic that ended a change.
fn panicked(panic: Panic) -> Refusal {
    panic.count_task();
    error!("reload: panicked: {panic}");
    Refusal::Panicked(panic)
}

/// A refusal that has one reason, with no place.
fn told(problem: Problem) -> Refusal {
    let mut problems = Problems::default();
    problems.push(problem);
    Refusal::Problems(render(&problems, &Sources::default(), Color::Never))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
