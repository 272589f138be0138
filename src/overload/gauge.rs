//! The verdict on what was measured: pure, and slow to forgive, so that it does not flap.

use std::time::Duration;

use tokio::time::Instant;

use crate::overload::Level;

/// Connections are closed from here on: 95 % where requests are shed from 90 % on.
const CRITICAL: f64 = 95.0 / 90.0;
/// It is calm again below these shares of the bounds.
const CALM_MEMORY: f64 = 0.95;
const CALM_DELAY: f64 = 0.5;
/// And once it has been so for this long.
pub(super) const HOLD: Duration = Duration::from_secs(2);
/// One late turn is no overload: the least of so many delays counts.
const DELAYS: usize = 3;

/// What was measured, as shares of the bounds; `0` where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pressure {
    pub(super) memory: f64,
    pub(super) delay: f64,
}

/// The verdict so far.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    level: Level,
    /// Since when it has been better than the level.
    better_since: Option<Instant>,
    delays: [f64; DELAYS],
    next: usize,
}

impl Gauge {
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Learns what was measured.
    pub(super) fn judge(&mut self, pressure: Pressure, now: Instant) -> Level {
        let Pressure { memory, delay } = pressure;
        self.delays[self.next % DELAYS] = delay;
        self.next = (self.next + 1) % DELAYS;
        let late = self.delays.iter().copied().fold(f64::INFINITY, f64::min);
        let seen = match () {
            () if CRITICAL <= memory => Level::Critical,
            () if 1.0 <= memory || 1.0 <= late => Level::Shedding,
            () => Level::Calm,
        };
        if self.level < seen {
            self.level = seen;
        }
        let is_better = match self.level {
            Level::Calm => false,
            Level::Shedding => memory < CALM_MEMORY && delay < CALM_DELAY,
            Level::Critical => memory < 1.0,
        };
        if !is_better {
            self.better_since = None;
        } else if HOLD <= now - *self.better_since.get_or_insert(now) {
            self.better_since = None;
            self.level = match self.level {
                Level::Critical => Level::Shedding,
                Level::Shedding | Level::Calm => Level::Calm,
            };
        }
        self.level
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    /// The level after each pair of memory and delay, a step apart.
    fn levels(pressures: &[(f64, f64)]) -> Vec<Level> {
        let (mut gauge, mut now) = (Gauge::default(), Instant::now());
        let judge = |&(memory, delay)| {
            now += STEP;
            gauge.judge(Pressure { memory, delay }, now)
        };
        pressures.iter().map(judge).collect()
    }

    /// How long it takes until something is calm.
    fn until_calm(start: &[(f64, f64)], then: (f64, f64)) -> Option<usize> {
        let all: Vec<_> = start.iter().copied().chain([then; 100]).collect();
        let levels = levels(&all);
        levels[start.len()..].iter().position(|level| *level == Level::Calm)
    }

    #[test]
    fn memory_sheds_at_once_and_closes_connections_above() {
        let shown = levels(&[(0.99, 0.0), (1.0, 0.0), (1.05, 0.0), (1.06, 0.0), (2.0, 0.0)]);
        let expected =
            [Level::Calm, Level::Shedding, Level::Shedding, Level::Critical, Level::Critical];
        assert_eq!(shown, expected);
    }

    #[test]
    fn one_late_turn_sheds_nothing_and_three_do() {
        assert!(
            levels(&[(0.0, 9.0), (0.0, 9.0), (0.0, 0.1), (0.0, 9.0)])
                .iter()
                .all(|it| *it == Level::Calm)
        );
        assert_eq!(levels(&[(0.0, 1.0); 3])[2], Level::Shedding);
        assert_eq!(levels(&[(0.0, 99.0); 9])[8], Level::Shedding, "that closes no connection");
    }

    #[test]
    fn it_is_calm_again_after_a_while_clearly_below() {
        assert_eq!(until_calm(&[(1.0, 0.0)], (0.97, 0.0)), None, "not clearly");
        assert_eq!(until_calm(&[(1.0, 0.0)], (0.9, 0.0)), Some(20));
        assert_eq!(until_calm(&[(0.0, 1.0); 3], (0.0, 0.6)), None);
        assert_eq!(until_calm(&[(0.0, 1.0); 3], (0.0, 0.4)), Some(20));
        assert_eq!(until_calm(&[(1.2, 0.0)], (0.5, 0.0)), Some(41), "one level after the other");
    }

    proptest! {
        /// However it is pressed, the level falls no more than once in the time that it is held.
        #[test]
        fn it_does_not_flap(pressures in proptest::collection::vec((0.0f64..1.2, 0.0f64..2.0), 1..400)) {
            let levels = levels(&pressures);
            let falls: Vec<usize> = (1..levels.len()).filter(|at| levels[*at] < levels[at - 1]).collect();
            for pair in falls.windows(2) {
                prop_assert!(20 <= pair[1] - pair[0]);
            }
            for (level, (memory, _)) in levels.iter().zip(&pressures) {
                prop_assert!(*memory < 1.0 || Level::Shedding <= *level, "{memory} is shed at once");
            }
        }
    }
}
