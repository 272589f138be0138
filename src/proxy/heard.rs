//! What an origin answered, as soon as its head is here: whether it is taken, and what it says of
//! the backend.

use std::time::Duration;

use pingora::{Error, ErrorType, Result};
use pingora_core::protocols::Digest;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::{
    clock::Brief,
    downstream::upload::is_stream,
    proxy::{cached, context::Context, failure, respond, select},
    upstream::{attempts::Contact, outcome::Outcome},
};

/// More interim answers than this are nonsense.
pub(crate) const INTERIM_MAX: u32 = 8;

/// Takes an answer, or turns it down by an error.
pub(crate) fn answer(
    session: &mut Session,
    header: &ResponseHeader,
    ctx: &mut Context,
) -> Result<()> {
    if header.status == 101 && !session.is_upgrade_req() {
        let why = "an upgrade that nobody asked for";
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up());
    }
    if header.status.is_informational() && header.status != 101 {
        ctx.interim += 1;
        return if ctx.interim <= INTERIM_MAX {
            Ok(())
        } else {
            Err(Error::explain(ErrorType::InvalidHTTPHeader, "interim answers").into_up())
        };
    }
    respond::bound(header)?;
    if select::turn_down(session, header, ctx) {
        return Err(Error::explain(failure::TURNED_DOWN, "another is asked").into_up());
    }
    if let Err(why) = cached::answered(session, header, ctx) {
        ctx.end_attempt(Outcome::Status(header.status.as_u16()));
        return Err(why);
    }
    answered(session, header, ctx);
    Ok(())
}

/// How a connection came about: that took so long, unless it was pooled.
pub(crate) fn contact(took: Option<Duration>, digest: Option<&Digest>) -> Contact {
    let Some(took) = took else { return Contact::Pooled };
    // The socket comes first, and TLS upon it.
    let layer = digest.and_then(|digest| digest.timing_digest.get(1)?.as_ref());
    let handshake = layer.and_then(|layer| layer.establishment_duration);
    Contact::Made { took: took.into(), handshake: handshake.map(Brief::from) }
}

/// Notes that the origin has answered.
fn answered(session: &mut Session, header: &ResponseHeader, ctx: &mut Context) {
    let now = Instant::now();
    ctx.is_answered = true;
    ctx.attempt.first_byte = Some(now);
    let is_stream = is_stream(session.as_downstream());
    if let (Some(in_flight), Some(route)) = (&ctx.in_flight, &ctx.route) {
        let outcome = Outcome::Status(header.status.as_u16());
        ctx.attempt.has_ejected = route.upstream.report(in_flight.member(), outcome, now);
        let took = now.saturating_duration_since(ctx.attempt.at);
        route.upstream.report_latency(in_flight.member(), outcome, took, now);
        in_flight.took(took, now);
        if header.status == 101
            && let Some(connection) = &ctx.connection
        {
            connection.await_origin(None);
            if !is_stream {
                connection.open_tunnel(); // others have streams on a connection of HTTP/2
            }
            session.set_read_timeout(Some(route.upstream.timeouts().tunnel));
        }
    }
    if let Some(connection) = ctx.connection.as_ref().filter(|_| !is_stream) {
        connection.set_limit(None);
    }
    select::await_origin(ctx, |timeouts| timeouts.between_bytes);
}
