//! Renews an answer that is kept, beside the requests that are given it meanwhile.
//!
//! It is asked for as the request would have asked that found it stale, by a task of its own, over
//! connections of its own; one at a time for each answer.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::HeaderMap;
use pingora::{Error, ErrorType, Result};
use pingora_cache::{CacheKey, CacheMeta, storage::Storage as _, trace::Span};
use pingora_core::{
    connectors::http::Connector, protocols::http::client::HttpSession, upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::{self, Instant};

use crate::{
    cache::{self, Entry, Subject},
    policy::cache::{Asked, renew},
    proxy::{aside, aside::Failed, cache_key, cached, context::Context, respond, select},
    snapshot::Route,
    upstream::{Visit, backend::InFlight, load::Admission, outcome::Outcome},
};

/// It may take so long, body and all.
const WITHIN: Duration = Duration::from_secs(60);

/// An answer that is renewed.
struct Renewal {
    route: Arc<Route>,
    entry: Arc<Entry>,
    key: CacheKey,
    peer: Box<HttpPeer>,
    place: InFlight,
    head: RequestHeader,
    is_known: bool,
}

/// Gives the answer free for another try, however this one ends, unless another has its place: to
/// those who have found it before, that one is no news.
struct Turn {
    entry: Arc<Entry>,
    key: CacheKey,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if cache::store().keeps(&self.key, &self.entry) {
            self.entry.end_renewal();
        }
    }
}

/// Begins to renew an answer; without a place at a backend, a later request may.
pub(crate) fn begin(
    connector: &Arc<Connector>,
    session: &Session,
    meta: &CacheMeta,
    ctx: &mut Context,
    entry: Arc<Entry>,
) {
    let turn = Turn { entry: entry.clone(), key: session.cache.cache_key().clone() };
    let renewal = match prepare(session, meta, ctx, entry) {
        Ok(Some(renewal)) => renewal,
        Ok(None) => return,
        Err(why) => return log::debug!("cache: nothing is renewed: {why}"),
    };
    let connector = connector.clone();
    aside::spawn("cache", async move {
        let _turn = turn;
        renewal.run(&connector).await;
    });
}

fn prepare(
    session: &Session,
    meta: &CacheMeta,
    ctx: &mut Context,
    entry: Arc<Entry>,
) -> Result<Option<Renewal>> {
    let (Some(route), now) = (ctx.route.clone(), Instant::now()) else { return Ok(None) };
    let hints = select::hints(session.req_header(), ctx);
    let Admission::Taken(place) = route.upstream.admit(now, &hints, |_| Visit::None) else {
        return Ok(None);
    };
    let peer = route.upstream.peer_for(place.member(), || select::sender(session, ctx), None);
    ctx.in_flight = Some(place);
    let head = aside::head(session, ctx, Some(meta));
    let Some(place) = ctx.in_flight.take() else { return Ok(None) };
    let head = head?;
    let mut key = session.cache.cache_key().clone();
    key.extensions.insert(Arc::new(Subject {
        route: entry.subject.route.clone(),
        url: entry.subject.url.clone(),
        length_max: entry.subject.length_max,
        wants_all: true,
        asked: cache::store().now(),
    }));
    let is_known = cached::is_known(ctx);
    Ok(Some(Renewal { route, entry, key, peer, place, head, is_known }))
}

impl Renewal {
    async fn run(self, connector: &Connector) {
        let began = Instant::now();
        let ended = time::timeout(WITHIN, self.exchange(connector, began)).await;
        let (outcome, why) = match ended {
            Ok(Ok(status)) => (Outcome::Status(status), None),
            Ok(Err(Failed { why, outcome })) => (outcome, Some(why.to_string())),
            Err(_) => (Outcome::Timeout, Some("too late".to_owned())),
        };
        if let Some(why) = why {
            log::debug!("cache: {}: {why}", self.route.upstream.name());
        }
        self.route.upstream.report(self.place.member(), outcome, Instant::now());
    }

    /// Asks for the answer, and keeps what comes.
    async fn exchange(&self, connector: &Connector, began: Instant) -> Result<u16, Failed> {
        let timeouts = self.route.upstream.timeouts();
        let (peer, head, within) = (&*self.peer, self.head.clone(), timeouts.first_byte);
        let asking = aside::ask(connector, peer, &self.place, head, Bytes::new(), within);
        let (mut session, status) = asking.await?;
        session.set_read_timeout(Some(timeouts.between_bytes));
        if status < 500 {
            self.keep(&mut session, &self.head.headers, began).await?;
        }
        aside::end(connector, peer, session, timeouts.idle).await;
        Ok(status)
    }

    async fn keep(
        &self,
        session: &mut HttpSession,
        sent: &HeaderMap,
        began: Instant,
    ) -> Result<()> {
        let store = cache::store();
        let Some(rules) = self.route.policies.cache() else { return Ok(()) };
        let Some(mut answer) = session.response_header().cloned() else {
            return Error::e_explain(ErrorType::InternalError, "an answer without a head");
        };
        let asked = Asked { is_known: self.is_known, took: began.elapsed() };
        if answer.status == 304 {
            let mut renewed = self.entry.head.header.clone();
            renew(&mut renewed, &answer.headers)?;
            match rules.judge(&renewed, asked, SystemTime::now()) {
                Ok(meta) => {
                    store.renew_as(&self.key, &self.entry, &meta);
                }
                Err(_) => store.invalidate(&self.key),
            }
            return Ok(());
        }
        respond::strip_hop_by_hop(&mut answer);
        let variance = cache_key::vary(&answer.headers, sent);
        let Ok(mut meta) = rules.judge(&answer, asked, SystemTime::now()) else {
            store.invalidate(&self.key);
            return Ok(());
        };
        if variance != self.entry.variance() {
            store.invalidate(&self.key); // it varies otherwise now
            return Ok(());
        }
        if let Some(variance) = variance {
            meta.set_variance(variance);
        }
        meta.extensions_mut().insert(self.place.member().state.clone());
        let trace = Span::inactive().handle();
        let mut miss = store.get_miss_handler(&self.key, &meta, &trace).await?;
        while let Some(piece) = session.read_response_body().await? {
            miss.write_body(piece, false).await?;
        }
        miss.finish().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use pingora_cache::key::CacheHashKey as _;
    use pingora_http::ResponseHeader;

    use super::*;

    async fn keep(key: &CacheKey) -> Arc<Entry> {
        let (now, header) = (SystemTime::now(), ResponseHeader::build(200, None).unwrap());
        let meta = CacheMeta::new(now, now, 0, 0, header);
        let trace = Span::inactive().handle();
        let miss = cache::store().get_miss_handler(key, &meta, &trace).await.unwrap();
        miss.finish().await.unwrap();
        let reader = cache::store().find(u128::from_be_bytes(key.combined_bin())).unwrap();
        reader.whole_entry().unwrap().clone()
    }

    /// Who found what another has replaced does not have it renewed once more.
    #[tokio::test]
    async fn a_turn_is_free_again_only_while_its_answer_is_kept() {
        let mut key = CacheKey::new("http://turn.test/", "");
        key.extensions.insert(Arc::new(Subject {
            route: "turn".into(),
            url: "http://turn.test/".into(),
            length_max: 9,
            wants_all: true,
            asked: cache::store().now(),
        }));
        let entry = keep(&key).await;
        let turn = || Turn { entry: entry.clone(), key: key.clone() };
        assert!(entry.begin_renewal() && !entry.begin_renewal());
        drop(turn());
        assert!(entry.begin_renewal(), "it failed");
        keep(&key).await;
        drop(turn());
        assert!(!entry.begin_renewal(), "it is renewed");
    }
}
