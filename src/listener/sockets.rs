//! The sockets that this process listens on, kept beside those that Pingora accepts from, so that
//! a successor can be handed them.
//!
//! INVARIANT: they are let go the moment that Pingora lets go of its own. A socket listens for as
//! long as anybody holds it, and connections would wait there for nobody. And while another
//! process listens on one, nothing may be done to it that the other would feel.

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::downstream::config::Address;

/// A socket that listens.
#[derive(Debug)]
pub struct Open {
    /// Where it is bound.
    pub address: Address,
    /// The same socket as Pingora's, by another descriptor.
    pub socket: OwnedFd,
    /// Whether it ends with the last process that was handed it: systemd has no copy.
    pub is_ours: bool,
}

/// Which of the sockets another process, a predecessor or a successor, listens on, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shared {
    /// None.
    #[default]
    Nothing,
    /// Those that are bound to these addresses.
    These(BTreeSet<Address>),
    /// All, as far as is known.
    All,
}

/// The sockets of a process, for as long as it listens. Clones share them.
#[derive(Clone, Debug)]
pub struct Sockets {
    open: Arc<watch::Sender<Option<Arc<[Open]>>>>,
    shared: Arc<Mutex<Shared>>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { open: Arc::new(watch::Sender::new(None)), shared: Arc::default() }
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

    /// Notes which of them another process has, too.
    pub fn share(&self, shared: Shared) {
        *self.shared() = shared;
    }

    /// Whether no other process listens on the socket of an address.
    pub(super) fn is_alone_on(&self, address: &Address) -> bool {
        match &*self.shared() {
            Shared::Nothing => true,
            Shared::These(addresses) => !addresses.contains(address),
            Shared::All => false,
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, sockets: Vec<Open>) {
        self.open.send_replace(Some(sockets.into()));
    }

    pub(super) fn let_go(&self) {
        self.open.send_replace(None);
    }
}
