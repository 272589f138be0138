//! What the access log is told of a request, and others who ask how it ended.

use http::{HeaderValue, Version, header};
use pingora_proxy::Session;

use crate::{
    downstream::connection::Connection,
    observe::access_log::line::Entry,
    policy::cache::Verdict,
    proxy::{
        cached,
        context::{Context, Replay},
        select,
    },
    reason::Reason,
};

/// The status of a request whose client left before there was one (nginx's number).
const CLIENT_LEFT: u16 = 499;

/// The status that a request ended with.
pub(crate) fn status(session: &Session, ctx: &Context) -> u16 {
    let answer = session.response_written().map(|answer| answer.status.as_u16());
    answer.or(ctx.unsent_status).unwrap_or(CLIENT_LEFT)
}

/// Describes a request that has ended.
pub(crate) fn entry<'a>(session: &'a Session, ctx: &'a Context, status: u16) -> Entry<'a> {
    let request = session.req_header();
    let text = |name| request.headers.get(name).map(HeaderValue::as_bytes);
    Entry {
        id: ctx.id.as_bytes(),
        traced: ctx.trace.filter(|trace| trace.is_sampled).map(|trace| trace.ids),
        client: ctx.client,
        method: request.method.as_str(),
        host: select::authority(request),
        target: request.raw_path(),
        protocol: protocol(session),
        tls: ctx.connection.as_deref().map(Connection::tls_entry).unwrap_or_default(),
        status,
        bytes: session.body_bytes_sent() as u64,
        total: ctx.started.elapsed(),
        connect: ctx.attempts.connect(),
        first_byte: ctx.first_byte(),
        route: ctx.route.as_ref().map(|route| route.name.as_str()),
        upstream: ctx.route.as_ref().map(|route| &**route.upstream.name()),
        backend: ctx.attempts.last_backend(),
        attempts: ctx.attempts.len(),
        via: &ctx.attempts,
        replayed: match ctx.replay {
            Some(Replay::Sent(bytes)) => Some(bytes),
            _ => None,
        },
        is_too_long_to_replay: ctx.replay == Some(Replay::TooLong),
        cache: cached::ended(ctx).map(Verdict::as_str),
        reason: ctx.reason.unwrap_or(Reason::Ok),
        user: ctx.who.user(),
        user_agent: text(header::USER_AGENT),
        referer: text(header::REFERER),
        request: Some(&request.headers),
        response: session.response_written().map(|answer| &answer.headers),
    }
}

fn protocol(session: &Session) -> &'static str {
    match session.req_header().version {
        Version::HTTP_10 => "HTTP/1.0",
        // A WebSocket speaks HTTP/1.1 to everybody but its client.
        _ if session.as_downstream().is_custom() => "HTTP/2.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
