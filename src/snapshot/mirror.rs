//! Which requests of a route another upstream gets copies of, compiled.

use std::{sync::Arc, time::Duration};

use crate::{config::mirror::MirrorConfig, upstream::Upstream};

/// A mirror of a route.
pub struct Mirror {
    /// Who gets the copies.
    pub upstream: Arc<Upstream>,
    /// Copies at a time, at most.
    pub copies_max: u32,
    /// How long one may take.
    pub timeout: Duration,
    /// The largest body.
    pub body_bytes_max: usize,
    percent: u8,
}

impl Mirror {
    /// Takes what was written.
    pub(super) fn new(written: &MirrorConfig, upstream: Arc<Upstream>) -> Self {
        Self {
            upstream,
            copies_max: written.max_requests.get(),
            timeout: written.timeout.0,
            body_bytes_max: usize::try_from(written.max_body.0).unwrap_or(usize::MAX),
            percent: written.share.get(),
        }
    }

    /// Whether the next request is copied: chance decides.
    pub fn takes(&self) -> bool {
        fastrand::u8(..100) < self.percent
    }

    /// The share of the requests that are copied, in percent.
    pub fn percent(&self) -> u8 {
        self.percent
    }
}
