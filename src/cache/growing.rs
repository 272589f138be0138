//! The body of an answer that is still coming: what is there of it is read by those who follow.
//!
//! INVARIANT: it is always the beginning of one answer: whoever adds to it has agreed with every
//! byte that was there before.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::Extensions;
use pingora::{Error, ErrorType, Result};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::cache::{body::Body, entry::Entry, store::Store, writer::Writer};

/// Who follows waits no longer than this for the next piece.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who has waited so long for it has the answer fetched once more.
const STALL: Duration = Duration::from_secs(2);
/// So has one who has waited so long in all, if the rest would take too long at the pace so far.
const HURRY: Duration = Duration::from_secs(1);
const TOO_LONG: Duration = Duration::from_secs(5);
/// It is looked for that so often.
const LOOK: Duration = Duration::from_millis(250);

/// The error of one who follows an answer that broke off.
pub const BROKEN: ErrorType = ErrorType::Custom("the answer that was followed broke off");
/// The error of one who follows an answer that does not go on.
pub const LATE: ErrorType = ErrorType::Custom("the answer that was followed does not go on");

/// Begins to fetch an answer once more, for those who follow.
pub(super) type Refetch = Arc<dyn Fn(Writer) + Send + Sync>;

/// An answer that is coming.
pub(super) struct Growing {
    /// Its head; the body of this entry is empty.
    pub(super) entry: Entry,
    pub(super) hash: u128,
    /// The length that it said it has.
    pub(super) told: Option<u64>,
    pub(super) store: &'static Store,
    began: Instant,
    /// What the request that fetches it has left with it.
    extensions: Extensions,
    state: Mutex<State>,
    /// Says that there is more.
    more: watch::Sender<()>,
}

struct State {
    /// What came, and where each piece ends; nothing once it broke off, or is whole and nobody
    /// follows.
    pieces: Vec<(u64, Bytes)>,
    followers: usize,
    end: Option<End>,
    /// Whether one has begun to keep it.
    is_kept: bool,
    /// Who may still add to it.
    writers: usize,
    refetch: Option<Refetch>,
    refetched: Refetched,
    /// Whether nobody may begin to follow it, since it broke off and does not go on yet.
    is_hidden: bool,
    /// Bytes of the bound for what is coming that are reserved for it.
    reserved: u64,
}

/// Whether it was begun to fetch it once more; for each cause, once is enough.
#[derive(Default)]
struct Refetched {
    /// It hardly went on.
    beside: bool,
    /// It broke off.
    anew: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All is there.
    Whole,
    /// There will be no more, and something is missing.
    Broken,
}

/// What becomes of an answer when one of its writers leaves.
pub(super) enum Left {
    /// It is over, or another writes it.
    Others,
    /// It is to be fetched once more.
    Refetch(Refetch),
    /// Nobody will write it: it is to end here.
    Nobody,
}

/// One who follows.
pub(super) struct Follower {
    growing: Arc<Growing>,
    next: usize,
    waited: Duration,
}

impl Growing {
    /// One that has one writer, and so many bytes reserved.
    pub(super) fn new(
        store: &'static Store,
        hash: u128,
        entry: Entry,
        told: Option<u64>,
        reserved: u64,
        extensions: Extensions,
    ) -> Self {
        let state = State {
            pieces: Vec::new(),
            followers: 0,
            end: None,
            is_kept: false,
            writers: 1,
            refetch: None,
            refetched: Refetched::default(),
            is_hidden: false,
            reserved,
        };
        let (state, more) = (Mutex::new(state), watch::Sender::new(()));
        Self { entry, hash, told, store, began: Instant::now(), extensions, state, more }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so that a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others may begin to follow it.
    pub(super) fn is_followed(&self) -> bool {
        self.is_followed_as(&self.state())
    }

    fn is_followed_as(&self, state: &State) -> bool {
        let is_there = state.end.is_none() && !state.is_hidden;
        is_there && self.told.is_some() && self.entry.subject.wants_all
    }

    /// Lets others follow it again, since it goes on.
    pub(super) fn unhide(&self) {
        self.state().is_hidden = false;
    }

    /// Whether there is somebody who still needs more of it.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.state();
        0 < state.followers && state.end.is_none()
    }

    /// Waits until all who followed have left before it is over.
    pub(super) async fn left(&self) {
        let mut more = self.more.subscribe();
        loop {
            more.mark_unchanged();
            {
                let state = self.state();
                if state.followers == 0 && state.end.is_none() {
                    return;
                }
            }
            if more.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether there is room for so many bytes of it; once it is over it takes no more.
    pub(super) fn has_room(&self, length: u64) -> bool {
        let mut state = self.state();
        if state.end.is_some() {
            return true;
        }
        if self.entry.subject.length_max < length {
            return false;
        }
        let more = length.saturating_sub(state.reserved);
        let is_there = more == 0 || self.store.reserve(more);
        state.reserved += if is_there { more } else { 0 };
        is_there
    }

    /// Adds what is new of a piece that begins at `at`; whether the rest of it agrees with what is
    /// there, as long as it is not over.
    pub(super) fn push(&self, at: u64, piece: &Bytes) -> bool {
        let mut state = self.state();
        if state.end.is_some() {
            return true;
        }
        let length = state.length();
        let known = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX);
        let (known, new) = piece.split_at(known.min(piece.len()));
        if !state.agrees(at, known) {
            return false;
        }
        if !new.is_empty() {
            state.pieces.push((length + new.len() as u64, piece.slice_ref(new)));
            drop(state);
            self.more.send_replace(());
        }
        true
    }

    /// Ends it, unless it is over; what was reserved for it is free again.
    pub(super) fn end(&self, end: End) {
        let mut state = self.state();
        if *state.end.get_or_insert(end) == End::Broken || state.followers == 0 {
            state.pieces = Vec::new();
        }
        let reserved = mem::take(&mut state.reserved);
        let refetch = state.refetch.take();
        drop(state);
        drop(refetch);
        self.store.give_back(reserved);
        self.more.send_replace(());
    }

    /// All that came, for the one who keeps it.
    pub(super) fn body(&self) -> Option<Body> {
        let mut state = self.state();
        if state.end.is_some() || mem::replace(&mut state.is_kept, true) {
            return None;
        }
        let pieces = state.pieces.iter().map(|(_, piece)| piece.clone()).collect();
        drop(state);
        Some(Body::of(pieces))
    }

    /// Lets a writer leave.
    pub(super) fn leave(&self) -> Left {
        let mut state = self.state();
        state.writers -= 1;
        if state.end.is_some() || 0 < state.writers {
            return Left::Others;
        }
        let is_over = state.followers == 0 || mem::replace(&mut state.refetched.anew, true);
        let Some(refetch) = state.refetch.clone().filter(|_| !is_over) else {
            state.end = Some(End::Broken); // nobody begins to follow it from now on
            return Left::Nobody;
        };
        state.writers += 1;
        state.is_hidden = true; // those who come now are better off on their own
        Left::Refetch(refetch)
    }

    /// Has it fetched once more beside its only writer, if that is worth it for one who has waited
    /// so long for the next piece, and so long in all.
    fn hurry(self: &Arc<Self>, now: Duration, in_all: Duration) {
        let mut state = self.state();
        let (length, took) = (state.length(), self.began.elapsed());
        let left = self.told.map_or(0, |told| told.saturating_sub(length));
        let lags =
            || TOO_LONG.as_millis() * u128::from(length) <= took.as_millis() * u128::from(left);
        let is_worth_it = STALL <= now || HURRY <= in_all && lags();
        if !is_worth_it || state.end.is_some() || state.writers != 1 || state.refetched.beside {
            return;
        }
        let Some(refetch) = state.refetch.clone() else { return };
        state.refetched.beside = true;
        state.writers += 1;
        drop(state);
        refetch(Writer::of(self.clone()));
    }
}

impl State {
    fn length(&self) -> u64 {
        self.pieces.last().map_or(0, |(end, _)| *end)
    }

    /// Whether these bytes are there at a place.
    fn agrees(&self, at: u64, mut bytes: &[u8]) -> bool {
        let first = self.pieces.partition_point(|(end, _)| *end <= at);
        let mut at = at;
        for (end, piece) in &self.pieces[first..] {
            if bytes.is_empty() {
                break;
            }
            let left = usize::try_from(*end - at).unwrap_or(usize::MAX);
            let there = &piece[piece.len() - left..];
            let (now, rest) = bytes.split_at(bytes.len().min(there.len()));
            if now != &there[..now.len()] {
                return false;
            }
            (at, bytes) = (*end, rest);
        }
        true
    }
}

impl Follower {
    /// One who begins with its first byte, if that may be.
    pub(super) fn of(growing: &Arc<Growing>) -> Option<Self> {
        let mut state = growing.state();
        if !growing.is_followed_as(&state) {
            return None;
        }
        state.followers += 1;
        Some(Self { growing: growing.clone(), next: 0, waited: Duration::ZERO })
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.growing.entry
    }

    pub(super) fn extensions(&self) -> &Extensions {
        &self.growing.extensions
    }

    pub(super) fn wants_refetch(&self) -> bool {
        let state = self.growing.state();
        state.end.is_none() && state.refetch.is_none()
    }

    pub(super) fn set_refetch(&self, refetch: Refetch) {
        let mut state = self.growing.state();
        if state.end.is_none() {
            state.refetch.get_or_insert(refetch);
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.growing.state().end == Some(End::Broken)
    }

    /// Waits for the next piece; `None` after the last.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>> {
        let growing = &self.growing;
        let (mut more, began) = (growing.more.subscribe(), Instant::now());
        loop {
            more.mark_unchanged();
            {
                let state = growing.state();
                match (state.pieces.get(self.next), state.end) {
                    (Some((_, piece)), _) => {
                        self.next += 1;
                        self.waited += began.elapsed();
                        return Ok(Some(piece.clone()));
                    }
                    (None, Some(End::Whole)) => return Ok(None),
                    (None, Some(End::Broken)) => return Err(Error::new_up(BROKEN)),
                    (None, None) => {}
                }
            }
            let now = began.elapsed();
            if PATIENCE <= now {
                return Err(Error::new_up(LATE));
            }
            growing.hurry(now, self.waited + now);
            let _ = time::timeout(LOOK, more.changed()).await; // its end is told by its state
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.growing.state();
        state.followers -= 1;
        if state.followers == 0 {
            if state.end.is_some() {
                state.pieces = Vec::new();
            }
            drop(state);
            self.growing.more.send_replace(()); // whoever fetches for them may stop
        }
    }
}
