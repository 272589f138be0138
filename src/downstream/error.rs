//! Errors of ours that travel through Pingora's, inside I/O errors.

use std::io;

use crate::http1::refusal::Refusal;

/// A request body whose framing is refused.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("request body refused: {}", .0.reason)]
pub struct BadBody(pub Refusal);

/// A request body that comes too slowly.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request body came too slowly")]
pub struct BodyTooSlow;

impl From<BodyTooSlow> for io::Error {
    fn from(slow: BodyTooSlow) -> Self {
        Self::new(io::ErrorKind::TimedOut, slow)
    }
}

/// The origin was silent for longer than its upstream allows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the origin was silent for too long")]
pub struct OriginSilent;

impl From<OriginSilent> for io::Error {
    fn from(silent: OriginSilent) -> Self {
        Self::new(io::ErrorKind::TimedOut, silent)
    }
}

impl From<BadBody> for io::Error {
    fn from(bad: BadBody) -> Self {
        Self::new(io::ErrorKind::InvalidData, bad)
    }
}
