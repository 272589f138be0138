//! A route whose requests are split between upstreams: one route for each of them, alike in all
//! else. A request takes one of these at the beginning, and keeps it whatever fails.

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;

use crate::{
    config::target::TargetConfig,
    routing::split::{Key, Weights},
    snapshot::Route,
    upstream::Upstream,
};

/// The legs of a split route.
#[derive(Clone)]
pub struct Split {
    key: Key,
    weights: Weights,
    legs: Box<[Arc<Route>]>,
}

impl Split {
    /// Makes the legs of what was written; `None` for one upstream alone.
    pub(super) fn build(
        written: &TargetConfig,
        upstreams: Vec<Arc<Upstream>>,
        route: &Route,
    ) -> Option<Self> {
        if written.is_name() {
            return None;
        }
        let weights = written.split.iter().map(|part| (part.name.as_str(), part.weight));
        let leg = |upstream| Arc::new(Route { upstream, ..route.clone() });
        Some(Self {
            key: written.key.build(),
            weights: Weights::new(weights),
            legs: upstreams.into_iter().map(leg).collect(),
        })
    }

    /// The leg that takes a request; the route itself if it is not split.
    pub fn leg<'a>(
        route: &'a Arc<Route>,
        client: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> &'a Arc<Route> {
        let Some(split) = &route.split else { return route };
        let chosen = split.weights.choose(split.key.hash(client, headers));
        split.legs.get(chosen).unwrap_or(route)
    }

    /// The leg of a request by what its fields say; `None` if the client's address decides, or
    /// chance.
    pub fn known(&self, headers: &HeaderMap) -> Option<&Arc<Route>> {
        let key = self.key.hash(None, headers)?;
        self.legs.get(self.weights.choose(Some(key)))
    }

    /// The upstreams and their shares, 0 to 1.
    pub fn shares(&self) -> impl Iterator<Item = (&Upstream, f64)> {
        self.legs.iter().map(|leg| &*leg.upstream).zip(self.weights.shares())
    }

    /// What holds the requests of one client together.
    pub fn key(&self) -> &Key {
        &self.key
    }
}
