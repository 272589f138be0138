//! The own zone first, as far as it is fit.
//!
//! A request stays in the zone of this proxy while at least five sevenths of the weight there are
//! fit (1 / 1.4). Below that, the zone keeps 1.4 times its fit share of all requests, and the rest
//! goes to the other zones: with half of it fit it keeps 70 %. What cannot be had in the zone that
//! was chosen is looked for in the other one.

/// A zone is taken to be able to bear so many times its share.
const SPARE: f64 = 1.4;

/// The share of requests that stays in a zone with so much weight, of which so much is fit.
pub(super) fn stays(fit: u64, all: u64) -> f64 {
    (SPARE * fit as f64 / all.max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_zone_keeps_what_it_can_bear() {
        for (fit, all, expected) in
            [(10, 10, 1.0), (8, 10, 1.0), (5, 10, 0.7), (1, 10, 0.14), (0, 10, 0.0)]
        {
            assert!((stays(fit, all) - expected).abs() < 1e-9, "{fit} of {all}");
        }
        assert!(stays(0, 0) < 1e-9, "a zone without backends keeps nothing");
    }

    proptest! {
        #[test]
        fn more_that_is_fit_keeps_more(all in 1u64..10_000, fit in 0u64..10_000, more in 0u64..10_000) {
            prop_assert!(stays(fit, all) <= stays(fit + more, all));
            prop_assert!((0.0..=1.0).contains(&stays(fit, all)));
        }
    }
}
