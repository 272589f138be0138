//! What is written and sent about requests, from one configuration to the next: the access log, and
//! the spans of traces.
//!
//! What a new configuration keeps goes on as it is. What it does not keep ends when nobody is left
//! who would give it more, so that a change loses nothing.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use log::error;
use tokio::{task, time};

use crate::{
    control::{lock, refusal::Refusal, told},
    diagnostic::Problem,
    observe::access_log::AccessLog,
    snapshot::Snapshot,
    traces::Exporter,
};

/// How often it is looked whether anybody has a configuration in hand that was replaced.
const IN_HAND: Duration = Duration::from_millis(50);

/// Those that end.
#[derive(Default)]
pub(super) struct Outlets {
    logs: Mutex<Vec<Arc<AccessLog>>>,
    exporters: Mutex<Vec<Arc<Exporter>>>,
}

/// Starts those of the first configuration. Call it after the process has forked.
pub(super) fn start_first(first: &Snapshot) {
    if let Some(log) = &first.access_log
        && let Err(why) = log.start()
    {
        error!("access log: nothing is written: {why}");
    }
    if let Some(exporter) = exporter(first)
        && let Err(why) = exporter.start()
    {
        error!("traces: nothing is sent: {why}");
    }
}

/// Starts those of a configuration that is about to come into force, and had none before.
pub(super) fn start(before: &Snapshot, new: &Snapshot) -> Result<(), Refusal> {
    let refused = |what: &str, why| told(Problem::error(format!("{what}: {why}")));
    if let Some(log) = &new.access_log
        && !is_same(before.access_log.as_ref(), Some(log))
    {
        log.start().map_err(|why| refused("the access log cannot be written", why))?;
    }
    if let Some(new) = exporter(new)
        && !is_same(exporter(before), Some(new))
    {
        new.start().map_err(|why| refused("the spans of traces cannot be sent", why))?;
    }
    Ok(())
}

impl Outlets {
    /// Lets those of a configuration that was replaced end, if they are kept no longer.
    pub(super) fn retire(self: &Arc<Self>, before: &Arc<Snapshot>, new: &Snapshot) {
        if let Some(log) = &before.access_log
            && !is_same(Some(log), new.access_log.as_ref())
        {
            self.retire_log(log.clone(), before);
        }
        if let Some(old) = exporter(before)
            && !is_same(Some(old), exporter(new))
        {
            self.retire_exporter(old.clone());
        }
    }

    /// A request that has just ended may have the log in hand: it is found through the snapshot
    /// alone, so once that is gone, no line will follow.
    fn retire_log(self: &Arc<Self>, log: Arc<AccessLog>, before: &Arc<Snapshot>) {
        lock(&self.logs).push(log.clone());
        let (this, in_hand) = (self.clone(), Arc::downgrade(before));
        tokio::spawn(async move {
            while 0 < in_hand.strong_count() {
                time::sleep(IN_HAND).await;
            }
            let ending = log.clone();
            let _ = task::spawn_blocking(move || ending.finish()).await;
            lock(&this.logs).retain(|retired| !Arc::ptr_eq(retired, &log));
        });
    }

    /// Requests keep their routes to the end, and those their exporter.
    fn retire_exporter(self: &Arc<Self>, exporter: Arc<Exporter>) {
        lock(&self.exporters).push(exporter.clone());
        let this = self.clone();
        tokio::spawn(async move {
            exporter.is_abandoned().await;
            let ending = exporter.clone();
            let _ = task::spawn_blocking(move || ending.finish()).await;
            lock(&this.exporters).retain(|retired| !Arc::ptr_eq(retired, &exporter));
        });
    }

    /// Writes and sends what waits: the last act of a process.
    pub(super) fn finish(&self, live: &Snapshot) {
        let exporters = std::mem::take(&mut *lock(&self.exporters));
        let exporters = || exporters.iter().chain(exporter(live));
        exporters().for_each(|exporter| exporter.begin_finish()); // while the logs are written
        let logs = std::mem::take(&mut *lock(&self.logs));
        logs.iter().chain(&live.access_log).for_each(|log| log.finish());
        exporters().for_each(|exporter| exporter.finish());
    }
}

fn exporter(snapshot: &Snapshot) -> Option<&Arc<Exporter>> {
    snapshot.traces.as_ref().map(|traces| traces.outlet().exporter())
}

fn is_same<T>(old: Option<&Arc<T>>, new: Option<&Arc<T>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (old, new) => old.is_none() && new.is_none(),
    }
}
