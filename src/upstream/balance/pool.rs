//! The backends that an algorithm chooses among, as live as they are.

use std::{ops::Deref, sync::Arc};

use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::{Backend, Extensions};

use crate::upstream::backend::Member;

/// Members in the order of their addresses, which is the order of Pingora's set of backends: the
/// place of a backend there is its place here.
#[derive(Clone, Default)]
pub struct Pool(Arc<[Arc<Member>]>);

impl Pool {
    /// The member at an address.
    pub fn find(&self, address: &SocketAddr) -> Option<&Arc<Member>> {
        self.place(address).map(|place| &self.0[place])
    }

    /// The place of the member at an address.
    pub(super) fn place(&self, address: &SocketAddr) -> Option<usize> {
        self.0.binary_search_by(|member| member.state.address().cmp(address)).ok()
    }

    /// The members as Pingora knows them; `divisor` brings weights to their smallest terms.
    pub(super) fn backends(&self, divisor: usize) -> Box<[Backend]> {
        let backend = |member: &Arc<Member>| Backend {
            addr: member.state.address().clone(),
            weight: usize::from(member.weight) / divisor.max(1),
            ext: Extensions::new(),
        };
        self.0.iter().map(backend).collect()
    }

    /// Whether all have the same share.
    pub(super) fn is_even(&self) -> bool {
        let first = self.0.first().map(|member| member.weight);
        self.0.iter().all(|member| Some(member.weight) == first)
    }

    /// The sum of all shares.
    pub(super) fn weight(&self) -> u64 {
        self.0.iter().map(|member| u64::from(member.weight)).sum()
    }
}

impl FromIterator<Arc<Member>> for Pool {
    /// Of members in the order of their addresses.
    fn from_iter<I: IntoIterator<Item = Arc<Member>>>(members: I) -> Self {
        Self(members.into_iter().collect())
    }
}

impl Deref for Pool {
    type Target = [Arc<Member>];

    fn deref(&self) -> &[Arc<Member>] {
        &self.0
    }
}
