//! Peak EWMA: of two backends drawn by weight, the one that is likely to answer first.

use tokio::time::Instant;

use crate::upstream::{
    backend::Member,
    balance::two_choices::{Load, TwoChoices},
};

/// The algorithm.
pub type PeakEwma = TwoChoices<Latency>;

/// What stands for the latency of a backend that was asked and has not answered once, in
/// seconds: one request finds out, not everybody's.
const UNKNOWN: f64 = 60.0;

/// A backend bears its latency ([`crate::upstream::latency`]), once for the request that is to be
/// sent and once for each that it is answering, by its weight.
pub struct Latency;

impl Load for Latency {
    fn of(member: &Member, now: Instant) -> f64 {
        let queue = f64::from(member.state.in_flight()) / f64::from(member.weight.max(1));
        match member.state.latency.get(now) {
            Some(latency) => latency * (1.0 + queue),
            None if 0.0 < queue => UNKNOWN * (1.0 + queue),
            None => 0.0,
        }
    }
}
