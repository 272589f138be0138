//! What the upstreams of a process have in common.

use std::sync::Arc;

use crate::upstream::{balance::sticky::OwnKey, discovery::Around, link::Sources};

/// What the upstreams of a process have in common.
#[derive(Default)]
pub struct Site {
    /// Where this proxy stands.
    pub zone: Option<Arc<str>>,
    /// Where connections are made from.
    pub sources: Arc<Sources>,
    /// What cookies are signed with, where no key is written.
    pub key: Arc<OwnKey>,
    /// What sources of backends need.
    pub around: Around,
}
