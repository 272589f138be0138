//! One answer that is kept: its head, how long it is good for, and its body.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::SystemTime,
};

use pingora_cache::{CacheMeta, key::HashBinary};
use pingora_http::ResponseHeader;

use crate::cache::body::Body;

/// What an entry costs beside its head and body, in bytes.
const OVERHEAD: usize = 512;
/// What a field costs beside its name and value.
const FIELD: usize = 80;

/// What an answer is an answer to; it travels with Pingora's key.
#[derive(Debug, PartialEq, Eq)]
pub struct Subject {
    /// The route whose answer it is.
    pub route: Box<str>,
    /// Scheme, host, path and query: `https://shop.example.com/a?b=1`.
    pub url: Box<str>,
    /// The largest body that is kept.
    pub length_max: u64,
    /// Whether the request that fetches it wants all of it, so that others may follow.
    pub wants_all: bool,
    /// When it was asked for, as [`crate::cache::Store::now`] tells.
    pub asked: u64,
}

/// The head of an answer, and how long it is good for.
#[derive(Debug)]
pub struct Head {
    /// The head itself.
    pub header: ResponseHeader,
    fresh_until: SystemTime,
    created: SystemTime,
    /// When it was made, as far as its `Age` tells.
    epoch: SystemTime,
    stale_while_revalidate: u32,
    stale_if_error: u32,
    variance: Option<HashBinary>,
}

impl Head {
    /// Takes over what Pingora has; `is_primary` says that its slot is the first of its URL.
    pub(super) fn of(meta: &CacheMeta, is_primary: bool) -> Self {
        Self {
            header: meta.response_header_copy(),
            fresh_until: meta.fresh_until(),
            // Variants older than the first one are taken for purged, and it is as old as its line.
            created: if is_primary { meta.provenance() } else { meta.created() },
            epoch: meta.epoch(),
            stale_while_revalidate: meta.stale_while_revalidate_sec(),
            stale_if_error: meta.stale_if_error_sec(),
            variance: meta.variance(),
        }
    }

    /// The same once more.
    pub(super) fn again(&self) -> Self {
        Self { header: self.header.clone(), ..*self }
    }

    /// Whether there is a body with a length to tell.
    pub(super) fn has_body(&self) -> bool {
        self.header.status != 204
    }

    /// Until when it is fresh.
    pub fn fresh_until(&self) -> SystemTime {
        self.fresh_until
    }

    pub(super) fn variance(&self) -> Option<HashBinary> {
        self.variance
    }

    pub(super) fn be_variant(&mut self, variance: Option<HashBinary>) {
        self.variance = variance;
    }

    /// The same as Pingora has it.
    pub(super) fn meta(&self) -> CacheMeta {
        let mut meta = CacheMeta::new(
            self.fresh_until,
            self.created,
            self.stale_while_revalidate,
            self.stale_if_error,
            self.header.clone(),
        );
        meta.set_epoch_override(self.epoch);
        if let Some(variance) = self.variance {
            meta.set_variance(variance);
        }
        meta
    }
}

/// An answer.
#[derive(Debug)]
pub struct Entry {
    /// Its head.
    pub head: Head,
    /// What it is an answer to.
    pub subject: Arc<Subject>,
    pub(super) body: Body,
    is_being_renewed: AtomicBool,
    is_purged: AtomicBool,
}

impl Entry {
    pub(super) fn new(head: Head, subject: Arc<Subject>, body: Body) -> Self {
        Self { head, subject, body, is_being_renewed: false.into(), is_purged: false.into() }
    }

    /// Has it not be kept that is still coming.
    pub(super) fn purge(&self) {
        self.is_purged.store(true, SeqCst);
    }

    pub(super) fn is_purged(&self) -> bool {
        self.is_purged.load(SeqCst)
    }

    /// What it takes of the memory, about.
    pub(super) fn weight(&self) -> u32 {
        let fields = self.head.header.headers.iter();
        let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
        let more = self.subject.url.len() + self.subject.route.len() + OVERHEAD;
        let bytes = fields.sum::<usize>() as u64 + more as u64 + self.body.length;
        bytes.try_into().unwrap_or(u32::MAX)
    }

    /// Which variant of its URL it is; `None` if there are none.
    pub fn variance(&self) -> Option<HashBinary> {
        self.head.variance()
    }

    /// Whether the caller is the one that renews it now.
    pub fn begin_renewal(&self) -> bool {
        !self.is_being_renewed.swap(true, SeqCst)
    }

    /// Lets another renew it.
    pub fn end_renewal(&self) {
        self.is_being_renewed.store(false, SeqCst);
    }
}
