//! What one request, or one relayed connection, has tried.

use std::{fmt, sync::Arc};

use arrayvec::ArrayVec;

use crate::upstream::{Visit, backend::Member, outcome::Outcome};

/// Attempts of one request: retries, and pooled connections that were closed already.
pub const ATTEMPTS_MAX: usize = 16;

/// The attempts of one request, in order.
#[derive(Default)]
pub struct Attempts {
    list: ArrayVec<(Arc<Member>, Outcome), ATTEMPTS_MAX>,
}

impl Attempts {
    /// Records how an attempt ended.
    pub fn record(&mut self, member: Arc<Member>, outcome: Outcome) {
        // Pingora makes no more attempts than there is room for; one more would go unlogged.
        let _ = self.list.try_push((member, outcome));
    }

    /// How many were made.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none was made.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether another can be recorded.
    pub fn is_full(&self) -> bool {
        self.list.is_full()
    }

    /// Whether there is room for one more alone.
    pub fn is_nearly_full(&self) -> bool {
        self.list.remaining_capacity() <= 1
    }

    /// How the last one ended.
    pub fn last(&self) -> Option<Outcome> {
        self.list.last().map(|(_, outcome)| *outcome)
    }

    /// The backend of the last one.
    pub fn last_backend(&self) -> Option<&str> {
        self.list.last().map(|(member, _)| member.state.name())
    }

    /// Attempts in a row, to the last one, that found as many connections as there may be.
    pub fn full(&self) -> usize {
        let last = self.list.iter().rev();
        last.take_while(|(_, outcome)| *outcome == Outcome::Full).count()
    }

    /// Attempts that met a pooled connection that was closed already, or about to be.
    pub fn stale(&self) -> usize {
        self.list.len() - self.retries()
    }

    /// Attempts after the first that count as retries: a pooled connection that was closed
    /// already is no failure.
    pub fn retries(&self) -> usize {
        self.list.iter().filter(|(_, outcome)| !outcome.is_blameless()).count()
    }

    /// What the request has seen of a backend.
    pub fn visit(&self, member: &Member) -> Visit {
        let seen = self.list.iter().filter(|(seen, _)| Arc::ptr_eq(&seen.state, &member.state));
        seen.fold(Visit::None, |visit, (_, outcome)| match (visit, outcome) {
            (Visit::Failed, _) => Visit::Failed,
            (_, outcome) if outcome.is_blameless() => Visit::Stale,
            (_, _) => Visit::Failed,
        })
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (member, outcome)) in self.list.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            f.write_str(member.state.name())?;
            f.write_str(":")?;
            outcome.fmt(f)?;
        }
        Ok(())
    }
}
