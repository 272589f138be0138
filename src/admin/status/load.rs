//! What is bounded for an upstream, and who waits.

use std::{collections::BTreeMap, fmt, sync::atomic::Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::upstream::{
    Upstream,
    load::{Bounds, line::Counts},
};

/// The load of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadStatus {
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Requests that waited and got one, since the process began.
    pub served: u64,
    /// Requests for which there was not even room to wait.
    pub refused: u64,
    /// Requests that waited for as long as they may.
    pub timed_out: u64,
    /// Requests whose client left while they waited.
    pub left: u64,
    /// What each backend bears, by address.
    pub backends: BTreeMap<String, BackendLoad>,
}

/// What a backend bears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackendLoad {
    /// Requests at a time, at most: an adaptive limit as it is now.
    pub requests_max: u32,
    /// Connections, if they are bounded.
    pub connections: Option<u32>,
}

impl LoadStatus {
    /// Looks at an upstream; `None` if nothing of it is bounded.
    pub(super) fn of(upstream: &Upstream) -> Option<Self> {
        let (rules, line) = (upstream.load(), upstream.account().line());
        if rules.bounds == (Bounds { per_connection: rules.bounds.per_connection, ..Bounds::NONE })
        {
            return None;
        }
        let Counts { served, refused, timed_out, left } = &line.counts;
        let backends = upstream.members().into_iter().map(|member| {
            let load = BackendLoad {
                requests_max: member.state.occupancy.requests_max(&rules.bounds),
                connections: rules.bounds.connections.map(|_| member.connections.get()),
            };
            (member.state.name().to_owned(), load)
        });
        Some(Self {
            waiting: line.len(),
            served: served.load(Relaxed),
            refused: refused.load(Relaxed),
            timed_out: timed_out.load(Relaxed),
            left: left.load(Relaxed),
            backends: backends.collect(),
        })
    }
}

impl fmt::Display for LoadStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waiting, served, refused, timed_out, left, backends } = self;
        writeln!(
            f,
            "  waiting: {waiting}; waited: {served} served, {timed_out} timed out, {left} left; \
             refused: {refused}"
        )?;
        for (address, BackendLoad { requests_max, connections }) in backends {
            write!(f, "  bears     {address}: {requests_max} requests")?;
            if let Some(connections) = connections {
                write!(f, ", {connections} connections now")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// What became of the copies that an upstream got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MirrorStatus {
    /// Copies that are on their way.
    pub now: u32,
    /// Those that ended since the process began, by what became of them.
    pub ended: BTreeMap<String, u64>,
}

impl MirrorStatus {
    /// Looks at an upstream; `None` if it never got a copy.
    pub(super) fn of(upstream: &Upstream) -> Option<Self> {
        let copies = upstream.account().copies();
        let ended = copies.ended().filter(|(_, count)| 0 < *count);
        let ended = ended.map(|(end, count)| (end.to_owned(), count)).collect();
        let status = Self { now: copies.now(), ended };
        (0 < status.now || !status.ended.is_empty()).then_some(status)
    }
}

impl fmt::Display for MirrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { now, ended } = self;
        write!(f, "  copies: {now} now")?;
        ended.iter().try_for_each(|(end, count)| write!(f, ", {end} {count}"))?;
        writeln!(f)
    }
}
