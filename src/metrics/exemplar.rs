//! Exemplars: of each bucket of a histogram, the last request that stands for it.
//!
//! They are for requests that can be looked up, few of all; whoever finds the place taken goes on,
//! and leaves no exemplar.

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError, TryLockError},
    time::{Duration, SystemTime},
};

use crate::metrics::durations::{BUCKETS, bucket};

/// The most characters of all names and values of one (`OpenMetrics` 1.0, "Exemplars").
const CHARACTERS_MAX: usize = 128;

/// A request that stands for its bucket.
#[derive(Clone, Debug)]
pub struct Exemplar {
    /// `name="value",…`
    labels: Box<str>,
    took: Duration,
    at: SystemTime,
}

/// The exemplars of a histogram.
#[derive(Debug, Default)]
pub struct Exemplars {
    last: Mutex<[Option<Exemplar>; BUCKETS]>,
}

impl Exemplar {
    /// What took so long, with the first of these labels for which there is room; `None` if there
    /// is for none.
    pub fn new(labels: &[(&str, &str)], took: Duration) -> Option<Self> {
        let (mut text, mut left) = (String::new(), CHARACTERS_MAX);
        for (name, value) in labels {
            let characters = name.chars().count() + value.chars().count();
            if left < characters {
                break;
            }
            left -= characters;
            text.extend([if text.is_empty() { "" } else { "," }, name, "=\""]);
            super::page::escape(&mut text, value, true);
            text.push('"');
        }
        let labels = (!text.is_empty()).then(|| text.into_boxed_str())?;
        Some(Self { labels, took, at: SystemTime::now() })
    }

    /// Appends it behind a sample.
    pub(super) fn write(&self, text: &mut String) {
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (labels, took) = (&self.labels, self.took.as_secs_f64());
        let written = write!(text, " # {{{labels}}} {took} {:.3}", at.as_secs_f64());
        debug_assert!(written.is_ok(), "memory takes every byte");
    }
}

impl Exemplars {
    /// Has one stand for its bucket, unless somebody else is about to.
    pub fn show(&self, exemplar: Exemplar) {
        let mut last = match self.last.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let place = &mut last[bucket(exemplar.took)];
        *place = Some(exemplar);
    }

    /// What there is, by bucket.
    pub fn read(&self) -> [Option<Exemplar>; BUCKETS] {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(labels: &[(&str, &str)]) -> Option<String> {
        let mut text = String::new();
        Exemplar::new(labels, Duration::from_micros(1_500))?.write(&mut text);
        Some(text)
    }

    #[test]
    fn labels_are_escaped_and_no_longer_than_they_may_be() {
        let text = written(&[("request_id", "a\"b\\c")]).unwrap();
        assert!(text.starts_with(" # {request_id=\"a\\\"b\\\\c\"} 0.0015 "), "{text}");
        let (long, longer) = ("x".repeat(118), "x".repeat(119));
        assert!(written(&[("request_id", &long)]).is_some());
        assert_eq!(written(&[("request_id", &longer)]), None);
        let both = written(&[("trace_id", "4bf9"), ("request_id", &long)]).unwrap();
        assert!(both.starts_with(" # {trace_id=\"4bf9\"} "), "{both}");
        let both = written(&[("trace_id", "4bf9"), ("request_id", "1")]).unwrap();
        assert!(both.starts_with(" # {trace_id=\"4bf9\",request_id=\"1\"} "), "{both}");
    }

    #[test]
    fn the_last_one_stands_for_its_bucket_and_nobody_waits() {
        let exemplars = Exemplars::default();
        let show = |id, micros| {
            let took = Duration::from_micros(micros);
            exemplars.show(Exemplar::new(&[("request_id", id)], took).unwrap());
        };
        show("1", 50);
        show("2", 100);
        show("3", 101);
        {
            let _held = exemplars.last.lock().unwrap();
            show("4", 1);
        }
        let ids: Vec<_> = exemplars.read().into_iter().flatten().map(|one| one.labels).collect();
        assert_eq!(ids, ["request_id=\"2\"", "request_id=\"3\""].map(Box::<str>::from));
    }
}
