//! When a certificate is renewed, and when a failed order is tried again; times in, times out.

use std::time::{Duration, SystemTime};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The pause after a first failure, which may have been a hiccup.
const AGAIN_SOON: Duration = Duration::from_secs(10);
/// The pause after the second, and how much longer each further one is: five attempts in the
/// first hour, since Let's Encrypt allows five validations to fail.
const AGAIN_AFTER: Duration = Duration::from_secs(2 * 60);
const LONGER_BY: u32 = 4;
/// The longest pause that we choose ourselves.
const AGAIN_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// The longest that a CA is taken at its word for.
const NAMED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a CA is asked for its suggestion at most, and at least (RFC 9773 §4.3.2).
const ASKED_AFTER: (Duration, Duration) = (MINUTE, DAY);
/// When it is asked again after no answer.
pub(super) const ASKED_IN_VAIN: Duration = Duration::from_secs(6 * 60 * 60);

/// The life of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) begins: SystemTime,
    pub(super) expires: SystemTime,
    /// When this process obtained it; `None` if it was read.
    pub(super) obtained: Option<SystemTime>,
}

/// When a certificate is renewed: at what the CA suggests, else when two thirds of its life are
/// over, or up to a fiftieth of it earlier, so that many do not come at a time. `jitter` is from 0
/// to 1.
///
/// Never sooner than a tenth of its life after it was obtained, whatever clocks and CAs say: no
/// mistake may order without end. And never in its last tenth, whatever a CA suggests.
pub(super) fn renewal(life: Life, suggested: Option<SystemTime>, jitter: f64) -> SystemTime {
    let Life { begins, expires, obtained } = life;
    let whole = expires.duration_since(begins).unwrap_or_default();
    let own = begins + whole * 2 / 3 - whole.mul_f64(0.02 * jitter.clamp(0.0, 1.0));
    let chosen = suggested.unwrap_or(own).min(expires - whole / 10);
    obtained.map_or(chosen, |obtained| chosen.max(obtained + whole / 10))
}

/// A moment in the window that a CA suggests, each as likely as the others (RFC 9773 §4.2).
pub(super) fn within(window: (SystemTime, SystemTime), jitter: f64) -> SystemTime {
    let (start, end) = window;
    start + end.duration_since(start).unwrap_or_default().mul_f64(jitter.clamp(0.0, 1.0))
}

/// How long to wait until a CA is asked again for its suggestion.
pub(super) fn question(named: Duration) -> Duration {
    named.clamp(ASKED_AFTER.0, ASKED_AFTER.1)
}

/// How long to wait after so many failures in a row; not less than what the CA named. `jitter` is
/// from 0 to 1, and moves it by a tenth either way.
pub(super) fn pause(failures: u32, named: Option<Duration>, jitter: f64) -> Duration {
    let own = match failures {
        0 | 1 => AGAIN_SOON,
        more => AGAIN_AFTER.saturating_mul(LONGER_BY.saturating_pow(more - 2)).min(AGAIN_MAX),
    };
    let own = own.mul_f64(0.9 + 0.2 * jitter);
    named.map_or(own, |named| own.max(named.min(NAMED_MAX)))
}

/// A time as people and logs write it: `2027-01-31T08:15:00Z`.
pub fn instant(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX));
    at.unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * u32::try_from(20_000 + days).unwrap()
    }

    fn life(obtained: Option<SystemTime>) -> Life {
        Life { begins: at(0), expires: at(90), obtained }
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_a_little_earlier() {
        assert_eq!(renewal(life(None), None, 0.0), at(60));
        assert_eq!(renewal(life(Some(at(0))), None, 0.0), at(60));
        let early = renewal(life(None), None, 1.0);
        assert!(at(58) < early && early < at(59), "{}", instant(early));
    }

    #[test]
    fn a_suggestion_of_the_ca_comes_first_within_reason() {
        assert_eq!(renewal(life(None), Some(at(20)), 1.0), at(20));
        assert_eq!(renewal(life(None), Some(at(70)), 1.0), at(70));
        assert_eq!(renewal(life(None), Some(at(500)), 1.0), at(81), "it would be too late");
        assert_eq!(within((at(10), at(20)), 0.0), at(10));
        assert_eq!(within((at(10), at(20)), 0.5), at(15));
        assert_eq!(within((at(20), at(10)), 0.5), at(20), "a window that ends before it begins");
    }

    #[test]
    fn nothing_orders_without_end() {
        // The clock is far ahead, or the CA wants each one to be renewed at once.
        assert_eq!(renewal(life(Some(at(80))), None, 0.0), at(89));
        assert_eq!(renewal(life(Some(at(1))), Some(at(0)), 0.0), at(10));
        let empty = Life { begins: at(9), expires: at(3), obtained: None };
        assert_eq!(renewal(empty, None, 0.5), at(3));
    }

    #[test]
    fn pauses_grow_up_to_half_a_day_and_respect_what_the_ca_named() {
        let pauses: Vec<_> = (1..9).map(|failures| pause(failures, None, 0.5).as_secs()).collect();
        assert_eq!(pauses, [10, 120, 480, 1_920, 7_680, 30_720, 43_200, 43_200]);
        assert_eq!(pause(u32::MAX, None, 1.0), AGAIN_MAX.mul_f64(1.1));
        assert_eq!(pause(1, None, 0.0), Duration::from_secs(9));
        assert_eq!(pause(1, Some(HOUR), 0.5), HOUR);
        assert_eq!(pause(7, Some(HOUR), 0.5), AGAIN_MAX);
        assert_eq!(pause(1, Some(DAY * 999), 0.5), NAMED_MAX);
    }

    #[test]
    fn a_ca_is_asked_at_most_each_minute_and_at_least_each_day() {
        assert_eq!(question(Duration::ZERO), MINUTE);
        assert_eq!(question(HOUR), HOUR);
        assert_eq!(question(DAY * 30), DAY);
    }

    #[test]
    fn times_are_told_as_people_write_them() {
        assert_eq!(instant(SystemTime::UNIX_EPOCH + DAY), "1970-01-02T00:00:00Z");
    }
}
