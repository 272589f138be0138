//! Why a change of the configuration was refused: nothing was changed then.

use crate::panics::Panic;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The configuration has problems, or needs an upgrade: rendered for people.
    #[error("{0}")]
    Problems(String),
    /// There is no such version.
    #[error("there is no version {0} to go back to; kept are {1}")]
    NoVersion(u64, String),
    /// The process has no file.
    #[error("this process was started without a file: there is nothing to read again")]
    NoFile,
    /// The change panicked.
    #[error("a mistake in this program ended the change: {0}")]
    Panicked(Panic),
    /// The process is not serving yet, or not any more.
    #[error("the process is not serving")]
    NotServing,
    /// An upgrade is under way.
    #[error("an upgrade is under way, and the successor has read the file already; ask it")]
    Upgrading,
}
