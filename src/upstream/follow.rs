//! How an upstream follows its sources: what they give now becomes a new set, in one swap.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use log::info;
use pingora_load_balancing::discovery::ServiceDiscovery;
use tokio::time::Instant;

use crate::upstream::{
    Upstream,
    backend::{Member, Probe},
    discovery::feed::Feed,
    set::Targets,
    target::Target,
};

/// How often a move to new addresses is looked at until it is done.
const HANDOVER_EVERY: Duration = Duration::from_millis(200);

impl Upstream {
    /// Where more backends are found than those that are given by address.
    pub fn feeds(&self) -> &[Arc<Feed>] {
        &self.parts.feeds
    }

    /// Whether a source is to answer for the first time.
    pub fn is_awaiting(&self) -> bool {
        self.parts.feeds.iter().any(|feed| feed.is_awaited())
    }

    /// Waits until a source gives something else than before.
    pub async fn changed(&self) {
        self.parts.changed.notified().await;
    }

    /// Puts a new set in force if the sources give other backends than before. Returns when it is
    /// time to look again though nothing changed; `None` for never.
    pub async fn refresh(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut targets = self.parts.fixed.clone();
        for feed in &self.parts.feeds {
            let found = feed.discover().await.map_or_else(|_| BTreeSet::new(), |(found, _)| found);
            for backend in found {
                let weight = u16::try_from(backend.weight).unwrap_or(u16::MAX);
                let target = backend.ext.get::<Target>().cloned();
                let target = target.unwrap_or_else(|| Target::of(weight));
                targets.entry(backend.addr).or_insert(target);
            }
        }
        let waits = self.keep_serving(&mut targets, now);
        self.replace(&targets);
        if !self.is_awaiting() {
            self.is_found.store(true, Relaxed);
        }
        self.recall_known();
        let stale = self.parts.feeds.iter().filter_map(|feed| feed.good_until(now));
        stale.chain(waits.then(|| now + HANDOVER_EVERY)).min()
    }

    /// When all backends are replaced by others that no check has passed yet, or by none, the old
    /// ones serve on until one has or they fail. Returns whether they do.
    ///
    /// What went stale, or is gone where nothing is checked, serves no longer.
    pub(super) fn keep_serving(&self, targets: &mut Targets, now: Instant) -> bool {
        let is_over = self.parts.checks.is_none() && targets.is_empty()
            || self.parts.feeds.iter().any(|feed| feed.has_gone_stale(now));
        if is_over {
            return false;
        }
        let set = self.set.load();
        let serving = |member: &&Arc<Member>| member.state.probe() == Probe::Passing;
        let passing: Vec<_> = set.members().iter().filter(serving).collect();
        if passing.iter().any(|member| targets.contains_key(member.state.address())) {
            return false;
        }
        targets.extend(passing.iter().map(|old| (old.state.address().clone(), old.target.clone())));
        !passing.is_empty()
    }

    pub(super) fn replace(&self, targets: &Targets) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.set.load();
        let known = old.members().iter().map(|member| (member.state.address(), &member.target));
        if known.eq(targets) {
            return;
        }
        let new = Arc::new(self.set_of(targets, Some(&old)));
        self.set.store(new.clone());
        self.account.count_set();
        for member in old.members() {
            if new.member(member.state.address()).is_none() {
                member.state.set_draining(true);
                info!("discovery: {} {} dropped", self.name(), member.state.name());
            }
        }
    }
}
