//! What the API is told to do: the bodies of requests.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    observe::process_log::Levels,
    units::{self, Duration, Percent},
};

/// By how much the share of failures may rise on probation, if nothing else is said.
pub const TOLERATE: Percent = Percent::new(5);

/// What `POST /v1/reload` takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend(
    "if" = { "required": ["tolerate"], "properties": { "tolerate": { "type": "string" } } },
    "then" = { "required": ["probation"], "properties": { "probation": { "type": "string" } } },
))]
pub struct ReloadOrder {
    /// The version to go back to; without it, the file is read again.
    pub to: Option<u64>,
    /// Take the change back if too many requests fail within this time.
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub probation: Option<Duration>,
    /// By how much the share of failures may rise meanwhile. Default: `5%`.
    pub tolerate: Option<Percent>,
}

/// What `POST /v1/upgrade` takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpgradeOrder {
    /// The program, as an absolute path. Default: what lies where this one was started.
    #[schemars(extend("pattern" = "^/"))]
    pub binary: Option<PathBuf>,
    /// How long the successor may take until it serves. Default: `60s`.
    pub timeout: Option<Duration>,
}

/// What `POST /v1/log-levels` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LevelsOrder {
    /// What the process log tells until the configuration changes, beside what the file and the
    /// environment say. Default: nothing else than they do.
    pub levels: Option<Levels>,
}

/// What the process log tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InForce {
    /// The levels, of which the last that names a module counts.
    pub levels: String,
}

/// Reads the body of an order; an empty one asks for nothing special.
pub(super) fn read<T: DeserializeOwned + Default>(body: &[u8]) -> serde_json::Result<T> {
    if body.is_empty() {
        return Ok(T::default());
    }
    // By name alone: serde would also take a list, in the order of the fields.
    let named: Map<String, Value> = serde_json::from_slice(body)?;
    serde_json::from_value(named.into())
}
