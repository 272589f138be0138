//! A hundred backends and their faults, on a clock that jumps from event to event.

use std::{cell::RefCell, time::Duration};

use crestline::upstream::outcome::Outcome;
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

pub(crate) const BACKENDS: usize = 100;
/// Requests that a backend works on at a time; more wait for their turn.
const WORKERS: usize = 4;
/// What the work on a request takes in the mean, distributed exponentially.
const WORK: Duration = Duration::from_millis(10);
/// To a backend or back.
const NETWORK: Duration = Duration::from_micros(250);
/// How long all are well at first.
const WELL_FOR: Duration = Duration::from_secs(5);

/// What is wrong with a backend.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// It refuses connections.
    Dead,
    /// It takes requests and does not answer.
    Hangs,
    /// It takes so much longer.
    Slow(Duration),
    /// It answers this share with 503.
    Unavailable(f64),
    /// It resets this share of the connections.
    Resets(f64),
    /// It is dead every other second.
    Flaps,
}

/// How many backends have which fault; all others are well.
const FAULTS: [(usize, Fault); 6] = [
    (5, Fault::Dead),
    (5, Fault::Hangs),
    (10, Fault::Slow(Duration::from_millis(100))),
    (5, Fault::Unavailable(0.3)),
    (5, Fault::Resets(0.1)),
    (5, Fault::Flaps),
];

/// Requests each second, as a share of what all bear while they are well.
const LOAD: f64 = 0.5;

/// The time to the next request: they come by chance.
pub(crate) fn pause(chance: &mut fastrand::Rng) -> Duration {
    let each_second = (BACKENDS * WORKERS) as f64 / WORK.as_secs_f64() * LOAD;
    exponential(Duration::from_secs_f64(1.0 / each_second), chance)
}

fn exponential(mean: Duration, chance: &mut fastrand::Rng) -> Duration {
    mean.mul_f64(-(1.0 - chance.f64()).ln())
}

pub(crate) struct World {
    began: Instant,
    backends: Vec<(Fault, Semaphore)>,
    chance: RefCell<fastrand::Rng>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let faults = FAULTS.iter().flat_map(|(count, fault)| std::iter::repeat_n(*fault, *count));
        let faults = faults.chain(std::iter::repeat(Fault::None)).take(BACKENDS);
        let backends = faults.map(|fault| (fault, Semaphore::new(WORKERS))).collect();
        let chance = RefCell::new(fastrand::Rng::with_seed(seed));
        Self { began: Instant::now(), backends, chance }
    }

    fn fault(&self, backend: usize) -> Fault {
        let (fault, since) = (self.backends[backend].0, self.began.elapsed());
        match fault {
            _ if since < WELL_FOR => Fault::None,
            Fault::Flaps if since.as_secs() % 2 == 1 => Fault::Dead,
            fault => fault,
        }
    }

    fn happens(&self, share: f64) -> bool {
        self.chance.borrow_mut().f64() < share
    }

    /// Asks a backend; without an end if it never answers.
    pub(crate) async fn ask(&self, backend: usize) -> Outcome {
        let fault = self.fault(backend);
        time::sleep(NETWORK * 2).await;
        match fault {
            Fault::Dead => return Outcome::Refused,
            Fault::Resets(share) if self.happens(share) => return Outcome::Reset,
            Fault::Unavailable(share) if self.happens(share) => return Outcome::Status(503),
            Fault::Hangs => std::future::pending().await,
            _ => {}
        }
        let Ok(worker) = self.backends[backend].1.acquire().await else {
            return Outcome::Internal; // it is never closed
        };
        let work = exponential(WORK, &mut self.chance.borrow_mut());
        let more = if let Fault::Slow(more) = fault { more } else { Duration::ZERO };
        time::sleep(work).await;
        drop(worker);
        time::sleep(more).await;
        Outcome::Status(200)
    }
}
