//! One certificate that is obtained and renewed: what is shown now, and what is due.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{
    acme::{
        config::{CertificateConfig, Challenge},
        pair::Pair,
        schedule::{self, Life},
        storage::Storage,
    },
    diagnostic::{Problem, Problems, Span},
};

/// So many names are listed before it is said how many more there are.
const LISTED_MAX: usize = 3;

/// A certificate by its names.
#[derive(Debug)]
pub struct Managed {
    /// Its names, in the order of the file.
    pub names: Box<[String]>,
    /// How the CA looks whether they are ours.
    pub challenge: Challenge,
    state: Mutex<State>,
    /// From 0 to 1, so that many certificates do not become due at a time.
    jitter: f64,
}

#[derive(Debug)]
struct State {
    pair: Arc<Pair>,
    is_self_signed: bool,
    obtained: Option<SystemTime>,
    /// When the CA would like it to be renewed.
    suggested: Option<Suggested>,
    /// When the CA is asked about that next.
    question: SystemTime,
    failures: u32,
    /// No order before this.
    not_before: Option<SystemTime>,
    /// Whether it was the CA that said so.
    is_named: bool,
    error: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Suggested {
    window: (SystemTime, SystemTime),
    at: SystemTime,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// An order.
    Renewal,
    /// The CA may have a suggestion when that is to be.
    Question,
}

/// How a certificate stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it stands in for one that was not obtained yet.
    pub is_self_signed: bool,
    /// When clients begin to refuse it.
    pub expires: SystemTime,
    /// When it is ordered next.
    pub next: SystemTime,
    /// Why the last order failed, if it did.
    pub error: Option<String>,
}

impl Managed {
    /// Reads what is in the storage; what cannot be used is told, and one that vouches for itself
    /// stands in.
    pub(super) fn read(
        written: &CertificateConfig,
        storage: &Storage,
        problems: &mut Problems,
        span: Span,
    ) -> Result<Arc<Self>, rcgen::Error> {
        let mut names: Vec<String> = Vec::new();
        for name in &written.names.value {
            if !names.contains(&name.value.0) {
                names.push(name.value.0.clone()); // what stands twice is told elsewhere
            }
        }
        let kept = storage.read(&names).unwrap_or_else(|why| {
            let message = format!("a certificate in the storage cannot be used: {why}");
            let help = "another one is ordered, and a self-signed one is shown meanwhile";
            problems.push(Problem::warning(message).at(span).help(help));
            None
        });
        let is_self_signed = kept.is_none();
        let pair = kept.map_or_else(|| Pair::standing_in(&names), Ok)?;
        let state = Mutex::new(State {
            pair: Arc::new(pair),
            is_self_signed,
            obtained: None,
            suggested: None,
            question: SystemTime::UNIX_EPOCH,
            failures: 0,
            not_before: None,
            is_named: false,
            error: None,
        });
        Ok(Arc::new(Self {
            names: names.into(),
            challenge: written.challenge,
            state,
            jitter: fastrand::f64(),
        }))
    }

    /// Whether this is what was asked for so.
    pub(super) fn is(&self, written: &CertificateConfig) -> bool {
        let mut names: Vec<_> = self.names.iter().map(String::as_str).collect();
        names.sort_unstable();
        self.challenge == written.challenge && names == written.sorted()
    }

    /// What is shown now.
    pub fn pair(&self) -> Arc<Pair> {
        self.state().pair.clone()
    }

    /// How it stands.
    pub fn standing(&self, now: SystemTime) -> Standing {
        let state = self.state();
        Standing {
            is_self_signed: state.is_self_signed,
            expires: state.pair.expires,
            next: self.next(&state, now),
            error: state.error.clone(),
        }
    }

    /// What is to be done now, if anything is.
    pub(super) fn due(&self, now: SystemTime) -> Option<Due> {
        let state = self.state();
        if self.next(&state, now) <= now {
            return Some(Due::Renewal);
        }
        (!state.is_self_signed && state.question <= now).then_some(Due::Question)
    }

    /// When it is ordered next: a time that is past means now.
    fn next(&self, state: &State, now: SystemTime) -> SystemTime {
        let Pair { begins, expires, .. } = *state.pair;
        let life = Life { begins, expires, obtained: state.obtained };
        let suggested = state.suggested.map(|suggested| suggested.at);
        let due = if state.is_self_signed {
            now
        } else {
            schedule::renewal(life, suggested, self.jitter)
        };
        state.not_before.map_or(due, |not_before| due.max(not_before))
    }

    /// Notes a certificate that was just obtained.
    pub(super) fn obtained(&self, pair: Pair, now: SystemTime) {
        let mut state = self.state();
        state.pair = Arc::new(pair);
        state.is_self_signed = false;
        state.obtained = Some(now);
        state.suggested = None;
        state.question = now;
        state.failures = 0;
        state.not_before = None;
        state.is_named = false;
        state.error = None;
    }

    /// Looks whether another process has put a better one into the storage, and takes it.
    pub(super) fn read_again(&self, storage: &Storage, now: SystemTime) -> bool {
        let Ok(Some(pair)) = storage.read(&self.names) else { return false };
        let is_new = self.state().pair.chain != pair.chain;
        let life = Life { begins: pair.begins, expires: pair.expires, obtained: None };
        if !is_new || schedule::renewal(life, None, self.jitter) <= now {
            return false;
        }
        self.obtained(pair, now);
        true
    }

    /// Notes that an order failed; how long it is until the next.
    pub(super) fn failed(&self, why: &str, named: Option<SystemTime>, now: SystemTime) -> Duration {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.error = Some(why.to_owned());
        let named = named.and_then(|named| named.duration_since(now).ok());
        let pause = schedule::pause(state.failures, named, fastrand::f64());
        state.not_before = Some(now + pause);
        state.is_named = named.is_some();
        pause
    }

    /// Puts an order off that another process may make needless.
    pub(super) fn wait_until(&self, not_before: SystemTime) {
        self.state().not_before = Some(not_before);
    }

    /// An order that failed may be tried at once, unless the CA said when.
    pub(super) fn try_again(&self) {
        let mut state = self.state();
        if !state.is_named {
            state.not_before = None;
            state.failures = 0;
        }
    }

    /// Notes a suggestion; returns whether it is a new one.
    pub(super) fn suggested(
        &self,
        window: (SystemTime, SystemTime),
        again: Duration,
        now: SystemTime,
    ) -> bool {
        let mut state = self.state();
        state.question = now + schedule::question(again);
        if state.suggested.is_some_and(|known| known.window == window) {
            return false;
        }
        let at = schedule::within(window, fastrand::f64());
        state.suggested = Some(Suggested { window, at });
        true
    }

    /// Whether the CA makes suggestions.
    pub(super) fn has_suggestion(&self) -> bool {
        self.state().suggested.is_some()
    }

    /// Notes that there was no suggestion; an earlier one holds.
    pub(super) fn not_suggested(&self, now: SystemTime) {
        self.state().question = now + schedule::ASKED_IN_VAIN;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// Whether clients can be served with it; else why not.
    pub fn unready(&self, now: SystemTime) -> Option<&'static str> {
        match () {
            () if self.is_self_signed => Some("self-signed meanwhile"),
            () if self.expires <= now => Some("expired"),
            () => None,
        }
    }
}

/// `a.test, b.test and 3 more`.
impl fmt::Display for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = self.names.len().min(LISTED_MAX);
        f.write_str(&self.names[..listed].join(", "))?;
        match self.names.len() - listed {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::acme::config::Directory;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn managed(storage: &Storage) -> Arc<Managed> {
        let written: CertificateConfig = "a.test".parse().unwrap();
        let mut problems = Problems::default();
        Managed::read(&written, storage, &mut problems, Span::default()).unwrap()
    }

    fn issued(storage: &Storage, begins: SystemTime, expires: SystemTime) -> Pair {
        let names = ["a.test".to_owned()];
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        (params.not_before, params.not_after) = (begins.into(), expires.into());
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        storage.write(&names, &pem).unwrap();
        storage.read(&names).unwrap().unwrap()
    }

    #[test]
    fn a_missing_certificate_is_due_and_stands_in_for_itself() {
        let root = tempfile::tempdir().unwrap();
        let storage = Storage::at(root.path(), &Directory::default());
        let now = SystemTime::now();
        let managed = managed(&storage);
        assert_eq!(managed.due(now), Some(Due::Renewal));
        assert_eq!(managed.standing(now).unready(now), Some("self-signed meanwhile"));

        let pause = managed.failed("no", None, now);
        assert_eq!(managed.due(now), None, "not even a question: there is nothing to renew");
        assert_eq!(managed.due(now + pause), Some(Due::Renewal));
        assert_eq!(managed.standing(now).error.as_deref(), Some("no"));
        assert!(pause < managed.failed("no", None, now), "each pause is longer");
        managed.try_again();
        assert_eq!(managed.due(now), Some(Due::Renewal));
        managed.failed("slow down", Some(now + DAY), now);
        managed.try_again();
        assert_eq!(managed.due(now), None, "the CA said when");
        assert_eq!(managed.due(now + DAY), Some(Due::Renewal));
    }

    #[test]
    fn a_certificate_that_was_kept_needs_no_order_until_it_is_due() {
        let root = tempfile::tempdir().unwrap();
        let storage = Storage::at(root.path(), &Directory::default());
        let now = SystemTime::now();
        issued(&storage, now - DAY, now + DAY * 89);
        let managed = managed(&storage);
        assert_eq!(managed.standing(now).unready(now), None);
        assert_eq!(managed.due(now), Some(Due::Question));
        managed.not_suggested(now);
        assert_eq!(managed.due(now), None);
        assert_eq!(managed.due(now + DAY * 59), Some(Due::Renewal));

        assert!(managed.suggested((now - DAY, now - DAY), DAY, now));
        assert!(!managed.suggested((now - DAY, now - DAY), DAY, now), "it is known");
        assert_eq!(managed.due(now), Some(Due::Renewal), "the CA wants it now");
        managed.obtained(issued(&storage, now, now + DAY * 90), now);
        assert_eq!(managed.due(now), Some(Due::Question), "for the new one");
        assert!(managed.suggested((now - DAY, now - DAY), DAY, now));
        assert_eq!(managed.due(now), None, "not for the same reason at once");
    }

    #[test]
    fn what_another_process_obtained_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let storage = Storage::at(root.path(), &Directory::default());
        let now = SystemTime::now();
        let managed = managed(&storage);
        assert!(!managed.read_again(&storage, now));
        issued(&storage, now - DAY * 80, now + DAY * 10);
        assert!(!managed.read_again(&storage, now), "it is due itself");
        issued(&storage, now, now + DAY * 90);
        assert!(managed.read_again(&storage, now));
        assert!(!managed.read_again(&storage, now));
    }
}
