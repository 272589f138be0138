//! The body of an answer that is still coming: what is there of it is read by those who follow.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use tokio::{sync::watch, time};

use crate::cache::{body::Body, entry::Entry};

/// Who follows waits no longer than this for the next piece.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer that is coming.
#[derive(Debug)]
pub(super) struct Growing {
    /// Its head; the body of this entry is empty.
    pub(super) entry: Entry,
    /// Whether others may follow it.
    pub(super) is_followed: bool,
    state: Mutex<State>,
    /// Says that there is more.
    more: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    pieces: Vec<Bytes>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All is there.
    Whole,
    /// There will be no more, and something is missing.
    Broken,
}

impl Growing {
    pub(super) fn new(entry: Entry, is_followed: bool) -> Self {
        Self { entry, is_followed, state: Mutex::default(), more: watch::Sender::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so that a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, piece: Bytes) {
        self.state().pieces.push(piece);
        self.more.send_replace(());
    }

    pub(super) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.more.send_replace(());
    }

    /// All that came.
    pub(super) fn body(&self) -> Body {
        Body::of(self.state().pieces.clone())
    }

    /// Gives up what came.
    pub(super) fn clear(&self) {
        self.state().pieces = Vec::new();
    }

    /// Waits for a piece; `None` after the last.
    pub(super) async fn piece(&self, nth: usize) -> Result<Option<Bytes>> {
        let mut more = self.more.subscribe();
        loop {
            more.mark_unchanged();
            {
                let state = self.state();
                match (state.pieces.get(nth), state.end) {
                    (Some(piece), _) => return Ok(Some(piece.clone())),
                    (None, Some(End::Whole)) => return Ok(None),
                    (None, Some(End::Broken)) => {
                        let why = "the answer that was followed broke off";
                        return Error::e_explain(ErrorType::ReadError, why);
                    }
                    (None, None) => {}
                }
            }
            if time::timeout(PATIENCE, more.changed()).await.is_err() {
                return Error::e_explain(ErrorType::ReadTimedout, "the answer that was followed");
            }
        }
    }
}
