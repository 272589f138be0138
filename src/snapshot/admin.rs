//! Who may use the admin listener.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Digest, SHA256, digest},
};

use crate::{config::File, diagnostic::Problems, downstream::config::Address, snapshot::Snapshot};

/// Where the admin listener is, and what its clients must show.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it listens; once it is bound, with the port that the system chose.
    pub address: Address,
    token: Option<Digest>,
}

impl Access {
    pub(super) fn of(
        file: &File,
        predecessor: Option<&Snapshot>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let written = file.admin.as_ref()?;
        let token = written.value.read_token(&file.folder, problems);
        let old = predecessor.filter(|old| old.file.admin.is_some());
        let bound = old.and_then(|old| old.admin.as_ref()).map(|old| old.address.clone());
        let address = bound.unwrap_or(Address::Socket(written.value.address.value.0));
        Some(Self { address, token: token.map(|token| hash(token.as_bytes())) })
    }

    /// Whether a token is asked for.
    pub fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether this is the token, in a time that does not tell how much of it is right.
    pub fn is_token(&self, shown: &[u8]) -> bool {
        let right = self.token.as_ref();
        right.is_some_and(|right| {
            verify_slices_are_equal(right.as_ref(), hash(shown).as_ref()).is_ok()
        })
    }

    /// Whether the same token is asked for.
    pub fn is_same(&self, other: &Self) -> bool {
        let of = |access: &Self| access.token.map(|token| token.as_ref().to_vec());
        of(self) == of(other)
    }
}

fn hash(token: &[u8]) -> Digest {
    digest(&SHA256, token)
}
