//! How many requests of each key are under way, in a table of a fixed size that takes no lock.
//!
//! A key may lie in the eight places of one row, and has its place for as long as one of its
//! requests holds it. Where all of a row are held by others, a request is not counted, and passes:
//! whoever holds many places keeps nobody out.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire},
    },
};

use crate::policy::{
    exchange::{Facts, Holds},
    key::Key,
};

/// Places of one row: a cache line.
const WAYS: usize = 8;
/// How often a place is looked for while others take the one that was found.
const TRIES: usize = 4;
/// The low bits of a place count, the others are the hash of its key.
const COUNT_BITS: u32 = 16;
/// The most that a place counts.
pub(super) const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// The table.
#[derive(Debug)]
pub(super) struct Places {
    hasher: RandomState,
    rows: Box<[Row]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Row([AtomicU64; WAYS]);

/// Whether a request has a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has this one, and holds it until it is released.
    Held(u64),
    /// As many of its key are under way as may be.
    Full,
    /// There was no room to count it.
    Uncounted,
}

impl Places {
    /// A table for so many keys, or a few more.
    pub(super) fn new(keys_max: usize) -> Self {
        let rows = std::iter::repeat_with(Row::default).take(keys_max.div_ceil(WAYS).max(1));
        Self { hasher: RandomState::new(), rows: rows.collect() }
    }

    /// Takes a place for a request, if fewer than `max` of its key are under way.
    pub(super) fn take(&self, key: &Key, facts: &Facts<'_>, max: u64) -> Place {
        self.take_hashed(key.hash(facts, self.hasher.build_hasher()), max)
    }

    fn take_hashed(&self, hash: u64, max: u64) -> Place {
        // The row is found by the high bits of the hash and told apart by the low ones.
        let row = (u128::from(hash) * self.rows.len() as u128) >> 64;
        let (row, tag) =
            (usize::try_from(row).unwrap_or_default(), (hash << COUNT_BITS).max(1 << COUNT_BITS));
        let places = &self.rows[row].0;
        let mut tries = 0;
        while tries < TRIES {
            let read = places.each_ref().map(|place| place.load(Acquire));
            let own = read.iter().position(|held| held & !COUNT_MAX == tag);
            let Some(way) = own.or_else(|| read.iter().position(|held| held & COUNT_MAX == 0))
            else {
                return Place::Uncounted;
            };
            let count = if own.is_some() { read[way] & COUNT_MAX } else { 0 };
            if max.min(COUNT_MAX) <= count {
                return Place::Full;
            }
            let taken = places[way].compare_exchange(read[way], tag | (count + 1), AcqRel, Acquire);
            if taken.is_ok() {
                return Place::Held((row * WAYS + way) as u64);
            }
            // Whoever was faster on the key's own place has counted: that ends by itself. Only a free
            // place is given up on.
            tries += usize::from(own.is_none());
        }
        Place::Uncounted
    }
}

impl Holds for Places {
    fn release(&self, place: u64) {
        let Ok(place) = usize::try_from(place) else { return };
        if let Some(Row(row)) = self.rows.get(place / WAYS) {
            // INVARIANT: whoever releases holds, so that the count is not zero.
            row[place % WAYS].fetch_sub(1, AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_key_has_so_many_places_and_gets_them_back() {
        let places = Places::new(64);
        let Place::Held(first) = places.take_hashed(7, 2) else { panic!("there is room") };
        assert_eq!(places.take_hashed(7, 2), Place::Held(first), "counted in one place");
        assert_eq!(places.take_hashed(7, 2), Place::Full);
        places.release(first);
        assert_eq!(places.take_hashed(7, 2), Place::Held(first));
        places.release(first);
        places.release(first);
        assert!(matches!(places.take_hashed(7, 1), Place::Held(_)));
    }

    #[test]
    fn who_holds_all_places_keeps_nobody_out() {
        let places = Places::new(WAYS);
        let held: Vec<_> = (1..=8).map(|hash| places.take_hashed(hash, 1)).collect();
        assert!(held.iter().all(|place| matches!(place, Place::Held(_))));
        assert_eq!(places.take_hashed(9, 1), Place::Uncounted);
        let Place::Held(place) = held[3] else { panic!("it is held") };
        places.release(place);
        assert_eq!(places.take_hashed(9, 1), Place::Held(place));
        assert_eq!(places.take_hashed(9, 1), Place::Full);
    }

    /// However many want a place at once, nobody passes uncounted while there is room.
    #[test]
    fn threads_are_all_counted() {
        let places = Places::new(64);
        let Place::Held(first) = places.take_hashed(7, 3) else { panic!("there is room") };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        match places.take_hashed(7, 3) {
                            Place::Held(place) => places.release(place),
                            other => assert_eq!(other, Place::Full),
                        }
                    }
                });
            }
        });
        places.release(first);
    }

    #[test]
    fn threads_never_hold_more_than_there_are() {
        let (places, most) = (Places::new(64), AtomicU64::new(0));
        let under_way = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if let Place::Held(place) = places.take_hashed(7, 3) {
                            most.fetch_max(under_way.fetch_add(1, AcqRel) + 1, AcqRel);
                            under_way.fetch_sub(1, AcqRel);
                            places.release(place);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Acquire)));
        let free = places.rows.iter().flat_map(|Row(row)| row);
        assert!(free.map(|place| place.load(Acquire) & COUNT_MAX).all(|count| count == 0));
    }
}
