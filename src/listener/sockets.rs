//! The sockets that this process listens on, kept beside those that Pingora accepts from, so that
//! a successor can be handed them.
//!
//! INVARIANT: they are let go the moment that Pingora lets go of its own. A socket listens for as
//! long as anybody holds it, and connections would wait there for nobody.

use std::{os::fd::OwnedFd, sync::Arc};

use tokio::sync::watch;

use crate::downstream::config::Address;

/// A socket that listens.
#[derive(Debug)]
pub struct Open {
    /// Where it is bound.
    pub address: Address,
    /// The same socket as Pingora's, by another descriptor.
    pub socket: OwnedFd,
}

/// The sockets of a process, for as long as it listens. Clones share them.
#[derive(Clone, Debug)]
pub struct Sockets {
    open: Arc<watch::Sender<Option<Arc<[Open]>>>>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { open: Arc::new(watch::Sender::new(None)) }
    }
}

impl Sockets {
    /// All of them; `None` before the process listens, and after. Whoever has them in hand keeps
    /// them open.
    pub fn get(&self) -> Option<Arc<[Open]>> {
        self.open.borrow().clone()
    }

    /// Waits until the process listens.
    pub async fn opened(&self) {
        let mut open = self.open.subscribe();
        let _ = open.wait_for(Option::is_some).await;
    }

    pub(super) fn open(&self, sockets: Vec<Open>) {
        self.open.send_replace(Some(sockets.into()));
    }

    pub(super) fn let_go(&self) {
        self.open.send_replace(None);
    }
}
