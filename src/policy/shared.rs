//! What several policies have in common, whatever their route or configuration, for as long as one
//! of them has it: what is known of a service, or a file that was read.
//!
//! It is looked at when policies are built, never by a request.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Things by what they were made of.
pub(super) struct Shared<K, T>(Mutex<Vec<(K, Weak<T>)>>);

impl<K: PartialEq, T> Shared<K, T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The one that there is already, or a new one. `new` is shown the others.
    pub(super) fn of(&self, key: K, new: impl FnOnce(&dyn Others<K, T>) -> T) -> Arc<T> {
        self.try_of(key, |others| Some(new(others))).expect("there is always a new one")
    }

    /// The same where there may be no new one.
    pub(super) fn try_of(
        &self,
        key: K,
        new: impl FnOnce(&dyn Others<K, T>) -> Option<T>,
    ) -> Option<Arc<T>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, one)| 0 < one.strong_count());
        let known = all.iter().find(|(known, _)| *known == key);
        if let Some(known) = known.and_then(|(_, one)| one.upgrade()) {
            return Some(known);
        }
        let made = Arc::new(new(&*all)?);
        all.push((key, Arc::downgrade(&made)));
        Some(made)
    }
}

/// Those that there are.
pub(super) trait Others<K, T> {
    /// One whose key is of this kind.
    fn find(&self, is_wanted: &dyn Fn(&K) -> bool) -> Option<Arc<T>>;
}

impl<K, T> Others<K, T> for Vec<(K, Weak<T>)> {
    fn find(&self, is_wanted: &dyn Fn(&K) -> bool) -> Option<Arc<T>> {
        self.iter().filter(|(key, _)| is_wanted(key)).find_map(|(_, one)| one.upgrade())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_for_as_long_as_somebody_has_it() {
        let shared: Shared<(u8, u8), u8> = Shared::new();
        let first = shared.of((1, 1), |_| 7);
        assert!(Arc::ptr_eq(&first, &shared.of((1, 1), |_| 8)));
        let other = shared.of((1, 2), |others| *others.find(&|key| key.0 == 1).unwrap() + 1);
        assert_eq!(*other, 8, "made of what another knows");
        drop((first, other));
        assert_eq!(*shared.of((1, 1), |others| others.find(&|_| true).map_or(9, |one| *one)), 9);
    }
}
