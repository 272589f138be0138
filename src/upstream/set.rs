//! The backends of an upstream at one moment: immutable, replaced whole.
//!
//! A change of the set (a name that resolves anew, a reload, a weight by order) builds a new one
//! that inherits the live records by address, and swaps one pointer: the balancers and the records
//! always agree.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use http::HeaderValue;
use pingora_core::{protocols::l4::socket::SocketAddr, upstreams::peer::HttpPeer};
use tokio::time::Instant;

use crate::upstream::{
    backend::{Availability, BackendState, Heeds, InFlight, Member, Probe, Visit},
    balance::{
        self, Balancer,
        hints::Hints,
        pool::Pool,
        sticky::{Making, OwnKey, Sticky},
        tiers::Tiers,
    },
    target::Target,
};

/// The largest set: places in a ring are 16 bits.
pub const MEMBERS_MAX: usize = 65_535;

/// Addresses and what is known of them, as discovery gives them.
pub type Targets = BTreeMap<SocketAddr, Target>;

/// What all sets of an upstream have in common.
pub struct Plan {
    /// The name of the upstream.
    pub upstream: Arc<str>,
    /// What cookies are signed with, where no key is written.
    pub key: Arc<OwnKey>,
    /// How requests are shared out.
    pub balance: balance::Config,
    /// How long a backend that comes back takes to its full share.
    pub slow_start: Option<Duration>,
    /// Where this proxy stands; its zone is preferred.
    pub zone: Option<Arc<str>>,
    /// Which facts of a record count.
    pub heeds: Heeds,
    /// Whether windows of traffic are judged.
    pub observes: bool,
    /// The peer of every backend, but for the address.
    pub template: HttpPeer,
}

/// The backends of an upstream at one moment.
pub struct Set {
    tiers: Tiers,
    members: Pool,
    slow_start: Option<Duration>,
    sticky: Option<Sticky>,
}

impl Set {
    /// Builds a set; records of addresses that `previous` knew are carried over, and with
    /// `newcomers` those of other addresses begin slowly. `in_flight` counts the requests at all
    /// its backends, where the algorithm asks for it.
    pub fn new(
        targets: &Targets,
        plan: &Plan,
        in_flight: &Arc<AtomicU32>,
        previous: Option<&Self>,
        newcomers: bool,
    ) -> Self {
        let untested = if plan.heeds.probe { Probe::Pending } else { Probe::Passing };
        let members = targets.iter().take(MEMBERS_MAX).map(|(address, target)| {
            let known = previous.and_then(|set| set.member(address));
            let state = known.map_or_else(
                || {
                    let state = BackendState::new(address.clone(), untested);
                    if newcomers {
                        state.comeback.leave();
                        state.set_probe(untested);
                    }
                    Arc::new(state)
                },
                |known| known.state.clone(),
            );
            if plan.observes {
                state.begin_to_observe(); // so that no request has to make room
            }
            state.set_draining(false);
            let (heeds, template, known) = (plan.heeds, &plan.template, known.map(Arc::as_ref));
            let counted = plan.balance.is_bounded().then(|| in_flight.clone());
            Arc::new(Member::new(state, target.clone(), heeds, template, counted, known))
        });
        let members: Pool = members.collect();
        let tiers = Tiers::new(&plan.balance, &members, plan.zone.as_deref(), in_flight);
        let sticky = match &plan.balance {
            balance::Config::Sticky(config) => {
                let making = Making { upstream: &plan.upstream, config, own: &plan.key };
                Some(Sticky::new(&making, members.clone()))
            }
            _ => None,
        };
        Self { tiers, members, slow_start: plan.slow_start, sticky }
    }

    /// All backends, in the order of their addresses.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The backend at an address.
    pub fn member(&self, address: &SocketAddr) -> Option<&Arc<Member>> {
        self.members.find(address)
    }

    /// The cookie for a client that was served by a backend; `None` if it is to have no other.
    pub fn cookie(
        &self,
        hints: &Hints<'_>,
        member: &Member,
        is_secure: bool,
    ) -> Option<HeaderValue> {
        self.sticky.as_ref()?.cookie(hints, member, is_secure).cloned()
    }

    /// Takes the backend that the balancer would: the one that the client stays with, else one that
    /// is fit, of the best tier that has one, and there rather one that the request knows nothing
    /// of than one that closed a pooled connection on it.
    pub fn next(
        &self,
        now: Instant,
        hints: &Hints<'_>,
        visit: impl Fn(&Member) -> Visit,
    ) -> Option<InFlight> {
        if let Some(stays) = self.stays(now, hints, &visit) {
            return Some(stays);
        }
        // Those who only have too much to do are waited for, and not stood in for.
        let may_be = |tier: &&Balancer| {
            let is_wanted =
                |member: &Member| !member.target.backup && visit(member) != Visit::Failed;
            !tier.is_backup() || !self.is_full(now, is_wanted)
        };
        self.tiers.in_order(now).take_while(may_be).find_map(|tier| {
            self.next_of(tier, now, hints, |member| visit(member) == Visit::None)
                .or_else(|| self.next_of(tier, now, hints, |member| visit(member) == Visit::Stale))
        })
    }

    /// Takes the backend that the client came to before, if that is fit, whatever its tier and
    /// however long it is back.
    fn stays(
        &self,
        now: Instant,
        hints: &Hints<'_>,
        visit: impl Fn(&Member) -> Visit,
    ) -> Option<InFlight> {
        let taken = Cell::new(None);
        self.sticky.as_ref()?.offer(hints, |member| {
            if visit(member) != Visit::Failed {
                taken.set(take_fit(member, now));
            }
        });
        taken.into_inner()
    }

    fn next_of(
        &self,
        tier: &Balancer,
        now: Instant,
        hints: &Hints<'_>,
        wanted: impl Fn(&Member) -> bool,
    ) -> Option<InFlight> {
        let taken = Cell::new(None);
        tier.offer(now, hints, |member, lot| {
            let is_wanted = wanted(member) && self.may_have(member, now, lot);
            let taking = if is_wanted { take_fit(member, now) } else { None };
            let accepted = taking.is_some();
            taken.set(taking);
            accepted
        });
        // An algorithm may repeat itself, and miss the only fit one.
        taken.into_inner().or_else(|| any(tier.pool(), &wanted, |member| take_fit(member, now)))
    }

    /// Whether a backend that came back a while ago may have a request of this lot.
    fn may_have(&self, member: &Member, now: Instant, lot: f64) -> bool {
        self.slow_start.is_none_or(|lasts| lot <= member.state.comeback.share(lasts, now))
    }

    /// Takes any ejected backend that `wanted` accepts and whose checks pass.
    pub fn any_ejected(&self, now: Instant, wanted: impl Fn(&Member) -> bool) -> Option<InFlight> {
        self.tiers.iter().find_map(|tier| {
            any(tier.pool(), &wanted, |member| match member.availability(now) {
                Availability::Ejected => InFlight::take(member, Availability::Ejected),
                availability => take_if_fit(member, availability),
            })
        })
    }

    /// Takes any backend that `wanted` accepts and that `take` takes.
    pub fn any(
        &self,
        wanted: &impl Fn(&Member) -> bool,
        take: impl Fn(&Arc<Member>) -> Option<InFlight>,
    ) -> Option<InFlight> {
        any(&self.members, wanted, take)
    }

    /// The backends in the order of their next turns, each once; they keep their turns.
    pub fn upcoming(&self) -> Vec<Arc<Member>> {
        self.tiers.iter().flat_map(Balancer::upcoming).collect()
    }

    /// How many are ejected or on trial now.
    pub fn ejected(&self) -> usize {
        self.members.iter().filter(|member| member.state.gate.is_ejected()).count()
    }
}

fn any(
    members: &[Arc<Member>],
    wanted: &impl Fn(&Member) -> bool,
    take: impl Fn(&Arc<Member>) -> Option<InFlight>,
) -> Option<InFlight> {
    let start = fastrand::usize(..members.len().max(1));
    let (before, from) = members.split_at_checked(start)?;
    from.iter().chain(before).filter(|member| wanted(member)).find_map(take)
}

fn take_fit(member: &Arc<Member>, now: Instant) -> Option<InFlight> {
    take_if_fit(member, member.availability(now))
}

fn take_if_fit(member: &Arc<Member>, availability: Availability) -> Option<InFlight> {
    match availability {
        Availability::Ready | Availability::Trial => InFlight::take(member, availability),
        Availability::Draining
        | Availability::Unhealthy
        | Availability::Ejected
        | Availability::Full => None,
    }
}
