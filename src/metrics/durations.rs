//! Durations, counted by how long they were: what a histogram is read from.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::counter;

const fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The upper bounds of the buckets, and how they are written. From what a local origin answers in
/// to what a patient client waits for, at most two and a half times the one before.
pub const BOUNDS: [(Duration, &str); 19] = [
    (micros(100), "0.0001"),
    (micros(250), "0.00025"),
    (micros(500), "0.0005"),
    (millis(1), "0.001"),
    (micros(2_500), "0.0025"),
    (millis(5), "0.005"),
    (millis(10), "0.01"),
    (millis(25), "0.025"),
    (millis(50), "0.05"),
    (millis(100), "0.1"),
    (millis(250), "0.25"),
    (millis(500), "0.5"),
    (millis(1_000), "1.0"),
    (millis(2_500), "2.5"),
    (millis(5_000), "5.0"),
    (millis(10_000), "10.0"),
    (millis(20_000), "20.0"),
    (millis(30_000), "30.0"),
    (millis(60_000), "60.0"),
];

/// One for each bound, one for what is longer than the last.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// Durations of `C` classes, such as classes of statuses, counted without a line of memory that
/// threads share.
///
/// A thread's cells are made with the first duration that it records, so that what is configured
/// and never used costs next to nothing.
#[derive(Debug)]
pub struct Durations<const C: usize> {
    shards: [OnceLock<Box<Shard<C>>>; counter::shards()],
}

/// The cells of one thread, alone on their lines.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<const C: usize>([Cells; C]);

#[derive(Debug, Default)]
struct Cells {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// What was recorded of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How many fell between each bound and the one before.
    pub buckets: [u64; BUCKETS],
    /// All of them together.
    pub sum: Duration,
}

impl<const C: usize> Default for Durations<C> {
    fn default() -> Self {
        Self { shards: [const { OnceLock::new() }; counter::shards()] }
    }
}

impl<const C: usize> Durations<C> {
    /// Records a duration. A class that there is not counts as the last.
    pub fn record(&self, class: usize, took: Duration) {
        let shard = self.shards[counter::shard()]
            .get_or_init(|| Box::new(Shard(std::array::from_fn(|_| Cells::default()))));
        let cells = &shard.0[class.min(C - 1)];
        cells.buckets[bucket(took)].fetch_add(1, Relaxed);
        cells.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What was recorded of a class; exact once the threads rest.
    pub fn read(&self, class: usize) -> Reading {
        let (mut buckets, mut nanos) = ([0; BUCKETS], 0u64);
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            let cells = &shard.0[class];
            for (sum, bucket) in buckets.iter_mut().zip(&cells.buckets) {
                *sum += bucket.load(Relaxed);
            }
            nanos = nanos.wrapping_add(cells.nanos.load(Relaxed));
        }
        Reading { buckets, sum: Duration::from_nanos(nanos) }
    }
}

/// The bucket into which a duration falls.
pub(super) fn bucket(took: Duration) -> usize {
    BOUNDS.partition_point(|(bound, _)| *bound < took)
}

impl Reading {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn bounds_rise_and_are_written_as_they_are() {
        assert!(BOUNDS.is_sorted_by(|(one, _), (other, _)| one < other));
        for (bound, written) in BOUNDS {
            assert_eq!(written.parse::<f64>().unwrap().to_bits(), bound.as_secs_f64().to_bits());
        }
    }

    #[test]
    fn a_duration_falls_below_the_bound_that_it_does_not_exceed() {
        let durations = Durations::<2>::default();
        let long = Duration::from_secs(61);
        for took in [Duration::ZERO, micros(100), micros(101), millis(60_000), long] {
            durations.record(1, took);
        }
        let read = durations.read(1);
        assert_eq!((read.buckets[0], read.buckets[1]), (2, 1));
        assert_eq!((read.buckets[BUCKETS - 2], read.buckets[BUCKETS - 1]), (1, 1));
        assert_eq!(read.count(), 5);
        assert_eq!(read.sum, micros(201) + millis(60_000) + long);
        assert_eq!(durations.read(0), Reading::default());
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let durations = Arc::new(Durations::<1>::default());
        let threads: Vec<_> = (0..32)
            .map(|_| {
                let durations = durations.clone();
                std::thread::spawn(move || {
                    (0..1_000).for_each(|_| durations.record(0, millis(3)));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(durations.read(0).count(), 32_000);
        assert_eq!(durations.read(0).sum, millis(96_000));
    }
}
