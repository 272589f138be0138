//! Who has how much of an allowance left, in a table of a fixed size that takes no lock.
//!
//! The algorithm is GCRA (ITU-T I.371): of each key one moment is kept, the one at which its
//! allowance will be whole again. A key whose moment is past is as good as unknown, and gives its
//! place away without a loss.
//!
//! A key may lie in the eight places of one row. Where all are taken, the one with the least debt
//! goes: it loses a memory, and gains an allowance. So an attacker with many keys forgets others
//! in their favour and never keeps anybody out, and whoever is far over the limit stays known. The
//! hash is keyed by chance, so that nobody can aim at the row of another. Threads that meet a new
//! key in the same moment may let a request more pass.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
    },
    time::Duration,
};

use crate::policy::{exchange::Facts, key::Key};

/// Places of one row: two cache lines.
const WAYS: usize = 8;
/// How often a place is looked for while others take the one that was found.
const TRIES: usize = 4;

/// How fast an allowance grows, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Nanoseconds after which there is one request more; at least 1.
    pub interval: u64,
    /// Requests at once, if it is whole; at least 1.
    pub burst: u32,
}

/// What is left of an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests that are left now.
    pub left: u32,
    /// After how long it is whole again.
    pub whole_after: Duration,
}

impl Standing {
    /// Nothing is left, and nothing is owed.
    pub const NONE: Self = Self { left: 0, whole_after: Duration::ZERO };
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was within the allowance.
    Yes(Standing),
    /// It was not, and nothing was taken. There is one again after this time.
    No {
        /// When the next request is within it.
        again_after: Duration,
        /// What is left: no request.
        standing: Standing,
    },
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    hasher: RandomState,
    rows: Box<[Row]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Row([Place; WAYS]);

#[derive(Debug, Default)]
struct Place {
    /// The hash of the key; 0 if nobody has the place.
    tag: AtomicU64,
    /// When its allowance is whole, in nanoseconds.
    whole_at: AtomicU64,
}

/// Whether someone was forgotten who had a debt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgot(pub bool);

impl Pace {
    /// What is left if the allowance is whole at this moment.
    fn standing(self, whole_at: u64, now: u64) -> Standing {
        let debt = whole_at.saturating_sub(now);
        let spent = u32::try_from(debt.div_ceil(self.interval)).unwrap_or(u32::MAX);
        Standing { left: self.burst.saturating_sub(spent), whole_after: Duration::from_nanos(debt) }
    }

    /// The debt of who has used up the whole allowance, in nanoseconds.
    pub fn debt_max(self) -> u64 {
        self.interval.saturating_mul(self.burst.into())
    }
}

impl Table {
    /// A table for so many keys, or a few more.
    pub(super) fn new(keys_max: usize, hasher: RandomState) -> Self {
        let rows = keys_max.div_ceil(WAYS).max(1);
        Self { hasher, rows: std::iter::repeat_with(Row::default).take(rows).collect() }
    }

    /// What stands for the key of a request here; never 0.
    pub(super) fn tag(&self, key: &Key, facts: &Facts<'_>) -> u64 {
        key.hash(facts, self.hasher.build_hasher()).max(1)
    }

    /// Takes one request of a key's allowance, if there is one left.
    pub(super) fn take(&self, tag: u64, pace: Pace, now: u64) -> (Taken, Forgot) {
        let mut forgot = Forgot(false);
        for _ in 0..TRIES {
            let row = self.row(tag);
            if let Some(place) = row.0.iter().find(|place| place.tag.load(Acquire) == tag) {
                return (place.take(pace, now), forgot);
            }
            forgot.0 |= row.make_room(tag, now);
        }
        // Others were faster each time; a limit that cannot count lets pass.
        (Taken::Yes(pace.standing(now.saturating_add(pace.interval), now)), forgot)
    }

    /// Takes so much time of a key, whatever is left. Answers with its debt, in nanoseconds.
    pub(super) fn charge(&self, tag: u64, time: u64, now: u64) -> u64 {
        let row = self.row(tag);
        for _ in 0..TRIES {
            if let Some(place) = row.0.iter().find(|place| place.tag.load(Acquire) == tag) {
                let charged = |whole_at: u64| Some(whole_at.max(now).saturating_add(time));
                let before = place.whole_at.fetch_update(AcqRel, Acquire, charged);
                let before = before.unwrap_or_else(|whole_at| whole_at);
                return before.max(now).saturating_add(time) - now;
            }
            row.make_room(tag, now);
        }
        time
    }

    /// Gives back time that was taken for what went no further.
    pub(super) fn give_back(&self, tag: u64, time: u64) {
        if let Some(place) = self.row(tag).0.iter().find(|place| place.tag.load(Acquire) == tag) {
            let back = |whole_at: u64| Some(whole_at.saturating_sub(time));
            let _ = place.whole_at.fetch_update(AcqRel, Relaxed, back);
        }
    }

    fn row(&self, tag: u64) -> &Row {
        // Of the hash, multiplied out: evenly, whatever the number of rows.
        let at = (u128::from(tag) * self.rows.len() as u128) >> 64;
        &self.rows[usize::try_from(at).unwrap_or_default()]
    }
}

impl Row {
    /// Gives the place with the least debt to a key. Answers whether there was any debt.
    fn make_room(&self, tag: u64, now: u64) -> bool {
        let debt = |place: &&Place| place.whole_at.load(Acquire);
        let Some(place) = self.0.iter().min_by_key(debt) else { return false };
        let (before, whole_at) = (place.tag.load(Acquire), place.whole_at.load(Acquire));
        // A debt goes first, so that whoever sees the new tag sees none of it.
        let is_free = whole_at <= now
            || place.whole_at.compare_exchange(whole_at, now, AcqRel, Relaxed).is_ok();
        if !is_free || place.tag.compare_exchange(before, tag, SeqCst, Relaxed).is_err() {
            return false;
        }
        let namesakes = self.0.iter().filter(|place| place.tag.load(SeqCst) == tag);
        if 1 < namesakes.count() {
            // Another thread made room for the same key; of two that see each other both give way.
            let _ = place.tag.compare_exchange(tag, 0, SeqCst, Relaxed);
        }
        now < whole_at
    }
}

impl Place {
    fn take(&self, pace: Pace, now: u64) -> Taken {
        let mut whole_at = self.whole_at.load(Acquire);
        loop {
            let then = whole_at.max(now).saturating_add(pace.interval);
            let over = (then - now).saturating_sub(pace.debt_max());
            if 0 < over {
                let again_after = Duration::from_nanos(over);
                let standing = Standing { left: 0, ..pace.standing(whole_at, now) };
                return Taken::No { again_after, standing };
            }
            match self.whole_at.compare_exchange_weak(whole_at, then, AcqRel, Acquire) {
                Ok(_) => return Taken::Yes(pace.standing(then, now)),
                Err(other) => whole_at = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// Ten a second, five at once.
    const PACE: Pace = Pace { interval: SECOND / 10, burst: 5 };

    fn table(keys: usize) -> Table {
        Table::new(keys, RandomState::new())
    }

    fn is_taken(table: &Table, tag: u64, now: u64) -> bool {
        matches!(table.take(tag, PACE, now).0, Taken::Yes(_))
    }

    #[test]
    fn a_burst_is_taken_and_then_one_in_each_interval() {
        let table = table(64);
        let lefts: Vec<u32> = (0..5)
            .map(|_| match table.take(7, PACE, SECOND).0 {
                Taken::Yes(standing) => standing.left,
                Taken::No { .. } => panic!("it is within the burst"),
            })
            .collect();
        assert_eq!(lefts, [4, 3, 2, 1, 0]);
        let (Taken::No { again_after, standing }, _) = table.take(7, PACE, SECOND) else {
            panic!("it is over")
        };
        assert_eq!(again_after, Duration::from_millis(100));
        let whole_after = Duration::from_millis(500);
        assert_eq!(standing, Standing { left: 0, whole_after });
        assert!(!is_taken(&table, 7, SECOND + SECOND / 10 - 1));
        assert!(is_taken(&table, 7, SECOND + SECOND / 10));
        assert!(!is_taken(&table, 7, SECOND + SECOND / 10));
        assert!(is_taken(&table, 8, SECOND), "another key has its own");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let table = table(64);
        (0..5).for_each(|_| assert!(is_taken(&table, 7, SECOND)));
        table.give_back(7, PACE.interval);
        assert!(is_taken(&table, 7, SECOND));
        assert!(!is_taken(&table, 7, SECOND));
        table.give_back(99, PACE.interval); // Nobody: nothing happens.
    }

    #[test]
    fn many_keys_of_an_attacker_keep_nobody_out_and_hide_no_offender() {
        let table = table(WAYS);
        (0..5).for_each(|_| assert!(is_taken(&table, 1, SECOND)));
        assert!(!is_taken(&table, 1, SECOND), "the offender");
        let mut forgot = 0_usize;
        for tag in 100..10_100 {
            let (taken, Forgot(someone)) = table.take(tag, PACE, SECOND);
            assert!(matches!(taken, Taken::Yes(_)), "{tag} is new, and innocent");
            forgot += usize::from(someone);
        }
        assert_eq!(forgot, 10_000 - (WAYS - 1));
        assert!(!is_taken(&table, 1, SECOND), "the offender is still known");
    }

    #[test]
    fn a_key_whose_allowance_is_whole_gives_its_place_away() {
        let table = table(WAYS);
        for tag in 1..=8 {
            assert_eq!(table.take(tag, PACE, SECOND).1, Forgot(false));
        }
        assert_eq!(table.take(9, PACE, 2 * SECOND).1, Forgot(false), "all are whole again");
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let table = table(1024);
        let taken: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| is_taken(&table, 7, SECOND)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Who finds a place that is given up in the same moment is not counted there.
        assert!((5..=8).contains(&taken), "{taken}");
    }

    proptest::proptest! {
        /// Whatever comes when: no more than the burst and what has grown meanwhile.
        #[test]
        fn never_more_than_burst_and_rate(
            gaps in proptest::collection::vec(0..SECOND / 4, 1..200), burst in 1_u32..20
        ) {
            let (table, pace) = (table(64), Pace { interval: SECOND / 10, burst });
            let (mut now, mut taken) = (SECOND, 0_u64);
            for gap in gaps {
                now += gap;
                if matches!(table.take(7, pace, now).0, Taken::Yes(_)) {
                    taken += 1;
                }
                let allowed = u64::from(burst) + (now - SECOND) / pace.interval;
                proptest::prop_assert!(taken <= allowed, "{taken} of {allowed}");
            }
        }
    }
}
