//! Least requests: of two backends drawn by weight, the one with fewer requests in flight for its
//! weight.

use tokio::time::Instant;

use crate::upstream::{
    backend::Member,
    balance::two_choices::{Load, TwoChoices},
};

/// The algorithm.
pub type LeastRequests = TwoChoices<InFlight>;

/// A backend bears the requests that it is answering, divided by its weight. Where nobody is busy
/// all bear the same, and shares are those of the draw: the weights.
pub struct InFlight;

impl Load for InFlight {
    fn of(member: &Member, _: Instant) -> f64 {
        f64::from(member.state.in_flight()) / f64::from(member.weight.max(1))
    }
}
