//! What there may be of answers that are kept, as the operator writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error};

use crate::units::ByteSize;

/// How much is kept of answers, by all routes that have a `cache` policy together.
///
/// What the operator writes under `cache:` at the top.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CacheStore")]
pub struct Config {
    /// The memory for answers, their fields included; where it is full, what is asked for less
    /// gives way, and what is asked for once does not get in. Nothing of it is taken before there
    /// are answers to keep. Default: `256MiB`.
    #[serde(deserialize_with = "some")]
    #[schemars(extend("pattern" = crate::units::POSITIVE))]
    pub memory: ByteSize,
}

impl Default for Config {
    /// Room for some ten thousand pages with what belongs to them, and a small part of the
    /// smallest machine that serves so many.
    fn default() -> Self {
        Self { memory: ByteSize::from_mib(256) }
    }
}

fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size.0 == 0 {
        let why = "`0B` keeps nothing\nhelp: remove the `cache` policies instead";
        return Err(D::Error::custom(why));
    }
    Ok(size)
}
