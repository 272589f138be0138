//! Who may use the admin listener.

use std::sync::Arc;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Digest, SHA256, digest},
};

use crate::{
    config::File,
    diagnostic::Problems,
    downstream::config::Address,
    snapshot::Snapshot,
    tls::{
        keyring::{Current, Keyring, Making},
        tickets::Tickets,
    },
    yaml::Spanned,
};

/// The API is no matter of many requests at once.
const OFFERS: [&[u8]; 1] = [b"http/1.1"];

/// Where the admin listener is, and what its clients must show.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it listens; once it is bound, with the port that the system chose.
    pub address: Address,
    /// What clients are shown; `None` in plaintext.
    pub tls: Option<Arc<Current>>,
    token: Option<Digest>,
}

impl Access {
    pub(super) fn of(
        file: &File,
        tickets: &Arc<Tickets>,
        predecessor: Option<&Snapshot>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let written = file.admin.as_ref()?;
        let token = written.read_token(&file.folder, problems);
        let old = predecessor.filter(|old| old.file.admin.is_some());
        let old = old.and_then(|old| old.admin.as_ref());
        let address = old.map(|old| old.address.clone());
        let keyring = old.and_then(|old| old.tls.as_ref());
        let tls = written.tls.as_ref().and_then(|tls| {
            let making = Making { folder: &file.folder, acme: None, tickets, offers: &OFFERS };
            let config = Spanned { value: tls.listener(), span: tls.span };
            Keyring::read(&config, &making, keyring, problems)
        });
        Some(Self {
            address: address.unwrap_or(Address::Socket(written.address.value.0)),
            tls,
            token: token.map(|token| hash(token.as_bytes())),
        })
    }

    /// Whether a token is asked for.
    pub fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether certificates of clients are taken.
    pub fn takes_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.now().clients().is_some())
    }

    /// Whether this is the token, in a time that does not tell how much of it is right.
    pub fn is_token(&self, shown: &[u8]) -> bool {
        let right = self.token.as_ref();
        right.is_some_and(|right| {
            verify_slices_are_equal(right.as_ref(), hash(shown).as_ref()).is_ok()
        })
    }

    /// Whether the same token is asked for.
    pub fn has_token_of(&self, other: &Self) -> bool {
        let of = |access: &Self| access.token.map(|token| token.as_ref().to_vec());
        of(self) == of(other)
    }

    /// Whether the same certificates are shown and taken.
    pub fn has_certificates_of(&self, other: &Self) -> bool {
        match (&self.tls, &other.tls) {
            (Some(ours), Some(theirs)) => ours.now().is_same(&theirs.now()),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        }
    }
}

fn hash(token: &[u8]) -> Digest {
    digest(&SHA256, token)
}
