//! What stands for a key where nobody may be taken for another: two hashes, each keyed by chance.

use std::hash::{BuildHasher as _, RandomState};

use crate::policy::{exchange::Facts, key::Key};

/// Two hashers.
#[derive(Debug)]
pub(super) struct Twice(RandomState, RandomState);

impl Twice {
    pub(super) fn new() -> Self {
        Self(RandomState::new(), RandomState::new())
    }

    /// 128 bits, which two keys have in common as good as never.
    pub(super) fn mark(&self, key: &Key, facts: &Facts<'_>) -> u128 {
        let first = key.hash(facts, self.0.build_hasher());
        let second = key.hash(facts, self.1.build_hasher());
        u128::from(first) << 64 | u128::from(second)
    }
}
