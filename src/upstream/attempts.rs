//! What one request, or one relayed connection, has tried.

use std::{fmt, sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use tokio::time::Instant;

use crate::{
    clock::Brief,
    observe::recorder::{Connection, Tried, millis},
    upstream::{Visit, backend::Member, outcome::Outcome},
};

/// Attempts of one request: retries, and pooled connections that were closed already.
pub const ATTEMPTS_MAX: usize = 16;

/// How an attempt came to its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contact {
    /// Not at all.
    #[default]
    None,
    /// It was in the pool.
    Pooled,
    /// It was made.
    Made {
        /// In this time, handshakes included.
        took: Brief,
        /// Of which the handshake of TLS took so long.
        handshake: Option<Brief>,
    },
}

impl Contact {
    /// How long the connection took to make; `None` if it was pooled, or there was none.
    pub fn connect(self) -> Option<Duration> {
        match self {
            Self::Made { took, .. } => Some(took.into()),
            Self::Pooled | Self::None => None,
        }
    }
}

/// When the steps of an attempt were, counted from the beginning of its request, and which one it
/// is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Its backend was chosen.
    pub began: Brief,
    /// How it came to its connection.
    pub contact: Contact,
    /// The head of the answer was here.
    pub first_byte: Option<Brief>,
    /// It was over.
    pub ended: Brief,
    /// So many of its request had begun before.
    pub number: u8,
    /// Whether its backend was ejected for how it ended.
    pub has_ejected: bool,
}

/// One try of one request against one backend.
#[derive(Clone)]
pub struct Attempt {
    /// The backend.
    pub member: Arc<Member>,
    /// How it ended.
    pub outcome: Outcome,
    /// When its steps were.
    pub times: Times,
}

impl Attempt {
    /// As a record shows it.
    fn tried(&self) -> Tried {
        let ms = |at: Brief| millis(at.into());
        let Times { began, contact, first_byte, ended, .. } = self.times;
        let (connection, connect, tls) = match contact {
            Contact::None => (None, None, None),
            Contact::Pooled => (Some(Connection::Pooled), None, None),
            Contact::Made { took, handshake } => (Some(Connection::Made), Some(took), handshake),
        };
        Tried {
            backend: self.member.state.name().to_owned(),
            outcome: self.outcome.to_string(),
            began_ms: ms(began),
            connection,
            connect_ms: connect.map(ms),
            tls_ms: tls.map(ms),
            first_byte_ms: first_byte.map(ms),
            ended_ms: ms(ended),
        }
    }
}

/// An attempt that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// When its backend was chosen.
    pub at: Instant,
    /// How it came to its connection, as soon as that is known.
    pub contact: Contact,
    /// When the head of the answer was here.
    pub first_byte: Option<Instant>,
    /// So many of its request had begun before.
    pub number: u8,
    /// Whether its backend was ejected for how it ends.
    pub has_ejected: bool,
}

impl Begun {
    /// An attempt that begins at a time, the first of its request.
    pub fn at(at: Instant) -> Self {
        Self::after(0, at)
    }

    /// An attempt that begins at a time, after so many others.
    pub fn after(others: usize, at: Instant) -> Self {
        let number = u8::try_from(others).unwrap_or(u8::MAX);
        Self { at, contact: Contact::None, first_byte: None, number, has_ejected: false }
    }

    /// Its times, if it ends now, counted from the beginning of its request.
    pub fn times(&self, start: Instant, now: Instant) -> Times {
        Times {
            began: Brief::between(start, self.at),
            contact: self.contact,
            first_byte: self.first_byte.map(|at| Brief::between(start, at)),
            ended: Brief::between(start, now),
            number: self.number,
            has_ejected: self.has_ejected,
        }
    }
}

/// The attempts of one request, in order.
#[derive(Default)]
pub struct Attempts {
    list: ArrayVec<Attempt, ATTEMPTS_MAX>,
}

impl Attempts {
    /// Records how an attempt ended, and when its steps were.
    pub fn record(&mut self, member: Arc<Member>, outcome: Outcome, times: Times) {
        // Pingora makes no more attempts than there is room for; one more would go unlogged.
        let _ = self.list.try_push(Attempt { member, outcome, times });
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.list.iter()
    }

    /// All of them, as a record shows them.
    pub fn tried(&self) -> Vec<Tried> {
        self.list.iter().map(Attempt::tried).collect()
    }

    /// How long the connection took to make that was the last to be there; `None` if it was
    /// pooled, or there was none.
    pub fn connect(&self) -> Option<Duration> {
        let mut contacts = self.list.iter().rev().map(|attempt| attempt.times.contact);
        contacts.find(|contact| *contact != Contact::None)?.connect()
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
        self.list.last().map(|attempt| attempt.outcome)
    }

    /// The backend of the last one.
    pub fn last_backend(&self) -> Option<&str> {
        self.list.last().map(|attempt| attempt.member.state.name())
    }

    /// Attempts in a row, to the last one, that found as many connections as there may be.
    pub fn full(&self) -> usize {
        let last = self.list.iter().rev();
        last.take_while(|attempt| attempt.outcome == Outcome::Full).count()
    }

    /// Attempts that met a pooled connection that was closed already, or about to be.
    pub fn stale(&self) -> usize {
        self.list.len() - self.retries()
    }

    /// Attempts after the first that count as retries: a pooled connection that was closed
    /// already is no failure.
    pub fn retries(&self) -> usize {
        self.list.iter().filter(|attempt| !attempt.outcome.is_blameless()).count()
    }

    /// What the request has seen of a backend.
    pub fn visit(&self, member: &Member) -> Visit {
        let is_it = |attempt: &&Attempt| Arc::ptr_eq(&attempt.member.state, &member.state);
        let seen = self.list.iter().filter(is_it);
        seen.fold(Visit::None, |visit, attempt| match (visit, attempt.outcome) {
            (Visit::Failed, _) => Visit::Failed,
            (_, outcome) if outcome.is_blameless() => Visit::Stale,
            (_, _) => Visit::Failed,
        })
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.list.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            f.write_str(attempt.member.state.name())?;
            f.write_str(":")?;
            attempt.outcome.fmt(f)?;
        }
        Ok(())
    }
}
