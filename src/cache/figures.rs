//! What metrics tell of the store.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::metrics::{Family, Page};

const MEMORY: Family<0> =
    Family::gauge("crestline_cache_bytes", "Memory that kept answers take", []);
const MEMORY_MAX: Family<0> =
    Family::gauge("crestline_cache_max_bytes", "Memory that kept answers may take", []);
const ENTRIES: Family<0> = Family::gauge("crestline_cache_entries", "Answers that are kept", []);
const COMING: Family<0> = Family::gauge(
    "crestline_cache_incoming_bytes",
    "Memory that answers take which are still coming",
    [],
);
const EVICTIONS: Family<0> = Family::counter(
    "crestline_cache_evictions_total",
    "Answers that gave way to others, or did not get in",
    [],
);
const PURGED: Family<0> =
    Family::counter("crestline_cache_purged_total", "Answers that were removed by order", []);
const DISK: Family<0> = Family::gauge(
    "crestline_cache_disk_open",
    "Whether answers are kept on the disk that is named, too",
    [],
);
const DISK_MAX: Family<0> =
    Family::gauge("crestline_cache_disk_max_bytes", "What answers on the disk may take", []);
const DISK_FOUND: Family<0> = Family::counter(
    "crestline_cache_disk_found_total",
    "Answers that were not in memory and found on the disk",
    [],
);
const DISK_FAILED: Family<0> = Family::counter(
    "crestline_cache_disk_errors_total",
    "Answers that could not be read from the disk, and were taken for missing",
    [],
);
const DISK_READ: Family<0> = Family::counter(
    "crestline_cache_disk_read_bytes_total",
    "Bytes that were read from the disk",
    [],
);
const DISK_WRITTEN: Family<0> = Family::counter(
    "crestline_cache_disk_written_bytes_total",
    "Bytes that were written to the disk",
    [],
);

/// Writes what the store has.
pub fn collect(page: &mut Page) {
    let store = crate::cache::store();
    let whole = store.in_memory();
    whole.run_pending_tasks();
    page.family(&MEMORY).add([], whole.weighted_size());
    page.family(&MEMORY_MAX).add([], store.memory());
    page.family(&ENTRIES).add([], whole.entry_count());
    page.family(&COMING).add([], store.incoming.load(SeqCst));
    page.family(&EVICTIONS).add([], store.evictions.load(Relaxed));
    page.family(&PURGED).add([], store.purged.load(Relaxed));
    let disk = store.disk.get();
    let disk = disk.as_ref();
    page.family(&DISK).add([], u64::from(disk.is_some()));
    let [read, written] = disk.map(|disk| disk.traffic()).unwrap_or_default();
    page.family(&DISK_MAX).add([], disk.map_or(0, |disk| disk.place().max));
    page.family(&DISK_FOUND).add([], disk.map_or(0, |disk| disk.found.load(Relaxed)));
    page.family(&DISK_FAILED).add([], disk.map_or(0, |disk| disk.failed.load(Relaxed)));
    page.family(&DISK_READ).add([], read);
    page.family(&DISK_WRITTEN).add([], written);
}
