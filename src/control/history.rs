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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::source::Loaded, diagnostic::Problems};

    fn version(number: u64) -> Version {
        let text = "upstreams: { app: { backends: [127.0.0.1:1] } }";
        let mut problems = Problems::default();
        let loaded = Loaded::of(text, &mut problems);
        let file = File::read(&loaded, &mut problems).unwrap();
        Version {
            number,
            since: SystemTime::now(),
            file: Arc::new(file),
            texts: Texts::default(),
            summary: String::new(),
        }
    }

    #[test]
    fn the_last_ten_are_kept_oldest_first() {
        let mut history = History::new(version(1));
        for number in 2..=10 {
            history.push(version(number));
        }
        assert!(history.find(1).is_some());
        history.push(version(11));
        assert!(history.find(1).is_none() && history.find(12).is_none());
        assert_eq!(history.find(2).map(|kept| kept.number), Some(2));
        assert!(history.all().map(|kept| kept.number).eq(2..=11));
    }
}
