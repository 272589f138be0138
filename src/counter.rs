//! Counts that many threads change without sharing a cache line.

use std::{
    cell::Cell,
    sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

const SHARDS: usize = 16;

/// One shard alone on its cache lines (two, for processors that fetch pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

/// A count; adding touches a line that (nearly) no other thread touches.
#[derive(Debug, Default)]
pub struct Counter {
    shards: [Shard; SHARDS],
}

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds some.
    pub fn add(&self, more: u64) {
        self.shards[shard()].0.fetch_add(more, Relaxed);
    }

    /// The sum over all threads; exact once they rest.
    pub fn get(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.load(Relaxed)).sum()
    }
}

/// How many there are of something that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge {
    shards: [Shard; SHARDS],
}

impl Gauge {
    /// One more.
    pub fn enter(&self) {
        self.shards[shard()].0.fetch_add(1, AcqRel);
    }

    /// One less, perhaps on another thread than the one on which it came.
    pub fn leave(&self) {
        self.shards[shard()].0.fetch_sub(1, AcqRel);
    }

    /// How many there are; exact once they rest.
    pub fn get(&self) -> u64 {
        let shards = self.shards.iter().map(|shard| shard.0.load(Acquire));
        // A shard that more left than entered is below zero. So may be the sum, if one came and
        // went between two threads while they were read.
        shards.fold(0, u64::wrapping_add).cast_signed().max(0).cast_unsigned()
    }
}

/// The shard of this thread, given out in turn.
pub fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: Cell<usize> = const { Cell::new(usize::MAX) });
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Relaxed) % SHARDS);
        }
        shard.get()
    })
}

/// How many shards there are.
pub const fn shards() -> usize {
    SHARDS
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let counter = Arc::new(Counter::default());
        let threads: Vec<_> = (0..32)
            .map(|_| {
                let counter = counter.clone();
                std::thread::spawn(move || (0..1_000).for_each(|_| counter.increment()))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(counter.get(), 32_000);
    }

    #[test]
    fn what_came_on_one_thread_may_leave_on_another() {
        let gauge = Arc::new(Gauge::default());
        (0..3).for_each(|_| gauge.enter());
        let other = gauge.clone();
        std::thread::spawn(move || (0..2).for_each(|_| other.leave())).join().unwrap();
        assert_eq!(gauge.get(), 1);
        gauge.leave();
        gauge.leave();
        assert_eq!(gauge.get(), 0, "never less than none");
    }
}
