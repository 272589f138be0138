//! A panic in a phase ends its request, and nothing else.
//!
//! Pingora calls [`Caught`], which calls the phase and catches its panic. That becomes an error,
//! and the request ends as with any other: with 500 if nothing was sent yet, with a broken answer
//! otherwise. Other requests, streams of the same connection included, never hear of it.

use std::{os::unix::io::RawFd, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use log::error;
use pingora::{Error, ErrorType, Result};
use pingora_cache::{
    CacheKey, CacheMeta, ForcedFreshness, RespCacheable, key::HashBinary, storage::HitHandler,
};
use pingora_core::{modules::http::HttpModules, protocols::Digest, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::{
    panics::{Panic, catch, catch_now},
    proxy::{cache_key, cached, context::Context},
    reason::Reason,
};

/// The phases of a request, as Pingora names and runs them; their futures are not boxed yet.
pub(crate) trait Phases: Send + Sync {
    fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> impl Future<Output = Result<bool>> + Send;

    fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> impl Future<Output = Result<bool>> + Send;

    fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> impl Future<Output = Result<Box<HttpPeer>>> + Send;

    fn fail_to_connect(&self, ctx: &mut Context, error: &mut Error);

    fn connected_to_upstream(&self, digest: Option<&Digest>, is_reused: bool, ctx: &mut Context);

    fn upstream_request_filter(
        &self,
        session: &Session,
        header: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()>;

    fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<()>;

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Context);

    fn cache_hit_filter(
        &self,
        session: &Session,
        meta: &CacheMeta,
        handler: &HitHandler,
        is_fresh: bool,
        ctx: &mut Context,
    ) -> Option<ForcedFreshness>;

    fn upstream_response_filter(
        &self,
        session: &mut Session,
        header: &ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()>;

    fn response_filter(
        &self,
        session: &mut Session,
        header: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()>;

    fn upstream_response_body_filter(&self, ctx: &mut Context);

    fn response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>>;

    fn response_trailer_filter(&self, ctx: &mut Context) -> Result<Option<Bytes>>;

    fn error_while_proxy(
        &self,
        session: &Session,
        error: &mut Error,
        ctx: &mut Context,
        is_reused: bool,
    );

    fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> impl Future<Output = FailToProxy> + Send;

    fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context);
}

/// Phases whose panics are caught.
pub struct Caught<P>(pub(crate) P);

/// Makes an error of its request of a panic.
fn settle<T>(ran: Result<Result<T>, Panic>, ctx: &mut Context) -> Result<T> {
    ran.unwrap_or_else(|panic| Err(told(&panic, ctx)))
}

/// Counts a panic, tells it once with the id of its request, and returns its error.
#[expect(clippy::unnecessary_box_returns, reason = "errors of Pingora travel in boxes")]
fn told(panic: &Panic, ctx: &mut Context) -> Box<Error> {
    panic.count_request();
    error!("request {}: panicked: {panic}", ctx.id.to_str().unwrap_or_default());
    ctx.reason = Some(Reason::Panic);
    Error::explain(ErrorType::HTTPStatus(500), "a panic").into_in()
}

#[async_trait]
impl<P: Phases> ProxyHttp for Caught<P> {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's compression module would cost every request and do nothing.
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        settle(catch(self.0.request_filter(session, ctx)).await, ctx)
    }

    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<bool> {
        settle(catch(self.0.proxy_upstream_filter(session, ctx)).await, ctx)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        settle(catch(self.0.upstream_peer(session, ctx)).await, ctx)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let ran = catch_now(|| self.0.fail_to_connect(ctx, &mut error));
        ran.map_or_else(|panic| told(&panic, ctx), |()| error)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        is_reused: bool,
        _peer: &HttpPeer,
        _fd: RawFd,
        digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        let ran = catch_now(|| self.0.connected_to_upstream(digest, is_reused, ctx));
        settle(ran.map(Ok), ctx)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        header: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        settle(catch_now(|| self.0.upstream_request_filter(session, header, ctx)), ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        settle(catch_now(|| self.0.request_body_filter(session, body, end, ctx)), ctx)
    }

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        settle(catch_now(|| self.0.request_cache_filter(session, ctx)).map(Ok), ctx)
    }

    fn cache_key_callback(&self, session: &Session, ctx: &mut Context) -> Result<CacheKey> {
        settle(catch_now(|| cache_key::key(session.req_header(), ctx)), ctx)
    }

    async fn cache_hit_filter(
        &self,
        session: &mut Session,
        meta: &CacheMeta,
        handler: &mut HitHandler,
        is_fresh: bool,
        ctx: &mut Context,
    ) -> Result<Option<ForcedFreshness>> {
        let ran = catch_now(|| self.0.cache_hit_filter(session, meta, handler, is_fresh, ctx));
        settle(ran.map(Ok), ctx)
    }

    fn response_cache_filter(
        &self,
        _session: &Session,
        header: &ResponseHeader,
        ctx: &mut Context,
    ) -> Result<RespCacheable> {
        settle(catch_now(|| cached::judge(header, ctx)), ctx)
    }

    fn cache_vary_filter(
        &self,
        meta: &CacheMeta,
        ctx: &mut Context,
        request: &RequestHeader,
    ) -> Option<HashBinary> {
        let ran = catch_now(|| cache_key::variance(meta.headers(), request, ctx));
        settle(ran.map(Ok), ctx).ok().flatten()
    }

    fn should_serve_stale(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        error: Option<&Error>,
    ) -> bool {
        cached::serves_stale(session, ctx, error)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        header: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        settle(catch_now(|| self.0.upstream_response_filter(session, header, ctx)), ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        header: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        settle(catch_now(|| self.0.response_filter(session, header, ctx)), ctx)
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        let ran = catch_now(|| self.0.upstream_response_body_filter(ctx));
        settle(ran.map(|()| Ok(None)), ctx)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if ctx.filters.is_empty() {
            return Ok(None);
        }
        settle(catch_now(|| self.0.response_body_filter(body, end, ctx)), ctx)
    }

    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        _trailers: &mut HeaderMap,
        ctx: &mut Context,
    ) -> Result<Option<Bytes>> {
        cached::end(session).await;
        if ctx.filters.is_empty() {
            return Ok(None);
        }
        settle(catch_now(|| self.0.response_trailer_filter(ctx)), ctx)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        is_reused: bool,
    ) -> Box<Error> {
        let ran = catch_now(|| self.0.error_while_proxy(session, &mut error, ctx, is_reused));
        ran.map_or_else(|panic| told(&panic, ctx), |()| error)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let ran = catch(self.0.fail_to_proxy(session, error, ctx)).await;
        ran.unwrap_or_else(|panic| {
            told(&panic, ctx);
            FailToProxy { error_code: 500, can_reuse_downstream: false }
        })
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true // the access log tells it, with the request id
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Context,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true // the access log tells every attempt
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        if let Err(panic) = catch_now(|| self.0.logging(session, error, ctx)) {
            told(&panic, ctx);
        }
    }
}

#[cfg(test)]
mod tests;
