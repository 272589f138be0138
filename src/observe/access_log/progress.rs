//! What a target says of the lines that it was given.

/// What became of some lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// So many bytes, whole lines, are done with: written, or lost.
    pub(super) done: usize,
    /// So many lines of them are lost.
    pub(super) lost: u64,
    pub(super) state: State,
}

/// How the target is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It takes lines.
    #[default]
    Good,
    /// It failed, and is not asked again yet.
    Waiting,
    /// It fails, for this reason.
    Failing(String),
}
