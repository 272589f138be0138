//! A fetch that writes an answer which is coming, from its first byte to its last.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG,
    HeaderName, LAST_MODIFIED,
};
use pingora_cache::key::HashBinary;
use pingora_http::ResponseHeader;

use crate::cache::{
    entry::Entry,
    growing::{End, Growing, Left},
};

/// What tells answers apart that are otherwise alike.
static DESCRIPTION: [HeaderName; 9] = [
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LOCATION,
    ETAG,
    LAST_MODIFIED,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// One who writes an answer. More than one may write the same, where one is slow: what each has
/// is compared byte by byte, and the one that is ahead adds to it.
///
/// With the last that leaves, an answer that is not whole is fetched once more if others follow
/// it, once; or it is broken off.
pub struct Writer {
    growing: Arc<Growing>,
    /// How many bytes it has written.
    at: u64,
}

impl Writer {
    /// One that is counted already.
    pub(super) fn of(growing: Arc<Growing>) -> Self {
        Self { growing, at: 0 }
    }

    /// Begins with the first byte of another answer, if that may be the same one: those who come
    /// now may follow again.
    pub fn begin(&mut self, answer: &ResponseHeader, variance: Option<HashBinary>) -> bool {
        let Entry { head, .. } = &self.growing.entry;
        let is_alike = |name| head.header.headers.get(name) == answer.headers.get(name);
        let is_it = head.header.status == answer.status
            && head.variance() == variance
            && DESCRIPTION.iter().all(is_alike);
        if is_it {
            self.at = 0;
            self.growing.unhide();
        }
        is_it
    }

    /// Whether others still need what it writes.
    pub fn is_wanted(&self) -> bool {
        self.growing.is_wanted()
    }

    /// Waits until nobody needs it any more, though it is not over.
    pub fn left(&self) -> impl Future<Output = ()> + use<> {
        let growing = self.growing.clone();
        async move { growing.left().await }
    }

    /// Writes the next piece; whether it agrees with what others have written. The last one makes
    /// an answer whole that told its length.
    pub fn write(&mut self, piece: &Bytes) -> bool {
        if !self.growing.push(self.at, piece) {
            return false;
        }
        self.at += piece.len() as u64;
        if self.growing.told == Some(self.at) {
            self.keep();
        }
        true
    }

    /// Whether there is room for what it has written, and so many bytes more.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.growing.has_room(self.at + more as u64)
    }

    /// Ends an answer here, which is whole unless it told another length.
    pub(super) fn finish(self) {
        if self.growing.told.is_none_or(|told| told == self.at) {
            self.keep();
        }
    }

    fn keep(&self) {
        if let Some(body) = self.growing.body() {
            self.growing.store.keep(&self.growing, body);
            self.growing.end(End::Whole);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        match self.growing.leave() {
            Left::Others => {}
            Left::Refetch(refetch) => refetch(Self::of(self.growing.clone())),
            Left::Nobody => {
                self.growing.store.withdraw(&self.growing);
                self.growing.end(End::Broken);
            }
        }
    }
}
