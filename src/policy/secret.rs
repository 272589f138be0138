//! A secret of the operator's, which no log and no message shows.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// A secret; a reference such as `${file:/run/secrets/name}` keeps it out of the file.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
