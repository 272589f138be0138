//! A route as the operator writes it.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::PolicyConfig,
    routing::{
        host::{HostName, HostPattern},
        pattern::PathPattern,
    },
    yaml::Spanned,
};

/// Which requests go where.
///
/// What the operator writes in the list under `routes:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Route")]
pub struct RouteConfig {
    /// The name in logs and messages.
    pub name: Spanned<String>,
    /// Which requests. Default: `{}`, all of them.
    #[serde(default, rename = "match")]
    pub matches: Spanned<MatchConfig>,
    /// What happens to them, in this order; to answers in the reverse. Default: `[]`.
    #[serde(default)]
    pub policies: Vec<PolicyConfig>,
    /// The `Host` that the origin is sent. Default: `pass`.
    #[serde(default)]
    pub host: HostConfig,
    /// The path that the origin is sent. Default: `canonical`.
    #[serde(default)]
    pub path: PathConfig,
    /// Whether the origin is also sent `Forwarded` (RFC 7239). Default: `false`.
    #[serde(default)]
    pub forwarded: bool,
    /// Whether `Via: 1.1 crestline` is added in both directions. Default: `false`.
    #[serde(default)]
    pub via: bool,
    /// The upstream that answers.
    pub upstream: Spanned<String>,
}

/// Which requests a route takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Match")]
pub struct MatchConfig {
    /// Hosts: `shop.example.com`, or `*.example.com` for all below it. Default: any host.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub hosts: Option<Spanned<Vec<Spanned<HostPattern>>>>,
    /// A path: `/api/` for it and all below it, `= /api` for it alone. Default: `/`.
    pub path: PathPattern,
}

/// The `Host` that the origin is sent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RouteHost")]
pub enum HostConfig {
    /// The one that the client sent.
    #[default]
    Pass,
    /// The address of the backend.
    Upstream,
    /// This host.
    Replace(HostName),
}

/// The path that the origin is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RoutePath")]
pub enum PathConfig {
    /// The canonical form, which is also the one that is matched.
    #[default]
    Canonical,
    /// The bytes as they came.
    AsSent,
}
