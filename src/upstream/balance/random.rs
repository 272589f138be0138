//! Random: each request goes to a backend by chance, in proportion to the weights.
//!
//! Pingora's own random selection forgets the weights as soon as its first choice is refused; this
//! one draws again, by weight.

use std::{collections::BTreeSet, sync::Arc};

use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};

use crate::upstream::balance::{draw::Draw, pool::Pool};

/// Draws for one request, at most; then whoever asks looks for itself.
const DRAWS_MAX: usize = 32;

/// The table of one set of backends.
pub struct Random {
    backends: Box<[Backend]>,
    draw: Draw,
}

impl BackendSelection for Random {
    type Iter = Draws;
    type Config = Pool;

    fn build(_: &BTreeSet<Backend>) -> Self {
        Self { backends: Box::default(), draw: Draw::default() }
    }

    fn build_with_config(_: &BTreeSet<Backend>, pool: &Pool) -> Self {
        let draw = Draw::new(pool.iter().map(|member| member.weight));
        Self { backends: pool.backends(1), draw }
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> Draws {
        Draws { left: DRAWS_MAX, random: self.clone() }
    }
}

/// Draws again for as long as what it drew is refused.
pub struct Draws {
    random: Arc<Random>,
    left: usize,
}

impl BackendIter for Draws {
    fn next(&mut self) -> Option<&Backend> {
        self.left = self.left.checked_sub(1)?;
        self.random.backends.get(self.random.draw.one()?)
    }
}
