//! The load that backends can bear: requests and connections at a time, and who waits for a place.
//!
//! A request takes a place at a backend by one atomic step that fails when the bound is reached
//! (`Occupancy::enter`), so that no race lets one more in. Without bounds nothing here costs more
//! than a comparison. Those that wait stand in a [`line::Line`], which is touched only when
//! somebody does.

pub mod adaptive;
pub mod config;
pub mod connections;
pub mod copies;
pub mod line;

use std::sync::{
    Arc,
    atomic::{
        AtomicU32,
        Ordering::{Relaxed, SeqCst},
    },
};

use tokio::time::Instant;

use crate::upstream::{
    Account, Upstream, Visit,
    backend::{Availability, InFlight, Member},
    balance::hints::Hints,
    load::{adaptive::Adaptive, copies::Copies, line::Line},
    set::Set,
};

/// Requests that a backend answers at a time, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// As many as come.
    Unlimited,
    /// So many.
    Fixed(u32),
    /// As many as its latency lets it be trusted with.
    Adaptive(adaptive::Rules),
}

/// What each backend of an upstream bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests at a time.
    pub requests: Requests,
    /// Connections at a time, in use and in the pool.
    pub connections: Option<u32>,
    /// Requests that one connection carries at a time.
    pub per_connection: u32,
}

impl Bounds {
    /// No bounds.
    pub const NONE: Self =
        Self { requests: Requests::Unlimited, connections: None, per_connection: 1 };
}

/// How many requests may wait for a place, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many, at most.
    pub max: usize,
    /// For how long, at most.
    pub timeout: std::time::Duration,
}

/// What an upstream does about load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What each backend bears.
    pub bounds: Bounds,
    /// Who may wait; `None` for nobody.
    pub queue: Option<Queue>,
}

/// How much a backend has to do; it outlives changes of the configuration.
#[derive(Debug, Default)]
pub struct Occupancy {
    requests: AtomicU32,
    /// What its latency says that it bears.
    pub adaptive: Adaptive,
}

impl Occupancy {
    /// Requests that it is answering now.
    pub fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// Requests that it may answer at a time.
    pub fn requests_max(&self, bounds: &Bounds) -> u32 {
        let requests = match &bounds.requests {
            Requests::Unlimited => u32::MAX,
            Requests::Fixed(max) => *max,
            Requests::Adaptive(rules) => self.adaptive.limit(rules),
        };
        let carried = |max: u32| max.saturating_mul(bounds.per_connection);
        requests.min(bounds.connections.map_or(u32::MAX, carried))
    }

    /// Whether it has no place for another request.
    pub fn is_full(&self, bounds: &Bounds) -> bool {
        self.requests_max(bounds) <= self.requests()
    }

    /// Takes a place, unless it is full.
    pub(super) fn enter(&self, bounds: &Bounds) -> bool {
        let max = self.requests_max(bounds);
        if max == u32::MAX {
            self.requests.fetch_add(1, Relaxed);
            return true;
        }
        let taken = |now: u32| (now < max).then_some(now + 1);
        self.requests.fetch_update(SeqCst, SeqCst, taken).is_ok()
    }

    /// Gives a place back.
    pub(super) fn leave(&self) {
        self.requests.fetch_sub(1, SeqCst);
    }
}

/// What became of asking for a place.
#[derive(Debug)]
pub enum Admission {
    /// It was given.
    Taken(InFlight),
    /// There are backends that will have one.
    Busy,
    /// No backend is fit.
    Nobody,
}

impl Account {
    /// Those who wait for a place.
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// The copies that it gets as a mirror.
    pub fn copies(&self) -> &Arc<Copies> {
        &self.copies
    }
}

impl Upstream {
    /// What it does about load.
    pub fn load(&self) -> &Rules {
        &self.parts.load
    }

    /// Takes a place for an attempt, unless others wait for one already.
    pub fn admit(
        &self,
        now: Instant,
        hints: &Hints<'_>,
        visit: impl Fn(&Member) -> Visit,
    ) -> Admission {
        if self.load().queue.is_some() && !self.account().line().is_empty() {
            return Admission::Busy;
        }
        match self.take_turn(now, hints, &visit) {
            Some(in_flight) => Admission::Taken(in_flight),
            None if self.is_busy(now, visit) => Admission::Busy,
            None => Admission::Nobody,
        }
    }

    /// Takes a place for the one whose turn it is.
    pub fn take_turn(
        &self,
        now: Instant,
        hints: &Hints<'_>,
        visit: impl Fn(&Member) -> Visit,
    ) -> Option<InFlight> {
        let in_flight = self.select(now, hints, visit)?;
        Some(match self.load().queue {
            Some(_) => in_flight.awaited_in(self.account().line()),
            None => in_flight,
        })
    }

    /// Whether a backend will have a place again for such a request. One that has a place by now
    /// had none a moment ago.
    pub fn is_busy(&self, now: Instant, visit: impl Fn(&Member) -> Visit) -> bool {
        self.set.load().members().iter().any(|member| {
            let availability = member.availability(now);
            matches!(availability, Availability::Full | Availability::Ready)
                && visit(member) != Visit::Failed
        })
    }
}

impl Set {
    /// Whether a backend that `wanted` accepts is fit, and only has too much to do.
    pub(super) fn is_full(&self, now: Instant, wanted: impl Fn(&Member) -> bool) -> bool {
        let is_full = |member: &&Arc<Member>| member.availability(now) == Availability::Full;
        self.members().iter().filter(is_full).any(|member| wanted(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Bounds = Bounds { requests: Requests::Fixed(2), ..Bounds::NONE };

    #[test]
    fn a_bound_is_never_exceeded_whoever_comes_together() {
        let occupancy = Arc::new(Occupancy::default());
        let most = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (occupancy, most) = (occupancy.clone(), most.clone());
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        if occupancy.enter(&TWO) {
                            most.fetch_max(occupancy.requests(), SeqCst);
                            occupancy.leave();
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!((1..=2).contains(&most.load(SeqCst)));
        assert_eq!(occupancy.requests(), 0);
    }

    #[test]
    fn connections_bound_requests_by_what_they_carry() {
        let occupancy = Occupancy::default();
        let bounds = Bounds { connections: Some(3), ..Bounds::NONE };
        assert_eq!(occupancy.requests_max(&bounds), 3);
        assert_eq!(occupancy.requests_max(&Bounds { per_connection: 100, ..bounds }), 300);
        assert_eq!(occupancy.requests_max(&Bounds { connections: Some(3), ..TWO }), 2);
        assert_eq!(occupancy.requests_max(&Bounds::NONE), u32::MAX);
    }
}
