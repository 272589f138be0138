//! Orders to remove answers, for answers that they did not reach: those that were asked for before
//! and came after, and those that lie on a disk.
//!
//! INVARIANT: what was asked for before an order is not kept after it, nor given again.

use std::{
    collections::VecDeque,
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use serde::{Deserialize, Serialize};

use crate::{cache::purge::Purge, clock};

/// So many are known. Answers that are older than all of them are taken for removed: one that was
/// forgotten may have meant them.
pub(super) const KNOWN_MAX: usize = 10_000;

/// An order that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// When, as [`Orders::now`] tells.
    pub(super) at: u64,
    /// What is removed.
    pub(super) purge: Purge,
}

/// The last orders, in the order of their time.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) orders: VecDeque<Order>,
    /// When the last one was given that is not known any more.
    pub(super) forgotten: u64,
}

/// The orders of a process.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// When the last one was given, so that a look at what is younger takes no lock.
    latest: AtomicU64,
    known: RwLock<Known>,
}

impl Known {
    fn forget(&mut self) {
        while KNOWN_MAX < self.orders.len()
            && let Some(oldest) = self.orders.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest.at);
        }
    }

    fn since(&self, asked: u64) -> impl Iterator<Item = &Order> {
        let first = self.orders.partition_point(|order| order.at < asked);
        self.orders.range(first..)
    }
}

impl Orders {
    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of what is asked for now: later than all orders, even if another process gave one
    /// by a clock that was ahead.
    pub(super) fn now(&self) -> u64 {
        clock::stamp().max(self.latest.load(SeqCst).saturating_add(1))
    }

    /// Gives an order, now.
    pub(super) fn give(&self, purge: &Purge) -> Order {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let at = self.now();
        let order = Order { at, purge: purge.clone() };
        known.orders.push_back(order.clone());
        known.forget();
        self.latest.store(at, SeqCst);
        order
    }

    /// Whether an answer that was asked for then was removed since by an order that means it.
    pub(super) fn were_given_since(&self, asked: u64, means: impl Fn(&Purge) -> bool) -> bool {
        if self.latest.load(SeqCst) < asked {
            return false;
        }
        let known = self.known();
        asked <= known.forgotten || known.since(asked).any(|order| means(&order.purge))
    }

    /// Takes over orders that another process was given; all that are known then.
    pub(super) fn join(&self, others: Known) -> Known {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.orders.extend(others.orders);
        known.orders.make_contiguous().sort_by_key(|order| order.at);
        known.forgotten = known.forgotten.max(others.forgotten);
        known.forget();
        let latest = known.orders.back().map_or(0, |order| order.at).max(known.forgotten);
        self.latest.fetch_max(latest, SeqCst);
        known.clone()
    }

    /// Those that were given after a time.
    pub(super) fn after(&self, at: u64) -> Vec<Order> {
        self.known().since(at.saturating_add(1)).cloned().collect()
    }

    /// All that are known.
    pub(super) fn all(&self) -> Known {
        self.known().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: &str) -> Purge {
        Purge { tag: Some(tag.to_owned()), ..Purge::default() }
    }

    fn means(orders: &Orders, asked: u64, tag: &str) -> bool {
        orders.were_given_since(asked, |purge| purge.tag.as_deref() == Some(tag))
    }

    #[test]
    fn an_order_means_what_was_asked_for_before_it() {
        let orders = Orders::default();
        let before = orders.now();
        assert!(!means(&orders, before, "a"));
        orders.give(&tagged("a"));
        assert!(means(&orders, before, "a"));
        assert!(!means(&orders, before, "b"));
        assert!(!means(&orders, orders.now(), "a"));
    }

    #[test]
    fn what_is_older_than_all_known_orders_is_taken_for_removed() {
        let orders = Orders::default();
        for _ in 0..KNOWN_MAX {
            orders.give(&tagged("a"));
        }
        assert!(!means(&orders, 1, "b"), "none is forgotten");
        orders.give(&tagged("a"));
        assert!(means(&orders, 1, "b"));
        assert!(!means(&orders, orders.now(), "b"));
    }

    #[test]
    fn orders_of_another_process_are_joined_by_their_time() {
        let orders = Orders::default();
        let own = orders.give(&tagged("own"));
        let older = Order { at: own.at - 10, purge: tagged("older") };
        let known = orders.join(Known { orders: [older].into(), forgotten: own.at - 20 });
        assert_eq!(known.orders.back(), Some(&own));
        assert!(means(&orders, own.at - 10, "older"));
        assert!(!means(&orders, own.at - 9, "older"));
        assert!(means(&orders, own.at - 20, "any"), "older than what is forgotten");
        assert_eq!(orders.after(own.at - 10), [own]);
    }
}
