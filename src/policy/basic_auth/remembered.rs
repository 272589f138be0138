//! Passwords that were good a moment ago, by a digest of them.

use std::{array, sync::Arc};

use arc_swap::ArcSwapOption;
use aws_lc_rs::{
    hmac::{self, HMAC_SHA256, Key},
    rand::SystemRandom,
};
use tokio::time::Instant;

use crate::policy::basic_auth::users::{Credentials, Users};

/// So many are remembered; a newer one takes the place of an older.
const PLACES: usize = 1024;

/// The table. Looking into it takes no lock.
#[derive(Debug)]
pub(super) struct Remembered {
    /// `None` if there was no chance to make one by: then nothing is remembered.
    key: Option<Key>,
    places: Box<[ArcSwapOption<Good>]>,
}

/// What stands for a name, its password and its hash; of who has not the key, for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark([u8; 32]);

#[derive(Debug)]
struct Good {
    mark: Mark,
    until: Instant,
}

impl Remembered {
    pub(super) fn new() -> Self {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new()).ok();
        Self { key, places: (0..PLACES).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// What stands for a name and a password; another one if the hash in the file is another.
    pub(super) fn mark(&self, shown: &Credentials, users: &Users) -> Option<Mark> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in [shown.user.as_str(), shown.password.as_str(), users.hash_of(&shown.user)] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        let bytes = tag.as_ref();
        Some(Mark(array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())))
    }

    pub(super) fn knows(&self, mark: Option<&Mark>, now: Instant) -> bool {
        mark.is_some_and(|mark| {
            let place = self.place(mark).load();
            place.as_ref().is_some_and(|good| good.mark == *mark && now < good.until)
        })
    }

    pub(super) fn remember(&self, mark: Option<Mark>, until: Instant) {
        if let Some(mark) = mark {
            self.place(&mark).store(Some(Arc::new(Good { mark, until })));
        }
    }

    fn place(&self, mark: &Mark) -> &ArcSwapOption<Good> {
        let at = usize::from(u16::from_le_bytes([mark.0[0], mark.0[1]]));
        &self.places[at % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_good_is_known_until_its_time_or_its_hash_ends() {
        let users = |cost| Users::read(&format!("a:{}\n", bcrypt::hash("a", cost).unwrap()));
        let (before, after) = (users(4).unwrap(), users(5).unwrap());
        let shown = Credentials { user: "a".to_owned(), password: "a".to_owned() };
        let (remembered, now) = (Remembered::new(), Instant::now());
        let mark = remembered.mark(&shown, &before);
        assert!(!remembered.knows(mark.as_ref(), now));
        remembered.remember(mark, now + Duration::from_secs(1));
        assert!(remembered.knows(mark.as_ref(), now));
        assert!(!remembered.knows(mark.as_ref(), now + Duration::from_secs(1)));
        assert!(
            !remembered.knows(remembered.mark(&shown, &after).as_ref(), now),
            "the file has changed"
        );
        let other = Credentials { password: "b".to_owned(), ..shown };
        assert!(!remembered.knows(remembered.mark(&other, &before).as_ref(), now));
    }
}
