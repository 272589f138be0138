//! How many requests a backend bears at a time, as its latency tells: a gradient.
//!
//! A backend that answers as fast as when it has little to do may have more; one that answers more
//! slowly has a queue of its own, and gets less, in proportion. This is the gradient of Netflix's
//! concurrency-limits against a measured baseline, as in Envoy's adaptive concurrency: now and then
//! the limit is halved for a moment, to see how fast the backend is when it is not pressed.
//!
//! [`Gradient`] is pure. [`Adaptive`] gathers what many threads see, and asks it once in a while.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{AcqRel, Relaxed},
        },
    },
    time::Duration,
};

use tokio::time::Instant;

/// A latency so much above the baseline is taken for noise.
const TOLERANCE: f64 = 1.25;
/// No single sample takes more of the limit than half.
const GRADIENT_MIN: f64 = 0.5;
/// How much of the way to its goal the limit goes with each sample.
const STEP: f64 = 0.2;
/// How often the baseline is measured anew.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// So many samples at the lowest limit: the backend itself has become slower.
const LOWEST_MAX: u32 = 5;
/// A sample is made of so many answers, or more, and takes so long, or longer.
const ANSWERS: u32 = 10;
const SAMPLE: Duration = Duration::from_millis(100);
/// The limit before anything is known.
const INITIAL: u32 = 20;

/// Within what the limit moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The lowest limit.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

/// What was seen of a backend in a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How long it took to the first byte, on average.
    pub latency: Duration,
    /// Requests at a time, at most.
    pub in_flight: u32,
}

/// The state of a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    limit: f64,
    /// The latency of the backend when it is not pressed, in seconds.
    baseline: f64,
    measuring: Option<Measuring>,
    measure_at: Instant,
    /// Samples at the lowest limit, in a row.
    lowest: u32,
}

/// The limit is halved to measure the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measuring {
    /// The limit to go back to.
    resume: f64,
    /// Whether the requests from before have gone.
    has_settled: bool,
}

impl Gradient {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            limit: f64::from(INITIAL),
            baseline: f64::INFINITY,
            measuring: None,
            measure_at: now + MEASURE_EVERY,
            lowest: 0,
        }
    }

    /// The limit.
    pub fn limit(&self, rules: &Rules) -> u32 {
        whole(self.limit).clamp(rules.min, rules.max)
    }

    /// Learns from a sample.
    pub fn learn(&mut self, sample: Sample, rules: &Rules, now: Instant) {
        let (min, max) = (f64::from(rules.min), f64::from(rules.max));
        let latency = sample.latency.as_secs_f64().max(1e-6);
        self.limit = self.limit.clamp(min, max);
        match &mut self.measuring {
            Some(measuring) if !measuring.has_settled => {
                measuring.has_settled = true;
                return;
            }
            Some(measuring) => {
                self.limit = measuring.resume.clamp(min, max);
                self.baseline = latency;
                self.measuring = None;
                self.measure_at = now + MEASURE_EVERY;
                return;
            }
            None => self.baseline = self.baseline.min(latency),
        }
        if f64::from(sample.in_flight) * 2.0 < self.limit {
            return; // it is not this limit that holds it back: nothing is learned of it
        }
        let gradient = (TOLERANCE * self.baseline / latency).clamp(GRADIENT_MIN, 1.0);
        let goal = self.limit * gradient + self.limit.sqrt();
        self.limit = (self.limit + STEP * (goal - self.limit)).clamp(min, max);
        self.lowest = if self.limit < min + 1.0 && gradient < 1.0 { self.lowest + 1 } else { 0 };
        if LOWEST_MAX <= self.lowest {
            self.baseline = latency;
            self.lowest = 0;
        } else if self.measure_at <= now {
            self.measuring = Some(Measuring { resume: self.limit, has_settled: false });
            self.limit = (self.limit / 2.0).max(min);
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn whole(number: f64) -> u32 {
    number as u32
}

/// The limit of one backend, as all threads see it.
#[derive(Debug, Default)]
pub struct Adaptive {
    /// `0` before the first sample.
    limit: AtomicU32,
    answers: AtomicU32,
    micros: AtomicU64,
    in_flight: AtomicU32,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    gradient: Gradient,
    sample_from: Instant,
}

impl Adaptive {
    /// The limit now.
    pub fn limit(&self, rules: &Rules) -> u32 {
        match self.limit.load(Relaxed) {
            0 => INITIAL.clamp(rules.min, rules.max),
            limit => limit.clamp(rules.min, rules.max),
        }
    }

    /// Learns of an answer; `in_flight` counts it, too.
    pub fn answered(&self, latency: Duration, in_flight: u32, rules: &Rules, now: Instant) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Relaxed);
        if self.in_flight.load(Relaxed) < in_flight {
            self.in_flight.fetch_max(in_flight, Relaxed);
        }
        if self.answers.fetch_add(1, AcqRel) + 1 < ANSWERS {
            return;
        }
        // Whoever finds another at it has nothing to add.
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(std::sync::TryLockError::WouldBlock) => return,
        };
        let state =
            state.get_or_insert_with(|| State { gradient: Gradient::new(now), sample_from: now });
        if now.saturating_duration_since(state.sample_from) < SAMPLE {
            return;
        }
        state.sample_from = now;
        let answers = u64::from(self.answers.swap(0, AcqRel).max(1));
        let latency = Duration::from_micros(self.micros.swap(0, AcqRel) / answers);
        let sample = Sample { latency, in_flight: self.in_flight.swap(0, AcqRel) };
        state.gradient.learn(sample, rules, now);
        self.limit.store(state.gradient.limit(rules), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { min: 4, max: 1000 };

    /// A backend that answers `knee` requests at a time in `base`, and lets more of them wait.
    struct Backend {
        knee: f64,
        base: f64,
    }

    impl Backend {
        fn latency(&self, in_flight: f64) -> Duration {
            Duration::from_secs_f64(self.base * (in_flight / self.knee).max(1.0))
        }
    }

    /// Keeps a backend as busy as the limit allows for some time; the limits of the last third.
    fn press(gradient: &mut Gradient, backend: &Backend, now: &mut Instant, secs: u64) -> Vec<f64> {
        let mut limits = Vec::new();
        for _ in 0..secs * 10 {
            let limit = gradient.limit(&RULES);
            // Some samples are a tenth faster or slower than others.
            let noise = 0.9 + 0.2 * fastrand::f64();
            let latency = backend.latency(f64::from(limit)).mul_f64(noise);
            *now += SAMPLE;
            gradient.learn(Sample { latency, in_flight: limit }, &RULES, *now);
            limits.push(f64::from(limit));
        }
        limits.split_off(limits.len() * 2 / 3)
    }

    fn median(mut limits: Vec<f64>) -> f64 {
        limits.sort_by(f64::total_cmp);
        limits[limits.len() / 2]
    }

    /// Between all that is answered at once, and half as much again, and a small queue.
    #[test]
    fn the_limit_finds_the_knee_and_follows_it() {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        for (knee, base) in [(50.0, 0.02), (200.0, 0.02), (30.0, 0.02), (60.0, 0.1), (400.0, 0.001)]
        {
            let limits = press(&mut gradient, &Backend { knee, base }, &mut now, 120);
            let found = median(limits);
            let slack = 3.0 * knee.sqrt();
            assert!((knee * 0.9..=knee * 1.5 + slack).contains(&found), "{found} of {knee}");
        }
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        for _ in 0..1_000 {
            now += SAMPLE;
            let sample = Sample { latency: Duration::from_millis(5), in_flight: 3 };
            gradient.learn(sample, &RULES, now);
        }
        assert_eq!(gradient.limit(&RULES), INITIAL);
    }

    #[test]
    fn the_baseline_is_measured_with_half_the_limit_and_the_limit_comes_back() {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        let sample = |gradient: &Gradient| Sample {
            latency: Duration::from_millis(5),
            in_flight: gradient.limit(&RULES),
        };
        now += MEASURE_EVERY;
        gradient.learn(sample(&gradient), &RULES, now);
        assert_eq!(gradient.limit(&RULES), 10);
        for _ in 0..2 {
            now += SAMPLE;
            gradient.learn(sample(&gradient), &RULES, now);
        }
        assert_eq!(gradient.limit(&RULES), 20);
        assert!((gradient.baseline - 0.005).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            min in 1u32..50,
            more in 0u32..500,
            samples in proptest::collection::vec((0u64..10_000_000, 0u32..2_000), 1..300),
        ) {
            let rules = Rules { min, max: min + more };
            let mut now = Instant::now();
            let mut gradient = Gradient::new(now);
            for (micros, in_flight) in samples {
                now += SAMPLE;
                let sample = Sample { latency: Duration::from_micros(micros), in_flight };
                gradient.learn(sample, &rules, now);
                prop_assert!((rules.min..=rules.max).contains(&gradient.limit(&rules)));
            }
        }

        /// Of two backends that are alike but for a latency, the slower never gets more.
        #[test]
        fn the_limit_is_monotone_in_latency(micros in 1_000u64..100_000, more in 1u64..1_000_000) {
            let mut now = Instant::now();
            let mut fast = Gradient::new(now);
            for _ in 0..20 {
                now += SAMPLE;
                let latency = Duration::from_millis(1);
                fast.learn(Sample { latency, in_flight: 1_000 }, &RULES, now);
            }
            let mut slow = fast.clone();
            now += SAMPLE;
            for (gradient, micros) in [(&mut fast, micros), (&mut slow, micros + more)] {
                let latency = Duration::from_micros(micros);
                gradient.learn(Sample { latency, in_flight: 1_000 }, &RULES, now);
            }
            prop_assert!(slow.limit <= fast.limit);
        }
    }

    #[test]
    fn answers_become_samples() {
        let (adaptive, mut now) = (Adaptive::default(), Instant::now());
        assert_eq!(adaptive.limit(&RULES), INITIAL);
        for _ in 0..2_000 {
            now += Duration::from_millis(10);
            adaptive.answered(Duration::from_millis(5), 100, &RULES, now);
        }
        let grown = adaptive.limit(&RULES);
        assert!(INITIAL < grown, "{grown}");
        for _ in 0..2_000 {
            now += Duration::from_millis(1);
            adaptive.answered(Duration::from_millis(500), 300, &RULES, now);
        }
        let shrunk = adaptive.limit(&RULES);
        assert!(shrunk < grown, "{shrunk} after {grown}");
        assert_eq!(adaptive.limit(&Rules { min: 1, max: 2 }), 2, "other rules hold at once");
    }
}
