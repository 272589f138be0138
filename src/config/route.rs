//! A route as the operator writes it.

use serde::Deserialize;

use crate::{
    policy::PolicyConfig,
    routing::{
        host::{HostName, HostPattern},
        pattern::PathPattern,
    },
    yaml::Spanned,
};

/// What the operator writes in the list under `routes:`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The name in logs and messages.
    pub name: Spanned<String>,
    /// Which requests. Default: all.
    #[serde(default, rename = "match")]
    pub matches: Spanned<MatchConfig>,
    /// What happens to them, in this order.
    #[serde(default)]
    pub policies: Vec<PolicyConfig>,
    /// The `Host` that the origin is sent: `pass` the client's, that of the `upstream` (the
    /// address of the backend), or `{ replace: name }`. Default: `pass`.
    #[serde(default)]
    pub host: HostConfig,
    /// The path that the origin is sent: `canonical`, or `as_sent` by the client.
    /// Default: `canonical`.
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
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatchConfig {
    /// Hosts: `shop.example.com`, or `*.example.com` for all below it. Default: any.
    pub hosts: Option<Spanned<Vec<Spanned<HostPattern>>>>,
    /// A path: `/api/` for it and all below it, `= /api` for it alone. Default: all.
    pub path: PathPattern,
}

/// The `Host` that the origin is sent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostConfig {
    /// The one that the client sent.
    #[default]
    Pass,
    /// The address of the backend.
    Upstream,
    /// This one.
    Replace(HostName),
}

/// The path that the origin is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathConfig {
    /// The canonical form, which is also the one that is matched.
    #[default]
    Canonical,
    /// The bytes as they came.
    AsSent,
}
