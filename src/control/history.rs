//! The configurations that were in force: the last ten, to go back to and to explain.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use crate::config::{File, source::Texts};

/// So many versions are kept, the one in force included.
const VERSIONS_MAX: usize = 10;

/// A configuration that is or was in force.
#[derive(Clone)]
pub struct Version {
    /// Its number.
    pub number: u64,
    /// Since when it was in force.
    pub since: SystemTime,
    /// What the operator wrote, read.
    pub file: Arc<File>,
    /// The same as text; empty for a process that was started without a file.
    pub texts: Texts,
    /// The receipt of the change that brought it, or how it came to be.
    pub summary: String,
}

/// The last versions, oldest first; never empty.
pub(super) struct History {
    versions: VecDeque<Version>,
}

impl History {
    pub(super) fn new(first: Version) -> Self {
        Self { versions: VecDeque::from([first]) }
    }

    pub(super) fn push(&mut self, version: Version) {
        if VERSIONS_MAX <= self.versions.len() {
            self.versions.pop_front();
        }
        self.versions.push_back(version);
    }

    pub(super) fn find(&self, number: u64) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Version> {
        self.versions.iter()
    }
}
