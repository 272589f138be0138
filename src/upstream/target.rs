//! What is known of a backend beside its address.

use std::sync::Arc;

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its share of the requests.
    pub weight: u16,
    /// The name that it was found by; `None` if it is given by address.
    pub name: Option<Arc<str>>,
    /// Whether it serves only when no other is fit.
    pub backup: bool,
    /// Where it stands.
    pub zone: Option<Arc<str>>,
}

impl Target {
    /// One without a name.
    pub fn of(weight: u16) -> Self {
        Self { weight, name: None, backup: false, zone: None }
    }
}
