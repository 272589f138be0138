//! Answers of origins that are kept, for the requests of all routes that have a `cache`.
//!
//! There is one store in a process, within one bound in bytes, and it outlives every
//! configuration; with a disk beside it, what it keeps outlives the process. Pingora drives it
//! through its `Storage`; what may be kept, and for how long, is for the policy to say.
//!
//! INVARIANT: an answer is shown as whole only after its last byte came, and as long as it said
//! it was; what was cut short leaves nothing behind.

mod body;
pub mod config;
mod disk;
mod entry;
mod figures;
mod growing;
mod lock;
mod miss;
mod orders;
mod purge;
mod reader;
mod storage;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::{sync::LazyLock, time::Duration};

use pingora_cache::{lock::CacheKeyLockImpl, predictor::Predictor};

pub use entry::{Entry, Head, Subject};
pub use figures::collect;
pub use growing::{BROKEN, LATE};
pub use purge::{Purge, Purged, TAGS};
pub use reader::Reader;
pub use store::Store;
pub use writer::Writer;

use crate::cache::lock::Fetches;

/// So many shards with `PREDICTED` keys each are remembered as not worth keeping.
pub const SHARDS: usize = 16;
const PREDICTED: usize = 4_096;

/// A fetch that takes longer than this is not waited for by anybody.
const FETCH_MAX: Duration = Duration::from_secs(60);

/// Why an answer is not kept that may well be kept the next time. These words are not remembered
/// of their keys.
pub const PASSING: [&str; 4] = ["status", "head", "part", "length"];

// Pingora wants these for ever; each is made once.
static STORE: LazyLock<Store> = LazyLock::new(Store::default);
static FETCHES: LazyLock<Fetches> = LazyLock::new(|| Fetches::new(FETCH_MAX));
static PREDICTOR: LazyLock<Predictor<SHARDS>> =
    LazyLock::new(|| Predictor::new(PREDICTED, Some(|why| PASSING.contains(&why))));

/// The one store.
pub fn store() -> &'static Store {
    &STORE
}

/// Opens and closes the disk that configurations name, for ever.
pub async fn keep_disk() {
    disk::keeper::run(&STORE).await;
}

/// Who is fetching what, so that others wait.
pub fn fetches() -> &'static CacheKeyLockImpl {
    &*FETCHES
}

/// Which answers turned out not to be for keeping.
pub fn predictor() -> &'static Predictor<SHARDS> {
    &PREDICTOR
}
