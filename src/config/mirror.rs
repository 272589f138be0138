//! Which requests of a route another upstream gets copies of, as the operator writes it.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    units::{self, ByteSize, Duration, Percent},
    yaml::Spanned,
};

/// Copies of a route's requests that another upstream gets. Its answers are counted and thrown
/// away, and nothing that it does is felt by clients.
///
/// What the operator writes under a route's `mirror:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Mirror")]
pub struct MirrorConfig {
    /// The upstream that gets the copies, each marked by the field `x-crestline-mirror: 1`.
    pub upstream: Spanned<String>,
    /// The share of the requests that are copied, by chance. Default: `100%`.
    #[serde(default = "all")]
    pub share: Percent,
    /// Copies at a time, at most; more are dropped. Default: `100`.
    #[serde(default = "copies")]
    pub max_requests: NonZeroU32,
    /// How long a copy may take, with its answer. Default: `10s`.
    #[serde(default = "timeout", deserialize_with = "positive")]
    #[schemars(extend("pattern" = units::POSITIVE))]
    pub timeout: Duration,
    /// The largest body of a request that is copied. Default: `64KiB`.
    #[serde(default = "body")]
    pub max_body: ByteSize,
}

fn all() -> Percent {
    Percent::new(100)
}

fn copies() -> NonZeroU32 {
    const { NonZeroU32::new(100).expect("100 is not 0") }
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    units::positive(deserializer)
}

fn body() -> ByteSize {
    ByteSize::from_kib(64)
}
