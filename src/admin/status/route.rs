//! How the requests of a route ended.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{observe::requests::CLASSES, snapshot::Snapshot};

/// A route, and what is counted of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// Where its requests go; of a split, all names.
    pub upstream: Option<String>,
    /// Its requests since the process began, by class of their status.
    pub requests: BTreeMap<String, u64>,
}

impl RouteStatus {
    /// All routes of a snapshot, by name.
    pub fn all(snapshot: &Snapshot) -> Vec<Self> {
        let written = snapshot.file.routes.iter().flatten().flatten();
        let upstreams: BTreeMap<&str, String> = written
            .map(|route| {
                let names: Vec<&str> = route.upstream_names().map(|(name, _)| &**name).collect();
                (&*route.name.value, names.join(", "))
            })
            .collect();
        // Without routes, there is one upstream.
        let only = snapshot.upstreams.keys().next().map(String::as_str);
        let routes = snapshot.ledger.routes().map(|(name, requests)| {
            let upstream = upstreams.get(name).cloned().or_else(|| only.map(str::to_owned));
            let counts = requests.read().map(|read| read.count());
            let requests = CLASSES.map(str::to_owned).into_iter().zip(counts).collect();
            Self { name: name.to_owned(), upstream, requests }
        });
        routes.collect()
    }
}
