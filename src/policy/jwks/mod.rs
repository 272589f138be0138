//! Public keys that tokens are verified with, and where they come from: a file, which is read with
//! the configuration, or a service.

mod keys;
mod remote;

use std::sync::Arc;

pub(super) use self::{keys::Keys, remote::Remote};

/// Where keys come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    File(Arc<Keys>),
    Url(Arc<Remote>),
}

impl Source {
    /// The keys; newer ones than those that are known, if that is wanted and can be had. `None` if
    /// there never were any.
    pub(super) async fn keys(&self, newer: bool) -> Option<Arc<Keys>> {
        match self {
            Self::File(keys) => Some(keys.clone()),
            Self::Url(remote) => remote.keys(newer).await,
        }
    }
}
