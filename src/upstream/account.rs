//! What an upstream has spent, and who waits for it: its requests, retries and connections.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    counter::Counter,
    metrics::{Durations, Reading},
    upstream::{
        load::{copies::Copies, line::Line},
        retry::{RetryBudget, budget::Share},
    },
};

/// What an upstream has spent; it outlives a change of its configuration.
pub struct Account {
    requests: Counter,
    retries: Counter,
    connects: Durations<1>,
    pooled: Counter,
    sets: AtomicU64,
    budget: Mutex<RetryBudget>,
    /// Held by whoever counts the ejected and ejects one more.
    pub(super) ejecting: Mutex<()>,
    /// At all its backends, where its algorithm asks for it.
    pub(super) in_flight: Arc<AtomicU32>,
    /// Second requests beside the first.
    pub hedges: Hedges,
    pub(super) line: Arc<Line>,
    pub(super) copies: Arc<Copies>,
}

/// Second requests that were sent beside the first, since the start.
#[derive(Default)]
pub struct Hedges {
    /// All of them.
    pub begun: Counter,
    /// Those that were answered first.
    pub won: Counter,
}

impl Account {
    /// Opens an account.
    pub fn open() -> Arc<Self> {
        Arc::new(Self {
            requests: Counter::default(),
            retries: Counter::default(),
            connects: Durations::default(),
            pooled: Counter::default(),
            sets: AtomicU64::default(),
            budget: Mutex::new(RetryBudget::new(Instant::now())),
            ejecting: Mutex::default(),
            in_flight: Arc::default(),
            hedges: Hedges::default(),
            line: Arc::default(),
            copies: Arc::default(),
        })
    }

    /// Counts a request that begins; the retry budget lives from it.
    pub fn count_request(&self) {
        self.requests.increment();
    }

    /// Requests since the start.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Spends one retry of the budget, or refuses it.
    pub fn may_retry(&self, now: Instant, share: &Share) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = budget.withdraw(now, self.requests.get(), share);
        if granted {
            self.retries.increment();
        }
        granted
    }

    /// Retries since the start.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// Counts a connection that an attempt is made on, and how long it took unless it was pooled.
    pub fn connected(&self, took: Option<Duration>) {
        match took {
            Some(took) => self.connects.record(0, took),
            None => self.pooled.increment(),
        }
    }

    /// The connections that were newly made, and how long they took.
    pub fn connects(&self) -> Reading {
        self.connects.read(0)
    }

    /// How often one from the pool was used.
    pub fn pooled(&self) -> u64 {
        self.pooled.get()
    }

    /// Counts a set of backends that took the place of another.
    pub fn count_set(&self) {
        self.sets.fetch_add(1, Relaxed);
    }

    /// How often the set was replaced.
    pub fn sets(&self) -> u64 {
        self.sets.load(Relaxed)
    }
}
