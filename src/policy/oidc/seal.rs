//! What cookies hold, sealed (AES-256-GCM): nobody reads or makes one who has none of the keys.
//!
//! INVARIANT: what was sealed for one purpose, one realm, one provider and one client is opened for
//! the same alone, so that no cookie stands for another.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};

/// What a cookie is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Session,
    SignIn,
}

/// The keys: the first seals, and all of them open.
pub(super) struct Seal {
    keys: Box<[RandomizedNonceKey]>,
    /// Whose cookies they are.
    owner: Vec<u8>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({} keys)", self.keys.len())
    }
}

impl Seal {
    /// Makes keys of the operator's secrets.
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a str>, owner: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in owner {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Self { keys: secrets.map(key).collect(), owner: bytes }
    }

    /// A text that can stand in a cookie; `None` if there is no chance to make one by.
    pub(super) fn seal(&self, purpose: Purpose, plain: &[u8]) -> Option<String> {
        let key = self.keys.first()?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&[0; NONCE_LEN]);
        sealed.extend_from_slice(plain);
        let body = &mut sealed[NONCE_LEN..];
        let (nonce, tag) =
            key.seal_in_place_separate_tag(Aad::from(self.context(purpose)), body).ok()?;
        sealed[..NONCE_LEN].copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Some(BASE64.encode(sealed))
    }

    /// What was sealed for this purpose.
    pub(super) fn open(&self, purpose: Purpose, text: &[u8]) -> Option<Vec<u8>> {
        let sealed = BASE64.decode(text).ok()?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let context = self.context(purpose);
        self.keys.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut plain = sealed.to_vec();
            let length = key.open_in_place(nonce, Aad::from(&context), &mut plain).ok()?.len();
            plain.truncate(length);
            Some(plain)
        })
    }

    fn context(&self, purpose: Purpose) -> Vec<u8> {
        let purpose: &[u8] = match purpose {
            Purpose::Session => b"session",
            Purpose::SignIn => b"sign-in",
        };
        [purpose, &self.owner].concat()
    }
}

fn key(secret: &str) -> RandomizedNonceKey {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let key = hmac::sign(&secret, b"crestline oidc cookies 1");
    RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).expect("32 bytes, as long as a key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(secrets: &[&str], owner: &[&str]) -> Seal {
        Seal::new(secrets.iter().copied(), owner)
    }

    #[test]
    fn what_is_sealed_is_opened_for_the_same_alone() {
        let seal = of(&["one"], &["realm", "client"]);
        let text = seal.seal(Purpose::Session, b"who").unwrap();
        assert_eq!(seal.open(Purpose::Session, text.as_bytes()).unwrap(), b"who");
        assert_ne!(text, seal.seal(Purpose::Session, b"who").unwrap(), "never twice the same");
        assert_eq!(seal.open(Purpose::SignIn, text.as_bytes()), None, "another purpose");
        for other in [
            of(&["two"], &["realm", "client"]),
            of(&["one"], &["real", "mclient"]),
            of(&["one"], &["realm", "other"]),
        ] {
            assert_eq!(other.open(Purpose::Session, text.as_bytes()), None);
        }
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open(Purpose::Session, &forged), None, "changed at {at}");
        }
        for text in ["", "AAAA", "%", &text[..text.len() - 4]] {
            assert_eq!(seal.open(Purpose::Session, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_older_key_opens_and_does_not_seal() {
        let (old, both) = (of(&["old"], &["r"]), of(&["new", "old"], &["r"]));
        let text = old.seal(Purpose::Session, b"who").unwrap();
        assert_eq!(both.open(Purpose::Session, text.as_bytes()).unwrap(), b"who");
        let text = both.seal(Purpose::Session, b"who").unwrap();
        assert_eq!(old.open(Purpose::Session, text.as_bytes()), None);
    }
}
