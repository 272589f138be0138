//! The backends of an upstream at one moment: immutable, replaced whole.
//!
//! A change of the set (a name that resolves anew, a reload) builds a new one that inherits the
//! live records by address, and swaps one pointer: the balancer and the records always agree.

use std::{collections::BTreeMap, sync::Arc};

use pingora_core::{protocols::l4::socket::SocketAddr, upstreams::peer::HttpPeer};
use pingora_load_balancing::{Backend, Extensions};
use tokio::time::Instant;

use crate::upstream::{
    backend::{Availability, BackendState, Heeds, InFlight, Member, Probe},
    balance::{self, Balancer},
    target::Target,
};

/// The largest set: places in a ring are 16 bits.
pub const MEMBERS_MAX: usize = 65_535;

/// Addresses and what is known of them, as discovery gives them.
pub type Targets = BTreeMap<SocketAddr, Target>;

/// The backends of an upstream at one moment.
pub struct Set {
    balancer: Balancer,
    /// In the order of their addresses.
    members: Box<[Arc<Member>]>,
}

impl Set {
    /// Builds a set; records of addresses that `previous` knew are carried over.
    pub fn new(
        targets: &Targets,
        balance: balance::Config,
        heeds: Heeds,
        template: &HttpPeer,
        previous: Option<&Self>,
    ) -> Self {
        let targets = || targets.iter().take(MEMBERS_MAX);
        let backends = targets().map(|(address, target)| Backend {
            addr: address.clone(),
            weight: usize::from(target.weight),
            ext: Extensions::new(),
        });
        let untested = if heeds.probe { Probe::Pending } else { Probe::Passing };
        let balancer = Balancer::new(balance, backends.collect());
        let members = targets().map(|(address, target)| {
            let known = previous.and_then(|set| set.member(address));
            let state = known.map_or_else(
                || Arc::new(BackendState::new(address.clone(), untested)),
                |member| member.state.clone(),
            );
            state.set_draining(false);
            Arc::new(Member::new(state, target.clone(), heeds, template))
        });
        Self { balancer, members: members.collect() }
    }

    /// All backends, in the order of their addresses.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The backend at an address.
    pub fn member(&self, address: &SocketAddr) -> Option<&Arc<Member>> {
        let found = self.members.binary_search_by(|member| member.state.address().cmp(address));
        found.ok().map(|index| &self.members[index])
    }

    /// Takes the backend that the balancer would: one that is fit and that `wanted` accepts.
    pub fn next(&self, now: Instant, wanted: impl Fn(&Member) -> bool) -> Option<InFlight> {
        let taken = std::cell::Cell::new(None);
        let offers_max = self.members.len().saturating_mul(4).max(16);
        self.balancer.offer(offers_max, |backend| {
            let member = self.member(&backend.addr).filter(|member| wanted(member));
            let taking = member.and_then(|member| take_fit(member, now));
            let accepted = taking.is_some();
            taken.set(taking);
            accepted
        });
        // Under contention a shared round robin may repeat itself and miss the only fit one.
        taken.into_inner().or_else(|| self.any(&wanted, |member| take_fit(member, now)))
    }

    /// Takes any ejected backend that `wanted` accepts and whose checks pass.
    pub fn any_ejected(&self, now: Instant, wanted: impl Fn(&Member) -> bool) -> Option<InFlight> {
        self.any(&wanted, |member| match member.availability(now) {
            Availability::Ejected => InFlight::take(member, Availability::Ejected),
            availability => take_if_fit(member, availability),
        })
    }

    /// The backends in the order of their next turns, each once; they keep their turns.
    pub fn upcoming(&self) -> Vec<Arc<Member>> {
        let upcoming = self.balancer.upcoming();
        upcoming.iter().filter_map(|address| self.member(address).cloned()).collect()
    }

    /// How many are ejected or on trial now.
    pub fn ejected(&self) -> usize {
        self.members.iter().filter(|member| member.state.gate.is_ejected()).count()
    }

    /// Takes any backend that `wanted` accepts and that `take` takes.
    pub fn any(
        &self,
        wanted: &impl Fn(&Member) -> bool,
        take: impl Fn(&Arc<Member>) -> Option<InFlight>,
    ) -> Option<InFlight> {
        let start = fastrand::usize(..self.members.len().max(1));
        let (before, from) = self.members.split_at_checked(start)?;
        from.iter().chain(before).filter(|member| wanted(member)).find_map(take)
    }
}

fn take_fit(member: &Arc<Member>, now: Instant) -> Option<InFlight> {
    take_if_fit(member, member.availability(now))
}

fn take_if_fit(member: &Arc<Member>, availability: Availability) -> Option<InFlight> {
    match availability {
        Availability::Ready | Availability::Trial => InFlight::take(member, availability),
        Availability::Draining | Availability::Unhealthy | Availability::Ejected => None,
    }
}
