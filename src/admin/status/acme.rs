//! How a certificate stands that is obtained by ACME.

use std::{fmt, time::SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::acme::{Managed, instant};

/// A certificate that is obtained by ACME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcmeStatus {
    /// How the CA looks whether the names are ours: `http-01` or `tls-alpn-01`.
    pub challenge: String,
    /// Whether it vouches for itself until the first one is obtained.
    pub self_signed: bool,
    /// When it is ordered next, at a time that is past already, or after a failure: in UTC, as
    /// `2027-01-31T08:15:00Z`.
    pub next_order: String,
    /// Why the last order failed, if it did.
    pub last_error: Option<String>,
}

impl AcmeStatus {
    pub(super) fn of(managed: &Managed, now: SystemTime) -> Self {
        let standing = managed.standing(now);
        Self {
            challenge: managed.challenge.as_str().to_owned(),
            self_signed: standing.is_self_signed,
            next_order: instant(standing.next),
            last_error: standing.error,
        }
    }
}

/// What follows on a certificate's line, and a line of its own for what went wrong.
impl fmt::Display for AcmeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { challenge, self_signed, next_order, last_error } = self;
        let verb = if *self_signed { "ordered" } else { "renewed" };
        writeln!(f, "by ACME ({challenge}), {verb} at {next_order}")?;
        last_error.iter().try_for_each(|why| writeln!(f, "    last order failed: {why}"))
    }
}
