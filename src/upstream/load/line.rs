//! Those who wait for a place at a backend, in the order of their arrival.
//!
//! Only the first of them looks for a place. It is woken when one becomes free, and wakes the next
//! when it has got one; so nobody overtakes, and one place that becomes free wakes one request.
//!
//! INVARIANT: whoever stands in the line holds a [`Place`]; dropping it leaves the line, also when
//! the client hangs up and the request is never polled again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The pace is taken from so many turns.
const TURNS: usize = 32;
/// Turns that are longer ago say nothing of the pace.
const RECENT: Duration = Duration::from_secs(60);
/// A client is never told to stay away for longer than this.
const AWAY_MAX: u64 = 600;

/// A line before the backends of an upstream. It outlives changes of the configuration.
#[derive(Debug, Default)]
pub struct Line {
    waiting: AtomicUsize,
    inner: Mutex<Inner>,
    /// What became of those who wanted to wait.
    pub counts: Counts,
}

/// What became of those who wanted to wait, since the process began.
#[derive(Debug, Default)]
pub struct Counts {
    /// They got a place.
    pub served: AtomicU64,
    /// There was no room to wait, or nobody may.
    pub refused: AtomicU64,
    /// They waited as long as they may.
    pub timed_out: AtomicU64,
    /// They left.
    pub left: AtomicU64,
}

impl Counts {
    /// Each with a name.
    pub fn by_name(&self) -> [(&'static str, u64); 4] {
        let Self { served, refused, timed_out, left } = self;
        let all =
            [("served", served), ("refused", refused), ("timed_out", timed_out), ("left", left)];
        all.map(|(name, count)| (name, count.load(Relaxed)))
    }
}

#[derive(Debug, Default)]
struct Inner {
    tickets: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
    pace: Pace,
}

/// A place in a line.
#[derive(Debug)]
pub struct Place {
    line: Arc<Line>,
    ticket: u64,
    woken: Arc<Notify>,
}

impl Line {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.load(SeqCst) == 0
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Goes to the end of the line; `None` if `max` wait already.
    pub fn join(self: &Arc<Self>, max: usize) -> Option<Place> {
        let mut inner = self.inner();
        if max <= inner.waiting.len() {
            return None;
        }
        let (ticket, woken) = (inner.tickets, Arc::new(Notify::new()));
        inner.tickets += 1;
        inner.waiting.insert(ticket, woken.clone());
        self.waiting.store(inner.waiting.len(), SeqCst);
        Some(Place { line: self.clone(), ticket, woken })
    }

    /// Lets the first look for a place: there may be one.
    pub fn wake(&self) {
        if !self.is_empty()
            && let Some((_, first)) = self.inner().waiting.first_key_value()
        {
            first.notify_one();
        }
    }

    /// After how many seconds there should be room for one that finds none now. `otherwise` is
    /// said where nothing is known of the pace.
    pub fn retry_after(&self, now: Instant, otherwise: Duration) -> u64 {
        let inner = self.inner();
        let wait = inner.pace.wait(inner.waiting.len(), now).unwrap_or(otherwise);
        let begun = u64::from(0 < wait.subsec_nanos());
        wait.as_secs().saturating_add(begun).clamp(1, AWAY_MAX)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether it is the turn of this one.
    pub fn is_first(&self) -> bool {
        let inner = self.line.inner();
        inner.waiting.first_key_value().is_some_and(|(first, _)| *first == self.ticket)
    }

    /// Waits until there may be a place.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Lets the next one look, who may have a use for what this one has none for.
    pub fn pass_on(&self) {
        let inner = self.line.inner();
        if let Some((_, next)) = inner.waiting.range(self.ticket + 1..).next() {
            next.notify_one();
        }
    }

    /// Leaves the line with a place at a backend.
    pub fn served(self, now: Instant) {
        self.line.inner().pace.note(now);
        self.line.counts.served.fetch_add(1, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.line.inner();
        let was_first = inner.waiting.first_key_value().is_some_and(|(it, _)| *it == self.ticket);
        inner.waiting.remove(&self.ticket);
        self.line.waiting.store(inner.waiting.len(), SeqCst);
        if was_first && let Some((_, next)) = inner.waiting.first_key_value() {
            next.notify_one(); // there may be more places, or it was this one that was woken
        }
    }
}

/// How fast the line moves, by its last turns.
#[derive(Debug, Default)]
struct Pace {
    turns: VecDeque<Instant>,
}

impl Pace {
    fn note(&mut self, now: Instant) {
        if self.turns.len() == TURNS {
            self.turns.pop_front();
        }
        self.turns.push_back(now);
    }

    /// How long so many turns take; `None` if nothing is known of the pace.
    fn wait(&self, turns: usize, now: Instant) -> Option<Duration> {
        let age = |turn: &&Instant| now.saturating_duration_since(**turn);
        let mut recent = self.turns.iter().filter(|turn| age(turn) < RECENT);
        let first = recent.next()?;
        let others = u32::try_from(recent.count()).ok().filter(|others| 0 < *others)?;
        let turn = age(&first) / others;
        Some(turn.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn is_woken(place: &Place) -> bool {
        place.woken().now_or_never().is_some()
    }

    #[test]
    fn a_place_that_becomes_free_wakes_the_first_alone() {
        let line = Arc::new(Line::default());
        let [a, b, c] = [0; 3].map(|_| line.join(3).unwrap());
        assert!(line.join(3).is_none(), "the line is as long as it may be");
        line.wake();
        assert_eq!([&a, &b, &c].map(is_woken), [true, false, false]);
        assert_eq!([&a, &b, &c].map(Place::is_first), [true, false, false]);
        a.served(Instant::now());
        assert_eq!([&b, &c].map(is_woken), [true, false], "there may be more than one");
        drop(c);
        drop(b);
        assert!(line.is_empty());
        assert_eq!(line.counts.served.load(Relaxed), 1);
    }

    /// One that was woken and leaves must not take the news with it.
    #[test]
    fn who_leaves_after_being_woken_wakes_the_next() {
        let line = Arc::new(Line::default());
        let [a, b] = [0; 2].map(|_| line.join(9).unwrap());
        line.wake();
        drop(a);
        assert!(is_woken(&b) && b.is_first());
    }

    #[test]
    fn one_that_has_no_use_for_a_place_lets_the_next_look() {
        let line = Arc::new(Line::default());
        let [a, b, c] = [0; 3].map(|_| line.join(9).unwrap());
        a.pass_on();
        assert_eq!([&a, &b, &c].map(is_woken), [false, true, false]);
        c.pass_on();
        assert_eq!([&a, &b, &c].map(is_woken), [false; 3]);
    }

    #[test]
    fn the_wait_is_told_by_the_pace_of_the_last_turns() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait(10, start), None);
        for turn in 0..100 {
            pace.note(start + Duration::from_millis(500 * turn));
        }
        let now = start + Duration::from_millis(500 * 99);
        assert_eq!(pace.wait(10, now), Some(Duration::from_secs(5)));
        let later = now + Duration::from_millis(500 * 31);
        assert_eq!(pace.wait(10, later), Some(Duration::from_secs(10)), "it has slowed down");
        assert_eq!(pace.wait(10, now + RECENT), None, "that was long ago");

        let line = Arc::new(Line::default());
        let _places: Vec<_> = (0..10).map(|_| line.join(10)).collect();
        let otherwise = Duration::from_millis(4_100);
        assert_eq!(line.retry_after(now, otherwise), 5, "rounded up");
        line.inner().pace = pace;
        assert_eq!(line.retry_after(now, otherwise), 5);
        assert_eq!(line.retry_after(start + Duration::from_millis(49_501), otherwise), 6);
    }

    proptest! {
        /// Whoever comes, leaves and is served: never more than `max` wait, and turns are taken in
        /// the order of arrival.
        #[test]
        fn turns_are_in_the_order_of_arrival(steps in proptest::collection::vec(0u8..3, 1..200)) {
            const MAX: usize = 5;
            let line = Arc::new(Line::default());
            let (mut places, mut last) = (Vec::<Place>::new(), None);
            for step in steps {
                match step {
                    0 => {
                        let joined = line.join(MAX);
                        prop_assert_eq!(joined.is_some(), places.len() < MAX);
                        places.extend(joined);
                    }
                    1 if !places.is_empty() => drop(places.remove(places.len() / 2)),
                    2 => {
                        let first = places.iter().position(Place::is_first);
                        prop_assert_eq!(first.is_some(), !places.is_empty());
                        if let Some(first) = first {
                            let place = places.remove(first);
                            prop_assert!(last < Some(place.ticket));
                            last = Some(place.ticket);
                            place.served(Instant::now());
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(line.len(), places.len());
            }
        }
    }
}
