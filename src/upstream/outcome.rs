//! How one attempt at one backend ended.

use std::fmt;

use pingora::{Error, ErrorType};

use crate::{reason::Reason, tls::origin::Fault, upstream::load::connections::TOO_MANY};

/// The end of one attempt, in the words of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered with this status.
    Status(u16),
    /// The connection that is relayed was made.
    Connected,
    /// The connection was refused.
    Refused,
    /// There is no way to the address.
    Unroutable,
    /// The connection was not made in time.
    ConnectTimeout,
    /// The connection failed in another way.
    ConnectError,
    /// There was no TLS to be had with it, or not the HTTP that was wanted.
    Tls(Fault),
    /// It refused the request by a code of HTTP/2 that says that nothing was done.
    RefusedStream,
    /// Its connection over HTTP/2 was about to end, and the request was not looked at.
    Unprocessed,
    /// The connection broke before the answer was whole.
    Reset,
    /// No byte came in time.
    Timeout,
    /// What came was no HTTP.
    Nonsense,
    /// A pooled connection turned out to be closed before it carried the request.
    Stale,
    /// The client left, or erred, while the backend was at work.
    ClientLeft,
    /// The time of its route was over before the request was sent.
    Deadline,
    /// There were as many connections as there may be.
    Full,
    /// Another backend, which was asked beside, answered first.
    Outrun,
    /// No address and port were left to connect from.
    NoSource,
    /// Something of our own failed.
    Internal,
}

impl Outcome {
    /// How an attempt ended that made no connection.
    pub fn of_connecting(error: &Error) -> Self {
        if let Some(fault) = tls_fault(error) {
            return Self::Tls(fault);
        }
        if binds_nothing(error) {
            return Self::NoSource;
        }
        match error.etype {
            ErrorType::Custom(TOO_MANY) => Self::Full,
            ErrorType::ConnectRefused => Self::Refused,
            ErrorType::ConnectTimedout => Self::ConnectTimeout,
            ErrorType::ConnectNoRoute => Self::Unroutable,
            ErrorType::InternalError | ErrorType::SocketError => Self::Internal,
            _ => Self::ConnectError,
        }
    }

    /// The status and the reason if this was the last attempt, and it made no connection.
    pub fn no_connection(self) -> Option<(u16, Reason)> {
        match self {
            Self::Full => Some((503, Reason::UpstreamFull)),
            Self::NoSource => Some((503, Reason::NoSource)),
            Self::Refused => Some((502, Reason::ConnectRefused)),
            Self::Unroutable => Some((502, Reason::ConnectUnroutable)),
            Self::ConnectError => Some((502, Reason::ConnectError)),
            Self::ConnectTimeout => Some((504, Reason::ConnectTimeout)),
            Self::Tls(Fault::Timeout) => Some((504, Fault::Timeout.reason())),
            Self::Tls(fault) => Some((502, fault.reason())),
            _ => None,
        }
    }

    /// Whether it speaks against the backend: what ejection counts.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 502..=504),
            Self::Connected
            | Self::ClientLeft
            | Self::Deadline
            | Self::Internal
            | Self::NoSource
            | Self::Outrun => false,
            _ if self.is_blameless() => false,
            _ => true,
        }
    }

    /// Whether only the connection was at its end: a new one will tell.
    pub fn is_blameless(self) -> bool {
        matches!(self, Self::Stale | Self::Unprocessed | Self::Full)
    }

    /// Whether it speaks for the backend.
    pub fn is_success(self) -> bool {
        match self {
            Self::Status(status) => !matches!(status, 502..=504),
            outcome => outcome == Self::Connected,
        }
    }

    /// Whether a check should look at the backend now, instead of when its turn comes.
    pub fn is_suspicious(self) -> bool {
        self.is_failure() && !matches!(self, Self::Status(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.write_str(itoa::Buffer::new().format(*status)),
            Self::Connected => f.write_str("connected"),
            Self::Refused => f.write_str("refused"),
            Self::Unroutable => f.write_str("unroutable"),
            Self::ConnectTimeout => f.write_str("connect_timeout"),
            Self::ConnectError => f.write_str("connect_error"),
            Self::Tls(fault) => f.write_str(fault.as_str()),
            Self::RefusedStream => f.write_str("refused_stream"),
            Self::Unprocessed => f.write_str("unprocessed"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Nonsense => f.write_str("nonsense"),
            Self::Stale => f.write_str("stale"),
            Self::ClientLeft => f.write_str("client_left"),
            Self::Deadline => f.write_str("deadline"),
            Self::Full => f.write_str("full"),
            Self::NoSource => f.write_str("no_source"),
            Self::Outrun => f.write_str("outrun"),
            Self::Internal => f.write_str("internal"),
        }
    }
}

/// The error of an attempt whose connection turned out to speak HTTP/1 where HTTP/2 is a must.
pub const NO_HTTP2: &str = "no HTTP/2";

/// How Pingora tells its deadline of the handshake from those of a connection.
const HANDSHAKE_TIMEOUT: &str = ", timeout ";

/// What went wrong in the handshake of a connection, if it was that.
///
/// Pingora tells all of it only in words.
pub fn tls_fault(error: &Error) -> Option<Fault> {
    match error.etype {
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert => {
            Some(Fault::of(&error.to_string()))
        }
        ErrorType::ConnectTimedout if error.to_string().contains(HANDSHAKE_TIMEOUT) => {
            Some(Fault::Timeout)
        }
        ErrorType::Custom(NO_HTTP2) => Some(Fault::NoHttp2),
        _ => None,
    }
}
/// Whether the kernel had no address and port to connect from (`EADDRNOTAVAIL`), or would not let
/// us have the one that is configured. Pingora hides it behind an error of its own.
fn binds_nothing(error: &Error) -> bool {
    let cause = || error.cause.as_deref()?.downcast_ref::<Box<Error>>();
    error.etype == ErrorType::BindError || cause().is_some_and(|cause| binds_nothing(cause))
}
