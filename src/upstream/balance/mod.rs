//! How requests are shared out among the backends of an upstream.
//!
//! Every algorithm is a `BackendSelection` inside a Pingora `LoadBalancer`, and has a file of its
//! own. An algorithm offers backends one after the other; whether one is taken is not its business.

pub mod consistent_hash;
mod draw;
mod fitness;
pub mod hints;
pub mod least_requests;
pub mod peak_ewma;
pub mod pool;
pub mod random;
pub mod slow_start;
pub mod smooth;
pub mod sticky;
pub mod tiers;
pub mod token;
pub mod two_choices;
mod zone;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use futures::FutureExt;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::{
    Backend, Backends, LoadBalancer, discovery,
    selection::{BackendIter, BackendSelection, Consistent, RoundRobin},
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::upstream::{
    backend::Member,
    balance::{
        consistent_hash::BoundedLoad, fitness::Fitness, hints::Hints,
        least_requests::LeastRequests, peak_ewma::PeakEwma, pool::Pool, random::Random,
        smooth::SmoothRoundRobin,
    },
};

/// Offers to one request, at most; then whoever asks looks at all backends.
const OFFERS_MAX: usize = 64;

/// How requests are shared out.
///
/// What the operator writes under `balance:`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Balance")]
pub enum Config {
    /// One after the other, in proportion to their weights, evenly interleaved.
    #[default]
    RoundRobin,
    /// By chance, in proportion to their weights.
    Random,
    /// Of two that are drawn by weight, the one with fewer requests in flight for its weight.
    LeastRequests,
    /// Of two that are drawn by weight, the one that is likely to answer first, by how long it
    /// took before and how many requests it has in flight.
    PeakEwma,
    /// By a key: requests with the same key go to the same backend.
    ConsistentHash(consistent_hash::Config),
    /// By a cookie: a client stays with the backend that it came to.
    Sticky(sticky::Config),
}

impl Config {
    /// As the operator writes it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastRequests => "least_requests",
            Self::PeakEwma => "peak_ewma",
            Self::ConsistentHash(_) => "consistent_hash",
            Self::Sticky(_) => "sticky",
        }
    }

    /// Whether it goes by how long backends take.
    pub fn is_by_latency(&self) -> bool {
        *self == Self::PeakEwma
    }

    /// Whether it must know how many requests are in flight at all backends together.
    pub fn is_bounded(&self) -> bool {
        matches!(self, Self::ConsistentHash(_))
    }

    /// Whether the next backend can be told, whoever asks.
    pub fn is_in_turn(&self) -> bool {
        *self == Self::RoundRobin
    }
}

/// What runs: one algorithm over one pool of backends.
pub struct Balancer {
    pool: Pool,
    algorithm: Algorithm,
    fitness: Fitness,
}

enum Algorithm {
    /// Pingora's own round robin, for equal weights.
    RoundRobin(LoadBalancer<RoundRobin>),
    /// Ours, for different weights.
    Smooth(LoadBalancer<SmoothRoundRobin>),
    Random(LoadBalancer<Random>),
    LeastRequests(LoadBalancer<LeastRequests>),
    PeakEwma(LoadBalancer<PeakEwma>),
    /// Pingora's ketama, within our bound.
    ConsistentHash(Box<LoadBalancer<Consistent>>, consistent_hash::Config, Arc<AtomicU32>),
}

impl Balancer {
    /// Builds the algorithm for a pool, which never changes afterwards. `in_flight` counts the
    /// requests at all backends, where there is a bound.
    pub fn new(config: &Config, pool: Pool, in_flight: &Arc<AtomicU32>) -> Self {
        let algorithm = match config {
            Config::RoundRobin | Config::Sticky(_) if pool.is_even() => {
                let backends = pool.backends(1).into_iter();
                let backends = backends.map(|backend| Backend { weight: 1, ..backend });
                Algorithm::RoundRobin(fixed(backends.collect(), None))
            }
            Config::RoundRobin | Config::Sticky(_) => Algorithm::Smooth(fixed(of(&pool), None)),
            Config::Random => Algorithm::Random(fixed(of(&pool), Some(pool.clone()))),
            Config::LeastRequests => Algorithm::LeastRequests(fixed(of(&pool), Some(pool.clone()))),
            Config::PeakEwma => Algorithm::PeakEwma(fixed(of(&pool), Some(pool.clone()))),
            Config::ConsistentHash(config) => {
                let divisor = consistent_hash::divisor(pool.weight());
                let divisor = usize::try_from(divisor).unwrap_or(usize::MAX);
                let backends = pool.backends(divisor).into_iter();
                let backends =
                    backends.map(|backend| Backend { weight: backend.weight.max(1), ..backend });
                let ring = Box::new(fixed(backends.collect(), None));
                Algorithm::ConsistentHash(ring, config.clone(), in_flight.clone())
            }
        };
        Self { pool, algorithm, fitness: Fitness::default() }
    }

    /// The backends that it chooses among.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether they serve only when no other is fit.
    pub fn is_backup(&self) -> bool {
        self.pool.first().is_some_and(|member| member.target.backup)
    }

    /// The share of requests that stay here, of those that would rather.
    fn stays(&self, now: Instant) -> f64 {
        zone::stays(self.fitness.weight(&self.pool, now), self.pool.weight())
    }

    /// The backends in the order of their next turns, each once, if they have turns; else in the
    /// order of their addresses. The turns that this takes bring the algorithm around to where it
    /// was, if nobody else takes one meanwhile.
    pub fn upcoming(&self) -> Vec<Arc<Member>> {
        let turns = RefCell::new(Vec::new());
        let refuse = |backend: &Backend| {
            turns.borrow_mut().push(backend.addr.clone());
            false
        };
        match &self.algorithm {
            Algorithm::RoundRobin(balancer) => {
                // Pingora takes one turn more than it makes offers: that of the last backend.
                select(balancer, b"", self.pool.len().saturating_sub(1), refuse);
            }
            Algorithm::Smooth(balancer) => {
                let ring = smooth::turns(self.pool.iter().map(|member| usize::from(member.weight)));
                (0..ring).for_each(|_| select(balancer, b"", 1, refuse));
            }
            _ => {}
        }
        let last = self.pool.iter().map(|member| member.state.address().clone());
        let mut seen = BTreeSet::new();
        let turns = turns.into_inner().into_iter().chain(last);
        let turns = turns.filter(|address: &SocketAddr| seen.insert(address.clone()));
        turns.filter_map(|address| self.pool.find(&address).cloned()).collect()
    }

    /// Offers backends in the order of the algorithm until `accept` takes one, which is told a
    /// lot between 0 and 1 as well: by chance, or where there is a key, of the key.
    ///
    /// Offers have a bound and an algorithm may repeat itself, so it is no promise that every
    /// backend was offered.
    pub fn offer(
        &self,
        now: Instant,
        hints: &Hints<'_>,
        accept: impl Fn(&Arc<Member>, f64) -> bool,
    ) {
        let offers = self.pool.len().saturating_mul(4).clamp(16, OFFERS_MAX);
        let by_chance = |backend: &Backend| {
            self.pool.find(&backend.addr).is_some_and(|member| accept(member, fastrand::f64()))
        };
        match &self.algorithm {
            Algorithm::RoundRobin(balancer) => select(balancer, b"", offers, by_chance),
            Algorithm::Smooth(balancer) => select(balancer, b"", offers, by_chance),
            Algorithm::Random(balancer) => select(balancer, b"", offers, by_chance),
            Algorithm::LeastRequests(balancer) => select(balancer, b"", offers, by_chance),
            Algorithm::PeakEwma(balancer) => select(balancer, b"", offers, by_chance),
            Algorithm::ConsistentHash(balancer, config, in_flight) => {
                let bound = config.bounded_load;
                config.with_key(hints, |key| {
                    self.offer_by_key(now, key, balancer, bound, in_flight, accept);
                });
            }
        }
    }

    fn offer_by_key(
        &self,
        now: Instant,
        key: &[u8],
        balancer: &LoadBalancer<Consistent>,
        bound: BoundedLoad,
        in_flight: &AtomicU32,
        accept: impl Fn(&Arc<Member>, f64) -> bool,
    ) {
        let lot = consistent_hash::lot(key);
        let (in_flight, weights) = (in_flight.load(Relaxed), self.fitness.weight(&self.pool, now));
        let steps = consistent_hash::steps(self.pool.len());
        let taken = std::cell::Cell::new(false);
        let take = |member: &Arc<Member>, lot| {
            let is_taken = bound.has_room(member, in_flight, weights) && accept(member, lot);
            taken.set(is_taken);
            is_taken
        };
        select(balancer, key, steps, |backend| {
            self.pool.find(&backend.addr).is_some_and(|member| take(member, lot))
        });
        if !taken.get() {
            // Nobody near on the ring is fit and has room: perhaps somebody farther away.
            let _ = self.pool.iter().find(|member| take(member, 0.0));
        }
    }
}

fn select<S>(
    balancer: &LoadBalancer<S>,
    key: &[u8],
    offers_max: usize,
    accept: impl Fn(&Backend) -> bool,
) where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    balancer.select_with(key, offers_max, |backend, _| accept(backend));
}

fn of(pool: &Pool) -> BTreeSet<Backend> {
    pool.backends(1).into_iter().collect()
}

fn fixed<S>(backends: BTreeSet<Backend>, config: Option<S::Config>) -> LoadBalancer<S>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let backends = Backends::new(discovery::Static::new(backends));
    let balancer = LoadBalancer::from_backends_with_config(backends, config);
    let updated = balancer.update().now_or_never();
    debug_assert!(matches!(updated, Some(Ok(()))), "a fixed set is there at once");
    balancer
}

#[cfg(test)]
mod tests;
