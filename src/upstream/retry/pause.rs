//! The pause before a retry: by chance, or as the origin says.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};

/// How the pause grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest pause before the first retry; each further one doubles it.
    pub base: Duration,
    /// The longest of all.
    pub max: Duration,
}

impl Backoff {
    /// The pause before retry number `retry` (from 1): anything from nothing to its step, so that
    /// the victims of one failure do not come back in step ("full jitter").
    pub fn pause(&self, retry: usize) -> Duration {
        self.step(retry).mul_f64(fastrand::f64())
    }

    fn step(&self, retry: usize) -> Duration {
        let doublings = u32::try_from(retry.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

/// How long an origin asks to be left alone, in seconds or until a date (RFC 9110 §10.2.3).
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = said.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(said).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Never longer than its step, which doubles up to the longest.
        #[test]
        fn full_jitter_stays_within_its_bounds(base in 1u64..1_000, max in 1u64..10_000, retry in 0usize..100) {
            let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
            let step = backoff.step(retry);
            prop_assert!(step <= backoff.max);
            prop_assert_eq!(backoff.step(retry.max(1) + 1), (backoff.step(retry) * 2).min(backoff.max));
            for _ in 0..20 {
                prop_assert!(backoff.pause(retry) <= step);
            }
        }
    }

    /// Of full jitter, half of all pauses are shorter than half a step.
    #[test]
    fn pauses_are_spread_over_the_whole_step() {
        let backoff = Backoff { base: Duration::from_millis(10), max: Duration::from_secs(1) };
        let pauses: Vec<_> = (0..1_000).map(|_| backoff.pause(1)).collect();
        let short = pauses.iter().filter(|pause| **pause < Duration::from_millis(5)).count();
        assert!((300..700).contains(&short), "{short} of 1000");
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(1)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let said = |value: &str| {
            let headers =
                HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(said("2"), Some(Duration::from_secs(2)));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:40 GMT"), Some(Duration::from_secs(3)));
        assert_eq!(said("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO), "it is over");
        for nonsense in ["", "soon", "-1", "1.5"] {
            assert_eq!(said(nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
