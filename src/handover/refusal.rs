//! Why an upgrade does not happen, in words with a next step where there is one.

use std::time::Duration;

use crate::{control::hold::Busy, handover::channel::ChannelError, panics::Panic};

/// Why there was no upgrade. The process serves on.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Something else is under way.
    #[error("{0}")]
    Busy(#[from] Busy),
    /// The process does not listen yet, or not any more.
    #[error("the process is not serving")]
    NotServing,
    /// The process has no file that a successor could be started with.
    #[error("this process was started without a file; start a successor with `-u` by hand")]
    NoFile,
    /// The new program finds problems in the configuration.
    #[error("{0}")]
    Configuration(String),
    /// The new program cannot be run.
    #[error("{0}")]
    Binary(String),
    /// Nobody waits.
    #[error("no successor waits at {0}: start one with `-u` first")]
    NoSuccessor(String),
    /// Somebody waits who was not started for this.
    #[error("another successor waits at {0} already: send SIGQUIT to hand over to that one")]
    SomebodyWaits(String),
    /// Who waits may not succeed.
    #[error("who waits at {0} is a stranger, user {1}")]
    Stranger(String, u32),
    /// The successor gave up.
    #[error("the successor refused: {0}")]
    Refused(String),
    /// The successor is gone, or does not speak sense.
    #[error("the successor failed before it served: {0}")]
    Failed(String),
    /// The successor took too long.
    #[error("the successor did not report that it serves within {0:?}")]
    TooSlow(Duration),
    /// A mistake of ours.
    #[error("a mistake in this program: {0}")]
    Panicked(Panic),
    /// The process is told to stop.
    #[error("this process was told to stop")]
    Stopping,
}

impl From<ChannelError> for Refusal {
    fn from(why: ChannelError) -> Self {
        Self::Failed(why.to_string())
    }
}
