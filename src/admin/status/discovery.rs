//! How the sources of an upstream's backends stand.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{admin::status::span, upstream::Upstream};

/// A source of backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscoveryStatus {
    /// Which one: `dns`, or what it is and where.
    pub source: String,
    /// How many backends it gives now.
    pub backends: usize,
    /// How long ago it was last in touch; `None` if it never was.
    pub in_touch_seconds: Option<u64>,
    /// Why it is not in touch now; `None` if it is, or was not asked to an end yet.
    pub error: Option<String>,
}

impl DiscoveryStatus {
    pub(super) fn of(upstream: &Upstream, now: Instant) -> Vec<Self> {
        let standings = upstream.feeds().iter().map(|feed| feed.standing(now));
        let told = standings.map(|standing| Self {
            source: standing.source,
            backends: standing.backends,
            in_touch_seconds: standing.in_touch.map(|since| since.as_secs()),
            error: standing.error,
        });
        told.collect()
    }
}

impl fmt::Display for DiscoveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, backends, in_touch_seconds, error } = self;
        let s = if *backends == 1 { "" } else { "s" };
        write!(f, "  by {source}: {backends} backend{s}, ")?;
        match in_touch_seconds {
            Some(seconds) => write!(f, "in touch {} ago", span(*seconds))?,
            None => write!(f, "never in touch")?,
        }
        match error {
            Some(why) => writeln!(f, "; {why}"),
            None => writeln!(f),
        }
    }
}
