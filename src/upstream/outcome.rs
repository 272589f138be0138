//! How one attempt at one backend ended.

use std::fmt;

/// The end of one attempt, in the words of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered with this status.
    Status(u16),
    /// The connection was refused.
    Refused,
    /// There is no way to the address.
    Unroutable,
    /// The connection was not made in time.
    ConnectTimeout,
    /// The connection failed in another way.
    ConnectError,
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
    /// Something of our own failed.
    Internal,
}

impl Outcome {
    /// Whether it speaks against the backend: what ejection counts.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 502..=504),
            Self::Stale | Self::ClientLeft | Self::Internal => false,
            _ => true,
        }
    }

    /// Whether it speaks for the backend.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Status(status) if !matches!(status, 502..=504))
    }

    /// Whether a check should look at the backend now, instead of when its turn comes.
    pub fn is_suspicious(self) -> bool {
        self.is_failure() && !matches!(self, Self::Status(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Refused => f.write_str("refused"),
            Self::Unroutable => f.write_str("unroutable"),
            Self::ConnectTimeout => f.write_str("connect_timeout"),
            Self::ConnectError => f.write_str("connect_error"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Nonsense => f.write_str("nonsense"),
            Self::Stale => f.write_str("stale"),
            Self::ClientLeft => f.write_str("client_left"),
            Self::Internal => f.write_str("internal"),
        }
    }
}
