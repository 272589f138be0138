//! Who has signed in: what a session's cookie holds.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::policy::claims::Claims;

/// A session. Its times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    /// What it is known by while it is renewed; a renewed one has another.
    #[serde(rename = "i")]
    pub(super) id: String,
    /// When whoever signed in has to do so again.
    #[serde(rename = "u")]
    pub(super) until: u64,
    /// How the provider is asked whether it still holds.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) renewal: Option<Renewal>,
    /// What is known of the user.
    #[serde(rename = "c")]
    pub(super) claims: Claims,
}

/// A refresh token, and when it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Renewal {
    #[serde(rename = "t")]
    pub(super) token: String,
    /// From then on it is renewed beside requests.
    #[serde(rename = "d")]
    pub(super) due: u64,
    /// From then on requests wait for that.
    #[serde(rename = "e")]
    pub(super) end: u64,
}

/// What is to be done before a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Good,
    /// It should be renewed.
    Due,
    /// It must be renewed.
    Stale,
    /// The user must sign in anew.
    Over,
}

impl Session {
    pub(super) fn standing(&self, now: u64) -> Standing {
        match &self.renewal {
            _ if self.until <= now => Standing::Over,
            Some(renewal) if renewal.end <= now => Standing::Stale,
            Some(renewal) if renewal.due <= now => Standing::Due,
            _ => Standing::Good,
        }
    }
}

impl Renewal {
    /// Of a token that came with others which are good for so many seconds.
    pub(super) fn of(token: String, good_for: u64, now: u64) -> Self {
        // Never at once, whatever the provider says.
        let good_for = good_for.clamp(2, 24 * 60 * 60);
        Self { token, due: now + good_for - good_for / 4, end: now + good_for }
    }
}

/// The time of day.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_before_it_is_stale_and_ends_in_any_case() {
        let renewal = Renewal::of("t".to_owned(), 400, 1_000);
        let session = |renewal: Option<Renewal>| Session {
            id: "i".to_owned(),
            until: 5_000,
            renewal,
            claims: Claims::new(),
        };
        let standing = |now| session(Some(renewal.clone())).standing(now);
        assert_eq!(standing(1_299), Standing::Good);
        assert_eq!(standing(1_300), Standing::Due);
        assert_eq!(standing(1_400), Standing::Stale);
        assert_eq!(standing(5_000), Standing::Over);
        assert_eq!(session(None).standing(4_999), Standing::Good);
        assert_eq!(session(None).standing(5_000), Standing::Over);
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let claims = serde_json::json!({ "sub": "ali" });
        let session = Session {
            id: "i".to_owned(),
            until: 7,
            renewal: Some(Renewal::of("t".to_owned(), 60, 1)),
            claims: claims.as_object().unwrap().clone(),
        };
        let text = serde_json::to_vec(&session).unwrap();
        assert_eq!(serde_json::from_slice::<Session>(&text).unwrap(), session);
    }
}
