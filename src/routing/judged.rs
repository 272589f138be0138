//! Rules in the order in which they come near to a request, for those who ask why.

use std::cmp::Ordering;

use crate::routing::{rule::Rule, verdict::Verdict};

/// A rule, what it says of a request, and its route.
///
/// The order is that of nearness: the further the request got, the smaller; among those that got
/// equally far the order of the rules. So the first of all is the one that takes the request, if
/// any does; if it fails by its method, the answer is `405`.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a, T> {
    /// What it says.
    pub verdict: Verdict<'a>,
    /// The rule.
    pub rule: &'a Rule,
    /// Its route.
    pub route: &'a T,
}

impl<T> Ord for Judged<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let distances = self.verdict.distance().cmp(&other.verdict.distance());
        distances.then_with(|| self.rule.cmp(other.rule))
    }
}

impl<T> PartialOrd for Judged<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Judged<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Judged<'_, T> {}
