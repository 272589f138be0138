//! Who a request is, and where it comes from, as the policies of access have found out.
//!
//! INVARIANT: only what was proved gets in here. A policy tells it when it lets the request go on,
//! and what one has told, none after it changes.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;

use crate::policy::{
    claims::{self, Claims},
    whereabouts::Whereabouts,
};

/// Who a request is. Nothing is allocated until a policy tells something.
#[derive(Debug, Default)]
pub struct Identity {
    user: OnceLock<HeaderValue>,
    key: OnceLock<HeaderValue>,
    claims: OnceLock<Arc<Claims>>,
    place: OnceLock<Whereabouts>,
}

impl Identity {
    /// The user's name; nothing where no policy has told one.
    pub fn user(&self) -> Option<&[u8]> {
        self.user.get().map(HeaderValue::as_bytes)
    }

    /// The name of the key that the request showed.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.key.get().map(HeaderValue::as_bytes)
    }

    /// A claim of the token that the request showed, or of its session.
    pub(super) fn claim(&self, name: &str) -> Option<HeaderValue> {
        self.claims.get()?.get(name).and_then(claims::value)
    }

    /// Where it comes from; nowhere, where no policy has told that.
    pub(super) fn place(&self) -> Whereabouts {
        self.place.get().copied().unwrap_or_default()
    }

    /// Tells where it comes from.
    pub(super) fn tell_place(&self, place: Whereabouts) {
        let _ = self.place.set(place);
    }

    /// Tells the user's name; one that could not stand in a field is none.
    pub(super) fn tell_user(&self, name: Option<HeaderValue>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let _ = self.user.set(name);
        }
    }

    /// Tells whose key the request showed.
    pub(super) fn tell_key(&self, name: HeaderValue) {
        let _ = self.key.set(name);
    }

    /// Tells the claims of a token, and the user whom it is about (`sub`).
    pub(super) fn tell_claims(&self, claims: Arc<Claims>) {
        self.tell_user(claims.get("sub").and_then(claims::value));
        let _ = self.claims.set(claims);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_told_first_stays() {
        let who = Identity::default();
        assert_eq!((who.user(), who.key(), who.claim("sub")), (None, None, None));
        who.tell_user(Some(HeaderValue::from_static("")));
        who.tell_user(Some(HeaderValue::from_static("ali")));
        let claims = json!({ "sub": "hasan", "tenant": 7, "odd": "a\nb" });
        who.tell_claims(Arc::new(claims.as_object().unwrap().clone()));
        assert_eq!(who.user(), Some(&b"ali"[..]));
        assert_eq!(who.claim("sub").unwrap(), "hasan");
        assert_eq!(who.claim("tenant").unwrap(), "7");
        assert_eq!(who.claim("odd"), None, "it would end the field");
    }
}
