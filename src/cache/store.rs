//! The store itself: what is whole, within a bound, and what is coming.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
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

use crate::cache::{
    body::Body,
    config::Config,
    disk::slot::Slot,
    entry::{Entry, Head, Subject},
    growing::{Follower, Growing},
    orders::Orders,
    purge::{Purge, Purged},
    reader::Reader,
};

/// So many variants of a URL are kept; with another, the oldest goes.
pub(super) const VARIANTS_MAX: usize = 64;
/// Of so many URLs it is known which variants they have.
const VARIED_MAX: u64 = 65_536;
const SHARDS: usize = 64;

/// Answers that are coming, of some keys.
#[derive(Default)]
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
    pub(super) incoming: AtomicU64,
    /// The variants of URLs that have some.
    variants: Cache<[u8; 16], Arc<Mutex<VecDeque<u128>>>>,
    pub(super) evictions: Arc<AtomicU64>,
    pub(super) purged: AtomicU64,
    pub(super) orders: Orders,
    pub(super) disk: Arc<Slot>,
}

impl Default for Store {
    fn default() -> Self {
        let (evictions, disk) = (Arc::default(), Arc::default());
        let memory = Config::default().memory.0;
        Self {
            whole: ArcSwap::from_pointee(cache_of(memory, &evictions, &disk)),
            memory: memory.into(),
            shards: std::array::from_fn(|_| Shard::default()),
            incoming: AtomicU64::new(0),
            variants: Cache::new(VARIED_MAX),
            evictions,
            purged: AtomicU64::new(0),
            orders: Orders::default(),
            disk,
        }
    }
}

fn cache_of(memory: u64, evictions: &Arc<AtomicU64>, disk: &Arc<Slot>) -> Cache<u128, Arc<Entry>> {
    let (evictions, disk) = (evictions.clone(), disk.clone());
    Cache::builder()
        .weigher(|_, entry: &Arc<Entry>| entry.weight())
        .max_capacity(memory)
        .eviction_listener(move |hash, entry, cause| {
            if cause == RemovalCause::Size {
                evictions.fetch_add(1, Relaxed);
                if let Some(disk) = disk.get().as_ref().filter(|disk| !disk.has(*hash)) {
                    disk.keep(*hash, &entry);
                }
            }
        })
        .build()
}

impl Store {
    /// Follows a configuration, whose paths are seen from `folder`. What there is stays, as far as
    /// there is room.
    pub fn follow(&self, config: &Config, folder: &Path) {
        self.disk.want(config.disk.as_ref().map(|disk| disk.place(folder)));
        let memory = config.memory.0;
        if self.memory.swap(memory, SeqCst) == memory {
            return;
        }
        let (old, new) = (self.whole.load_full(), cache_of(memory, &self.evictions, &self.disk));
        old.iter().for_each(|(hash, entry)| new.insert(*hash, entry));
        self.whole.store(Arc::new(new));
        old.invalidate_all();
    }

    /// Has the disk closed for good, so that another process may have it.
    pub fn leave_disk(&self) {
        self.disk.leave();
    }

    /// The same, and waits until all is written: the last act of a process.
    pub fn finish(&self) {
        self.disk.finish();
    }

    /// What is whole in memory.
    pub(super) fn in_memory(&self) -> Arc<Cache<u128, Arc<Entry>>> {
        self.whole.load_full()
    }

    /// The bytes that it may have.
    pub fn memory(&self) -> u64 {
        self.memory.load(SeqCst)
    }

    fn shard(&self, hash: u128) -> &Shard {
        &self.shards[usize::from(hash.to_be_bytes()[15]) % SHARDS]
    }

    /// Finds an answer in memory; one that is coming before the one that it replaces.
    pub fn find(&self, hash: u128) -> Option<Reader> {
        let shard = self.shard(hash);
        if 0 < shard.count.load(SeqCst)
            && let Some(follower) = shard.coming().get(&hash).and_then(Follower::of)
        {
            return Some(Reader::following(follower));
        }
        self.whole.load().get(&hash).map(Reader::whole)
    }

    /// Finds one on the disk, and takes it into the memory.
    pub(super) async fn find_on_disk(&self, hash: u128) -> Option<Reader> {
        let disk = self.disk.take()?;
        let entry = disk.find(hash).await?;
        if let Some(newer) = self.find(hash) {
            return Some(newer);
        }
        let whole = self.whole.load();
        whole.insert(hash, entry.clone());
        // An order that came meanwhile has not seen it, or has already removed it.
        if self.was_removed(&entry) {
            self.remove(hash);
            return None;
        }
        if !disk.has(hash) {
            whole.remove(&hash); // it was removed by its name
        }
        Some(Reader::found_on_disk(entry))
    }

    /// Whether an answer is coming that others may follow.
    pub(super) fn is_followed(&self, hash: u128) -> bool {
        let shard = self.shard(hash);
        0 < shard.count.load(SeqCst)
            && shard.coming().get(&hash).is_some_and(|growing| growing.is_followed())
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

    /// Shows an answer that is coming to those who follow. One that it replaces is not kept any more.
    pub(super) fn show(&self, growing: &Arc<Growing>) {
        let shard = self.shard(growing.hash);
        let mut coming = shard.coming();
        if let Some(older) = coming.insert(growing.hash, growing.clone()) {
            older.entry.purge();
        }
        shard.count.store(coming.len(), SeqCst);
    }

    /// Shows it to nobody any more.
    pub(super) fn withdraw(&self, growing: &Arc<Growing>) {
        let shard = self.shard(growing.hash);
        let mut coming = shard.coming();
        if coming.get(&growing.hash).is_some_and(|shown| Arc::ptr_eq(shown, growing)) {
            coming.remove(&growing.hash);
            shard.count.store(coming.len(), SeqCst);
        }
    }

    /// Keeps an answer that is whole, unless it was purged as it came.
    pub(super) fn keep(&self, growing: &Arc<Growing>, body: Body) {
        if growing.entry.is_purged() || self.was_removed(&growing.entry) {
            return self.withdraw(growing);
        }
        let mut head = growing.entry.head.again();
        let length = HeaderValue::from(body.length);
        if head.has_body() && head.header.insert_header(CONTENT_LENGTH, length).is_err() {
            return self.withdraw(growing);
        }
        let entry = Arc::new(Entry::new(head, growing.entry.subject.clone(), body));
        self.insert(growing.hash, &entry);
        self.withdraw(growing);
        if growing.entry.is_purged() {
            self.remove(growing.hash); // just now
        }
    }

    fn insert(&self, hash: u128, entry: &Arc<Entry>) {
        self.whole.load().insert(hash, entry.clone());
        if let Some(disk) = &*self.disk.get() {
            disk.keep(hash, entry);
        }
    }

    /// Gives an answer another head.
    pub(super) fn renew(&self, hash: u128, old: &Entry, head: Head) {
        let new = Arc::new(Entry::new(head, old.subject.clone(), old.body.clone()));
        self.insert(hash, &new);
        if self.was_removed(&new) {
            self.remove(hash);
        }
    }

    /// What is kept whole, wherever it lies.
    pub(super) async fn whole(&self, hash: u128) -> Option<Arc<Entry>> {
        if let Some(entry) = self.whole.load().get(&hash) {
            return Some(entry);
        }
        self.find_on_disk(hash).await?.whole_entry().cloned()
    }

    /// Gives an answer another head, unless it is not the one that is kept any more.
    pub fn renew_as(&self, key: &CacheKey, old: &Arc<Entry>, meta: &CacheMeta) -> bool {
        let hash = u128::from_be_bytes(key.combined_bin());
        let is_it = self.keeps(key, old)
            || !self.whole.load().contains_key(&hash)
                && self.disk.get().as_ref().is_some_and(|disk| disk.has(hash));
        let mut head = Head::of(meta, key.variance_bin().is_none());
        head.be_variant(old.variance());
        if is_it {
            self.renew(hash, old, head);
        }
        is_it
    }

    /// Whether an answer is the one that is kept in memory.
    pub fn keeps(&self, key: &CacheKey, entry: &Arc<Entry>) -> bool {
        let kept = self.whole.load().get(&u128::from_be_bytes(key.combined_bin()));
        kept.is_some_and(|kept| Arc::ptr_eq(&kept, entry))
    }

    /// Removes the answers to a URL, since something of it was changed. Variants go with the first,
    /// by which they are found, and are too old for the one that comes after it.
    pub fn invalidate(&self, key: &CacheKey) {
        let hash = u128::from_be_bytes(key.primary_bin());
        let growing = self.shard(hash).coming().get(&hash).cloned();
        if let Some(growing) = growing {
            growing.entry.purge();
            self.withdraw(&growing);
        }
        self.remove(hash);
    }

    pub(super) fn remove(&self, hash: u128) -> bool {
        let was_there = self.whole.load().remove(&hash).is_some();
        let disk = self.disk.get();
        // What waits to be written is in memory, too, or has just left it.
        let on_disk = disk.as_ref().filter(|disk| was_there || disk.has(hash));
        if let Some(disk) = on_disk {
            disk.remove(hash);
        }
        was_there || on_disk.is_some()
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

    /// The time of what is asked for now.
    pub fn now(&self) -> u64 {
        self.orders.now()
    }

    /// Whether an answer that begins to come may be what a purge was to remove.
    pub(super) fn was_purged_since(&self, subject: &Subject) -> bool {
        self.orders.were_given_since(subject.asked, |purge| purge.may_meet(subject))
    }

    /// Whether an answer that is whole was to be removed since it was asked for.
    fn was_removed(&self, entry: &Entry) -> bool {
        self.orders.were_given_since(entry.subject.asked, |purge| purge.meets(entry))
    }

    /// Removes answers; those that are coming, or were asked for already, are not kept. Those on the
    /// disk alone are removed when they are found.
    pub fn purge(&self, purge: &Purge) -> Purged {
        let order = self.orders.give(purge);
        if let Some(disk) = &*self.disk.get() {
            disk.note(&order, &self.orders);
        }
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
            purged += u64::from(self.remove(*hash));
        }
        self.purged.fetch_add(purged, Relaxed);
        Purged { purged }
    }
}
