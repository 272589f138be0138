//! Requests that are sent by Pingora's client from here, and not by its proxy.
//!
//! Hedging: where the first answer is late, another backend is asked beside, and the first answer
//! of the two is passed on. Pingora's proxy has one exchange with an origin at a time. This is for
//! requests that are idempotent and have no body.
//!
//! Narrow clients: Pingora's proxy reads ten buffers of an answer ahead of a client that takes
//! nothing. To one that takes little at a time from the beginning, one buffer is passed on after
//! the other.
//!
//! Upgrades: where an origin agrees to one before Pingora's proxy has passed on that the request
//! has no body, the proxy takes that for the end of the tunnel.
//!
//! Where a request fails before any byte was passed on, Pingora's proxy makes what further attempts
//! there may be.
//!
//! INVARIANT: whoever is asked holds a place at its backend until it is known how that ended; who
//! is given up is dropped, which closes its connection, or resets its stream.

use std::{
    future::{pending, poll_fn},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use arrayvec::ArrayVec;
use futures::{FutureExt, future::BoxFuture};
use http::{Version, header};
use pingora::{Error, ErrorType, Result};
use pingora_core::{
    connectors::http::Connector,
    protocols::http::{ServerSession, client::HttpSession},
    upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::{self, Instant};

use crate::{
    downstream::upload::is_stream,
    proxy::{
        Proxy,
        caught::Phases,
        context::Context,
        failure,
        heard::{INTERIM_MAX, contact},
        hop_by_hop, mirror, pass, select, translate,
    },
    upstream::{
        Visit,
        attempts::{Begun, Contact},
        backend::{Availability, InFlight, Member},
        link::{config::Http, send},
        load::Admission,
        outcome::{NO_HTTP2, Outcome},
    },
};

/// A backend that is asked.
struct Runner {
    place: InFlight,
    begun: Begun,
    asking: BoxFuture<'static, Result<Answer, Lost>>,
}

/// Those who are asked at a time.
type Runners = ArrayVec<Runner, 2>;

/// An answer whose head is here.
struct Answer {
    session: HttpSession,
    peer: Box<HttpPeer>,
    contact: Contact,
}

/// How asking failed.
enum Lost {
    /// There was no connection.
    Unconnected(Box<Error>),
    /// There was one, and no answer came of it.
    Broken(Box<Error>, Contact),
}

/// How a request is sent from here.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// To a second backend as well, where the first has not answered for so long.
    Hedged(Duration),
    /// For a client that takes little at a time.
    Narrow,
    /// For a tunnel, of which there is one.
    Upgrade,
}

/// Whether a request is sent from here; `None` leaves it to Pingora's proxy.
pub(crate) fn kind(session: &mut Session, ctx: &Context) -> Option<Kind> {
    let upstream = &ctx.route.as_ref()?.upstream;
    if !session.is_body_empty() || is_stream(session.as_downstream()) {
        return None;
    }
    if session.is_upgrade_req() {
        let is_passed_on = hop_by_hop::asks_for_websocket(session.req_header());
        return (is_passed_on && upstream.link().http() != Http::Two).then_some(Kind::Upgrade);
    }
    if !session.req_header().method.is_idempotent() {
        return None;
    }
    match upstream.retry_policy().hedge_after {
        Some(after) => Some(Kind::Hedged(after)),
        None => is_narrow(session, ctx).then_some(Kind::Narrow),
    }
}

/// Whether the client takes little at a time.
fn is_narrow(session: &Session, ctx: &Context) -> bool {
    let window =
        || session.digest()?.socket_digest.as_ref()?.tcp_info().map(|tcp| tcp.tcpi_snd_wnd);
    ctx.connection.as_ref().is_some_and(|connection| connection.is_narrow(window))
}

/// Asks the backend that has a place reserved, and perhaps another after a while; passes on what
/// comes first. Returns whether another attempt is left to Pingora's proxy.
pub(crate) async fn exchange(
    proxy: &Proxy,
    session: &mut Session,
    ctx: &mut Context,
    kind: Kind,
) -> Result<bool> {
    let passed = match race(proxy, session, ctx, kind).await {
        Ok(mut answer) => pass(proxy, session, ctx, &mut answer).await.map(|()| answer),
        Err(why) => Err(why),
    };
    match passed {
        Ok(Answer { mut session, peer, .. }) => {
            if pass::is_tunnel(&session) {
                session.shutdown().await;
            } else {
                let idle = peer.options.idle_timeout;
                proxy.direct.release_http_session(session, &*peer, idle).await;
            }
            Ok(false)
        }
        Err(why) if why.retry() => Ok(true),
        Err(why) => Err(why),
    }
}

/// Waits for the head of the first answer; the error is one that the hooks have judged.
async fn race(
    proxy: &Proxy,
    session: &mut Session,
    ctx: &mut Context,
    kind: Kind,
) -> Result<Answer> {
    let mut runners = Runners::new();
    runners.push(begin(proxy, session, ctx)?);
    let mut hedge_at = match kind {
        Kind::Hedged(patience) => Some(Instant::now() + patience),
        Kind::Narrow | Kind::Upgrade => None,
    };
    let first = runners[0].begun.at;
    loop {
        let (runner, asked) = tokio::select! {
            biased;
            ended = next(&mut runners) => ended,
            () = time::sleep_until(hedge_at.unwrap_or(first)), if hedge_at.is_some() => {
                hedge_at = None;
                if reserve_another(session, ctx, &runners) {
                    runners.push(begin(proxy, session, ctx)?);
                }
                continue;
            }
            () = left(session) => return Err(given_up(ctx, runners)),
        };
        let is_second = first < runner.begun.at;
        if asked.is_ok() {
            outrun(ctx, &mut runners, is_second);
        }
        (ctx.in_flight, ctx.attempt) = (Some(runner.place), runner.begun);
        match asked {
            Ok(answer) => return Ok(noted(answer, is_second, ctx)),
            Err(lost) => {
                ctx.attempt.contact = lost.contact();
                if runners.is_empty() {
                    return Err(lost.judged(proxy, session, ctx));
                }
                ctx.end_attempt(lost.outcome());
            }
        }
    }
}

/// Asks the backend that has a place reserved.
fn begin(proxy: &Proxy, session: &mut Session, ctx: &mut Context) -> Result<Runner> {
    let (begun, began) = (ctx.attempt, ctx.attempt.at);
    let mut peer = select::peer_from(began, session, ctx)?;
    let limit = ctx.limit(began).map(|limit| limit.saturating_duration_since(began));
    let Some(route) = &ctx.route else {
        return Error::e_explain(ErrorType::InternalError, "a request without a route");
    };
    let (first_byte, http) = (route.upstream.timeouts().first_byte, route.upstream.link().http());
    peer.options.read_timeout = limit.into_iter().chain([first_byte]).min();
    (ctx.is_sent, ctx.body_bytes, ctx.interim) = (true, 0, 0);

    let sent = session.req_header();
    let mut head = sent.clone();
    hop_by_hop::strip(&mut head)?;
    if sent.version == Version::HTTP_2 {
        head.insert_header(header::HOST, select::authority(sent))?;
    }
    head.set_version(if http == Http::Two { Version::HTTP_2 } else { Version::HTTP_11 });
    translate::request(sent, &mut head, ctx)?;
    mirror::head(&proxy.direct, session, &head, ctx);
    let Some(place) = ctx.in_flight.take() else {
        return Error::e_explain(ErrorType::InternalError, "an attempt without a backend");
    };
    let asking = ask(proxy.direct.clone(), peer, head, http).boxed();
    Ok(Runner { place, begun, asking })
}

/// Sends a request, and waits for the head of its answer.
async fn ask(
    connector: Arc<Connector>,
    peer: Box<HttpPeer>,
    head: RequestHeader,
    http: Http,
) -> Result<Answer, Lost> {
    let began = Instant::now();
    let (mut session, is_reused) =
        connector.get_http_session(&*peer).await.map_err(Lost::Unconnected)?;
    let contact = contact((!is_reused).then(|| began.elapsed()), session.digest());
    match head_of_answer(&mut session, &peer, head, http).await {
        Ok(()) => Ok(Answer { session, peer, contact }),
        Err(why) => Err(Lost::Broken(why.into_up(), contact)),
    }
}

async fn head_of_answer(
    session: &mut HttpSession,
    peer: &HttpPeer,
    mut head: RequestHeader,
    http: Http,
) -> Result<()> {
    if http == Http::Two && session.as_http2().is_none() {
        return Error::e_explain(ErrorType::Custom(NO_HTTP2), "the origin speaks HTTP/1");
    }
    session.set_read_timeout(peer.options.read_timeout);
    session.set_write_timeout(peer.options.write_timeout);
    translate::frame(&mut head, session, peer)?;
    send(session, head).await?;
    for _ in 0..=INTERIM_MAX {
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |answer| answer.status.as_u16());
        if status == 101 || 200 <= status {
            return Ok(());
        }
    }
    Error::e_explain(ErrorType::InvalidHTTPHeader, "interim answers")
}

/// Waits for whoever comes first.
async fn next(runners: &mut Runners) -> (Runner, Result<Answer, Lost>) {
    let (index, asked) = poll_fn(|cx| {
        for (index, runner) in runners.iter_mut().enumerate() {
            if let Poll::Ready(asked) = runner.asking.as_mut().poll(cx) {
                return Poll::Ready((index, asked));
            }
        }
        Poll::Pending
    })
    .await;
    (runners.remove(index), asked)
}

/// Waits until the client gives its request up, as far as it can be told: over HTTP/1, one that
/// closes its side may still listen.
async fn left(session: &mut Session) {
    match session.as_downstream_mut() {
        ServerSession::H2(stream) => drop(stream.idle().await),
        _ => pending().await,
    }
}

/// Reserves a place for the second request: at a backend that is fit and was not asked, within
/// the budget of retries, and without overtaking anybody who waits.
fn reserve_another(session: &Session, ctx: &mut Context, runners: &Runners) -> bool {
    let Some(route) = &ctx.route else { return false };
    let (upstream, now) = (&route.upstream, Instant::now());
    let visit = |member: &Member| {
        let is_it = |runner: &Runner| Arc::ptr_eq(&runner.place.member().state, &member.state);
        if runners.iter().any(is_it) { Visit::Failed } else { ctx.attempts.visit(member) }
    };
    let hints = select::hints(session.req_header(), ctx);
    let Admission::Taken(place) = upstream.admit(now, &hints, visit) else { return false };
    let is_fit = !matches!(
        place.member().availability(now),
        Availability::Ejected | Availability::Unhealthy | Availability::Draining
    );
    let may =
        is_fit && ctx.attempts.retries() < upstream.retry_policy().max && upstream.may_retry(now);
    if may {
        upstream.account().hedges.begun.increment();
        let others = ctx.attempts.len() + runners.len();
        (ctx.in_flight, ctx.attempt) = (Some(place), Begun::after(others, now));
    }
    may
}

/// Records those whom the winner outran. One that was asked before it is slower than was thought.
fn outrun(ctx: &mut Context, losers: &mut Runners, is_first_slower: bool) {
    for Runner { place, begun, .. } in losers.drain(..) {
        if is_first_slower {
            (ctx.in_flight, ctx.attempt) = (Some(place), begun);
            ctx.end_attempt(Outcome::Outrun);
        } else {
            let times = begun.times(ctx.started, Instant::now());
            ctx.attempts.record(place.member().clone(), Outcome::Outrun, times);
        }
    }
}

/// Notes whose answer it is.
fn noted(answer: Answer, is_second: bool, ctx: &mut Context) -> Answer {
    ctx.attempt.contact = answer.contact;
    if let Some(route) = &ctx.route {
        let account = route.upstream.account();
        account.connected(answer.contact.connect());
        if is_second {
            account.hedges.won.increment();
        }
    }
    answer
}

/// Records that the client is gone.
#[expect(clippy::unnecessary_box_returns, reason = "errors of Pingora travel in boxes")]
fn given_up(ctx: &mut Context, runners: Runners) -> Box<Error> {
    for Runner { place, begun, .. } in runners {
        (ctx.in_flight, ctx.attempt) = (Some(place), begun);
        ctx.end_attempt(Outcome::ClientLeft);
    }
    Error::explain(ErrorType::ReadError, "the client left before the answer").into_down()
}

impl Lost {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Unconnected(why) => Outcome::of_connecting(why),
            Self::Broken(why, contact) => {
                failure::of_exchange(why, *contact == Contact::Pooled, false)
            }
        }
    }

    fn contact(&self) -> Contact {
        match self {
            Self::Unconnected(_) => Contact::None,
            Self::Broken(_, contact) => *contact,
        }
    }

    /// Lets the hooks decide whether there is another attempt.
    #[expect(clippy::unnecessary_box_returns, reason = "errors of Pingora travel in boxes")]
    fn judged(self, proxy: &Proxy, session: &Session, ctx: &mut Context) -> Box<Error> {
        match self {
            Self::Unconnected(mut why) => {
                proxy.fail_to_connect(ctx, &mut why);
                why
            }
            Self::Broken(mut why, contact) => {
                proxy.error_while_proxy(session, &mut why, ctx, contact == Contact::Pooled);
                why
            }
        }
    }
}

/// Passes an answer on; the error is one that the hooks have judged.
async fn pass(
    proxy: &Proxy,
    session: &mut Session,
    ctx: &mut Context,
    answer: &mut Answer,
) -> Result<()> {
    let Err(mut why) = pass::on(proxy, session, ctx, &mut answer.session).await else {
        return Ok(());
    };
    let is_reused = answer.contact == Contact::Pooled;
    proxy.error_while_proxy(session, &mut why, ctx, is_reused);
    Err(why)
}
