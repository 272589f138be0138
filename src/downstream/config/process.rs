//! What the clients of all listeners may take together, as the operator writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::units::{self, Rate};

/// More connections than this have no meaning on one machine.
const CONNECTIONS_MAX: u32 = 100_000_000;

/// How much clients may take: all of them together, and each alone.
///
/// What the operator writes under `limits:`. Applies to connections that come after a reload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
pub struct Limits {
    /// Connections of all clients. Beyond, whichever has waited for longest without a request
    /// gives way; if none waits, the new one is closed.
    /// Default: four fifths of the files that the process may open.
    #[serde(deserialize_with = "count")]
    #[schemars(with = "u32", range(min = 1, max = CONNECTIONS_MAX))]
    pub connections: Option<u32>,
    /// Connections of one client at a time: of one IPv4 address, or one /64 network of IPv6. More
    /// are closed. Default: unlimited.
    #[serde(deserialize_with = "count")]
    #[schemars(with = "u32", range(min = 1, max = CONNECTIONS_MAX))]
    pub connections_per_client: Option<u32>,
    /// New connections of one client, such as `20/s`; so many may come at once. More are closed.
    /// Default: unlimited.
    #[schemars(with = "Rate")]
    pub accepts_per_client: Option<Rate>,
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    units::in_range(deserializer, 1..=CONNECTIONS_MAX).map(Some)
}
