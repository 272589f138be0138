//! Takes an answer in as it comes, on its way to the client that asked for it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::Result;
use pingora_cache::{
    CacheKey,
    lock::LockStatus,
    storage::{HandleMiss, MissFinishType},
};

use crate::cache::{
    FETCHES,
    growing::{End, Growing},
    store::Store,
};

/// An answer that is being written.
///
/// Whatever becomes of it here, it goes on to its client: what cannot be kept is only not kept.
pub(super) struct Miss {
    pub(super) store: &'static Store,
    pub(super) key: CacheKey,
    pub(super) hash: u128,
    /// What is there of it; `None` once it is not to be kept.
    pub(super) growing: Option<Arc<Growing>>,
    /// The length that it said it has.
    pub(super) told: Option<u64>,
    /// Bytes that came.
    pub(super) length: u64,
    /// Bytes of the bound for what is coming that are reserved for it.
    pub(super) reserved: u64,
}

impl Miss {
    /// Gives up keeping it.
    fn give_up(&mut self) {
        if let Some(growing) = self.growing.take() {
            self.store.withdraw(self.hash, &growing);
            growing.end(End::Broken);
            growing.clear();
        }
        self.store.give_back(std::mem::take(&mut self.reserved));
    }

    /// Keeps what came, which is all of it.
    pub(super) fn keep(&mut self) {
        if let Some(growing) = self.growing.take() {
            self.store.keep(self.hash, &growing);
            growing.end(End::Whole);
        }
    }

    /// Whether there is room for so many bytes.
    fn has_room(&mut self) -> bool {
        let Some(growing) = &self.growing else { return false };
        if growing.entry.subject.length_max < self.length {
            return false;
        }
        if self.length <= self.reserved {
            return true;
        }
        let more = self.length - self.reserved;
        let is_there = self.store.reserve(more);
        self.reserved += if is_there { more } else { 0 };
        is_there
    }
}

#[async_trait]
impl HandleMiss for Miss {
    async fn write_body(&mut self, piece: Bytes, _is_last: bool) -> Result<()> {
        self.length += piece.len() as u64;
        if self.growing.is_some() && !self.has_room() {
            self.give_up();
            FETCHES.tell(&self.key, LockStatus::GiveUp);
        }
        if let Some(growing) = self.growing.as_ref().filter(|_| !piece.is_empty()) {
            growing.push(piece);
        }
        if self.told == Some(self.length) {
            self.keep(); // its client has all of it, and may not wait until its stream ends
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        if self.told.is_some_and(|told| told != self.length) {
            self.give_up();
        }
        self.keep();
        Ok(MissFinishType::Created(usize::try_from(self.length).unwrap_or(usize::MAX)))
    }
}

impl Drop for Miss {
    fn drop(&mut self) {
        self.give_up(); // what was finished is there already
    }
}
