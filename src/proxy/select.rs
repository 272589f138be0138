//! Choosing: the route of a request, the backend of an attempt, and whether there is another.

use std::{
    result,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use pingora::{Error, ErrorType, Result};
use pingora_core::{protocols::l4::socket::SocketAddr, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::time::{self, Instant};

use crate::{
    client::retry_after::retry_after,
    downstream::upload::is_stream,
    policy::contract::{Flow, Request},
    proxy::{
        cached,
        context::{Context, Replay},
        origin_form, queue,
    },
    reason::Reason,
    reply::{METHODS, Reply},
    routing::{
        host::RequestHost,
        path::{self, Canonical},
        request::RequestParts,
        table::Found,
    },
    snapshot::{Live, Route, Split},
    upstream::{
        Timeouts, Visit, attempts::Begun, backend::Member, balance::hints::Hints,
        link::config::Http, outcome::Outcome, proxy_header::Sender,
    },
};

/// So many pooled connections may turn out to be closed before they count as failures.
pub(crate) const STALE_MAX: usize = 2;

/// Finds the route of a request; refuses what no rule may see, and what none is for.
pub(crate) fn route(
    live: &Live,
    request: &RequestHeader,
    ctx: &mut Context,
) -> result::Result<Arc<Route>, Reply> {
    if let Some(refused) = refuse(request, ctx) {
        return Err(refused);
    }
    let path = match path::canonicalize(request.uri.path()) {
        Ok(path) => path,
        Err(why) => {
            ctx.reason = Some(why.reason());
            return Err(Reply::status(400));
        }
    };
    let authority = authority(request);
    let host = RequestHost::new(authority);
    let tls = ctx.connection.as_ref().and_then(|connection| connection.tls.as_ref());
    if tls.is_some_and(|tls| !authority.is_empty() && !tls.cover(host.as_str())) {
        ctx.reason = Some(Reason::Misdirected);
        return Err(Reply::status(421));
    }
    let parts = RequestParts {
        host: host.as_str(),
        path: path.as_str(),
        method: &request.method,
        headers: &request.headers,
        query: request.uri.query().unwrap_or_default(),
    };
    let snapshot = live.load();
    let route = match snapshot.routes.find(&parts) {
        Found::Route(route) => Split::leg(route, ctx.client, parts.headers).clone(),
        Found::OtherMethods => {
            ctx.reason = Some(Reason::MethodNotAllowed);
            return Err(Reply::method_not_allowed(snapshot.routes.allowed(&parts)));
        }
        Found::Nothing => {
            ctx.reason = Some(Reason::NoRoute);
            return Err(Reply::status(404));
        }
    };
    if let Some(traces) = &route.traces {
        let is_trusted = ctx.connection.as_ref().is_some_and(|connection| connection.is_trusted);
        ctx.trace = Some(traces.begin(&parts, is_trusted));
    }
    set_target(request, &route, &path, ctx)?;
    Ok(route)
}

/// Asks the policies of a request's route.
pub(crate) async fn policies(request: &RequestHeader, ctx: &mut Context) -> Flow {
    let Some((facts, notes, policies)) = ctx.exchange(request) else { return Flow::Continue };
    let flow = policies.on_request(&mut Request { facts, notes }).await;
    if let Flow::Respond(_) = flow {
        ctx.reason = ctx.notes.reason.or(Some(Reason::Policy));
    }
    flow
}

/// What HTTP/1 heads were refused for before they came here; over HTTP/2 they were not.
fn refuse(request: &RequestHeader, ctx: &mut Context) -> Option<Reply> {
    if request.version != Version::HTTP_2 {
        return None;
    }
    let limits = ctx.connection.as_ref()?.bounds.head;
    let target = request.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let twice = |name: HeaderName| has_two(&request.headers, &name);
    let (status, reason) = match () {
        () if request.method == Method::TRACE => (405, Reason::TraceMethod),
        () if limits.target_size < target => (414, Reason::TargetTooLong),
        () if limits.header_fields < request.headers.len() => (431, Reason::TooManyFields),
        () if twice(header::AUTHORIZATION) => (400, Reason::DuplicateAuthorization),
        () if path::check_query(request.uri.query().unwrap_or("")).is_err() => {
            (400, Reason::BadTarget)
        }
        () => return None,
    };
    ctx.reason = Some(reason);
    Some(match status {
        405 => Reply::method_not_allowed(HeaderValue::from_static(METHODS)),
        status => Reply::status(status),
    })
}

fn has_two(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// The host that is asked for: HTTP/2 says it in `:authority`.
pub(crate) fn authority(request: &RequestHeader) -> &str {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let host = || request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    authority.or_else(host).unwrap_or_default()
}

/// Decides what the origin is asked for: the canonical path, unless the route wants it as sent.
fn set_target(
    request: &RequestHeader,
    route: &Route,
    path: &Canonical<'_>,
    ctx: &mut Context,
) -> result::Result<(), Reply> {
    if let Canonical::Rewritten(path) = path
        && !route.path_as_sent
    {
        let target = origin_form(path, request.uri.query());
        ctx.target = Some(target.map_err(|_| {
            ctx.reason = Some(Reason::BadTarget);
            Reply::status(400)
        })?);
    }
    Ok(())
}

/// Turns an answer down, and takes a place at the backend that is asked instead, if the answer is
/// worth another attempt, there is time for one, and somebody to ask: another backend, or the same
/// one if it says when (`Retry-After`). Else the answer is the client's.
pub(crate) fn turn_down(session: &Session, answer: &ResponseHeader, ctx: &mut Context) -> bool {
    let (Some(route), Some(in_flight)) = (&ctx.route, &ctx.in_flight) else { return false };
    let policy = route.upstream.retry_policy();
    let request = session.req_header();
    let is_over = policy.max <= ctx.attempts.retries() || ctx.attempts.is_nearly_full();
    if is_over
        || 0 < ctx.interim
        || !policy.on.meets_answer(&request.method, answer.status, &answer.headers)
    {
        return false;
    }
    if !ctx.keeps_body(session.as_ref().retry_buffer_truncated()) {
        ctx.replay = Some(Replay::TooLong);
        return false;
    }
    let now = Instant::now();
    let this = in_flight.member().state.clone();
    let visit_others = |member: &Member| match ctx.attempts.visit(member) {
        _ if Arc::ptr_eq(&member.state, &this) => Visit::Failed,
        visit => visit,
    };
    let (hints, mut pause) = (hints(request, ctx), None);
    let other = route.upstream.take_turn(now, &hints, visit_others).or_else(|| {
        let asked = retry_after(&answer.headers, SystemTime::now());
        let asked = asked.filter(|asked| *asked <= policy.retry_after_max)?;
        pause = Some(asked);
        // This one said when, however often it was asked before.
        let is_this = |member: &Member| Arc::ptr_eq(&member.state, &this);
        route.upstream.take_turn(now, &hints, |member| {
            if is_this(member) { Visit::None } else { Visit::Failed }
        })
    });
    let Some(other) = other else { return false };
    if ctx.is_late(now + pause.unwrap_or_default()) || !route.upstream.may_retry(now) {
        return false;
    }
    ctx.end_attempt(Outcome::Status(answer.status.as_u16()));
    (ctx.in_flight, ctx.pause) = (Some(other), pause);
    true
}

/// Waits until the next attempt may begin: by chance, or as long as the origin asked; not at all
/// after a pooled connection that was closed already.
async fn pause(ctx: &mut Context) -> Result<()> {
    let Some(route) = &ctx.route else { return Ok(()) };
    let backoff = &route.upstream.retry_policy().backoff;
    let pause = ctx.pause.take().unwrap_or_else(|| match ctx.attempts.last() {
        Some(Outcome::Full) => queue::pause(&ctx.attempts),
        Some(last) if last.is_blameless() => Duration::ZERO,
        _ => backoff.pause(ctx.attempts.retries()),
    });
    if ctx.is_late(Instant::now() + pause) {
        return Err(late(ctx));
    }
    if pause != Duration::ZERO {
        time::sleep(pause).await;
    }
    Ok(())
}

/// The error of a request whose time is over.
#[expect(clippy::unnecessary_box_returns, reason = "errors of Pingora travel in boxes")]
fn late(ctx: &mut Context) -> Box<Error> {
    ctx.reason = Some(Reason::Deadline);
    Error::explain(ErrorType::HTTPStatus(504), "the time of the route is over")
}

/// What balancers may know of a request.
pub(crate) fn hints<'a>(request: &'a RequestHeader, ctx: &Context) -> Hints<'a> {
    Hints { client: ctx.client, headers: Some(&request.headers), uri: Some(&request.uri) }
}

/// Lets the client stay with the backend that answers it, where its upstream is sticky.
pub(crate) fn stay(
    request: &RequestHeader,
    header: &mut ResponseHeader,
    ctx: &Context,
) -> Result<()> {
    let (Some(in_flight), Some(route)) = (&ctx.in_flight, &ctx.route) else { return Ok(()) };
    let is_secure = ctx.connection.as_ref().is_some_and(|connection| connection.is_secure());
    match route.upstream.cookie(&hints(request, ctx), in_flight.member(), is_secure) {
        Some(cookie) => header.append_header(header::SET_COOKIE, cookie).map(|_| ()),
        None => Ok(()),
    }
}

/// Makes the peer of the next attempt; after a failure, a moment later.
pub(crate) async fn peer(session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
    cached::without_peer(ctx)?;
    if !ctx.attempts.is_empty() {
        pause(ctx).await?;
        ctx.attempt = Begun::after(ctx.attempts.len(), Instant::now());
        if 0 < ctx.body_bytes {
            ctx.replay = Some(Replay::Sent(ctx.body_bytes));
        }
    }
    let now = ctx.attempt.at;
    if ctx.in_flight.is_none() {
        // What is told where there is none is how the last attempt ended.
        let known = ctx.reason;
        if queue::backend(session, ctx, now).await?.is_err() && !ctx.is_late(Instant::now()) {
            ctx.reason = known;
        }
    }
    let mut peer = peer_from(now, session, ctx)?;
    let Some(route) = &ctx.route else { return Ok(peer) };
    let options = &mut peer.options;
    let http = route.upstream.link().http();
    options.read_timeout = read_timeout(session, http, route.upstream.timeouts());
    if is_stream(session.as_downstream()) && !session.is_upgrade_req() {
        let limit = ctx.limit(now).map(|limit| limit.saturating_duration_since(now));
        options.read_timeout = limit.into_iter().chain(options.read_timeout).min();
    }
    if let Some(connection) = &ctx.connection
        && !is_stream(session.as_downstream())
    {
        // Only what is sent already can be late by its origin's fault.
        let is_sent = session.is_body_empty();
        connection.set_limit(if is_sent { ctx.limit(now) } else { ctx.deadline });
    }
    ctx.body_bytes = 0;
    ctx.is_sent = session.is_body_empty();
    ctx.interim = 0;
    Ok(peer)
}

/// The peer of an attempt that begins at a time, at the backend that has a place reserved.
pub(crate) fn peer_from(
    now: Instant,
    session: &Session,
    ctx: &mut Context,
) -> Result<Box<HttpPeer>> {
    let (Some(in_flight), Some(route)) = (&ctx.in_flight, &ctx.route) else {
        return Error::e_explain(ErrorType::ConnectError, "no backend is left to try");
    };
    let limit = ctx.limit(now).map(|limit| limit.saturating_duration_since(now));
    if limit == Some(Duration::ZERO) {
        return Err(late(ctx));
    }
    let mut peer = route.upstream.peer_for(in_flight.member(), || sender(session, ctx), limit);
    if let Some(deadline) = ctx.deadline {
        let left = deadline.saturating_duration_since(now);
        peer.options.write_timeout = peer.options.write_timeout.map(|time| time.min(left));
    }
    if route.upstream.link().http() == Http::Auto && needs_http1(session) {
        peer.options.set_http_version(1, 1);
    }
    Ok(peer)
}

/// Whom the origin is told of by the PROXY protocol.
pub(crate) fn sender(session: &Session, ctx: &Context) -> Sender {
    let inet = |address: Option<&SocketAddr>| address?.as_inet().copied();
    let client = ctx.connection.as_ref().and_then(|connection| connection.client);
    Sender::of(client, inet(session.client_addr()), inet(session.server_addr()))
}

/// What Pingora cannot carry over HTTP/2: an upgrade, and an answer without a length to a client
/// that knows no chunks.
fn needs_http1(session: &Session) -> bool {
    session.is_upgrade_req() || session.req_header().version == Version::HTTP_10
}

/// Whether another attempt may follow the one that just failed.
pub(crate) fn may_try_again(ctx: &Context) -> bool {
    let (Some(route), Some(last)) = (&ctx.route, ctx.attempts.last()) else { return false };
    if ctx.attempts.is_full() {
        return false;
    }
    if last == Outcome::Full {
        return queue::may_ask_again(&ctx.attempts);
    }
    if !route.upstream.retry_policy().on.meets(last) {
        return false;
    }
    if last.is_blameless() && ctx.attempts.stale() <= STALE_MAX {
        return true; // the backend is not to blame, and a new connection will tell
    }
    let now = Instant::now();
    ctx.attempts.retries() <= route.upstream.retry_policy().max
        && !ctx.is_late(now)
        && route.upstream.may_retry(now)
}

/// What Pingora itself keeps. [`await_origin`] keeps the time of an answer, once a request over
/// HTTP/1 is sent; not that of an upload, of a tunnel, or of a stream of HTTP/2, which has no
/// connection of its own that could.
fn read_timeout(session: &mut Session, http: Http, timeouts: &Timeouts) -> Option<Duration> {
    if session.is_upgrade_req() {
        return Some(timeouts.tunnel);
    }
    let is_kept =
        http == Http::One && !is_stream(session.as_downstream()) && session.is_body_empty();
    (!is_kept).then_some(timeouts.first_byte.max(timeouts.between_bytes))
}

/// Notes that the request is sent whole: from now on the origin has its time, and the attempt.
pub(crate) fn sent(session: &mut Session, ctx: &mut Context) {
    ctx.is_sent = true;
    await_origin(ctx, |timeouts| timeouts.first_byte);
    if let Some(connection) = &ctx.connection
        && !is_stream(session.as_downstream())
        && !session.is_body_empty()
        && !ctx.is_answered
    {
        let limit = ctx.limit(Instant::now());
        connection.set_limit(limit);
    }
}

/// Waits for the origin from now on, for as long as its upstream allows.
pub(crate) fn await_origin(ctx: &Context, patience: impl Fn(&Timeouts) -> Duration) {
    if let (Some(route), Some(connection)) = (&ctx.route, &ctx.connection)
        && !connection.is_tunnel()
    {
        connection.await_origin(Some(patience(route.upstream.timeouts())));
    }
}
