//! Seats: how many connections there are at most, and which of them give way to others.
//!
//! A connection takes a seat when it is accepted and gives it back when it is dropped. While it
//! waits for a request it can be called: the one that has waited for longest leaves, and another
//! client gets in. So clients that hold connections and ask for nothing harm only one another.
//!
//! What a request touches is one word of its own connection; locks are taken where connections
//! begin and end.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::{clock, counter, downstream::refused, reason::Reason};

/// The connection does something.
const BUSY: u64 = 0;
/// The connection was called, and leaves.
const CALLED: u64 = u64::MAX;
/// To find the one that has waited for longest, all are looked at; so many are noted at once.
const NOTED: usize = 64;
/// If none waits, it is not looked again for so long, however many clients come.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// All seats of a process.
#[derive(Debug, Default)]
pub struct Seats {
    taken: AtomicUsize,
    next: AtomicU64,
    /// One shard for each thread that accepts.
    shards: [Mutex<HashMap<u64, Arc<Waiting>>>; counter::shards()],
    noted: Mutex<Noted>,
}

/// Those that have waited for longest, with the time since when.
#[derive(Debug, Default)]
struct Noted {
    queue: VecDeque<(u64, Arc<Waiting>)>,
    not_before: Option<Instant>,
}

/// Whether a connection waits: since when, or `BUSY`, or `CALLED`.
#[derive(Debug)]
pub struct Waiting {
    state: AtomicU64,
    waker: AtomicWaker,
}

/// The seat of one connection.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    shard: usize,
    id: u64,
    waiting: Arc<Waiting>,
}

impl Seats {
    /// Takes a seat; if all `max` are taken, that of a connection that waits, once it leaves.
    /// `None` if none waits.
    pub fn take(self: &Arc<Self>, max: usize) -> Option<Seat> {
        if max <= self.taken.fetch_add(1, AcqRel) && !self.call() {
            self.taken.fetch_sub(1, AcqRel);
            return None;
        }
        let (id, shard) = (self.next.fetch_add(1, Relaxed), counter::shard());
        let state = AtomicU64::new(clock::millis(Instant::now()));
        let waiting = Arc::new(Waiting { state, waker: AtomicWaker::new() });
        locked(&self.shards[shard]).insert(id, waiting.clone());
        Some(Seat { seats: self.clone(), shard, id, waiting })
    }

    /// How many seats are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Acquire)
    }

    /// Calls the connection that has waited for longest; returns whether there was one.
    pub fn call(&self) -> bool {
        let mut noted = locked(&self.noted);
        loop {
            while let Some((since, waiting)) = noted.queue.pop_front() {
                if waiting.call(since) {
                    return true;
                }
            }
            if noted.not_before.is_some_and(|not_before| Instant::now() < not_before) {
                return false;
            }
            noted.queue = self.longest();
            if noted.queue.is_empty() {
                noted.not_before = Some(Instant::now() + LOOK_AGAIN);
                return false;
            }
        }
    }

    fn longest(&self) -> VecDeque<(u64, Arc<Waiting>)> {
        let mut all: Vec<(u64, Arc<Waiting>)> = Vec::new();
        for shard in &self.shards {
            let shard = locked(shard);
            let waiting = shard.values().map(|one| (one.state.load(Acquire), one));
            let waiting = waiting.filter(|(since, _)| !matches!(*since, BUSY | CALLED));
            all.extend(waiting.map(|(since, one)| (since, one.clone())));
        }
        if NOTED < all.len() {
            all.select_nth_unstable_by_key(NOTED, |(since, _)| *since);
            all.truncate(NOTED);
        }
        all.sort_unstable_by_key(|(since, _)| *since);
        all.into()
    }
}

impl Waiting {
    /// The connection waits for a request from now on, unless it was called.
    pub fn begin(&self) {
        let now = clock::millis(Instant::now());
        let wait = |state| (state != CALLED).then_some(now);
        let _ = self.state.fetch_update(AcqRel, Acquire, wait);
    }

    /// A request is here; a call comes too late.
    pub fn end(&self) {
        self.state.store(BUSY, Relaxed);
    }

    /// Is ready when the connection is called.
    pub fn poll_called(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_called() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits for the call.
    pub async fn called(&self) {
        std::future::poll_fn(|cx| self.poll_called(cx)).await;
    }

    /// Whether the connection was called.
    pub fn is_called(&self) -> bool {
        self.state.load(Acquire) == CALLED
    }

    fn call(&self, since: u64) -> bool {
        let called = self.state.compare_exchange(since, CALLED, AcqRel, Relaxed).is_ok();
        if called {
            self.waker.wake();
        }
        called
    }
}

impl Seat {
    /// Whether the connection waits.
    pub fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.waiting.is_called() {
            refused::count(Reason::GaveWay);
        }
        locked(&self.seats.shards[self.shard]).remove(&self.id);
        self.seats.taken.fetch_sub(1, AcqRel);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_waited_for_longest_gives_way() {
        let seats = Arc::new(Seats::default());
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(seats.take(3).unwrap());
            tokio::time::advance(Duration::from_millis(5)).await;
        }
        taken[0].waiting().end();
        taken[0].waiting().begin();
        taken[1].waiting().end();
        let another = seats.take(3).unwrap();
        assert!(taken[2].waiting().is_called(), "the first waits for less time, the second works");
        taken[2].waiting().called().await;
        assert_eq!(seats.taken(), 4, "until the one that was called has left");
        drop(taken.pop());
        assert_eq!(seats.taken(), 3);
        drop(another);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_busy_nobody_gets_in() {
        let seats = Arc::new(Seats::default());
        let taken: Vec<_> = (0..2).map(|_| seats.take(2).unwrap()).collect();
        for seat in &taken {
            seat.waiting().end();
        }
        assert!(seats.take(2).is_none());
        assert_eq!(seats.taken(), 2);
        taken[0].waiting().begin();
        tokio::time::advance(LOOK_AGAIN).await;
        assert!(seats.take(2).is_some());
        assert!(taken[0].waiting().is_called());
        assert!(!taken[1].waiting().is_called());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_comes_too_late_changes_nothing() {
        let seats = Arc::new(Seats::default());
        let seat = seats.take(1).unwrap();
        let another = seats.take(1).unwrap();
        assert!(seat.waiting().is_called());
        seat.waiting().begin();
        assert!(seat.waiting().is_called(), "it is not forgotten");
        seat.waiting().end();
        assert!(!seat.waiting().is_called(), "its request is answered");
        drop(another);
    }

    #[test]
    fn thousands_are_called_in_their_order() {
        let seats = Arc::new(Seats::default());
        let taken: Vec<_> = (0..1_000).map(|_| seats.take(1_000).unwrap()).collect();
        for (index, seat) in taken.iter().enumerate() {
            seat.waiting().state.store(10 + index as u64, Relaxed);
        }
        for (index, seat) in taken.iter().enumerate() {
            assert!(!seat.waiting().is_called(), "{index}");
            assert!(seats.call());
            assert!(seat.waiting().is_called(), "{index}");
        }
        assert!(!seats.call());
    }
}
