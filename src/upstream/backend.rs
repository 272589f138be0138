//! One address of an upstream: the live record of it, and its place in a set.
//!
//! Three facts are kept apart, each with its own cause: the *probe* (active checks), *ejection*
//! (observed traffic), and the *drain* (discovery dropped it, or, apart from that, the operator
//! ordered it: [`Orders`]). [`BackendState::availability`]
//! derives the one answer that every selection asks for, of those facts that the upstream heeds:
//! one without checks or without ejection has no use for what others left in the record.
//!
//! INVARIANT: a record outlives the set that holds it, so that its health and counters survive a
//! change of the set; weights and peers belong to the set.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderValue;
use pingora_core::{protocols::l4::socket::SocketAddr, upstreams::peer::HttpPeer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::Instant};

use crate::upstream::{
    balance::slow_start::Comeback,
    ejection::{Entry, Gate, observed::Observed},
    latency::Latency,
    link,
    load::{
        Bounds, Occupancy, Requests,
        connections::{Bounded, Connections},
        line::Line,
    },
    orders::Orders,
    target::Target,
    troubles::Troubles,
};

/// What the active checks last established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Probe {
    /// Not checked yet: not in service.
    Pending = 0,
    /// In service. Also what a backend is whose upstream has no check.
    Passing = 1,
    /// Failed as often in a row as the upstream allows: out of service.
    Failing = 2,
}

/// May this backend take a request now?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It may.
    Ready,
    /// It may take one request, to prove itself after an ejection.
    Trial,
    /// Discovery dropped it, or the operator drains it.
    Draining,
    /// Its checks fail, or have not answered yet.
    Unhealthy,
    /// Observed traffic failed; the penalty lasts.
    Ejected,
    /// It has as much to do as it may.
    Full,
}

impl Availability {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Trial => "trial",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Full => "full",
        }
    }
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

/// Which facts an upstream heeds: those that it has checks and rules for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heeds {
    /// What checks established.
    pub probe: bool,
    /// What traffic failed.
    pub ejection: bool,
    /// What it bears.
    pub load: Bounds,
}

impl Heeds {
    /// All that there is, without bounds.
    pub const ALL: Self = Self { probe: true, ejection: true, load: Bounds::NONE };
}

/// The live record of one address.
pub struct BackendState {
    address: SocketAddr,
    name: String,
    probe: AtomicU8,
    draining: AtomicBool,
    /// How much it has to do.
    pub occupancy: Occupancy,
    /// Beside what it has to do, which every attempt writes as well.
    attempts: AtomicU64,
    failures: AtomicU64,
    ejections: AtomicU64,
    /// What the operator ordered.
    pub orders: Orders,
    /// How long it takes to begin its answers.
    pub latency: Latency,
    /// When it came back into service.
    pub comeback: Comeback,
    /// Ejection, as observed by requests.
    pub gate: Gate,
    /// What last went wrong.
    pub troubles: Troubles,
    /// Wakes the checks of this backend before their time.
    pub suspicion: Notify,
    /// What traffic shows of it, where that is judged.
    observed: OnceLock<Box<Observed>>,
}

impl BackendState {
    /// A record of an address that nothing is known of yet.
    pub fn new(address: SocketAddr, probe: Probe) -> Self {
        Self {
            name: address.to_string(),
            address,
            probe: AtomicU8::new(probe as u8),
            draining: AtomicBool::new(false),
            occupancy: Occupancy::default(),
            attempts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            orders: Orders::default(),
            latency: Latency::default(),
            comeback: Comeback::default(),
            gate: Gate::default(),
            troubles: Troubles::default(),
            suspicion: Notify::new(),
            observed: OnceLock::new(),
        }
    }

    /// The address that requests and checks go to.
    pub fn address(&self) -> &SocketAddr {
        &self.address
    }

    /// The address as logs show it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// May this backend take a request now?
    pub fn availability(&self, heeds: Heeds, now: Instant) -> Availability {
        if self.draining.load(Relaxed) || self.orders.is_drained() {
            return Availability::Draining;
        }
        if heeds.probe && self.probe() != Probe::Passing {
            return Availability::Unhealthy;
        }
        let entry = if heeds.ejection { self.gate.entry(now) } else { Entry::Open };
        match entry {
            Entry::Closed => Availability::Ejected,
            _ if self.occupancy.is_full(&heeds.load) => Availability::Full,
            Entry::Open => Availability::Ready,
            Entry::Trial => Availability::Trial,
        }
    }

    /// What the active checks last established.
    pub fn probe(&self) -> Probe {
        match self.probe.load(Relaxed) {
            0 => Probe::Pending,
            1 => Probe::Passing,
            _ => Probe::Failing,
        }
    }

    /// Writes what the active checks established.
    pub fn set_probe(&self, probe: Probe) {
        self.probe.store(probe as u8, Relaxed);
        match probe {
            Probe::Pending => {}
            Probe::Passing => self.comeback.arrive(Instant::now()),
            Probe::Failing => self.comeback.leave(),
        }
    }

    /// Marks that discovery dropped the address, or found it again.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Relaxed);
    }

    /// Makes room for what traffic shows of it.
    pub fn begin_to_observe(&self) {
        self.observed.get_or_init(Box::default);
    }

    /// What traffic shows of it; `None` where nobody has asked.
    pub fn observed(&self) -> Option<&Observed> {
        self.observed.get().map(|observed| &**observed)
    }

    /// Requests that it is answering now.
    pub fn in_flight(&self) -> u32 {
        self.occupancy.requests()
    }

    /// Attempts that were made at it.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Relaxed)
    }

    /// Those of them that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// Counts an attempt that failed.
    pub fn count_failure(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Counts an ejection.
    pub fn count_ejection(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendState")
            .field("name", &self.name)
            .field("probe", &self.probe())
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

/// A backend's place in a set: its record, its weight, and the peer made ready for Pingora.
#[derive(Debug)]
pub struct Member {
    /// The live record, shared with the sets before and after this one.
    pub state: Arc<BackendState>,
    /// Its share of the requests as it is written, its name, and where it stands.
    pub target: Target,
    /// Its share of the requests.
    pub weight: u16,
    /// What Pingora connects to; cloned for each attempt.
    pub peer: HttpPeer,
    /// Its address as the value of a `Host` field.
    pub host: HeaderValue,
    /// Which facts of its record count.
    pub heeds: Heeds,
    /// Those of its pool and in use, where they are bounded.
    pub connections: Arc<Connections>,
    /// Counts requests in flight at all backends, where somebody asks for it.
    in_flight: Option<Arc<AtomicU32>>,
}

impl Member {
    /// Gives a record its place. It goes on counting the connections of a `predecessor` whose pool
    /// it has; those of another pool are used no more.
    pub fn new(
        state: Arc<BackendState>,
        target: Target,
        heeds: Heeds,
        template: &HttpPeer,
        in_flight: Option<Arc<AtomicU32>>,
        predecessor: Option<&Self>,
    ) -> Self {
        let address = state.address().clone();
        let host = match &address {
            SocketAddr::Inet(address) => HeaderValue::from_maybe_shared(address.to_string()),
            SocketAddr::Unix(_) => Ok(HeaderValue::from_static("localhost")),
        };
        let host = host.unwrap_or(HeaderValue::from_static("localhost"));
        let mut peer = link::peer_of(template, address, target.name.as_deref());
        let alike = predecessor.filter(|old| old.peer.group_key == template.group_key);
        let connections = alike.map(|old| old.connections.clone()).unwrap_or_default();
        if let Some(max) = heeds.load.connections {
            let connections = connections.clone();
            let bounded = |inner| Arc::new(Bounded { inner, connections, max }) as _;
            peer.options.custom_l4 = peer.options.custom_l4.take().map(bounded);
        }
        let weight = state.orders.weight(target.weight);
        Self { state, target, weight, peer, host, heeds, connections, in_flight }
    }

    /// May this backend take a request now? Every selection asks here.
    pub fn availability(&self, now: Instant) -> Availability {
        self.state.availability(self.heeds, now)
    }
}

/// Counts a request in flight for as long as it lives.
///
/// INVARIANT: dropping undoes all that taking did, also when the client hangs up and no later
/// phase of the request runs.
#[derive(Debug)]
pub struct InFlight {
    member: Arc<Member>,
    on_trial: bool,
    /// Those who wait for the place.
    line: Option<Arc<Line>>,
}

impl InFlight {
    /// Takes a place at a backend; `None` if it was on trial, or the last place, and another
    /// request was faster.
    pub fn take(member: &Arc<Member>, availability: Availability) -> Option<Self> {
        let on_trial = availability == Availability::Trial;
        if on_trial && !member.state.gate.take_trial() {
            return None;
        }
        if !member.state.occupancy.enter(&member.heeds.load) {
            if on_trial {
                member.state.gate.leave_trial();
            }
            return None;
        }
        member.state.attempts.fetch_add(1, Relaxed);
        if let Some(all) = &member.in_flight {
            all.fetch_add(1, Relaxed);
        }
        Some(Self { member: member.clone(), on_trial, line: None })
    }

    /// Lets those in a line know when the place is free again.
    #[must_use]
    pub fn awaited_in(self, line: &Arc<Line>) -> Self {
        // A value with a `Drop` of its own cannot be taken apart.
        let mut awaited = self;
        awaited.line = Some(line.clone());
        awaited
    }

    /// Learns how long the backend took to answer, or to fail.
    pub fn took(&self, latency: Duration, now: Instant) {
        let Requests::Adaptive(rules) = &self.member.heeds.load.requests else { return };
        let occupancy = &self.member.state.occupancy;
        occupancy.adaptive.answered(latency, occupancy.requests(), rules, now);
    }

    /// The backend that the request is at.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.member.state.occupancy.leave();
        if let Some(all) = &self.member.in_flight {
            all.fetch_sub(1, Relaxed);
        }
        if self.on_trial {
            self.member.state.gate.leave_trial();
        }
        if let Some(line) = &self.line {
            line.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{ejection::Rules, peer};

    fn member() -> Arc<Member> {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let template = peer::at(address.clone(), false);
        let state = Arc::new(BackendState::new(address, Probe::Pending));
        Arc::new(Member::new(state, Target::of(1), Heeds::ALL, &template, None, None))
    }

    #[test]
    fn each_fact_alone_takes_a_backend_out_of_service() {
        let (member, now) = (member(), Instant::now());
        let state = &member.state;
        assert_eq!(member.availability(now), Availability::Unhealthy, "not probed yet");
        state.set_probe(Probe::Passing);
        assert_eq!(member.availability(now), Availability::Ready);
        state.set_probe(Probe::Failing);
        assert_eq!(member.availability(now), Availability::Unhealthy);
        state.set_probe(Probe::Passing);
        state.set_draining(true);
        assert_eq!(member.availability(now), Availability::Draining);
        state.set_draining(false);

        let rules =
            Rules { consecutive_failures: 1, eject_for: Duration::from_secs(1), max_ejected: 1.0 };
        state.gate.failed(now, &rules, || true);
        assert_eq!(member.availability(now), Availability::Ejected);
        let later = now + Duration::from_millis(1_001);
        assert_eq!(member.availability(later), Availability::Trial);
    }

    #[test]
    fn what_an_upstream_does_not_heed_takes_no_backend_out_of_service() {
        let (member, now) = (member(), Instant::now());
        let rules =
            Rules { consecutive_failures: 1, eject_for: Duration::from_secs(1), max_ejected: 1.0 };
        member.state.gate.failed(now, &rules, || true);
        let availability = |probe, ejection| {
            let state = &member.state;
            state.availability(Heeds { probe, ejection, ..Heeds::ALL }, now)
        };
        assert_eq!(availability(true, true), Availability::Unhealthy);
        assert_eq!(availability(false, true), Availability::Ejected);
        assert_eq!(availability(true, false), Availability::Unhealthy);
        assert_eq!(availability(false, false), Availability::Ready);
    }

    #[test]
    fn a_full_backend_takes_no_more_and_its_trial_is_left_to_others() {
        let mut member = member();
        let load = Bounds { requests: Requests::Fixed(1), ..Bounds::NONE };
        Arc::get_mut(&mut member).unwrap().heeds = Heeds { probe: false, load, ..Heeds::ALL };
        let now = Instant::now();
        let first = InFlight::take(&member, Availability::Ready).expect("a place");
        assert_eq!(member.availability(now), Availability::Full);
        assert!(InFlight::take(&member, Availability::Ready).is_none());
        assert!(InFlight::take(&member, Availability::Trial).is_none());
        drop(first);
        assert_eq!(member.availability(now), Availability::Ready);
        let last = InFlight::take(&member, Availability::Trial).expect("the trial is free");
        assert_eq!(last.member().state.in_flight(), 1);
    }

    #[test]
    fn a_dropped_request_gives_its_place_back() {
        let member = member();
        let first = InFlight::take(&member, Availability::Trial).expect("free");
        assert!(InFlight::take(&member, Availability::Trial).is_none(), "the trial is taken");
        let second = InFlight::take(&member, Availability::Ready).expect("free");
        assert_eq!(member.state.in_flight(), 2);
        drop((first, second));
        assert_eq!(member.state.in_flight(), 0);
        assert!(InFlight::take(&member, Availability::Trial).is_some());
    }
}
