//! Reads the body of an answer that is kept, or is still coming.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use pingora_cache::{
    CacheKey,
    storage::{HandleHit, Storage},
    trace::SpanHandle,
};

use crate::cache::{entry::Entry, growing::Follower, writer::Writer};

/// A reader of one body.
pub struct Reader {
    source: Source,
    /// What becomes of the end: see [`Reader::mark_end`].
    mark: Mark,
    /// Whether it was found on the disk.
    pub is_from_disk: bool,
}

enum Source {
    /// From a byte to another of a whole body; `piece` begins at `start`.
    Whole { entry: Arc<Entry>, at: u64, to: u64, piece: usize, start: u64 },
    /// The pieces of one that is coming.
    Growing(Follower),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    Wanted,
    Given,
}

impl Reader {
    pub(super) fn whole(entry: Arc<Entry>) -> Self {
        let to = entry.body.length;
        let source = Source::Whole { entry, at: 0, to, piece: 0, start: 0 };
        Self { source, mark: Mark::None, is_from_disk: false }
    }

    pub(super) fn found_on_disk(entry: Arc<Entry>) -> Self {
        Self { is_from_disk: true, ..Self::whole(entry) }
    }

    pub(super) fn following(follower: Follower) -> Self {
        Self { source: Source::Growing(follower), mark: Mark::None, is_from_disk: false }
    }

    /// The answer that is read.
    pub fn entry(&self) -> &Entry {
        match &self.source {
            Source::Whole { entry, .. } => entry,
            Source::Growing(follower) => follower.entry(),
        }
    }

    /// The answer that is read, if it is whole.
    pub fn whole_entry(&self) -> Option<&Arc<Entry>> {
        match &self.source {
            Source::Whole { entry, .. } => Some(entry),
            Source::Growing(_) => None,
        }
    }

    /// What the request that fetches it has left with it, while it is coming.
    pub fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<&T> {
        match &self.source {
            Source::Whole { .. } => None,
            Source::Growing(follower) => follower.extensions().get(),
        }
    }

    /// Whether it follows one that is coming, and nobody has said yet how that may be fetched once
    /// more.
    pub fn wants_refetch(&self) -> bool {
        matches!(&self.source, Source::Growing(follower) if follower.wants_refetch())
    }

    /// Says how: it is done if the fetch that is followed ends too early, or hardly goes on.
    pub fn set_refetch(&self, refetch: impl Fn(Writer) + Send + Sync + 'static) {
        if let Source::Growing(follower) = &self.source {
            follower.set_refetch(Arc::new(refetch));
        }
    }

    /// Whether it follows one that broke off.
    pub fn is_broken(&self) -> bool {
        matches!(&self.source, Source::Growing(follower) if follower.is_broken())
    }

    /// Has the body end in a piece without bytes: Pingora does not tell filters that a body ends
    /// which it serves after a `304`. No other piece is empty.
    pub fn mark_end(&mut self) {
        self.mark = Mark::Wanted;
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        match &mut self.source {
            Source::Growing(follower) => follower.piece().await,
            Source::Whole { entry, at, to, piece, start } => {
                let (from, to) = (*at, *to);
                while let Some(bytes) = entry.body.pieces.get(*piece) {
                    let end = *start + bytes.len() as u64;
                    if from < end && from < to {
                        let first = within(from - *start);
                        let last = within(to.min(end) - *start);
                        *at = to.min(end);
                        return Ok(Some(bytes.slice(first..last)));
                    }
                    if to <= from {
                        break;
                    }
                    (*piece, *start) = (*piece + 1, end);
                }
                Ok(None)
            }
        }
    }
}

/// A place within a piece, which is in memory.
fn within(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

#[async_trait]
impl HandleHit for Reader {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let piece = self.next().await?;
        if piece.is_none() && self.mark == Mark::Wanted {
            self.mark = Mark::Given;
            return Ok(Some(Bytes::new()));
        }
        Ok(piece)
    }

    async fn finish(
        self: Box<Self>,
        _storage: &'static (dyn Storage + Sync),
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        matches!(self.source, Source::Whole { .. })
    }

    fn seek(&mut self, from: usize, until: Option<usize>) -> Result<()> {
        let Source::Whole { entry, at, to, piece, start } = &mut self.source else {
            return Error::e_explain(ErrorType::InternalError, "a body that is still coming");
        };
        let length = entry.body.length;
        *at = (from as u64).min(length);
        *to = until.map_or(length, |until| (until as u64).min(length));
        (*piece, *start) = (0, 0);
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}
