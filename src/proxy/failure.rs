//! What an error of Pingora means: for the attempt, for a retry, and for the client.
//!
//! This is the one place that turns errors into statuses.

use std::{io, time::Duration};

use http::Method;
use pingora::{Error, ErrorSource, ErrorType, ImmutStr, RetryType};
use pingora_core::protocols::http::v2::client::PING_TIMEDOUT;

use crate::{
    cache,
    downstream::error::{BadBody, BodyTooSlow, OriginSilent},
    reason::Reason,
    tls::origin::Fault,
    upstream::outcome::{Outcome, tls_fault},
};

/// A pooled connection that breaks later than this broke while the origin was at work.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The error by which an answer is turned down: the next attempt has its place already.
pub(crate) const TURNED_DOWN: ErrorType = ErrorType::Custom("turned down");

/// How an attempt ended that had a connection.
pub(crate) fn of_exchange(error: &Error, is_reused: bool, is_answered: bool) -> Outcome {
    if carries::<OriginSilent>(error).is_some() {
        return Outcome::Timeout;
    }
    if error.esource == ErrorSource::Downstream {
        return Outcome::ClientLeft;
    }
    if error.esource == ErrorSource::Internal || is_followed(error) {
        return Outcome::Internal;
    }
    if let Some(fault) = tls_fault(error) {
        return Outcome::Tls(fault);
    }
    if error.etype == PING_TIMEDOUT {
        return Outcome::Timeout;
    }
    if !is_answered && is_refused_late(error) {
        return Outcome::Tls(Fault::Refused);
    }
    if let Some(said) = http2(error) {
        return of_http2(error, said, is_reused, is_answered);
    }
    match error.etype {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Outcome::Timeout,
        ErrorType::WriteError if is_reused && !is_answered => Outcome::Stale,
        ErrorType::ConnectionClosed | ErrorType::ReadError
            if is_reused && !is_answered && is_silent(error) =>
        {
            Outcome::Stale
        }
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
            Outcome::Reset
        }
        ErrorType::HTTPStatus(_) => Outcome::Internal,
        _ => Outcome::Nonsense,
    }
}

/// Whether what another fetched did not go on: the origin of this request has no part in that.
fn is_followed(error: &Error) -> bool {
    matches!(error.etype, cache::BROKEN | cache::LATE)
}

/// How an attempt ended on a stream of HTTP/2.
///
/// A stream that GOAWAY cuts off is one above the last that the origin has looked at (RFC 9113
/// §6.8); one below lives on. What `REFUSED_STREAM` ends was not looked at, either (§8.7), and
/// what is to be said over HTTP/1.1 is not done (§7).
fn of_http2(error: &Error, said: &h2::Error, is_reused: bool, is_answered: bool) -> Outcome {
    let is_reset = said.is_reset() && said.is_remote();
    match () {
        () if is_answered => Outcome::Reset,
        () if said.is_go_away() && said.is_remote() => Outcome::Unprocessed,
        () if is_reset && said.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            Outcome::RefusedStream
        }
        // Pingora asks over HTTP/1.1 from now on, unless that must not be.
        () if error.etype == ErrorType::H2Downgrade && error.retry == RetryType::Decided(true) => {
            Outcome::Unprocessed
        }
        () if said.is_io() && is_reused => Outcome::Stale,
        () if said.is_io() || is_reset => Outcome::Reset,
        () => Outcome::Nonsense,
    }
}

/// What HTTP/2 says of an error.
fn http2(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

/// Over TLS 1.3, an origin refuses the certificate that it was shown, or missed, only after our
/// side of the handshake is over; and before it has read a request.
fn is_refused_late(error: &Error) -> bool {
    let alert = |why: &io::Error| {
        let why = why.get_ref().and_then(|why| why.downcast_ref::<rustls::Error>());
        matches!(why, Some(rustls::Error::AlertReceived(_)))
    };
    match http2(error) {
        Some(said) => said.get_io().is_some_and(alert),
        None => error.root_cause().downcast_ref().is_some_and(alert),
    }
}

/// Whether a request may be sent once more after its connection failed.
///
/// Not after any byte of an answer. A method that is not idempotent only if a pooled connection
/// was closed before the origin can have done anything: at once.
pub(crate) fn may_repeat(error: &Error, outcome: Outcome, method: &Method, took: Duration) -> bool {
    match outcome {
        Outcome::Tls(_) | Outcome::RefusedStream | Outcome::Unprocessed => true,
        // A connection of HTTP/2 carries other requests: it says nothing of this one that it broke.
        Outcome::Stale => method.is_idempotent() || (took < AT_ONCE && http2(error).is_none()),
        Outcome::Timeout => method.is_idempotent(),
        Outcome::Reset => method.is_idempotent() && is_silent(error),
        _ => false,
    }
}

/// What the client is told, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The status; `None` if nothing can be sent.
    pub(crate) status: Option<u16>,
    /// Why.
    pub(crate) reason: Reason,
}

/// Judges the error that ends a request. `last` is how its last attempt ended.
pub(crate) fn verdict(error: &Error, last: Option<Outcome>) -> Verdict {
    let say = |status, reason| Verdict { status: Some(status), reason };
    if let Some(BadBody(refusal)) = carries::<BadBody>(error) {
        return say(refusal.status, refusal.reason);
    }
    if carries::<BodyTooSlow>(error).is_some() {
        return say(408, Reason::BodyTooSlow);
    }
    if let Some(status) = status_of(error) {
        return status;
    }
    match error.etype {
        cache::BROKEN => return say(502, Reason::OriginTruncated),
        cache::LATE => return say(504, Reason::OriginTimeout),
        _ => {}
    }
    if let Some((status, reason)) = last.and_then(Outcome::no_connection) {
        return say(status, reason);
    }
    match last {
        Some(Outcome::ClientLeft | Outcome::Internal) | None => of_client(error),
        Some(Outcome::RefusedStream) => say(502, Reason::OriginRefused),
        Some(Outcome::Timeout) => say(504, Reason::FirstByteTimeout),
        Some(Outcome::Reset | Outcome::Stale | Outcome::Unprocessed) => {
            say(502, Reason::OriginReset)
        }
        Some(Outcome::Deadline) => say(504, Reason::Deadline),
        Some(_) => say(502, Reason::OriginNonsense),
    }
}

/// The same once the answer has begun: no other status can be told.
pub(crate) fn midway(reason: Reason) -> Reason {
    match reason {
        Reason::FirstByteTimeout => Reason::OriginTimeout,
        Reason::OriginReset => Reason::OriginTruncated,
        reason => reason,
    }
}

/// Statuses that our own hooks chose.
fn status_of(error: &Error) -> Option<Verdict> {
    let ErrorType::HTTPStatus(status) = error.etype else { return None };
    let reason = match status {
        413 => Reason::OverLimit,
        502 => Reason::OriginNonsense,
        505 => Reason::Http10,
        503 => Reason::NoBackend,
        504 => Reason::Deadline,
        _ => Reason::Policy,
    };
    Some(Verdict { status: Some(status), reason })
}

fn of_client(error: &Error) -> Verdict {
    let say = |status, reason| Verdict { status: Some(status), reason };
    if error.esource != ErrorSource::Downstream {
        return say(500, Reason::Internal);
    }
    match error.etype {
        ErrorType::ReadTimedout => say(408, Reason::ClientTimeout),
        // The client closed its side in the middle of its body, and may still listen.
        ErrorType::ConnectionClosed => say(400, Reason::ClientAbort),
        ErrorType::WriteTimedout => Verdict { status: None, reason: Reason::WriteTimeout },
        ErrorType::WriteError | ErrorType::ReadError | ErrorType::H2Error
            if has_timed_out(error) =>
        {
            Verdict { status: None, reason: Reason::WriteTimeout }
        }
        ErrorType::ReadError | ErrorType::WriteError => {
            Verdict { status: None, reason: Reason::ClientAbort }
        }
        ErrorType::H2Error if has_left_http2(error) => {
            Verdict { status: None, reason: Reason::ClientAbort }
        }
        _ => say(400, Reason::BadRequest),
    }
}

/// Whether not one byte of an answer came: Pingora says so only in words.
fn is_silent(error: &Error) -> bool {
    if error.etype == ErrorType::WriteError || http2(error).is_some() {
        return true; // over HTTP/2, a head comes whole or not at all
    }
    let said = error.context.as_ref().map(ImmutStr::as_str);
    error.retry == RetryType::ReusedOnly
        && said.is_some_and(|said| said.ends_with("bytes already read: 0"))
}

/// Whether the stream itself gave a write up.
fn has_timed_out(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    // Over HTTP/2 all that was under way on the connection ends with it.
    let cause = cause.or_else(|| http2(error)?.get_io());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// Whether a client reset its stream, or ended its connection: Pingora says the one in words.
fn has_left_http2(error: &Error) -> bool {
    match (http2(error), &error.context) {
        (Some(said), _) => said.is_io() || said.is_remote(),
        (None, Some(said)) => {
            let said = said.as_str();
            said.starts_with("Client closed H2") || said == "cannot reserve capacity"
        }
        _ => false,
    }
}

/// Finds an error of ours that travelled inside an I/O error.
fn carries<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    error.root_cause().downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}
