//! A named group of backends with one way to balance, probe and retry.
//!
//! The path asks an [`Upstream`] for a backend ([`Upstream::select`]), and tells it how the
//! attempt ended ([`Upstream::report`]); everything else happens in the background.

pub mod backend;
pub mod balance;
pub mod config;
pub mod discovery;
pub mod ejection;
pub mod health;
pub mod outcome;
pub mod peer;
pub mod retry;
pub mod set;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use log::{info, warn};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_load_balancing::discovery::ServiceDiscovery;
use tokio::time::Instant;

use crate::{
    observe::counter::Counter,
    upstream::{
        backend::{InFlight, Member, Probe},
        discovery::dns::Dns,
        health::Checks,
        outcome::Outcome,
        retry::RetryBudget,
        set::{Set, Targets},
    },
};

/// How often a move to new addresses is looked at until it is done.
const HANDOVER_EVERY: Duration = Duration::from_millis(200);

/// How long the parts of an exchange with an origin may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Making the connection.
    pub connect: Duration,
    /// From the request's end to the first byte of the answer.
    pub first_byte: Duration,
    /// Between two reads of the answer, or two writes of the request.
    pub between_bytes: Duration,
    /// How long a connection waits in the pool.
    pub idle: Duration,
    /// Between two bytes of an upgraded connection.
    pub tunnel: Duration,
}

/// What an upstream is made of, compiled.
pub struct Parts {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Backends that are given by address.
    pub fixed: Targets,
    /// Backends that are given by name.
    pub names: Option<Dns>,
    /// How requests are shared out.
    pub balance: balance::Config,
    /// How backends are checked; `None` trusts them all.
    pub checks: Option<Arc<Checks>>,
    /// When a backend is ejected; `None` never.
    pub ejection: Option<ejection::Rules>,
    /// Retries of one request.
    pub retries_max: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The peer of every backend, but for the address.
    pub peer: HttpPeer,
}

/// A named group of backends.
pub struct Upstream {
    parts: Parts,
    set: ArcSwap<Set>,
    requests: Counter,
    retries: Counter,
    budget: Mutex<RetryBudget>,
}

/// What a request has seen of a backend before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Nothing.
    None,
    /// Only a pooled connection that was closed already: the backend itself is not to blame.
    Stale,
    /// It failed this request.
    Failed,
}

impl Upstream {
    /// Starts an upstream; backends given by name follow with the first [`Self::discover`].
    pub fn new(parts: Parts) -> Self {
        let set = Set::new(&parts.fixed, parts.balance, untested(&parts), &parts.peer, None);
        Self {
            set: ArcSwap::from_pointee(set),
            requests: Counter::default(),
            retries: Counter::default(),
            budget: Mutex::new(RetryBudget::new(Instant::now())),
            parts,
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.parts.name
    }

    /// Retries of one request, at most.
    pub fn retries_max(&self) -> usize {
        self.parts.retries_max
    }

    /// How long things may take.
    pub fn timeouts(&self) -> &Timeouts {
        &self.parts.timeouts
    }

    /// How its backends are checked.
    pub fn checks(&self) -> Option<&Arc<Checks>> {
        self.parts.checks.as_ref()
    }

    /// Counts a request that begins; the retry budget lives from it.
    pub fn count_request(&self) {
        self.requests.increment();
    }

    /// Takes a backend for one attempt: never one that failed this request, fit ones first; if
    /// none is left, an ejected one whose checks pass (fail open).
    pub fn select(&self, now: Instant, visit: impl Fn(&Member) -> Visit) -> Option<InFlight> {
        let set = self.set.load();
        set.next(now, |member| visit(member) == Visit::None)
            .or_else(|| set.next(now, |member| visit(member) == Visit::Stale))
            .or_else(|| set.any_ejected(now, |member| visit(member) != Visit::Failed))
    }

    /// Spends one retry of the budget, or refuses it.
    pub fn may_retry(&self, now: Instant) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = budget.withdraw(now, self.requests.get());
        if granted {
            self.retries.increment();
        }
        granted
    }

    /// Retries since the start.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// Learns how an attempt ended: ejection counts, and a suspicious end is checked at once.
    pub fn report(&self, member: &Member, outcome: Outcome, now: Instant) {
        let state = &member.state;
        if outcome.is_suspicious() {
            state.suspicion.notify_one();
        }
        let Some(rules) = &self.parts.ejection else { return };
        if outcome.is_success() {
            if state.gate.succeeded(now) {
                info!("ejection: {} {} returned", self.name(), state.name());
            }
        } else if outcome.is_failure() {
            let set = self.set.load();
            let room = set.ejected() < rules.ejected_max(set.members().len());
            if let Some((penalty, failures)) = state.gate.failed(now, rules, room) {
                let (upstream, backend) = (self.name(), state.name());
                warn!(
                    "ejection: {upstream} {backend} ejected for {penalty:?} \
                     ({failures} failures in a row, the last: {outcome})"
                );
            }
        }
    }

    /// Looks up what is due, and puts a new set in force if the addresses changed.
    /// Returns when the next look is due; `None` if never.
    pub async fn discover(&self) -> Option<Instant> {
        let names = self.parts.names.as_ref()?;
        if let Ok((found, _)) = names.discover().await {
            let mut targets = self.parts.fixed.clone();
            targets.extend(
                found.into_iter().map(|backend| {
                    (backend.addr, u16::try_from(backend.weight).unwrap_or(u16::MAX))
                }),
            );
            let waits = self.keep_serving(&mut targets);
            self.replace(&targets);
            if waits {
                return Some(names.due().min(Instant::now() + HANDOVER_EVERY));
            }
        }
        Some(names.due())
    }

    /// The backends at this moment.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.set.load().members().to_vec()
    }

    /// When a name moves to addresses that no check has passed yet, the old ones serve on until
    /// one has. Returns whether they do.
    fn keep_serving(&self, targets: &mut Targets) -> bool {
        let set = self.set.load();
        let serving = |member: &&Arc<Member>| member.state.probe() == Probe::Passing;
        let passing: Vec<_> = set.members().iter().filter(serving).collect();
        if passing.iter().any(|member| targets.contains_key(member.state.address())) {
            return false;
        }
        targets.extend(passing.iter().map(|old| (old.state.address().clone(), old.weight)));
        !passing.is_empty()
    }

    fn replace(&self, targets: &Targets) {
        let old = self.set.load();
        let known = old.members().iter().map(|member| (member.state.address(), &member.weight));
        if known.eq(targets) {
            return;
        }
        let Parts { balance, peer, .. } = &self.parts;
        let new = Set::new(targets, *balance, untested(&self.parts), peer, Some(&old));
        let new = Arc::new(new);
        self.set.store(new.clone());
        for member in old.members() {
            if new.member(member.state.address()).is_none() {
                member.state.set_draining(true);
                info!("discovery: {} {} dropped", self.name(), member.state.name());
            }
        }
    }
}

/// What a backend counts as before its first check.
fn untested(parts: &Parts) -> Probe {
    if parts.checks.is_some() { Probe::Pending } else { Probe::Passing }
}

#[cfg(test)]
mod tests;
