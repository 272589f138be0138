//! What an error of Pingora means: for the attempt, for a retry, and for the client.
//!
//! This is the one place that turns errors into statuses.

use std::{io, time::Duration};

use http::Method;
use pingora::{Error, ErrorSource, ErrorType, ImmutStr, RetryType};

use crate::{
    downstream::{
        error::{BadBody, BodyTooSlow, OriginSilent},
        refused,
    },
    upstream::outcome::Outcome,
};

/// A pooled connection that breaks later than this broke while the origin was at work.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How an attempt ended that made no connection.
pub(crate) fn of_connecting(error: &Error) -> Outcome {
    match error.etype {
        ErrorType::ConnectRefused => Outcome::Refused,
        ErrorType::ConnectTimedout => Outcome::ConnectTimeout,
        ErrorType::ConnectNoRoute => Outcome::Unroutable,
        ErrorType::InternalError | ErrorType::BindError | ErrorType::SocketError => {
            Outcome::Internal
        }
        _ => Outcome::ConnectError,
    }
}

/// How an attempt ended that had a connection.
pub(crate) fn of_exchange(error: &Error, is_reused: bool, is_answered: bool) -> Outcome {
    if carries::<OriginSilent>(error).is_some() {
        return Outcome::Timeout;
    }
    if error.esource == ErrorSource::Downstream {
        return Outcome::ClientLeft;
    }
    if error.esource == ErrorSource::Internal {
        return Outcome::Internal;
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

/// Whether a request may be sent once more after its connection failed.
///
/// Not after any byte of an answer. A method that is not idempotent only if a pooled connection
/// was closed before the origin can have done anything: at once. And only if the body is whole.
pub(crate) fn may_repeat(
    error: &Error,
    outcome: Outcome,
    method: &Method,
    body: Body,
    took: Duration,
) -> bool {
    if body == Body::Partial {
        return false;
    }
    match outcome {
        Outcome::Stale => method.is_idempotent() || took < AT_ONCE,
        Outcome::Timeout => method.is_idempotent(),
        Outcome::Reset => method.is_idempotent() && is_silent(error),
        _ => false,
    }
}

/// Whether the request's body can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// All that was read of it is kept.
    Whole,
    /// It outgrew the buffer.
    Partial,
}

/// What the client is told, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The status; `None` if nothing can be sent.
    pub(crate) status: Option<u16>,
    /// The reason, in one word.
    pub(crate) reason: &'static str,
}

/// Judges the error that ends a request. `last` is how its last attempt ended.
pub(crate) fn verdict(error: &Error, last: Option<Outcome>) -> Verdict {
    let say = |status, reason| Verdict { status: Some(status), reason };
    if let Some(BadBody(refusal)) = carries::<BadBody>(error) {
        return say(refusal.status, refusal.reason);
    }
    if carries::<BodyTooSlow>(error).is_some() {
        return say(408, refused::BODY_TOO_SLOW);
    }
    if let Some(status) = status_of(error) {
        return status;
    }
    match last {
        Some(Outcome::ClientLeft | Outcome::Internal) | None => of_client(error),
        Some(Outcome::Refused) => say(502, "connect_refused"),
        Some(Outcome::Unroutable) => say(502, "connect_unroutable"),
        Some(Outcome::ConnectError) => say(502, "connect_error"),
        Some(Outcome::ConnectTimeout) => say(504, "connect_timeout"),
        Some(Outcome::Timeout) => say(504, "origin_timeout"),
        Some(Outcome::Reset | Outcome::Stale) => say(502, "origin_reset"),
        Some(Outcome::Nonsense | Outcome::Status(_)) => say(502, "origin_nonsense"),
    }
}

/// Statuses that our own hooks chose.
fn status_of(error: &Error) -> Option<Verdict> {
    let ErrorType::HTTPStatus(status) = error.etype else { return None };
    let reason = match status {
        413 => "over_limit",
        502 => "origin_nonsense",
        503 => "no_backend",
        _ => "policy",
    };
    Some(Verdict { status: Some(status), reason })
}

fn of_client(error: &Error) -> Verdict {
    let say = |status, reason| Verdict { status: Some(status), reason };
    if error.esource != ErrorSource::Downstream {
        return say(500, "internal");
    }
    match error.etype {
        ErrorType::ReadTimedout => say(408, refused::CLIENT_TIMEOUT),
        // The client closed its side in the middle of its body, and may still listen.
        ErrorType::ConnectionClosed => say(400, "client_abort"),
        ErrorType::WriteTimedout => Verdict { status: None, reason: refused::WRITE_TIMEOUT },
        ErrorType::WriteError if has_timed_out(error) => {
            Verdict { status: None, reason: refused::WRITE_TIMEOUT }
        }
        ErrorType::ReadError | ErrorType::WriteError => {
            Verdict { status: None, reason: "client_abort" }
        }
        _ => say(400, "bad_request"),
    }
}

/// Whether not one byte of an answer came: Pingora says so only in words.
fn is_silent(error: &Error) -> bool {
    if error.etype == ErrorType::WriteError {
        return true;
    }
    let said = error.context.as_ref().map(ImmutStr::as_str);
    error.retry == RetryType::ReusedOnly
        && said.is_some_and(|said| said.ends_with("bytes already read: 0"))
}

/// Whether the stream itself gave a write up.
fn has_timed_out(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// Finds an error of ours that travelled inside an I/O error.
fn carries<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    error.root_cause().downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}
