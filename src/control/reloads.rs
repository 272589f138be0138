//! Counts reloads, and remembers when the last one succeeded.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use crate::{
    control::{Control, Refusal, receipt::Receipt},
    metrics::{Family, Page},
    observe::process::seconds,
};

const RELOADS: Family<1> = Family::counter(
    "crestline_reloads_total",
    "Reloads that were asked for, by whether they succeeded or were refused",
    ["outcome"],
);
const LAST_SUCCESS: Family<0> = Family::gauge(
    "crestline_reload_last_success_timestamp_seconds",
    "When the configuration was last read with success, the start included, in seconds since 1970",
    [],
);
const LAST_SUCCEEDED: Family<0> = Family::gauge(
    "crestline_reload_last_succeeded",
    "Whether the last reload succeeded; 1 before the first",
    [],
);
const UPGRADING: Family<0> =
    Family::gauge("crestline_upgrade_in_progress", "Whether an upgrade is under way", []);

/// How reloads ended.
#[derive(Debug)]
pub(super) struct Reloads {
    succeeded: AtomicU64,
    refused: AtomicU64,
    /// When the last one succeeded, and whether it was the last of all.
    last: Mutex<(SystemTime, bool)>,
    /// When one was last refused, and why.
    refusal: Mutex<Option<(SystemTime, String)>>,
}

impl Reloads {
    /// Nothing but the start, at a time.
    pub(super) fn since(started: SystemTime) -> Self {
        let last = Mutex::new((started, true));
        let (succeeded, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { succeeded, refused, last, refusal: Mutex::default() }
    }

    /// Counts a reload.
    pub(super) fn count(&self, made: &Result<Receipt, Refusal>) {
        let has_succeeded = made.is_ok();
        let count = if has_succeeded { &self.succeeded } else { &self.refused };
        count.fetch_add(1, Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = if has_succeeded { SystemTime::now() } else { last.0 };
        *last = (at, has_succeeded);
        if let Err(why) = made {
            let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
            *refusal = Some((SystemTime::now(), why.to_string()));
        }
    }
}

impl Control {
    /// When a reload was last refused, and why.
    pub fn last_refused(&self) -> Option<(SystemTime, String)> {
        self.reloads.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes what is known of changes.
pub fn collect(control: &Control, page: &mut Page) {
    let Reloads { succeeded, refused, last, .. } = &control.reloads;
    let mut reloads = page.family(&RELOADS);
    reloads.add(["success"], succeeded.load(Relaxed));
    reloads.add(["refused"], refused.load(Relaxed));
    let (at, has_succeeded) = *last.lock().unwrap_or_else(PoisonError::into_inner);
    page.family(&LAST_SUCCESS).add([], seconds(at));
    page.family(&LAST_SUCCEEDED).add([], has_succeeded);
    page.family(&UPGRADING).add([], control.is_held());
}
