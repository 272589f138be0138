//! The last word of the process in force, "over to you": it is given to a successor, or kept for
//! good because the process is told to stop. Whichever comes first is what holds, so that a
//! process which stops never does anything to sockets that a successor serves on.

use tokio::sync::watch;

/// The word.
#[derive(Debug)]
pub(super) struct LastWord(watch::Sender<Standing>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    Given,
    Kept,
}

impl Default for LastWord {
    fn default() -> Self {
        Self(watch::Sender::new(Standing::Open))
    }
}

impl LastWord {
    /// Whether it may be given, and is from now on.
    pub(super) fn give(&self) -> bool {
        self.turns(Standing::Open, Standing::Given)
    }

    /// The successor that it was given to does not serve after all.
    pub(super) fn was_in_vain(&self) {
        self.turns(Standing::Given, Standing::Open);
    }

    /// Keeps it. While it is given, waits what comes of that: for ever, if all goes well.
    pub(super) async fn keep(&self) {
        let mut standing = self.0.subscribe();
        while !self.turns(Standing::Open, Standing::Kept) {
            let now = standing.wait_for(|now| *now != Standing::Given).await;
            if now.is_ok_and(|now| *now == Standing::Kept) {
                return;
            }
        }
    }

    /// Waits until it is kept.
    pub(super) async fn kept(&self) {
        let mut standing = self.0.subscribe();
        let _ = standing.wait_for(|now| *now == Standing::Kept).await;
    }

    fn turns(&self, from: Standing, to: Standing) -> bool {
        self.0.send_if_modified(|now| {
            let turns = *now == from;
            if turns {
                *now = to;
            }
            turns
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, poll};

    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_not_given() {
        let word = LastWord::default();
        assert!(word.kept().now_or_never().is_none());
        word.keep().await;
        word.keep().await;
        word.kept().await;
        assert!(!word.give());
    }

    #[tokio::test]
    async fn what_is_given_is_kept_only_when_it_was_in_vain() {
        let word = LastWord::default();
        assert!(word.give() && !word.give(), "once");
        let mut keeping = Box::pin(word.keep());
        assert!(poll!(&mut keeping).is_pending());
        word.was_in_vain();
        keeping.await;
        assert!(!word.give());
    }
}
