//! The HTTP data path: Pingora's phases, each calling the part that does the work.
//!
//! Hooks stand in the order in which Pingora runs them. They load the snapshot once, at the
//! routing of a request; from then on the request carries its route.

mod aside;
mod cache_key;
mod cached;
mod caught;
mod challenge;
mod context;
mod direct;
mod failure;
mod forward;
mod heard;
mod hop_by_hop;
mod log_line;
mod mirror;
mod pass;
mod queue;
mod refetch;
mod renewal;
mod respond;
mod select;
mod story;
mod translate;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Uri;
use pingora::{Error, ErrorType, Result};
use pingora_cache::{CacheMeta, ForcedFreshness, storage::HitHandler};
use pingora_core::{connectors::http::Connector, protocols::Digest, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, Session};
use tokio::time::Instant;

pub use caught::Caught;
pub use context::Context;

use crate::{
    downstream::{
        connection::{Connection, Exchange},
        refused,
        upload::{asks_for_websocket, is_stream},
    },
    observe::recorder,
    overload::{self, Level},
    policy::contract::Flow,
    proxy::{caught::Phases, context::Replay, failure::Verdict, heard::contact},
    reason::{self, Reason},
    reply::Reply,
    snapshot::Live,
    upstream::{attempts::Begun, outcome::Outcome},
};

/// How long the rest of a body is read that nobody wants, so that its connection can be kept.
const DRAIN: Duration = Duration::from_secs(2);

/// Crestline's application on Pingora.
pub struct Proxy {
    live: Live,
    /// Makes the connections of what Pingora's proxy does not send: copies, what is hedged, renewed
    /// and fetched once more.
    direct: Arc<Connector>,
}

impl Proxy {
    /// An application that answers by the snapshot in force, and has connections of its own made
    /// by `direct`.
    pub fn new(live: Live, direct: Connector) -> Caught<Self> {
        Caught(Self { live, direct: Arc::new(direct) })
    }
}

impl Phases for Proxy {
    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let Some(connection) = session.digest().and_then(Connection::of).cloned() else {
            return Error::e_explain(ErrorType::InternalError, "a connection without facts");
        };
        receive(session, ctx, connection);
        if overload::level() != Level::Calm {
            return respond::shed(session, ctx).await.map(|()| true);
        }
        if let Some(page) = challenge::page(&self.live, session.req_header(), ctx) {
            return challenge::send(session, ctx, &page).await.map(|()| true);
        }
        let flow = match select::route(&self.live, session.req_header(), ctx) {
            Ok(route) => {
                ctx.deadline = route.timeout.map(|timeout| ctx.started + timeout);
                ctx.route = Some(route);
                ctx.routed = Some(ctx.since_start());
                let flow = select::policies(session.req_header(), ctx).await;
                ctx.judged = Some(ctx.since_start());
                flow
            }
            Err(refused) => Flow::Respond(refused),
        };
        match flow {
            Flow::Continue => Ok(false),
            Flow::Respond(reply) => respond::send(session, ctx, reply).await.map(|()| true),
        }
    }

    /// Reserves the first backend, so that an upstream without any can be told in an answer
    /// after which the connection lives on. What is hedged, or asks for a
    /// tunnel, is answered here.
    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<bool> {
        if let Some(refused) = cached::miss(session, ctx) {
            return respond::send(session, ctx, refused).await.map(|()| false);
        }
        ctx.attempt = Begun::at(Instant::now());
        if let Err(refused) = queue::backend(session, ctx, ctx.attempt.at).await? {
            if cached::may_do_without(session, ctx) {
                return Ok(true);
            }
            return respond::send(session, ctx, refused).await.map(|()| false);
        }
        match direct::kind(session, ctx) {
            Some(_) if cached::is_in_use(session) => Ok(true),
            Some(kind) => Box::pin(direct::exchange(self, session, ctx, kind)).await,
            None => Ok(true),
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        select::peer(session, ctx).await
    }

    fn fail_to_connect(&self, ctx: &mut Context, error: &mut Error) {
        ctx.end_attempt(Outcome::of_connecting(error));
        let again = select::may_try_again(ctx);
        error.set_retry(again);
    }

    fn connected_to_upstream(&self, digest: Option<&Digest>, is_reused: bool, ctx: &mut Context) {
        let took = (!is_reused).then(|| ctx.attempt.at.elapsed());
        ctx.attempt.contact = contact(took, digest);
        if let Some(route) = &ctx.route {
            route.upstream.account().connected(took);
        }
    }

    fn upstream_request_filter(
        &self,
        session: &Session,
        header: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        translate::request(session.req_header(), header, ctx)?;
        mirror::head(&self.direct, session, header, ctx);
        Ok(())
    }

    fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        ctx.body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        let max = ctx.route.as_ref().and_then(|route| route.policies.body_bytes_max());
        if max.is_some_and(|max| max < ctx.body_bytes) {
            return Err(Error::explain(ErrorType::HTTPStatus(413), "body limit").into_down());
        }
        mirror::body(&self.direct, body.as_ref(), end, ctx);
        if end {
            // Over HTTP/2 the end often comes in a frame of its own. Pingora would write that as a
            // chunk without bytes, and the end once more: the origin's next request.
            *body = body.take().filter(|body| !body.is_empty());
        }
        // The request for a WebSocket over HTTP/2 ends with its fields, but is not told so.
        let is_whole = end || !ctx.is_sent && asks_for_websocket(session.as_downstream());
        if is_whole {
            select::sent(session, ctx);
        }
        Ok(())
    }

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Context) {
        cached::begin(session, ctx);
    }

    fn cache_hit_filter(
        &self,
        session: &Session,
        meta: &CacheMeta,
        handler: &HitHandler,
        is_fresh: bool,
        ctx: &mut Context,
    ) -> Option<ForcedFreshness> {
        let forced = cached::hit(meta, handler, is_fresh, ctx, |ctx, entry| {
            renewal::begin(&self.direct, session, meta, ctx, entry);
        });
        let is_there = refetch::offer(&self.direct, session, handler, ctx);
        if is_there { forced } else { Some(ForcedFreshness::ForceMiss) }
    }

    /// What the origin sent, before it is kept. This is where an answer may be turned down.
    fn upstream_response_filter(
        &self,
        session: &mut Session,
        header: &ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        heard::answer(session, header, ctx)
    }

    /// What the client is sent, whether it came from the origin now or was kept.
    fn response_filter(
        &self,
        session: &mut Session,
        header: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if header.status.is_informational() && header.status != 101 {
            return Ok(());
        }
        ctx.attempt.first_byte.get_or_insert_with(Instant::now);
        respond::keep_or_close(session, ctx);
        select::stay(session.req_header(), header, ctx)?;
        translate::response(session.req_header(), header, ctx)?;
        cached::told(session, header, ctx)
    }

    fn upstream_response_body_filter(&self, ctx: &mut Context) {
        select::await_origin(ctx, |timeouts| timeouts.between_bytes);
    }

    fn response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        let pause = ctx.filters.pass(body, end || cached::is_end(body.as_ref(), ctx))?;
        if let Some(pause) = pause {
            // The origin is not late while nobody reads what it sends.
            select::await_origin(ctx, |timeouts| timeouts.between_bytes + pause);
        }
        Ok(pause)
    }

    /// Trailers end a body that was not told that it ended; where something is left to be said of
    /// it, that is said in their place.
    fn response_trailer_filter(&self, ctx: &mut Context) -> Result<Option<Bytes>> {
        let mut rest = None;
        ctx.filters.pass(&mut rest, true)?;
        Ok(rest)
    }

    fn error_while_proxy(
        &self,
        session: &Session,
        error: &mut Error,
        ctx: &mut Context,
        is_reused: bool,
    ) {
        if let failure::TURNED_DOWN | cached::STALE_INSTEAD = error.etype {
            error.set_retry(error.etype == failure::TURNED_DOWN);
            return;
        }
        if error.etype == ErrorType::ReadTimedout && !ctx.is_sent {
            error.as_down(); // it is the client that the origin waited for
        }
        let has_spoken = ctx.is_answered || 0 < ctx.interim;
        let mut outcome = failure::of_exchange(error, is_reused, has_spoken);
        let now = Instant::now();
        if !has_spoken && ctx.is_late(now) {
            ctx.reason = ctx.reason.or(Some(Reason::Deadline));
            if outcome == Outcome::Timeout && !ctx.is_sent {
                outcome = Outcome::Deadline;
            }
        }
        let took = now.saturating_duration_since(ctx.attempt.at);
        let method = &session.req_header().method;
        let mut again = !has_spoken && failure::may_repeat(error, outcome, method, took);
        if again && !ctx.keeps_body(session.as_ref().retry_buffer_truncated()) {
            ctx.replay = Some(Replay::TooLong);
            again = false;
        }
        ctx.end_attempt(outcome);
        error.set_retry(again && select::may_try_again(ctx));
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let Verdict { status, reason } = failure::verdict(error, ctx.attempts.last());
        let has_begun = session
            .response_written()
            .is_some_and(|sent| !sent.status.is_informational() || sent.status == 101);
        let reason = if has_begun { failure::midway(reason) } else { reason };
        log::debug!("request {:?} failed: {reason}: {error}", ctx.id);
        refused::count(reason);
        ctx.reason = ctx.reason.or(Some(reason));
        ctx.unsent_status = status.or(Some(499));
        if has_begun {
            respond::break_off(session);
        } else if let Some(status) = status {
            // The connection is not used again: what is left of the body may never come.
            session.set_keepalive(None);
            if respond::send(session, ctx, Reply::status(status)).await.is_ok() {
                session.shutdown().await;
            }
        }
        FailToProxy { error_code: status.unwrap_or(0), can_reuse_downstream: false }
    }

    fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        if let (Some(in_flight), None) = (&ctx.in_flight, error) {
            let status = session.response_written().map_or(0, |answer| answer.status.as_u16());
            let member = in_flight.member().clone();
            let times = ctx.attempt.times(ctx.started, Instant::now());
            ctx.in_flight = None;
            ctx.attempts.record(member, Outcome::Status(status), times);
        }
        if let (Some(error), None) = (error, ctx.reason) {
            // Amid what is kept, or is followed, nobody was told of it.
            let Verdict { reason, .. } = failure::verdict(error, None);
            ctx.reason = Some(failure::midway(reason));
        }
        let status = log_line::status(session, ctx);
        reason::count(ctx.reason.unwrap_or(Reason::Ok));
        cached::close(session);
        cached::count(ctx);
        let snapshot = self.live.load();
        story::trace_unrouted(session.req_header(), ctx, snapshot.traces.as_deref());
        let entry = log_line::entry(session, ctx, status);
        let requests = match &ctx.route {
            Some(route) => {
                route.tally.count(status);
                &route.requests
            }
            None => &snapshot.ledger.unrouted,
        };
        requests.count(status, entry.total);
        if let Some(log) = &snapshot.access_log {
            log.write(&entry);
        }
        let (recorder, now) = (&snapshot.ledger.recorder, ctx.started + entry.total);
        let kind = recorder.wants(&entry, now);
        if kind.is_some() || entry.traced.is_some() {
            requests.show(status, entry.total, entry.id, entry.traced);
        }
        if let Some(kind) = kind {
            let target = recorder::target(snapshot.access_log.as_deref(), entry.target);
            recorder.keep(kind, story::record(&entry, &target, ctx), now);
        }
        if entry.traced.is_some() {
            story::export(&entry, ctx, &snapshot);
        }
    }
}

/// Establishes who asks, gives the request its id, and sets the bounds of its connection.
fn receive(session: &mut Session, ctx: &mut Context, connection: Arc<Connection>) {
    let bounds = &connection.bounds;
    session.set_read_timeout(Some(bounds.body_timeout));
    session.set_write_timeout(Some(bounds.write_timeout));
    session.set_total_drain_timeout(Some(DRAIN));
    // A client that has sent its request may close its side and still wait for the answer.
    session.as_downstream_mut().set_abort_on_close(false);
    connection.await_origin(None);
    if !is_stream(session.as_downstream()) {
        connection.set_limit(None);
    }
    let headers = &session.req_header().headers;
    ctx.id = forward::id_of(headers, &connection);
    ctx.client = forward::client_of(headers, &connection);
    ctx.connection = Some(Exchange::begin(connection));
}

/// A target that is only a path, as a URI.
fn origin_form(path: &str, query: Option<&str>) -> Result<Uri> {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    target.parse().map_err(|why| {
        Error::because(ErrorType::InvalidHTTPHeader, "a canonical path that is no URI", why)
    })
}
