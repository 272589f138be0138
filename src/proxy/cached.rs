//! Answers that are kept, on the way of a request: Pingora's hooks around its cache.
//!
//! A request that may be answered with what is kept gets a key; what Pingora finds for it is
//! judged once more; what the origin answers is judged by the rules of the route.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::{Error, ErrorSource, ErrorType, OrErr as _, Result};
use pingora_cache::{
    CacheMeta, CacheOptionOverrides, CachePhase, ForcedFreshness, NoCacheReason, RespCacheable,
    key::CacheHashKey, storage::HitHandler,
};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::{
    cache::{self, Reader},
    policy::cache::{Ask, Asked, Use, Verdict, renew},
    proxy::{cache_key, context::Context},
    reply::Reply,
};

/// The error of an attempt whose answer is not passed on, since a stale one is kept.
pub(crate) const STALE_INSTEAD: ErrorType = ErrorType::Custom("a stale answer instead");

/// Looked up once more after waiting so often; each wait is for another that failed.
const WAITS_MAX: usize = 3;

static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What is known of a request on a route that keeps answers.
pub(crate) struct State {
    ask: Ask,
    /// What became of it; `None` until that is known.
    pub(crate) verdict: Option<Verdict>,
    /// The fields of a `304` by which what is kept is renewed.
    news: Option<HeaderMap>,
    /// Whether it is given what is kept although that is stale.
    is_stale: bool,
    /// What `Cache-Status` tells beside of what was found.
    detail: &'static str,
    /// Whether the body that is sent ends in a piece without bytes.
    marks_end: bool,
    /// Whether there is no backend, so that only what is kept can be given.
    has_no_backend: bool,
}

/// Has Pingora look for an answer, if the request may be answered with one.
pub(crate) fn begin(session: &mut Session, ctx: &mut Context) {
    let route = ctx.route.as_ref().filter(|route| route.policies.cache().is_some());
    let Some(route) = route.cloned() else { return };
    let Some(rules) = route.policies.cache() else { return };
    let has_body = !session.is_body_empty();
    let Some(facts) = ctx.facts(session.req_header()) else { return };
    let ask = rules.ask(&facts, &ctx.notes, has_body, route.policies.knows_clients());
    if let Ask::Use(_) = ask {
        let mut options = CacheOptionOverrides::default();
        let left = ctx.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        options.wait_timeout = Some(left.map_or(rules.wait, |left| left.min(rules.wait)));
        options.max_lock_retries = Some(WAITS_MAX);
        let (store, predictor) = (cache::store(), cache::predictor());
        session.cache.enable(store, None, Some(predictor), Some(cache::fetches()), Some(options));
    }
    ctx.cache = Some(Box::new(State {
        ask,
        verdict: None,
        news: None,
        is_stale: false,
        detail: "",
        marks_end: false,
        has_no_backend: false,
    }));
}

/// Judges what was found. One that may be given while it is renewed is, and `renewal` is called
/// by the one request that has it renewed.
pub(crate) fn hit(
    meta: &CacheMeta,
    handler: &HitHandler,
    is_fresh: bool,
    ctx: &mut Context,
    renewal: impl FnOnce(&mut Context, Arc<cache::Entry>),
) -> Option<ForcedFreshness> {
    let route = ctx.route.clone()?;
    let (rules, now) = (route.policies.cache()?, SystemTime::now());
    let state = ctx.cache.as_mut()?;
    let Ask::Use(ask) = &state.ask else { return None };
    let reader = handler.as_any().downcast_ref::<Reader>();
    let is_from_disk = reader.is_some_and(|reader| reader.is_from_disk);
    state.detail = if is_from_disk { "; detail=disk" } else { "" };
    if !rules.suits(ask, meta, now) {
        return Some(ForcedFreshness::ForceExpired);
    }
    if is_fresh {
        return None;
    }
    if meta.serve_stale_while_revalidate(now) {
        state.is_stale = true;
        if let Some(entry) = reader.and_then(Reader::whole_entry)
            && entry.begin_renewal()
        {
            renewal(ctx, entry.clone());
        }
        return Some(ForcedFreshness::ForceFresh);
    }
    state.is_stale = rules.suits_stale(ask, meta, now);
    state.is_stale.then_some(ForcedFreshness::ForceFresh)
}

/// Prepares a request that nothing was found for to be sent to the origin; what it is told
/// instead, if it wanted only what is kept.
pub(crate) fn miss(session: &mut Session, ctx: &Context) -> Option<Reply> {
    let State { ask: Ask::Use(ask), .. } = &**ctx.cache.as_ref()? else { return None };
    if ask.only_if_cached {
        if session.cache.enabled() {
            session.cache.disable(NoCacheReason::DeclinedToUpstream);
        }
        return Some(Reply::status(504));
    }
    // Pingora would have the origin send all of the body, to keep it.
    let reason = match session.req_header() {
        _ if !session.cache.enabled() => None,
        request if request.method == Method::HEAD => Some("head"),
        request if session.cache.phase() == CachePhase::Miss => is_part(request).then_some("part"),
        _ => None,
    };
    if let Some(reason) = reason {
        session.cache.disable(NoCacheReason::Custom(reason));
    }
    None
}

/// Whether a part is asked for, and not the whole as if it were one, as players of videos begin.
fn is_part(request: &RequestHeader) -> bool {
    let range = request.headers.get(header::RANGE);
    range.is_some_and(|range| range.as_bytes() != b"bytes=0-")
}

/// Judges what the origin answered.
pub(crate) fn judge(answer: &ResponseHeader, ctx: &mut Context) -> Result<RespCacheable> {
    let no = || RespCacheable::Uncacheable(NoCacheReason::InternalError);
    let Some(route) = ctx.route.clone() else { return Ok(no()) };
    let (Some(rules), Some(state)) = (route.policies.cache(), &mut ctx.cache) else {
        return Ok(no());
    };
    let Ask::Use(ask) = &state.ask else { return Ok(no()) };
    let asked = Asked { is_known: ask.is_known, took: ctx.attempt.at.elapsed() };
    let judged = match state.news.take() {
        Some(news) => {
            let mut renewed = answer.clone();
            renew(&mut renewed, &news)?;
            rules.judge(&renewed, asked, SystemTime::now())
        }
        None => rules.judge(answer, asked, SystemTime::now()),
    };
    Ok(match judged {
        Ok(mut meta) => {
            // Who follows may have it fetched once more, from another.
            if let Some(in_flight) = &ctx.in_flight {
                meta.extensions_mut().insert(in_flight.member().state.clone());
            }
            RespCacheable::Cacheable(meta)
        }
        Err(why) => RespCacheable::Uncacheable(why),
    })
}

/// Looks at an answer of the origin before Pingora does. An error means that what is kept is
/// given instead.
pub(crate) fn answered(
    session: &Session,
    answer: &ResponseHeader,
    ctx: &mut Context,
) -> Result<()> {
    let Some(state) = &mut ctx.cache else { return Ok(()) };
    if state.ask == Ask::Change {
        if answer.status.is_success() || answer.status.is_redirection() {
            for is_known in [false, true] {
                let key = cache_key::key_for(session.req_header(), ctx, is_known)?;
                cache::store().invalidate(&key);
            }
        }
        return Ok(());
    }
    if answer.status == StatusCode::NOT_MODIFIED {
        let is_kept = session.cache.enabled() && session.cache.phase() == CachePhase::Stale;
        state.news = is_kept.then(|| answer.headers.clone());
    }
    if answer.status.is_server_error() && session.cache.can_serve_stale_error() {
        return Err(Error::explain(STALE_INSTEAD, "the origin failed").into_up());
    }
    Ok(())
}

/// Whether a request that failed is given what is kept although it is stale.
pub(crate) fn serves_stale(session: &mut Session, ctx: &mut Context, why: Option<&Error>) -> bool {
    // Without an error this is about renewing beside, which is ours. A status is looked at later,
    // when it is known whether another backend is asked.
    let Some(why) = why else { return false };
    let is_ours = match why.esource() {
        ErrorSource::Downstream => false,
        ErrorSource::Upstream => !matches!(why.etype(), ErrorType::HTTPStatus(_)),
        _ => true,
    };
    let Some(state) = ctx.cache.as_mut().filter(|_| is_ours) else { return false };
    state.is_stale = true;
    ctx.reason = None; // it ends well, but Pingora closes the connection of a request that failed
    session.set_keepalive(None);
    true
}

/// Notes that there is no backend, if what is kept can be given instead.
pub(crate) fn may_do_without(session: &Session, ctx: &mut Context) -> bool {
    let may = session.cache.enabled() && session.cache.can_serve_stale_error();
    if let Some(state) = ctx.cache.as_mut().filter(|_| may) {
        state.has_no_backend = true;
    }
    may
}

/// The error of a request that needs no peer.
pub(crate) fn without_peer(ctx: &Context) -> Result<()> {
    match &ctx.cache {
        Some(state) if state.has_no_backend => {
            Error::e_explain(ErrorType::ConnectError, "no backend is left to try")
        }
        _ => Ok(()),
    }
}

/// Says what became of a request, to its client and to whoever counts.
pub(crate) fn told(
    session: &mut Session,
    header: &mut ResponseHeader,
    ctx: &mut Context,
) -> Result<()> {
    let Some(state) = &mut ctx.cache else { return Ok(()) };
    let (verdict, words) = verdict(session, state);
    state.verdict = Some(verdict);
    let is_renewed = matches!(
        session.cache.phase(),
        CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_)
    );
    if is_renewed && !ctx.filters.is_empty() {
        let reader = session.cache.hit_handler().as_any_mut().downcast_mut::<Reader>();
        state.marks_end = reader.is_some();
        if let Some(reader) = reader {
            reader.mark_end();
        }
    }
    if let (CachePhase::Hit, Some(connection)) = (session.cache.phase(), &ctx.connection) {
        let reader = session.cache.hit_handler().as_any().downcast_ref::<Reader>();
        connection.set_eager(reader.is_some_and(|reader| reader.whole_entry().is_none()));
    }
    let rules = ctx.route.as_ref().and_then(|route| route.policies.cache());
    match rules {
        Some(rules) if rules.tell => {
            let words = HeaderValue::from_str(&words);
            let words = words.or_err(ErrorType::InvalidHTTPHeader, "a field of ours")?;
            header.append_header(&CACHE_STATUS, words).map(drop)
        }
        _ => Ok(()),
    }
}

/// Keeps an answer whose body is ended by trailers: Pingora does so at the end of the stream, which
/// it does not wait for where a client of HTTP/1 has all.
pub(crate) async fn end(session: &mut Session) {
    if let CachePhase::Miss | CachePhase::Expired = session.cache.phase()
        && let Err(why) = session.cache.finish_miss_handler().await
    {
        log::debug!("cache: an answer with trailers is not kept: {why}");
    }
}

/// Whether a piece of a body is the mark that it ends.
pub(crate) fn is_end(piece: Option<&bytes::Bytes>, ctx: &Context) -> bool {
    ctx.cache.as_ref().is_some_and(|state| state.marks_end)
        && piece.is_some_and(bytes::Bytes::is_empty)
}

/// What became of a request, and how RFC 9211 says it.
fn verdict(session: &Session, state: &State) -> (Verdict, String) {
    let cache = &session.cache;
    let left = || {
        let until = cache.cache_meta().fresh_until();
        let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match until.duration_since(SystemTime::now()) {
            Ok(left) => whole(left),
            Err(since) => -whole(since.duration()),
        }
    };
    let waited = if cache.lock_duration().is_some() { "; collapsed" } else { "" };
    match (&state.ask, cache.phase()) {
        (Ask::Bypass(why), _) => (Verdict::Bypass, format!("crestline; fwd=bypass; detail={why}")),
        (Ask::Change, _) => (Verdict::Bypass, "crestline; fwd=method".to_owned()),
        (_, CachePhase::Hit) if !state.is_stale && !waited.is_empty() => {
            (Verdict::Hit, format!("crestline; fwd=uri-miss; collapsed; ttl={}", left()))
        }
        (_, CachePhase::Hit | CachePhase::Stale | CachePhase::StaleUpdating) => {
            let verdict = if state.is_stale { Verdict::Stale } else { Verdict::Hit };
            (verdict, format!("crestline; hit; ttl={}", left()) + state.detail)
        }
        (_, CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_)) => {
            (Verdict::Revalidated, "crestline; fwd=stale; fwd-status=304".to_owned())
        }
        (_, CachePhase::Expired) => (Verdict::Miss, "crestline; fwd=stale; stored".to_owned()),
        (_, CachePhase::Miss) => {
            let is_variant = cache.cache_key().variance_bin().is_some();
            let why = if is_variant { "vary-miss" } else { "uri-miss" };
            (Verdict::Miss, format!("crestline; fwd={why}; stored"))
        }
        _ => (Verdict::Miss, format!("crestline; fwd=miss{waited}")),
    }
}

/// What the access log says of it, when it is over, and whoever counts is told.
pub(crate) fn ended(ctx: &Context) -> Option<Verdict> {
    let state = ctx.cache.as_ref()?;
    let verdict = state.verdict.unwrap_or(match state.ask {
        Ask::Use(_) => Verdict::Miss,
        _ => Verdict::Bypass,
    });
    Some(verdict)
}

/// Lets another fetch what this request has not kept: its client had all that it wanted before.
/// Pingora's proxy lets go of its turn only where it failed.
pub(crate) fn close(session: &mut Session) {
    if let CachePhase::Miss | CachePhase::Expired = session.cache.phase() {
        session.cache.release_write_lock(NoCacheReason::UpstreamError);
    }
}

/// Counts what became of a request that is over.
pub(crate) fn count(ctx: &Context) {
    let rules = ctx.route.as_ref().and_then(|route| route.policies.cache());
    if let (Some(rules), Some(verdict)) = (rules, ended(ctx)) {
        rules.verdicts.count(verdict);
        if let Some(connection) = &ctx.connection {
            connection.set_eager(false);
        }
    }
}

/// Whether a request may be answered with what is kept, so that Pingora's proxy sends it.
pub(crate) fn is_in_use(session: &Session) -> bool {
    session.cache.enabled() || session.cache.bypassing()
}

/// Whether its client would have no origin asked.
pub(crate) fn wants_only_what_is_kept(ctx: &Context) -> bool {
    let ask = ctx.cache.as_ref().map(|state| &state.ask);
    matches!(ask, Some(Ask::Use(Use { only_if_cached: true, .. })))
}

/// Whether what is made for it is for one client alone.
pub(crate) fn is_known(ctx: &Context) -> bool {
    match ctx.cache.as_ref().map(|state| &state.ask) {
        Some(Ask::Use(Use { is_known, .. })) => *is_known,
        _ => false,
    }
}
