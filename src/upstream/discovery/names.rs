//! The names of backends, each looked up by itself and again when its answer runs out.
//!
//! No name waits for another. A lookup that fails keeps the last good answer.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Aborted, BoxFuture, abortable},
    stream::FuturesUnordered,
};
use tokio::time::{self, Instant};

use crate::upstream::discovery::{
    dns::{Kept, Resolver},
    source::{Backoff, Failure},
};

/// What came of one lookup.
pub(super) struct LookedUp {
    pub(super) host: String,
    pub(super) result: Result<Kept<IpAddr>, Failure>,
    backoff: Backoff,
}

/// Lookups that are under way, or will be.
pub(super) struct Names {
    resolver: Arc<Resolver>,
    lookups: FuturesUnordered<BoxFuture<'static, Result<LookedUp, Aborted>>>,
    running: HashMap<String, AbortHandle>,
}

impl Names {
    pub(super) fn new(resolver: Arc<Resolver>) -> Self {
        Self { resolver, lookups: FuturesUnordered::new(), running: HashMap::new() }
    }

    /// Looks these names up from now on, and no others.
    pub(super) fn want<'a>(&mut self, hosts: impl Iterator<Item = &'a str>) {
        let wanted: BTreeSet<&str> = hosts.collect();
        self.running.retain(|host, lookup| {
            let stays = wanted.contains(host.as_str());
            if !stays {
                lookup.abort();
            }
            stays
        });
        for host in wanted {
            if !self.running.contains_key(host) {
                self.begin(host.to_owned(), Instant::now(), Backoff::default());
            }
        }
    }

    /// Waits for the end of the next lookup; for ever if there is none.
    ///
    /// Dropping it before that loses nothing.
    pub(super) async fn next(&mut self) -> LookedUp {
        loop {
            match self.lookups.next().await {
                None => std::future::pending().await,
                Some(Err(Aborted)) => {}
                Some(Ok(looked_up)) => return looked_up,
            }
        }
    }

    /// Looks a name up again when its answer has run out, or some time after a failure.
    pub(super) fn again(&mut self, mut looked_up: LookedUp) {
        let due = match &looked_up.result {
            Ok(kept) => {
                looked_up.backoff.reset();
                kept.until
            }
            Err(_) => Instant::now() + looked_up.backoff.pause(),
        };
        self.begin(looked_up.host, due, looked_up.backoff);
    }

    fn begin(&mut self, host: String, due: Instant, backoff: Backoff) {
        let (resolver, name) = (self.resolver.clone(), host.clone());
        let (lookup, handle) = abortable(async move {
            time::sleep_until(due).await;
            let result = resolver.addresses(&name).await;
            LookedUp { host: name, result, backoff }
        });
        self.running.insert(host, handle);
        self.lookups.push(lookup.boxed());
    }
}
