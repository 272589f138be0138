//! What policies know and must not forget at a reload, such as counters.
//!
//! It is owned by the routes of a configuration, and handed to those of the next one by name: a
//! reload that leaves a route its name leaves its policies what they know.

use std::{any::Any, collections::HashMap, fmt, sync::Arc};

/// Whose a state is: the policy's kind, and its turn among those of its kind on the route.
pub(super) type Key = (&'static str, usize);

/// The states of one route's policies.
#[derive(Default)]
pub(super) struct States(HashMap<Key, Arc<dyn Any + Send + Sync>>);

impl States {
    /// Keeps a state for the next configuration.
    pub(super) fn keep(&mut self, key: Key, state: Arc<dyn Any + Send + Sync>) {
        self.0.insert(key, state);
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The place of a policy from which it may inherit.
pub(super) struct Heir<'a> {
    pub(super) key: Key,
    pub(super) of: Option<&'a States>,
}

impl Heir<'_> {
    /// What the predecessor had, if it is of this type.
    pub(super) fn inherit<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.of?.0.get(&self.key)?.clone().downcast().ok()
    }
}

/// A policy's kind, with its turn if it is not the first of it.
pub(super) fn called((kind, turn): (&str, usize)) -> String {
    if turn == 0 { kind.to_owned() } else { format!("{kind}_{}", turn + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_inherited_by_its_place_and_type() {
        let mut states = States::default();
        let counter = Arc::new(7_u64);
        states.keep(("rate_limit", 0), counter.clone());
        let heir = |key| Heir { key, of: Some(&states) };
        let inherited = heir(("rate_limit", 0)).inherit::<u64>().unwrap();
        assert!(Arc::ptr_eq(&inherited, &counter));
        assert!(heir(("rate_limit", 1)).inherit::<u64>().is_none());
        assert!(heir(("rate_limit", 0)).inherit::<u32>().is_none());
        assert!(Heir { key: ("rate_limit", 0), of: None }.inherit::<u64>().is_none());
    }
}
