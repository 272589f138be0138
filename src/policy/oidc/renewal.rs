//! Sessions that are renewed, beside the requests that showed them.
//!
//! INVARIANT: of one session, one renewal is under way, whoever shows it at the same time, since
//! many providers take a refresh token once; what came of it is kept for a while, for those who
//! show the old session still.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task, time, time::Instant};

use crate::{
    panics,
    policy::oidc::{
        party::{Failure, Party, WITHIN},
        session::Session,
    },
};

/// So many are known at a time.
const KNOWN_MAX: usize = 16_384;
/// How long it is known what came of one: longer than it takes a browser to have the new session.
const KNOWN_FOR: Duration = Duration::from_secs(120);
/// How long a provider that was away is left alone.
const PAUSE: Duration = Duration::from_secs(5);

static ALL: LazyLock<Renewals> = LazyLock::new(|| Renewals {
    known: Mutex::new(Known { entries: HashMap::new(), looked: Instant::now() }),
});

struct Renewals {
    known: Mutex<Known>,
}

struct Known {
    /// By the id of the old session.
    entries: HashMap<String, Entry>,
    /// When it was last looked for those that are too old.
    looked: Instant,
}

struct Entry {
    since: Instant,
    /// With when it came to that.
    state: watch::Receiver<(State, Instant)>,
}

/// What came of a renewal.
#[derive(Clone, Debug)]
pub(super) enum State {
    UnderWay,
    Renewed(Arc<Session>),
    /// The provider says that the session is over.
    Denied,
    Away,
}

/// What has come so far of the renewal of a session; begins it if nobody did.
pub(super) fn now(party: &Arc<Party>, session: &Session) -> State {
    ALL.of(party, session).map_or(State::Away, |state| state.borrow().0.clone())
}

/// What came of it in the end.
pub(super) async fn end(party: &Arc<Party>, session: &Session) -> State {
    let Some(mut state) = ALL.of(party, session) else { return State::Away };
    let ended = state.wait_for(|(state, _)| !matches!(state, State::UnderWay)).await;
    ended.map_or(State::Away, |state| state.0.clone())
}

impl Known {
    fn forget_old(&mut self, now: Instant) {
        if KNOWN_FOR <= now.duration_since(self.looked) {
            self.entries.retain(|_, entry| now.duration_since(entry.since) < KNOWN_FOR);
            self.looked = now;
        }
    }
}

impl Renewals {
    fn of(
        &self,
        party: &Arc<Party>,
        session: &Session,
    ) -> Option<watch::Receiver<(State, Instant)>> {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget_old(now);
        if let Some(entry) = known.entries.get(&session.id) {
            let is_known = match &*entry.state.borrow() {
                (State::Away, turned) => now.duration_since(*turned) < PAUSE,
                _ => now.duration_since(entry.since) < KNOWN_FOR,
            };
            if is_known {
                return Some(entry.state.clone());
            }
        }
        let place = party.provider.renewing.clone().try_acquire_owned().ok()?;
        if KNOWN_MAX <= known.entries.len() && !known.entries.contains_key(&session.id) {
            return None;
        }
        let (tell, state) = watch::channel((State::UnderWay, now));
        known.entries.insert(session.id.clone(), Entry { since: now, state: state.clone() });
        drop(known);
        let (party, session) = (party.clone(), session.clone());
        task::spawn(async move {
            let renewing = Box::pin(party.renew(&session));
            let renewed = panics::catch(time::timeout(2 * WITHIN, renewing)).await;
            let state = match renewed {
                Ok(Ok(Ok(session))) => State::Renewed(Arc::new(session)),
                Ok(Ok(Err(Failure::Denied(why)))) => {
                    log::debug!("a session ended, since its provider says: {why}");
                    State::Denied
                }
                Ok(Ok(Err(Failure::Away(why)))) => {
                    log::debug!("a session could not be renewed: {why}");
                    State::Away
                }
                Ok(Err(_)) => {
                    log::debug!("a session could not be renewed: no answer in time");
                    State::Away
                }
                Err(panic) => {
                    panic.count_task();
                    log::error!("the renewal of a session panicked: {panic}");
                    State::Away
                }
            };
            tell.send_replace((state, Instant::now()));
            drop(place);
        });
        Some(state)
    }
}
