//! Copies of requests that an upstream gets as a mirror: how many at a time, and what became of
//! them. It outlives changes of the configuration.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// The copies of an upstream.
#[derive(Debug, Default)]
pub struct Copies {
    now: AtomicU32,
    ended: [AtomicU64; ENDS.len()],
}

/// What becomes of copies, in the words of metrics and `status`.
const ENDS: [&str; 8] = ["2xx", "3xx", "4xx", "5xx", "failed", "busy", "too_large", "unfinished"];

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was answered, with this status.
    Answered(u16),
    /// It got no answer in its time.
    Failed,
    /// It would have been one too many at a time.
    Busy,
    /// Its body was too large.
    TooLarge,
    /// The request itself did not come to its end.
    Unfinished,
}

/// A copy, from when it is decided on to the end of its answer.
#[derive(Debug)]
pub struct Copy {
    of: Arc<Copies>,
    /// What has become of it.
    pub end: End,
}

impl Copies {
    /// Begins a copy; `None` if there are `max`.
    pub fn begin(self: &Arc<Self>, max: u32) -> Option<Copy> {
        let one_more = |now: u32| (now < max).then_some(now + 1);
        if self.now.fetch_update(Relaxed, Relaxed, one_more).is_err() {
            self.count(End::Busy);
            return None;
        }
        Some(Copy { of: self.clone(), end: End::Unfinished })
    }

    /// How many there are at this moment.
    pub fn now(&self) -> u32 {
        self.now.load(Relaxed)
    }

    /// How many ended, each way with a name.
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ENDS.into_iter().zip(&self.ended).map(|(name, count)| (name, count.load(Relaxed)))
    }

    fn count(&self, end: End) {
        let index = match end {
            End::Answered(status) => usize::from(status / 100).clamp(2, 5) - 2,
            End::Failed => 4,
            End::Busy => 5,
            End::TooLarge => 6,
            End::Unfinished => 7,
        };
        self.ended[index].fetch_add(1, Relaxed);
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.of.now.fetch_sub(1, Relaxed);
        self.of.count(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_copies_than_may_be_are_made_at_a_time_and_each_is_counted() {
        let copies = Arc::new(Copies::default());
        let [mut one, two] = [0; 2].map(|_| copies.begin(2).expect("a place"));
        assert!(copies.begin(2).is_none());
        assert_eq!(copies.now(), 2);
        one.end = End::Answered(204);
        drop(one);
        let ends = [
            End::Answered(301),
            End::Answered(404),
            End::Answered(599),
            End::Failed,
            End::TooLarge,
        ];
        for end in ends {
            copies.begin(2).expect("a place").end = end;
        }
        drop(two);
        assert_eq!(copies.now(), 0);
        assert!(copies.ended().all(|(_, count)| count == 1), "{copies:?}");
    }
}
