//! The store as Pingora drives it.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED},
};
use pingora::Result;
use pingora_cache::{
    CacheKey, CacheMeta,
    key::CacheHashKey,
    lock::LockStatus,
    storage::{HitHandler, MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage},
    trace::SpanHandle,
};

use crate::cache::{
    FETCHES,
    body::Body,
    entry::{Entry, Head, Subject},
    growing::Growing,
    miss::Miss,
    store::Store,
    writer::Writer,
};

fn hash_of(key: &impl CacheHashKey) -> u128 {
    u128::from_be_bytes(key.combined_bin())
}

/// Whether two heads may be of one answer, by what both of them say.
fn may_be_one(one: &HeaderMap, other: &HeaderMap) -> bool {
    let both = |name| Some((opaque(one.get(&name)?), opaque(other.get(name)?)));
    let validators = both(ETAG).or_else(|| both(LAST_MODIFIED));
    [validators, both(CONTENT_LENGTH)].into_iter().flatten().all(|(one, other)| one == other)
}

/// A value without the mark of a weak tag.
fn opaque(value: &HeaderValue) -> &[u8] {
    value.as_bytes().strip_prefix(b"W/").unwrap_or(value.as_bytes())
}

#[async_trait]
impl Storage for Store {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let hash = hash_of(key);
        let reader = match self.find(hash) {
            None if self.disk.get().is_some() => self.find_on_disk(hash).await,
            found => found,
        };
        Ok(reader.map(|reader| (reader.entry().head.meta(), Box::new(reader) as HitHandler)))
    }

    /// Whoever waits is told at once: to follow where the length is told, or that there is
    /// nothing to wait for.
    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        let hash = hash_of(key);
        let told = meta.headers().get(CONTENT_LENGTH);
        let told = told.and_then(|told| told.to_str().ok()?.parse::<u64>().ok());
        let mut miss = Miss { key: key.clone(), writer: None, length: 0 };
        let subject = key.extensions.get::<Arc<Subject>>().cloned();
        let length = told.unwrap_or(0);
        let Some(subject) = subject.filter(|subject| length <= subject.length_max) else {
            FETCHES.tell(key, LockStatus::GiveUp);
            return Ok(Box::new(miss));
        };
        if self.was_purged_since(&subject) || !self.reserve(length) {
            FETCHES.tell(key, LockStatus::GiveUp);
            return Ok(Box::new(miss));
        }
        let head = Head::of(meta, key.variance_bin().is_none());
        if head.variance().is_some() {
            self.note_variant(key.primary_bin(), hash);
        }
        let entry = Entry::new(head, subject, Body::default());
        let growing =
            Arc::new(Growing::new(self, hash, entry, told, length, meta.extensions().clone()));
        self.show(&growing);
        if growing.is_followed() {
            FETCHES.tell(key, LockStatus::Done);
        }
        let mut writer = Writer::of(growing);
        writer.write(&Bytes::new()); // it may be all
        miss.writer = Some(writer);
        Ok(Box::new(miss))
    }

    async fn purge(
        &'static self,
        target: PurgeTarget<'_>,
        _type: PurgeType,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        let is_gone = self.remove(hash_of(target.key()));
        Ok(if is_gone { PurgeOutcome::Purged(None) } else { PurgeOutcome::NotFound })
    }

    async fn update_meta(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<bool> {
        let hash = hash_of(key);
        // What was asked about may have given way to another, or be coming still.
        let old = self.whole(hash).await;
        let old = old.filter(|old| may_be_one(&old.head.header.headers, meta.headers()));
        let Some(old) = old else { return Ok(false) };
        self.renew(hash, &old, Head::of(meta, key.variance_bin().is_none()));
        Ok(true)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}
