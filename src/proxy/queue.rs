//! Waiting for a place at a backend, where all that are fit have as much to do as they may.

use std::{future::pending, sync::atomic::Ordering::Relaxed, time::Duration};

use pingora::{Error, ErrorType, Result};
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::Session;
use tokio::time::{self, Instant};

use crate::{
    downstream::stream::Downstream,
    proxy::{context::Context, select},
    reason::Reason,
    reply::Reply,
    upstream::{
        Upstream,
        attempts::{Attempts, Begun},
        load::{Admission, Queue, line::Place},
    },
};

/// How often the first in the line looks for a place of itself, as backends become fit without a
/// word, and how often it is looked whether a client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often in a row a request asks again that found as many connections as there may be:
/// one over HTTP/2 that is being made carries others once it is.
const FULL_MAX: usize = 8;
/// The first pause before it does; each is twice the one before.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Takes a place at the backend of the next attempt, and waits for one if that may be. Without
/// one, what the client is to be told; an error if it left meanwhile.
pub(crate) async fn backend(
    session: &mut Session,
    ctx: &mut Context,
    now: Instant,
) -> Result<Result<(), Reply>> {
    let Some(route) = &ctx.route else { return Ok(Err(Reply::status(503))) };
    if ctx.attempts.is_empty() {
        route.upstream.count_request();
    }
    let hints = select::hints(session.req_header(), ctx);
    match route.upstream.admit(now, &hints, |member| ctx.attempts.visit(member)) {
        Admission::Taken(in_flight) => {
            ctx.in_flight = Some(in_flight);
            Ok(Ok(()))
        }
        Admission::Busy => {
            let upstream = route.upstream.clone();
            Box::pin(wait(session, ctx, &upstream)).await
        }
        Admission::Nobody => {
            ctx.reason = Some(Reason::NoBackend);
            Ok(Err(Reply::status(503)))
        }
    }
}

/// Waits in the line of an upstream.
async fn wait(
    session: &mut Session,
    ctx: &mut Context,
    upstream: &Upstream,
) -> Result<Result<(), Reply>> {
    let (line, rules) = (upstream.account().line(), upstream.load().queue);
    let refuse = |ctx: &mut Context, reason| {
        ctx.reason = Some(reason);
        let otherwise = rules.map_or(Duration::ZERO, |queue| queue.timeout);
        Ok(Err(Reply::unavailable(line.retry_after(Instant::now(), otherwise))))
    };
    let Some(Queue { max, timeout }) = rules else {
        line.counts.refused.fetch_add(1, Relaxed);
        return refuse(ctx, Reason::UpstreamFull);
    };
    let Some(place) = line.join(max) else {
        line.counts.refused.fetch_add(1, Relaxed);
        return refuse(ctx, Reason::QueueFull);
    };
    let until = Instant::now() + timeout;
    let until = ctx.deadline.map_or(until, |deadline| deadline.min(until));
    let ended = tokio::select! {
        biased;
        ended = turn(session, place, ctx, upstream) => ended,
        () = time::sleep_until(until) => Ended::Late,
    };
    match ended {
        Ended::Served => Ok(Ok(())),
        Ended::Left => {
            line.counts.left.fetch_add(1, Relaxed);
            let why = "the client left while its request waited for a backend";
            Err(Error::explain(ErrorType::ReadError, why).into_down())
        }
        Ended::Late => {
            line.counts.timed_out.fetch_add(1, Relaxed);
            if ctx.is_late(Instant::now()) {
                ctx.reason = Some(Reason::Deadline);
                return Ok(Err(Reply::status(504)));
            }
            refuse(ctx, Reason::QueueTimeout)
        }
    }
}

/// How waiting ended.
enum Ended {
    /// With a place at a backend.
    Served,
    /// The client is gone.
    Left,
    /// It took too long.
    Late,
}

/// Waits for a turn, and takes a place.
async fn turn(
    session: &mut Session,
    place: Place,
    ctx: &mut Context,
    upstream: &Upstream,
) -> Ended {
    let mut may_look = place.is_first();
    loop {
        if may_look {
            let now = Instant::now();
            let hints = select::hints(session.req_header(), ctx);
            let taken = upstream.take_turn(now, &hints, |member| ctx.attempts.visit(member));
            if let Some(in_flight) = taken {
                let begun = Begun::after(ctx.attempts.len(), now);
                (ctx.in_flight, ctx.attempt) = (Some(in_flight), begun);
                place.served(now);
                return Ended::Served;
            }
            // One that failed at a backend has no use for a place there, and others have.
            if !ctx.attempts.is_empty() {
                place.pass_on();
            }
        }
        may_look = tokio::select! {
            biased;
            () = left(session) => return Ended::Left,
            () = place.woken() => true,
            () = time::sleep(LOOK_EVERY) => place.is_first(),
        };
    }
}

/// Waits until the client is gone. One that closes its side only while it waits is taken for gone:
/// there is no telling whether it still listens.
async fn left(session: &mut Session) {
    if let ServerSession::H2(stream) = session.as_downstream_mut() {
        let _ = stream.idle().await;
        return;
    }
    loop {
        let stream = session.stream();
        let Some(stream) = stream.and_then(|stream| stream.as_any().downcast_ref::<Downstream>())
        else {
            return pending().await;
        };
        if stream.has_left() {
            return;
        }
        time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a request that found as many connections as there may be asks once more.
pub(crate) fn may_ask_again(attempts: &Attempts) -> bool {
    attempts.full() < FULL_MAX
}

/// How long it waits before it does.
pub(crate) fn pause(attempts: &Attempts) -> Duration {
    let doublings = u32::try_from(attempts.full().saturating_sub(1)).unwrap_or(0);
    FULL_PAUSE * (1 << doublings.min(16))
}
