//! The answers that are on a disk, too, so that more are kept than the memory holds, and a start
//! finds them again.
//!
//! foyer writes them, in blocks of which the oldest gives way, and knows where each lies. What it
//! cannot do is done here: one process at a time has the folder, and orders to remove answers are
//! kept beside them, since they cannot be looked for on a disk by what they are.

mod coding;
mod folder;
mod journal;
pub(super) mod keeper;
pub(super) mod slot;

use std::{
    path::PathBuf,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use foyer::{
    Age, BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, RecoverMode, Spawner,
};
use log::{debug, error};
use tokio::{runtime, time};

use crate::cache::{
    disk::{
        coding::Kept,
        folder::{Folder, FolderError},
        journal::Journal,
    },
    entry::Entry,
    orders::{Order, Orders},
};

/// What gives way at once, and what is written at once at most.
const BLOCK: u32 = 16 * 1024 * 1024;
/// The heaviest answer that fits into a block with what describes it.
const WEIGHT_MAX: u32 = BLOCK - 64 * 1024;
/// Fewer blocks than this, and one that gives way takes too much with it.
pub(super) const MAX_LEAST: u64 = 8 * BLOCK as u64;
/// A disk that takes longer to give an answer is slower than most origins.
const READ_MAX: Duration = Duration::from_secs(1);
/// So many locks share what is looked for.
const SHARDS: usize = 64;
/// So many files are read or written at a time.
const THREADS_MAX: usize = 8;

/// Where answers lie, and how many bytes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) max: u64,
}

/// The disk, for as long as this process has it.
#[derive(Debug)]
pub(super) struct Disk {
    place: Place,
    answers: HybridCache<u128, Kept>,
    journal: Mutex<Journal>,
    /// The time of the last order that was known when it was opened.
    noted: u64,
    folder: Folder,
    /// Answers that were found.
    pub(super) found: AtomicU64,
    /// Looks that failed.
    pub(super) failed: AtomicU64,
}

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The folder is of no use.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The journal is of no use.
    #[error("`purges`: {0}")]
    Journal(std::io::Error),
    /// The answers are of no use.
    #[error("`answers`: {0}")]
    Answers(foyer::Error),
    /// There are no threads for it.
    #[error("no threads: {0}")]
    Threads(&'static std::io::Error),
}

/// The threads that read and write. They stay: a read that outlived its files might meet others.
static RUNTIME: LazyLock<std::io::Result<runtime::Runtime>> = LazyLock::new(|| {
    let mut threads = runtime::Builder::new_multi_thread();
    let threads = threads.worker_threads(1).max_blocking_threads(THREADS_MAX);
    threads.thread_name("cache-disk").enable_time().build()
});

impl Disk {
    /// Opens a folder, and joins what is known of orders on both sides.
    pub(super) async fn open(place: Place, orders: &Orders) -> Result<Self, OpenError> {
        let runtime = RUNTIME.as_ref().map_err(OpenError::Threads)?;
        let folder = Folder::take(&place.path, place.max)?;
        let told = Journal::read(&folder.purges()).or_else(|why| {
            error!("cache: {}: {why}; begins anew", folder.purges().display());
            folder.distrust()?;
            Err(why)
        });
        let known = orders.join(told.map_err(OpenError::Journal)?);
        let journal = Journal::begin(folder.purges(), &known).map_err(OpenError::Journal)?;
        let answers = open(&folder, place.max, runtime.handle()).await;
        Ok(Self {
            place,
            answers: answers.map_err(OpenError::Answers)?,
            journal: Mutex::new(journal),
            noted: known.orders.back().map_or(0, |order| order.at),
            folder,
            found: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Notes the orders that were given while it was opened. Call it when it is in use, so that
    /// later ones come here by themselves.
    fn catch_up(&self, orders: &Orders) {
        orders.after(self.noted).iter().for_each(|order| self.note(order, orders));
    }

    /// Where it lies.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Finds an answer.
    pub(super) async fn find(&self, hash: u128) -> Option<Arc<Entry>> {
        if !self.has(hash) {
            return None; // without a task on another thread
        }
        let found = match time::timeout(READ_MAX, self.answers.get(&hash)).await {
            Ok(found) => found.map_err(|why| why.to_string()),
            Err(_) => Err("the disk is slow".to_owned()),
        };
        match found {
            Ok(Some(found)) => {
                self.found.fetch_add(1, Relaxed);
                let kept = found.value().clone();
                if found.properties().age() == Age::Old {
                    self.write(hash, kept.clone()); // its block gives way soon
                }
                Some(kept.0)
            }
            Ok(None) => None,
            Err(why) => {
                self.failed.fetch_add(1, Relaxed);
                debug!("cache: {}: {why}", self.place.path.display());
                None
            }
        }
    }

    /// Whether an answer is written and was not removed.
    pub(super) fn has(&self, hash: u128) -> bool {
        self.answers.storage().may_contains(&hash)
    }

    /// Writes an answer, soon; not if there is too much to be written, or it is too long.
    pub(super) fn keep(&self, hash: u128, entry: &Arc<Entry>) {
        if self.has(hash) {
            self.remove(hash); // if the new one is not written, the old one is gone at least
        }
        if entry.weight() <= WEIGHT_MAX {
            self.write(hash, Kept(entry.clone()));
        }
    }

    fn write(&self, hash: u128, kept: Kept) {
        drop(self.answers.insert(hash, kept));
    }

    pub(super) fn remove(&self, hash: u128) {
        self.answers.remove(&hash);
    }

    /// Notes an order, so that it holds after a start. If that cannot be, the next process begins
    /// with nothing.
    pub(super) fn note(&self, order: &Order, orders: &Orders) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = journal.add(order, || orders.all()) {
            let path = self.place.path.display();
            error!("cache: {path}: a purge cannot be noted, so the next start begins anew: {why}");
            if let Err(why) = self.folder.distrust() {
                error!("cache: {path}: cannot be made to begin anew, remove `format`: {why}");
            }
        }
    }

    /// Waits until all is written that is to be.
    pub(super) async fn settle(&self) {
        self.answers.storage().wait().await;
    }

    /// Writes what waits, and takes no more.
    pub(super) async fn close(&self) {
        if let Err(why) = self.answers.close().await {
            error!("cache: {}: not closed well: {why}", self.place.path.display());
        }
    }

    /// Bytes that it takes of the disk.
    fn taken(&self) -> u64 {
        self.folder.taken()
    }

    /// Bytes that were read and written.
    pub(super) fn traffic(&self) -> [u64; 2] {
        let told = self.answers.statistics();
        [told.disk_read_bytes() as u64, told.disk_write_bytes() as u64]
    }
}

async fn open(
    folder: &Folder,
    max: u64,
    runtime: &runtime::Handle,
) -> foyer::Result<HybridCache<u128, Kept>> {
    let (block, max) = (BLOCK as usize, usize::try_from(max).unwrap_or(usize::MAX));
    let device = FsDeviceBuilder::new(folder.answers()).with_capacity(max).build()?;
    let engine = BlockEngineConfig::new(device)
        .with_block_size(block)
        .with_buffer_pool_size(block)
        .with_submit_queue_size_threshold(2 * block)
        .with_tombstone_log(true);
    HybridCacheBuilder::new()
        .with_name("crestline")
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .with_flush_on_close(false)
        .memory(SHARDS)
        .with_shards(SHARDS)
        .with_filter(|_, _| false) // the memory is the store's
        .storage()
        .with_engine_config(engine)
        .with_recover_mode(RecoverMode::Quiet)
        .with_spawner(Spawner::from(runtime.clone()))
        .build()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Purge;

    #[tokio::test]
    async fn an_order_that_comes_while_it_is_opened_is_noted() {
        let (root, orders) = (tempfile::tempdir().unwrap(), Orders::default());
        let place = Place { path: root.path().to_owned(), max: MAX_LEAST };
        let disk = Disk::open(place, &orders).await.unwrap();
        let order = orders.give(&Purge { all: true, ..Purge::default() });
        disk.catch_up(&orders);
        disk.close().await;
        assert_eq!(Journal::read(&disk.folder.purges()).unwrap().orders, [order]);
    }
}
