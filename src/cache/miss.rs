//! Takes an answer in as it comes, on its way to the client that asked for it.

use async_trait::async_trait;
use bytes::Bytes;
use pingora::Result;
use pingora_cache::{
    CacheKey,
    lock::LockStatus,
    storage::{HandleMiss, MissFinishType},
};

use crate::cache::{FETCHES, writer::Writer};

/// An answer that is being written.
///
/// Whatever becomes of it here, it goes on to its client: what cannot be kept is only not kept.
pub(super) struct Miss {
    pub(super) key: CacheKey,
    /// Who writes it; `None` once it is not to be kept.
    pub(super) writer: Option<Writer>,
    /// Bytes that came.
    pub(super) length: usize,
}

#[async_trait]
impl HandleMiss for Miss {
    async fn write_body(&mut self, piece: Bytes, _is_last: bool) -> Result<()> {
        self.length += piece.len();
        if self.writer.as_ref().is_some_and(|writer| !writer.has_room(piece.len())) {
            self.writer = None;
            FETCHES.tell(&self.key, LockStatus::GiveUp);
        }
        if self.writer.as_mut().is_some_and(|writer| !writer.write(&piece)) {
            self.writer = None;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        Ok(MissFinishType::Created(self.length))
    }
}
