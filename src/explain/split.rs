//! The leg of a split route that takes a request, as far as the request itself tells.

use std::sync::Arc;

use http::HeaderMap;

use crate::{
    explain::{Share, SplitTaken},
    routing::split::Key,
    snapshot::Route,
};

/// The leg, and how it is found. Where the client's address or chance decides, the first leg
/// stands for all.
pub(super) fn followed<'a>(
    route: &'a Arc<Route>,
    headers: &HeaderMap,
) -> (&'a Arc<Route>, Option<SplitTaken>) {
    let Some(split) = &route.split else { return (route, None) };
    let by = match split.key() {
        Key::Random => "chance".to_owned(),
        Key::Client => "the client's address".to_owned(),
        Key::Cookie(name) => format!("cookie {name}"),
        Key::Header(name) => format!("header {name}"),
    };
    let known = split.known(headers);
    let shares = split.shares().map(|(upstream, share)| Share {
        upstream: upstream.name().to_string(),
        percent: (share * 10_000.0).round() / 100.0,
    });
    let taken = SplitTaken { by, is_known: known.is_some(), shares: shares.collect() };
    (known.unwrap_or(route), Some(taken))
}
