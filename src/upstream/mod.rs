//! A named group of backends with one way to balance, probe and retry.
//!
//! The path asks an [`Upstream`] for a backend ([`Upstream::select`]), and tells it how the
//! attempt ended ([`Upstream::report`]); everything else happens in the background.

pub mod account;
pub mod attempts;
pub mod backend;
pub mod balance;
pub mod config;
pub mod discovery;
pub mod ejection;
mod follow;
pub mod health;
pub mod latency;
pub mod link;
pub mod load;
pub mod memory;
pub mod metrics;
pub mod orders;
pub mod outcome;
mod panic;
pub mod peer;
pub mod proxy_header;
mod report;
pub mod retry;
pub mod set;
pub mod site;
pub mod target;
pub mod troubles;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::time::Instant;

pub use crate::upstream::{account::Account, backend::Visit};
use crate::upstream::{
    backend::{Availability, InFlight, Member, Probe},
    balance::hints::Hints,
    config::OnNoHealthy,
    discovery::feed::{Changed, Feed},
    ejection::outliers::Outliers,
    health::Checks,
    link::{Link, Sources, dial::Dial},
    memory::Memory,
    proxy_header::Sender,
    set::{Plan, Set, Targets},
};

/// How long the parts of an exchange with an origin may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Making the connection.
    pub connect: Duration,
    /// A TLS handshake, once it is made.
    pub handshake: Duration,
    /// From the request's end to the first byte of the answer.
    pub first_byte: Duration,
    /// Between two reads of the answer, or two writes of the request.
    pub between_bytes: Duration,
    /// How long a connection waits in the pool.
    pub idle: Duration,
    /// Between two bytes of an upgraded connection.
    pub tunnel: Duration,
    /// Between two pings over HTTP/2; `None` for none.
    pub ping: Option<Duration>,
}

/// What an upstream is made of, compiled.
pub struct Parts {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Backends that are given by address.
    pub fixed: Targets,
    /// Where more are found.
    pub feeds: Vec<Arc<Feed>>,
    /// What the feeds wake when they find others.
    pub changed: Changed,
    /// Whether the process is not ready while no backend is fit.
    pub is_required: bool,
    /// How requests are shared out, and to peers of which kind; the group of the peer keeps pooled
    /// connections apart from those of other upstreams.
    pub plan: Plan,
    /// How backends are checked; `None` trusts them all.
    pub checks: Option<Arc<Checks>>,
    /// When a backend is ejected; `None` never.
    pub ejection: Option<ejection::Rules>,
    /// When a window of traffic ejects a backend; `None` never.
    pub outliers: Option<Outliers>,
    /// What becomes of a request when no backend is fit.
    pub on_no_healthy: OnNoHealthy,
    /// When a request is tried again, and how.
    pub retries: retry::Policy,
    /// What its backends bear.
    pub load: load::Rules,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How connections are made.
    pub link: Link,
    /// Where they are made from.
    pub sources: Arc<Sources>,
}

/// A named group of backends.
pub struct Upstream {
    parts: Parts,
    set: ArcSwap<Set>,
    account: Arc<Account>,
    /// Whether the last that was found fit for a request was nobody, and unhealthy ones are tried.
    panics: AtomicBool,
    /// What a predecessor told of backends that are not found yet, by address; only at the start.
    memories: Mutex<HashMap<String, Memory>>,
    /// Held while the set changes.
    changing: Mutex<()>,
    /// Whether names were looked up once: what is found later is new.
    is_found: AtomicBool,
}

impl Upstream {
    /// Makes an upstream; backends that are found follow with the first [`Self::refresh`].
    ///
    /// It inherits the live records of its predecessor by address, and nothing that serves now
    /// is changed by that: [`Self::take_over`] does when the new one comes into force.
    pub fn new(parts: Parts, account: Arc<Account>, predecessor: Option<&Self>) -> Self {
        let mut targets = parts.fixed.clone();
        for (address, target) in parts.feeds.iter().flat_map(|feed| feed.found(Instant::now())) {
            targets.entry(address).or_insert(target);
        }
        let old = predecessor.map(|old| old.set.load_full());
        let old = old.as_deref();
        let set = Set::new(&targets, &parts.plan, &account.in_flight, old, old.is_some());
        let memories = Mutex::default();
        let is_found = AtomicBool::new(parts.feeds.is_empty());
        Self {
            set: ArcSwap::from_pointee(set),
            account,
            parts,
            panics: AtomicBool::new(false),
            memories,
            changing: Mutex::default(),
            is_found,
        }
    }

    fn set_of(&self, targets: &Targets, old: Option<&Set>) -> Set {
        let newcomers = self.is_found.load(Relaxed);
        Set::new(targets, &self.parts.plan, &self.account.in_flight, old, newcomers)
    }

    /// Comes into force after a predecessor, whose tasks have ended: facts that nobody will look
    /// after are cleared, so that they are not found when they are heeded again.
    pub fn take_over(&self) {
        self.memories().clear(); // what is found from now on may be another machine
        for member in self.set.load().members() {
            member.state.set_draining(false); // the predecessor may have dropped it meanwhile
            if self.parts.checks.is_none() {
                member.state.set_probe(Probe::Passing);
            }
            if self.parts.ejection.is_none() {
                member.state.gate.forgive();
            }
        }
        self.heed_orders(); // some may have been given while it was made
    }

    /// What is known of its backends, for a successor in another process.
    pub fn remembered(&self, now: Instant) -> Vec<Memory> {
        let members = self.members();
        members.iter().filter_map(|member| Memory::of(&member.state, member.heeds, now)).collect()
    }

    /// Learns what a predecessor in another process knew of its backends. Those that are given by
    /// name recall it when they are found, if that is before the first round is over.
    pub fn recall(&self, memories: Vec<Memory>) {
        *self.memories() = memories.into_iter().map(|told| (told.address.clone(), told)).collect();
        self.recall_known();
    }

    fn recall_known(&self) {
        let (mut memories, now) = (self.memories(), Instant::now());
        if memories.is_empty() {
            return;
        }
        for member in self.set.load().members() {
            if let Some(memory) = memories.remove(member.state.name()) {
                memory.recall(&member.state, now);
            }
        }
        drop(memories);
        self.heed_orders();
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has spent, for its successor.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Whether the process is not ready while no backend is fit.
    pub fn is_required(&self) -> bool {
        self.parts.is_required
    }

    /// Whether any backend may take a request now.
    pub fn is_fit(&self, now: Instant) -> bool {
        let set = self.set.load();
        let fit = |member: &Arc<Member>| {
            let availability = member.availability(now);
            matches!(availability, Availability::Ready | Availability::Trial | Availability::Full)
        };
        set.members().iter().any(fit)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.parts.name
    }

    /// When a request is tried again, and how.
    pub fn retry_policy(&self) -> &retry::Policy {
        &self.parts.retries
    }

    /// How long things may take.
    pub fn timeouts(&self) -> &Timeouts {
        &self.parts.timeouts
    }

    /// How connections are made.
    pub fn link(&self) -> &Link {
        &self.parts.link
    }

    /// The number of its pool of connections.
    pub fn pool(&self) -> u64 {
        self.parts.plan.template.group_key
    }

    /// The peer of an attempt for a client; a connection is made within `limit`.
    pub fn peer_for(
        &self,
        member: &Member,
        client: impl FnOnce() -> Sender,
        limit: Option<Duration>,
    ) -> Box<HttpPeer> {
        let Parts { link, timeouts, sources, .. } = &self.parts;
        let mut peer = Box::new(member.peer.clone());
        link.introduce(&mut peer, client, timeouts, sources);
        if let Some(limit) = limit {
            Link::hasten(&mut peer, limit);
        }
        peer
    }

    /// Makes plaintext connections for a client.
    pub fn dial(&self, client: Sender) -> Dial {
        self.parts.link.dial(&self.parts.timeouts, &self.parts.sources, client)
    }

    /// How its backends are checked.
    pub fn checks(&self) -> Option<&Arc<Checks>> {
        self.parts.checks.as_ref()
    }

    /// Counts a request that begins; the retry budget lives from it.
    pub fn count_request(&self) {
        self.account.count_request();
    }

    /// Takes a backend for one attempt: never one that failed this request, fit ones first; if
    /// none is left, an ejected one whose checks pass (fail open); where the upstream says so and
    /// nobody is fit, one whose checks fail. Where a fit one is only full, none of those.
    pub fn select(
        &self,
        now: Instant,
        hints: &Hints<'_>,
        visit: impl Fn(&Member) -> Visit,
    ) -> Option<InFlight> {
        let set = self.set.load();
        set.next(now, hints, &visit)
            .or_else(|| {
                let wanted = |member: &Member| visit(member) != Visit::Failed;
                if set.is_full(now, wanted) { None } else { set.any_ejected(now, wanted) }
            })
            .inspect(|_| self.calm_down(&set, now))
            .or_else(|| self.any_in_panic(&set, now, |member| visit(member) != Visit::Failed))
    }

    /// The cookie by which a client stays with the backend that served it; `None` if it has it, or
    /// needs none.
    pub fn cookie(
        &self,
        hints: &Hints<'_>,
        member: &Member,
        is_secure: bool,
    ) -> Option<HeaderValue> {
        self.set.load().cookie(hints, member, is_secure)
    }

    /// Spends one retry of the budget, or refuses it.
    pub fn may_retry(&self, now: Instant) -> bool {
        self.account.may_retry(now, &self.parts.retries.budget)
    }

    /// Retries since the start.
    pub fn retries(&self) -> u64 {
        self.account.retries()
    }

    /// Requests since the start.
    pub fn requests(&self) -> u64 {
        self.account.requests()
    }

    /// The backends at this moment.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.set.load().members().to_vec()
    }

    /// Whether the next backend can be told, whoever asks.
    pub fn is_in_turn(&self) -> bool {
        self.parts.plan.balance.is_in_turn()
    }

    /// The backends in the order of their next turns, each once.
    pub fn upcoming(&self) -> Vec<Arc<Member>> {
        self.set.load().upcoming()
    }
}

#[cfg(test)]
mod tests;
