//! Who is fetching what: one request fetches an answer, and others for it wait.
//!
//! They wait until it is known whether there is something to wait for: where the length of an
//! answer is told, those who wait follow it as it comes; where it is not to be kept, all go on at
//! once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Extensions;
use pingora_cache::{
    CacheKey,
    key::CacheHashKey,
    lock::{CacheKeyLock, LockStatus, LockStub, Locked, WritePermit},
};

use crate::cache::STORE;

const SHARDS: usize = 64;

/// All fetches that others may wait for.
pub(super) struct Fetches {
    shards: [Mutex<HashMap<u128, LockStub>>; SHARDS],
    /// A fetch that lasts longer is given up on.
    lasts: Duration,
}

impl Fetches {
    pub(super) fn new(lasts: Duration) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), lasts }
    }

    fn shard(&self, hash: u128) -> MutexGuard<'_, HashMap<u128, LockStub>> {
        let shard = &self.shards[usize::from(hash.to_be_bytes()[15]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait for a fetch how it went, before it is over.
    pub(super) fn tell(&self, key: &CacheKey, status: LockStatus) {
        let hash = u128::from_be_bytes(key.combined_bin());
        let stub = self.shard(hash).remove(&hash);
        if let Some(stub) = stub.filter(|stub| stub.0.lock_status() == LockStatus::Waiting) {
            stub.0.unlock(status);
        }
    }
}

fn is_dead(stub: &LockStub) -> bool {
    matches!(stub.0.lock_status(), LockStatus::Dangling | LockStatus::AgeTimeout)
}

impl CacheKeyLock for Fetches {
    fn lock(&self, key: &CacheKey, stale_writer: bool) -> Locked {
        let hash = u128::from_be_bytes(key.combined_bin());
        let mut shard = self.shard(hash);
        if let Some(stub) = shard.get(&hash).filter(|stub| !is_dead(stub)) {
            return Locked::Read(stub.read_lock());
        }
        let (mut permit, stub) = WritePermit::new(self.lasts, stale_writer, Extensions::new());
        if !stale_writer && STORE.is_followed(hash) {
            // It has begun to come since the caller looked, and nobody waits for its fetch any more.
            let reading = stub.read_lock();
            permit.unlock(LockStatus::Done);
            return Locked::Read(reading);
        }
        shard.insert(hash, stub);
        Locked::Write(permit)
    }

    fn release(&self, key: &CacheKey, mut permit: WritePermit, reason: LockStatus) {
        let hash = u128::from_be_bytes(key.combined_bin());
        let told = permit.lock_status();
        if told == LockStatus::Waiting {
            self.shard(hash).remove(&hash);
            permit.unlock(reason);
        } else {
            // Its place may be another's by now, unless nobody came since it grew too old.
            let mut shard = self.shard(hash);
            if shard.get(&hash).is_some_and(is_dead) {
                shard.remove(&hash);
            }
            permit.unlock(told);
        }
    }

    fn custom_lock_status(&self, why: &'static str) -> LockStatus {
        match why {
            "head" | "part" => LockStatus::TransientError, // another may fetch what this one did not
            _ => LockStatus::GiveUp,
        }
    }
}
