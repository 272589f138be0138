//! Active checks: every backend is asked in turn, side by side with all others.
//!
//! One task watches one backend, from the first second on. Its interval has jitter, so that
//! thousands of backends do not ask in step. A failure seen on real traffic (`suspicion`) or a
//! first answer that speaks against the established state is followed by the next check at once.

pub mod check;
pub mod config;
pub mod state;

use std::{sync::Arc, time::Duration};

use log::{info, warn};
use pingora::{Error, ErrorType};
use pingora_load_balancing::{Backend, Extensions, health_check::HealthCheck};
use tokio::{sync::mpsc, time};

use crate::upstream::{
    backend::{BackendState, Probe},
    health::state::{Health, Next, Thresholds},
    outcome,
    target::Target,
};

/// The pause between checks that confirm a change.
const CONFIRM_AFTER: Duration = Duration::from_millis(50);

/// How the backends of an upstream are checked.
pub struct Checks {
    /// The question.
    pub check: Box<dyn HealthCheck + Send + Sync>,
    /// From one check to the next.
    pub every: Duration,
    /// How long a whole check may take.
    pub timeout: Duration,
    /// How many answers change the state.
    pub thresholds: Thresholds,
}

/// Watches one backend until it is dropped. Drops `first_round` when the backend is in service,
/// or with its first bad answer.
///
/// Cancel-safe: a dropped watch leaves the last established state.
pub async fn watch(
    upstream: Arc<str>,
    state: Arc<BackendState>,
    target: Target,
    checks: Arc<Checks>,
    first_round: mpsc::Sender<()>,
) {
    let mut backend = Backend { addr: state.address().clone(), weight: 1, ext: Extensions::new() };
    backend.ext.insert(target);
    let mut health = Health::new(state.probe());
    let mut first_round = Some(first_round);
    let mut streak = 0u32;
    loop {
        let answer = ask(&checks, &backend).await;
        let answer_is_bad = answer.is_err();
        if let Err(why) = &answer {
            state.troubles.check_failed(why);
        }
        streak = if answer_is_bad { streak.saturating_add(1) } else { 0 };
        let (change, next) = health.observe(answer.is_ok(), checks.thresholds);
        if let Some(probe) = change {
            state.set_probe(probe);
            tell(&upstream, &state, probe, answer.err(), streak);
        }
        if answer_is_bad || next == Next::Later {
            drop(first_round.take());
        }
        time::sleep(CONFIRM_AFTER).await;
        if next == Next::Later {
            let rest = jittered(checks.every).saturating_sub(CONFIRM_AFTER);
            let _ = time::timeout(rest, state.suspicion.notified()).await;
        }
    }
}

async fn ask(checks: &Checks, backend: &Backend) -> Result<(), String> {
    match time::timeout(checks.timeout, checks.check.check(backend)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(in_words(&error, checks.timeout)),
        Err(_) => Err(format!("no answer within {:?}", checks.timeout)),
    }
}

fn tell(upstream: &str, state: &BackendState, probe: Probe, why: Option<String>, failures: u32) {
    let name = state.name();
    match why {
        None => info!("health: {upstream} {name} up"),
        Some(why) => {
            let s = if failures == 1 { "" } else { "s" };
            warn!("health: {upstream} {name} down: {why} (after {failures} failure{s})");
        }
    }
    debug_assert_ne!(probe, Probe::Pending, "an answer establishes something");
}

/// Between 90 % and 110 % of the interval.
fn jittered(every: Duration) -> Duration {
    every.mul_f64(0.9 + fastrand::f64() * 0.2)
}

fn in_words(error: &Error, timeout: Duration) -> String {
    if let Some(fault) = outcome::tls_fault(error) {
        return fault.in_words().to_owned();
    }
    match &error.etype {
        ErrorType::ConnectRefused => "connection refused".to_owned(),
        ErrorType::ConnectTimedout => format!("no connection within {timeout:?}"),
        ErrorType::ConnectNoRoute => "no route to it".to_owned(),
        ErrorType::ReadTimedout => format!("no answer within {timeout:?}"),
        ErrorType::ConnectionClosed | ErrorType::ReadError => "connection closed".to_owned(),
        ErrorType::CustomCode(check::UNEXPECTED_STATUS, status) => format!("status {status}"),
        ErrorType::InvalidHTTPHeader => "the answer is not HTTP".to_owned(),
        other => other.as_str().to_owned(),
    }
}
