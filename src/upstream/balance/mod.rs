//! How requests are shared out among the backends of an upstream.
//!
//! Every algorithm is a `BackendSelection` inside a Pingora `LoadBalancer`.

pub mod smooth;

use std::{cell::RefCell, collections::BTreeSet};

use futures::FutureExt;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::{
    Backend, Backends, LoadBalancer, discovery,
    selection::{BackendIter, BackendSelection, RoundRobin},
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::upstream::balance::smooth::SmoothRoundRobin;

/// How requests are shared out.
///
/// What the operator writes under `balance:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Balance")]
pub enum Config {
    /// One after the other, in proportion to their weights, evenly interleaved.
    #[default]
    RoundRobin,
}

/// What runs: one algorithm over one set of backends.
pub enum Balancer {
    /// Pingora's own round robin, for equal weights.
    RoundRobin(LoadBalancer<RoundRobin>),
    /// Ours, for different weights.
    Smooth(LoadBalancer<SmoothRoundRobin>),
}

impl Balancer {
    /// Builds the algorithm for a set of backends; the set never changes afterwards.
    pub fn new(config: Config, backends: BTreeSet<Backend>) -> Self {
        let first = backends.first().map(|backend| backend.weight);
        let equal = backends.iter().all(|backend| Some(backend.weight) == first);
        match config {
            Config::RoundRobin if equal => {
                let backends = backends.into_iter().map(|backend| Backend { weight: 1, ..backend });
                Self::RoundRobin(fixed(backends.collect()))
            }
            Config::RoundRobin => Self::Smooth(fixed(backends)),
        }
    }

    /// The backends in the order of their next turns, each once. The turns that this takes bring
    /// the algorithm around to where it was, if nobody else takes one meanwhile.
    pub fn upcoming(&self) -> Vec<SocketAddr> {
        let turns = RefCell::new(Vec::new());
        let refuse = |backend: &Backend| {
            turns.borrow_mut().push(backend.addr.clone());
            false
        };
        let backends = match self {
            Self::RoundRobin(balancer) => {
                let backends = balancer.backends().get_backend();
                // Pingora takes one turn more than it makes offers: that of the last backend.
                self.offer(backends.len().saturating_sub(1), refuse);
                backends
            }
            Self::Smooth(balancer) => {
                let backends = balancer.backends().get_backend();
                let ring = smooth::turns(backends.iter().map(|backend| backend.weight));
                (0..ring).for_each(|_| self.offer(1, refuse));
                backends
            }
        };
        let last = backends.iter().map(|backend| backend.addr.clone());
        let mut seen = BTreeSet::new();
        let turns = turns.into_inner().into_iter().chain(last);
        turns.filter(|address| seen.insert(address.clone())).collect()
    }

    /// Offers backends in the order of the algorithm until `accept` takes one.
    ///
    /// `offers_max` bounds the offers; an algorithm may repeat itself, so it is no promise that
    /// every backend was offered.
    pub fn offer(&self, offers_max: usize, accept: impl Fn(&Backend) -> bool) {
        match self {
            Self::RoundRobin(balancer) => {
                balancer.select_with(b"", offers_max, |backend, _| accept(backend));
            }
            Self::Smooth(balancer) => {
                balancer.select_with(b"", offers_max, |backend, _| accept(backend));
            }
        }
    }
}

fn fixed<S>(backends: BTreeSet<Backend>) -> LoadBalancer<S>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let balancer = LoadBalancer::from_backends(Backends::new(discovery::Static::new(backends)));
    let updated = balancer.update().now_or_never();
    debug_assert!(matches!(updated, Some(Ok(()))), "a fixed set is there at once");
    balancer
}
