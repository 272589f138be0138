//! The better of two: two backends are drawn by weight, and the one that bears less is taken.
//!
//! Two choices are as good as looking at all of them, nearly (Mitzenmacher, 2001), cost the same
//! for three backends and for ten thousand, and do not send everybody to the one that was the
//! least loaded a moment ago. What a load is, an algorithm says: [`Load`].

use std::{collections::BTreeSet, marker::PhantomData, sync::Arc};

use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};
use tokio::time::Instant;

use crate::upstream::{
    backend::{Availability, Member},
    balance::{draw::Draw, pool::Pool},
};

/// Draws until one is found that is fit, and another than the first.
const FIT_DRAWS: usize = 8;
/// Draws after both of the two were refused.
const MORE_DRAWS: usize = 16;

/// What a backend bears.
pub trait Load: Send + Sync + 'static {
    /// The load of a backend; the lower one of two is taken, and the first drawn of equal ones.
    fn of(member: &Member, now: Instant) -> f64;
}

/// The backends that two are drawn of.
pub struct TwoChoices<L> {
    pool: Pool,
    backends: Box<[Backend]>,
    draw: Draw,
    load: PhantomData<L>,
}

impl<L: Load> BackendSelection for TwoChoices<L> {
    type Iter = Choices<L>;
    type Config = Pool;

    fn build(_: &BTreeSet<Backend>) -> Self {
        Self::build_with_config(&BTreeSet::new(), &Pool::default())
    }

    fn build_with_config(_: &BTreeSet<Backend>, pool: &Pool) -> Self {
        let draw = Draw::new(pool.iter().map(|member| member.weight));
        Self { backends: pool.backends(1), pool: pool.clone(), draw, load: PhantomData }
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> Choices<L> {
        let now = Instant::now();
        let first = self.draw_fit(now, None);
        let second = first.and_then(|first| self.draw_fit(now, Some(first)));
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) if self.load(second, now) < self.load(first, now) => {
                (Some(second), Some(first))
            }
            both => both,
        };
        Choices { first, second, more: MORE_DRAWS, of: self.clone() }
    }
}

impl<L: Load> TwoChoices<L> {
    fn load(&self, index: usize, now: Instant) -> f64 {
        self.pool.get(index).map_or(f64::INFINITY, |member| L::of(member, now))
    }

    /// Draws one that is fit, and another than `first`.
    fn draw_fit(&self, now: Instant, first: Option<usize>) -> Option<usize> {
        let mut drawn = None;
        for _ in 0..FIT_DRAWS {
            let index = self.draw.one()?;
            if Some(index) == first {
                continue;
            }
            drawn = Some(index);
            let is_fit = |member: &Arc<Member>| {
                matches!(member.availability(now), Availability::Ready | Availability::Trial)
            };
            if self.pool.get(index).is_some_and(is_fit) {
                break;
            }
        }
        drawn.or_else(|| self.any_but(first?))
    }

    /// Any other: weights that differ much would draw the same one again and again.
    fn any_but(&self, first: usize) -> Option<usize> {
        let others = self.pool.len().checked_sub(1).filter(|others| 0 < *others)?;
        let index = fastrand::usize(..others);
        Some(if index < first { index } else { index + 1 })
    }
}

/// The two, the better one first, and then more by chance.
pub struct Choices<L> {
    of: Arc<TwoChoices<L>>,
    first: Option<usize>,
    second: Option<usize>,
    more: usize,
}

impl<L: Load> BackendIter for Choices<L> {
    fn next(&mut self) -> Option<&Backend> {
        let index = if let Some(index) = self.first.take().or_else(|| self.second.take()) {
            index
        } else {
            self.more = self.more.checked_sub(1)?;
            self.of.draw.one()?
        };
        self.of.backends.get(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::{
        backend::InFlight,
        balance::{least_requests, peak_ewma, tests::pool},
    };

    fn the_first_is_never_the_more_loaded<L: Load>(pool: &Pool) -> Result<(), TestCaseError> {
        let two = Arc::new(TwoChoices::<L>::build_with_config(&BTreeSet::new(), pool));
        for _ in 0..50 {
            let choices = two.iter(b"");
            let now = Instant::now();
            let load = |index: Option<usize>| L::of(&pool[index.expect("of two")], now);
            prop_assert_ne!(choices.first, choices.second);
            // A latency decays a little from one look to the next, of both alike.
            prop_assert!(load(choices.first) <= load(choices.second) * (1.0 + 1e-3));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn of_two_the_more_loaded_is_never_chosen(
            backends in prop::collection::vec((1u16..10, 0usize..30, 0u64..500), 2..10),
        ) {
            let weights: Vec<u16> = backends.iter().map(|(weight, ..)| *weight).collect();
            let pool = pool(&weights);
            let mut busy = Vec::new();
            for (member, (_, requests, millis)) in pool.iter().zip(&backends) {
                let took = std::time::Duration::from_millis(*millis);
                member.state.latency.observe(took, Instant::now());
                for _ in 0..*requests {
                    busy.push(InFlight::take(member, Availability::Ready).expect("free"));
                }
            }
            the_first_is_never_the_more_loaded::<least_requests::InFlight>(&pool)?;
            the_first_is_never_the_more_loaded::<peak_ewma::Latency>(&pool)?;
        }
    }
}
