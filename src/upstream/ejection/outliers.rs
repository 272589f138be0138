//! Outliers: backends that a window of traffic shows to be worse than they may be, or than the
//! others. Pure.

use std::{fmt, time::Duration};

use crate::upstream::ejection::observed::Shown;

/// A median above the others' by less than this ejects nobody, whatever the factor: of what takes
/// a millisecond, three are no fault.
pub const LATENCY_MARGIN: Duration = Duration::from_millis(10);
/// So many backends must have had requests enough before their success rates are compared; of
/// fewer, none can be far from the mean (Envoy's number).
pub const COMPARED_MIN: usize = 5;
/// A success rate below the mean by less than this ejects nobody: where all others are perfect,
/// one failure would be far from it.
pub const SUCCESS_MARGIN: f64 = 0.05;

/// When the window of a backend ejects it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outliers {
    /// How long the window is.
    pub window: Duration,
    /// Fewer requests say nothing.
    pub requests_min: u32,
    /// The share of failures from which on a backend is ejected, 0 to 1.
    pub failure_share: Option<f64>,
    /// How far below the mean a success rate may be, in standard deviations.
    pub success_rate_deviations: Option<f64>,
    /// How many times the others' median latency a backend's may be.
    pub latency_factor: Option<f64>,
}

/// The rule that ejects a backend, and by what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// Too many of its requests failed.
    FailureShare {
        /// Those that failed.
        failures: u32,
        /// All.
        requests: u32,
    },
    /// Too few of its requests succeeded, beside the others.
    SuccessRate {
        /// Its own rate.
        rate: f64,
        /// The mean of all.
        mean: f64,
    },
    /// Its answers took too long to begin, beside the others.
    Latency {
        /// Its own median.
        median: Duration,
        /// The others'.
        others: Duration,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailureShare { failures, requests } => {
                write!(f, "failure share: {failures} of {requests} requests failed")
            }
            Self::SuccessRate { rate, mean } => {
                let (rate, mean) = (rate * 100.0, mean * 100.0);
                write!(f, "success rate: {rate:.1}%, and {mean:.1}% in the mean of all")
            }
            Self::Latency { median, others } => {
                let (median, others) = (median.as_millis(), others.as_millis());
                write!(f, "latency: {median} ms in the median, and {others} ms of the others")
            }
        }
    }
}

impl Outliers {
    /// Judges all backends by what their windows show. Those that have had too few requests are
    /// neither ejected nor compared.
    pub fn judge(&self, shown: &[Shown]) -> Vec<Option<Reason>> {
        let heard: Vec<usize> =
            (0..shown.len()).filter(|index| self.is_enough(&shown[*index])).collect();
        let mut reasons = vec![None; shown.len()];
        let mean_and_limit = self.success_limit(&heard, shown);
        for &index in &heard {
            let one = &shown[index];
            reasons[index] = self
                .by_share(one)
                .or_else(|| by_success(one, mean_and_limit?))
                .or_else(|| self.by_latency(index, &heard, shown));
        }
        reasons
    }

    fn is_enough(&self, shown: &Shown) -> bool {
        0 < shown.requests && self.requests_min <= shown.requests
    }

    fn by_share(&self, shown: &Shown) -> Option<Reason> {
        let Shown { failures, requests, .. } = *shown;
        let share = f64::from(failures) / f64::from(requests);
        (0 < failures && self.failure_share? <= share)
            .then_some(Reason::FailureShare { failures, requests })
    }

    /// The mean of the success rates, and what is too far below it (as Envoy reckons).
    fn success_limit(&self, heard: &[usize], shown: &[Shown]) -> Option<(f64, f64)> {
        let deviations = self.success_rate_deviations?;
        if heard.len() < COMPARED_MIN {
            return None;
        }
        let count = heard.len() as f64;
        let rates = || heard.iter().map(|index| success(&shown[*index]));
        let mean = rates().sum::<f64>() / count;
        let variance = rates().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        Some((mean, mean - deviations * variance.sqrt()))
    }

    fn by_latency(&self, index: usize, heard: &[usize], shown: &[Shown]) -> Option<Reason> {
        let factor = self.latency_factor?;
        let median = shown[index].latency?;
        let others = heard.iter().filter(|other| **other != index);
        let mut others: Vec<Duration> = others.filter_map(|other| shown[*other].latency).collect();
        others.sort_unstable();
        let others = *others.get(others.len().checked_sub(1)? / 2)?;
        let is_slow = others.mul_f64(factor) < median && others + LATENCY_MARGIN <= median;
        is_slow.then_some(Reason::Latency { median, others })
    }
}

fn success(shown: &Shown) -> f64 {
    1.0 - f64::from(shown.failures) / f64::from(shown.requests)
}

fn by_success(shown: &Shown, (mean, limit): (f64, f64)) -> Option<Reason> {
    let rate = success(shown);
    (rate < limit && rate <= mean - SUCCESS_MARGIN).then_some(Reason::SuccessRate { rate, mean })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Outliers = Outliers {
        window: Duration::from_secs(10),
        requests_min: 20,
        failure_share: None,
        success_rate_deviations: None,
        latency_factor: None,
    };

    fn failing(failures: u32, requests: u32) -> Shown {
        Shown { requests, failures, latency: None }
    }

    fn taking(millis: u64) -> Shown {
        Shown { requests: 20, failures: 0, latency: Some(Duration::from_millis(millis)) }
    }

    #[test]
    fn a_share_of_failures_ejects_once_there_are_requests_enough() {
        let rules = Outliers { failure_share: Some(0.3), ..RULES };
        let shown = [failing(6, 20), failing(5, 20), failing(19, 19), failing(0, 0)];
        let reasons = rules.judge(&shown);
        assert_eq!(reasons[0], Some(Reason::FailureShare { failures: 6, requests: 20 }));
        assert_eq!(reasons[1..], [None; 3]);
        let told = reasons[0].unwrap().to_string();
        assert_eq!(told, "failure share: 6 of 20 requests failed");
    }

    #[test]
    fn a_latency_is_held_against_the_median_of_the_others() {
        let rules = Outliers { latency_factor: Some(3.0), ..RULES };
        let slow = [taking(12), taking(10), taking(110)];
        let reasons = rules.judge(&slow);
        assert_eq!(reasons[..2], [None; 2]);
        assert_eq!(
            reasons[2].unwrap().to_string(),
            "latency: 110 ms in the median, and 10 ms of the others"
        );
        assert_eq!(rules.judge(&[taking(1), taking(1), taking(9)]), [None; 3], "no margin");
        assert_eq!(rules.judge(&[taking(100), taking(290)]), [None; 2], "no factor");
        assert_eq!(rules.judge(&[taking(100)]), [None], "no others");
    }

    #[test]
    fn a_success_rate_is_held_against_the_deviation_of_all() {
        let rules = Outliers { success_rate_deviations: Some(1.9), ..RULES };
        let good = failing(0, 100);
        let reasons = rules.judge(&[good, good, failing(40, 100), good, good]);
        let Some(Reason::SuccessRate { rate, mean }) = reasons[2] else { panic!("{reasons:?}") };
        assert!((rate - 0.6).abs() < 1e-9 && (mean - 0.92).abs() < 1e-9);
        assert_eq!(reasons.iter().flatten().count(), 1);
        assert_eq!(rules.judge(&[good, good, failing(40, 100), good]), [None; 4], "too few");
        let one = rules.judge(&[good, good, failing(1, 100), good, good]);
        assert_eq!(one, [None; 5], "a single failure is within the margin");
        let bad = failing(40, 100);
        assert_eq!(rules.judge(&[bad; 5]), [None; 5], "all alike: none is an outlier");
    }

    prop_compose! {
        fn shown()(requests in 0u32..200, part in 0u32..=100, millis in prop::option::of(0u64..10_000)) -> Shown {
            Shown { requests, failures: requests * part / 100, latency: millis.map(Duration::from_millis) }
        }
    }

    proptest! {
        /// Whoever is ejected has had requests enough and is worse than somebody, and a backend
        /// without a failure and not slower than another is never ejected.
        #[test]
        fn nobody_is_ejected_for_nothing(shown in prop::collection::vec(shown(), 0..12)) {
            let rules = Outliers {
                failure_share: Some(0.5),
                success_rate_deviations: Some(1.0),
                latency_factor: Some(2.0),
                ..RULES
            };
            let reasons = rules.judge(&shown);
            prop_assert_eq!(reasons.len(), shown.len());
            let fastest = shown.iter().filter(|one| 20 <= one.requests).filter_map(|one| one.latency).min();
            for (one, reason) in shown.iter().zip(&reasons) {
                match reason {
                    None => {
                        let share = f64::from(one.failures) / f64::from(one.requests.max(1));
                        prop_assert!(one.requests < 20 || share < 0.5);
                    }
                    Some(Reason::FailureShare { .. }) => prop_assert!(one.requests <= 2 * one.failures),
                    Some(Reason::SuccessRate { rate, mean }) => {
                        prop_assert!(rate + SUCCESS_MARGIN <= *mean && 0 < one.failures);
                    }
                    Some(Reason::Latency { median, .. }) => {
                        prop_assert!(fastest.unwrap() + LATENCY_MARGIN <= *median);
                    }
                }
                prop_assert!(reason.is_none() || 20 <= one.requests);
            }
        }

        /// The order in which backends stand changes nothing.
        #[test]
        fn the_verdict_does_not_depend_on_the_order(mut shown in prop::collection::vec(shown(), 0..12)) {
            let rules = Outliers {
                failure_share: Some(0.9),
                latency_factor: Some(2.0),
                ..RULES
            };
            let mut reasons = rules.judge(&shown);
            shown.reverse();
            reasons.reverse();
            prop_assert_eq!(rules.judge(&shown), reasons);
        }
    }
}
