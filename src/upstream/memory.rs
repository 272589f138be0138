//! What a process tells its successor of a backend, so that the successor begins with warm health.
//!
//! INVARIANT: only what was established is told. A backend that nobody checked is in service, but
//! not known to be well; a successor that checks must ask it first.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::upstream::{
    backend::{BackendState, Heeds, Probe},
    ejection::Past,
    orders::Told,
};

/// What is known of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Its address.
    pub address: String,
    /// Whether its checks pass; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passes: Option<bool>,
    /// What traffic failed; `None` if nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ejection: Option<Past>,
    /// What the operator ordered; `None` if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orders: Option<Told>,
}

impl Memory {
    /// What there is to tell of a backend; `None` if there is nothing.
    pub(super) fn of(state: &BackendState, heeds: Heeds, now: Instant) -> Option<Self> {
        let passes = match state.probe() {
            Probe::Passing if heeds.probe => Some(true),
            Probe::Failing if heeds.probe => Some(false),
            _ => None,
        };
        let ejection = if heeds.ejection { state.gate.past(now) } else { None };
        let orders = state.orders.told();
        (passes.is_some() || ejection.is_some() || orders.is_some()).then(|| {
            let address = state.name().to_owned();
            Self { address, passes, ejection, orders }
        })
    }

    /// Writes it into the record of a backend.
    pub(super) fn recall(&self, state: &BackendState, now: Instant) {
        if let Some(passes) = self.passes {
            state.set_probe(if passes { Probe::Passing } else { Probe::Failing });
        }
        if let Some(past) = &self.ejection {
            state.gate.recall(past, now);
        }
        if let Some(orders) = self.orders {
            state.orders.recall(orders);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upstream::{backend::Availability, ejection::Rules};

    fn state(probe: Probe) -> BackendState {
        BackendState::new("127.0.0.1:1".parse().unwrap(), probe)
    }

    /// A record as a successor has it after it was told of `state` in words.
    fn told(state: &BackendState, heeds: Heeds, now: Instant) -> Option<BackendState> {
        let told = serde_json::to_string(&Memory::of(state, heeds, now)?).unwrap();
        let new = self::state(Probe::Pending);
        serde_json::from_str::<Memory>(&told).unwrap().recall(&new, now);
        Some(new)
    }

    #[test]
    fn what_checks_established_is_told() {
        let now = Instant::now();
        for probe in [Probe::Passing, Probe::Failing] {
            let new = told(&state(probe), Heeds::ALL, now).expect("something to tell");
            assert_eq!(new.probe(), probe);
        }
        assert!(told(&state(Probe::Pending), Heeds::ALL, now).is_none());
        let trusted = Heeds { probe: false, ..Heeds::ALL };
        assert!(told(&state(Probe::Passing), trusted, now).is_none(), "nobody asked it");
    }

    #[test]
    fn a_backend_that_is_drained_by_order_stays_drained() {
        let (old, now) = (state(Probe::Passing), Instant::now());
        let trusted = Heeds { probe: false, ejection: false, ..Heeds::ALL };
        old.orders.drain(true);
        let new = told(&old, trusted, now).expect("something to tell");
        assert_eq!(new.availability(trusted, now), Availability::Draining);
    }

    #[test]
    fn an_ejected_backend_stays_ejected() {
        let (old, now) = (state(Probe::Passing), Instant::now());
        let rules =
            Rules { consecutive_failures: 1, eject_for: Duration::from_secs(9), max_ejected: 1.0 };
        old.gate.failed(now, &rules, || true);
        let new = told(&old, Heeds::ALL, now).expect("something to tell");
        assert_eq!(new.availability(Heeds::ALL, now), Availability::Ejected);
    }
}
