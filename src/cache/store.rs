//! The store itself: what is whole, within a bound, and what is coming.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use arc_swap::ArcSwap;
use http::{HeaderValue, header::CONTENT_LENGTH};
use moka::{notification::RemovalCause, sync::Cache};
use pingora_cache::{CacheKey, CacheMeta, key::CacheHashKey};
use tokio::time::Instant;

use crate::{
    cache::{
        config::Config,
        entry::{Entry, Head, Subject},
        growing::Growing,
        purge::{Purge, Purged},
        reader::Reader,
    },
    metrics::{Family, Page},
};

/// So many variants of a URL are kept; with another, the oldest goes.
pub(super) const VARIANTS_MAX: usize = 64;
/// Of so many URLs it is known which variants they have.
const VARIED_MAX: u64 = 65_536;
const SHARDS: usize = 64;

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

/// Answers that are coming, of some keys.
#[derive(Debug, Default)]
struct Shard {
    /// How many there are, so that a look at none takes no lock.
    count: AtomicUsize,
    coming: Mutex<HashMap<u128, Arc<Growing>>>,
}

impl Shard {
    fn coming(&self) -> MutexGuard<'_, HashMap<u128, Arc<Growing>>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store.
pub struct Store {
    whole: ArcSwap<Cache<u128, Arc<Entry>>>,
    memory: AtomicU64,
    shards: [Shard; SHARDS],
    /// Bytes reserved for what is coming.
    incoming: AtomicU64,
    /// The variants of URLs that have some.
    variants: Cache<[u8; 16], Arc<Mutex<VecDeque<u128>>>>,
    evictions: Arc<AtomicU64>,
    purged: AtomicU64,
    /// The last purges: what was asked for before one is not kept after it.
    orders: Mutex<Orders>,
    /// How many of them there are, so that a look at none takes no lock.
    orders_count: AtomicUsize,
}

/// Purges of which answers may still come that were asked for before.
#[derive(Default)]
struct Orders {
    last: VecDeque<(Instant, Purge)>,
    /// When the last one was that is not known any more: it counts for all answers.
    forgotten: Option<Instant>,
}

/// So many purges are remembered.
const ORDERS_MAX: usize = 64;

impl Default for Store {
    fn default() -> Self {
        let evictions = Arc::default();
        let memory = Config::default().memory.0;
        Self {
            whole: ArcSwap::from_pointee(cache_of(memory, &evictions)),
            memory: memory.into(),
            shards: std::array::from_fn(|_| Shard::default()),
            incoming: AtomicU64::new(0),
            variants: Cache::new(VARIED_MAX),
            evictions,
            purged: AtomicU64::new(0),
            orders: Mutex::default(),
            orders_count: AtomicUsize::new(0),
        }
    }
}

fn cache_of(memory: u64, evictions: &Arc<AtomicU64>) -> Cache<u128, Arc<Entry>> {
    let evictions = evictions.clone();
    Cache::builder()
        .weigher(|_, entry: &Arc<Entry>| entry.weight())
        .max_capacity(memory)
        .eviction_listener(move |_, _, cause| {
            if cause == RemovalCause::Size {
                evictions.fetch_add(1, Relaxed);
            }
        })
        .build()
}

impl Store {
    /// Follows a configuration. What there is stays, as far as there is room.
    pub fn follow(&self, config: Config) {
        let memory = config.memory.0;
        if self.memory.swap(memory, SeqCst) == memory {
            return;
        }
        let (old, new) = (self.whole.load_full(), cache_of(memory, &self.evictions));
        old.iter().for_each(|(hash, entry)| new.insert(*hash, entry));
        self.whole.store(Arc::new(new));
        old.invalidate_all();
    }

    /// The bytes that it may have.
    pub fn memory(&self) -> u64 {
        self.memory.load(SeqCst)
    }

    fn shard(&self, hash: u128) -> &Shard {
        &self.shards[usize::from(hash.to_be_bytes()[15]) % SHARDS]
    }

    /// Finds an answer; one that is coming before the one that it replaces.
    pub fn find(&self, hash: u128) -> Option<Reader> {
        let shard = self.shard(hash);
        if 0 < shard.count.load(SeqCst)
            && let Some(growing) = shard.coming().get(&hash).filter(|growing| growing.is_followed)
        {
            return Some(Reader::following(growing.clone()));
        }
        self.whole.load().get(&hash).map(Reader::whole)
    }

    /// Reserves bytes for what is coming: a quarter of all at most.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let max = self.memory() / 4;
        let taken = self.incoming.fetch_add(bytes, SeqCst);
        let is_there = taken.saturating_add(bytes) <= max;
        if !is_there {
            self.give_back(bytes);
        }
        is_there
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.incoming.fetch_sub(bytes, SeqCst);
    }

    /// Shows an answer that is coming to those who follow.
    pub(super) fn show(&self, hash: u128, growing: &Arc<Growing>) {
        let shard = self.shard(hash);
        let mut coming = shard.coming();
        coming.insert(hash, growing.clone());
        shard.count.store(coming.len(), SeqCst);
    }

    /// Shows it to nobody any more; whether it was shown.
    pub(super) fn withdraw(&self, hash: u128, growing: &Arc<Growing>) -> bool {
        let shard = self.shard(hash);
        let mut coming = shard.coming();
        let is_it = coming.get(&hash).is_some_and(|shown| Arc::ptr_eq(shown, growing));
        if is_it {
            coming.remove(&hash);
            shard.count.store(coming.len(), SeqCst);
        }
        is_it
    }

    /// Keeps an answer that is whole, unless it was purged as it came.
    pub(super) fn keep(&self, hash: u128, growing: &Arc<Growing>) {
        if growing.entry.is_purged() {
            self.withdraw(hash, growing);
            return;
        }
        let body = growing.body();
        let mut head = growing.entry.head.again();
        let length = HeaderValue::from(body.length);
        if head.has_body() && head.header.insert_header(CONTENT_LENGTH, length).is_err() {
            return;
        }
        let entry = Arc::new(Entry::new(head, growing.entry.subject.clone(), body));
        self.whole.load().insert(hash, entry);
        self.withdraw(hash, growing);
    }

    /// Gives an answer another head.
    pub(super) fn renew(&self, hash: u128, head: Head) -> bool {
        let whole = self.whole.load();
        let Some(old) = whole.get(&hash) else { return false };
        whole.insert(hash, Arc::new(Entry::new(head, old.subject.clone(), old.body.clone())));
        true
    }

    /// Gives an answer another head, unless it is not the one that is kept any more.
    pub fn renew_as(&self, key: &CacheKey, old: &Arc<Entry>, meta: &CacheMeta) -> bool {
        let hash = u128::from_be_bytes(key.combined_bin());
        let is_it = self.whole.load().get(&hash).is_some_and(|kept| Arc::ptr_eq(&kept, old));
        let mut head = Head::of(meta, key.variance_bin().is_none());
        head.be_variant(old.variance());
        is_it && self.renew(hash, head)
    }

    /// Removes the answers to a URL, since something of it was changed. Variants go with the first,
    /// by which they are found, and are too old for the one that comes after it.
    pub fn invalidate(&self, key: &CacheKey) {
        let hash = u128::from_be_bytes(key.primary_bin());
        if let Some(growing) = self.shard(hash).coming().get(&hash) {
            growing.entry.purge();
        }
        self.remove(hash);
    }

    pub(super) fn remove(&self, hash: u128) -> bool {
        self.whole.load().remove(&hash).is_some()
    }

    /// Notes a variant of a URL.
    pub(super) fn note_variant(&self, primary: [u8; 16], hash: u128) {
        let all = self.variants.get_with(primary, Arc::default);
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains(&hash) {
            return;
        }
        all.push_back(hash);
        if VARIANTS_MAX < all.len()
            && let Some(oldest) = all.pop_front()
        {
            self.remove(oldest);
        }
    }

    /// Whether an answer that begins to come may be what a purge was to remove.
    pub(super) fn was_purged_since(&self, subject: &Subject) -> bool {
        if self.orders_count.load(SeqCst) == 0 {
            return false;
        }
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |at: Instant| subject.asked <= at;
        orders.forgotten.is_some_and(since)
            || orders.last.iter().any(|(at, purge)| since(*at) && purge.may_meet(subject))
    }

    fn note_order(&self, purge: &Purge) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.last.len() == ORDERS_MAX
            && let Some((at, _)) = orders.last.pop_front()
        {
            orders.forgotten = Some(at);
        }
        orders.last.push_back((Instant::now(), purge.clone()));
        self.orders_count.store(orders.last.len(), SeqCst);
    }

    /// Removes answers; those that are coming, or were asked for already, are not kept.
    pub fn purge(&self, purge: &Purge) -> Purged {
        self.note_order(purge);
        let mut purged = 0;
        for shard in &self.shards {
            let mut coming = shard.coming();
            for growing in coming.values().filter(|growing| purge.meets(&growing.entry)) {
                growing.entry.purge();
            }
            coming.retain(|_, growing| !growing.entry.is_purged());
            shard.count.store(coming.len(), SeqCst);
        }
        let whole = self.whole.load();
        for (hash, _) in whole.iter().filter(|(_, entry)| purge.meets(entry)) {
            purged += u64::from(whole.remove(&*hash).is_some());
        }
        self.purged.fetch_add(purged, Relaxed);
        Purged { purged }
    }
}

/// Writes what the store has.
pub fn collect(page: &mut Page) {
    let store = crate::cache::store();
    let whole = store.whole.load();
    whole.run_pending_tasks();
    page.family(&MEMORY).add([], whole.weighted_size());
    page.family(&MEMORY_MAX).add([], store.memory());
    page.family(&ENTRIES).add([], whole.entry_count());
    page.family(&COMING).add([], store.incoming.load(SeqCst));
    page.family(&EVICTIONS).add([], store.evictions.load(Relaxed));
    page.family(&PURGED).add([], store.purged.load(Relaxed));
}
