//! The folder on a disk in which answers are kept, of one process at a time.
//!
//! INVARIANT: what lies in it was written whole under the size that `format` tells, or is removed
//! before it is read.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::folder;

/// What `format` says of a folder whose content is not to be trusted.
const DISTRUSTED: &str = "begin anew\n";

/// The folder, for as long as this process has it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The lock goes when it is closed.
    _lock: File,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::cache) enum FolderError {
    /// Another process has it: the one that this one succeeds, until it has written all.
    #[error("another process has it")]
    Taken,
    /// There is something in it that is not ours.
    #[error("there is something else in `answers`")]
    Foreign,
    /// It cannot be used.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
}

impl Folder {
    /// Takes a folder, made if it is missing, and emptied if it was of another size.
    pub(super) fn take(path: &Path, max: u64) -> Result<Self, FolderError> {
        let at = |what| move |why| FolderError::Io(what, why);
        folder::make(path).map_err(at("it cannot be made"))?;
        let lock = folder::open(&path.join("lock")).map_err(at("`lock`"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::Taken),
            Err(TryLockError::Error(why)) => return Err(FolderError::Io("`lock`", why)),
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        let wanted = format!("crestline cache 1, {max} bytes\n");
        let found = match fs::read_to_string(folder.format()) {
            Ok(found) => Some(found),
            Err(why) if why.kind() == ErrorKind::NotFound => None,
            Err(why) => return Err(FolderError::Io("`format`", why)),
        };
        if found.as_ref() != Some(&wanted) {
            folder.empty(found.is_some())?;
            folder.write_format(&wanted).map_err(at("`format`"))?;
        }
        Ok(folder)
    }

    fn empty(&self, is_ours: bool) -> Result<(), FolderError> {
        if !is_ours && self.answers().exists() {
            return Err(FolderError::Foreign);
        }
        let gone = |done: io::Result<()>| match done {
            Err(why) if why.kind() != ErrorKind::NotFound => {
                Err(FolderError::Io("it cannot be emptied", why))
            }
            _ => Ok(()),
        };
        gone(fs::remove_dir_all(self.answers()))?;
        gone(fs::remove_file(self.purges()))
    }

    fn write_format(&self, text: &str) -> io::Result<()> {
        folder::replace(&self.format(), text.as_bytes()).map(drop)
    }

    /// Has the next process begin anew.
    pub(super) fn distrust(&self) -> io::Result<()> {
        self.write_format(DISTRUSTED)
    }

    fn format(&self) -> PathBuf {
        self.path.join("format")
    }

    /// Where the answers lie.
    pub(super) fn answers(&self) -> PathBuf {
        self.path.join("answers")
    }

    /// Bytes that the answers take of the disk.
    pub(super) fn taken(&self) -> u64 {
        let files = fs::read_dir(self.answers()).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
    }

    /// The orders to remove some.
    pub(super) fn purges(&self) -> PathBuf {
        self.path.join("purges")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_of_one_at_a_time_and_of_one_size() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let folder = Folder::take(&path, 1).unwrap();
        assert!(matches!(Folder::take(&path, 1), Err(FolderError::Taken)));
        fs::create_dir(folder.answers()).unwrap();
        fs::write(folder.answers().join("x"), "x").unwrap();
        drop(folder);
        let folder = Folder::take(&path, 1).unwrap();
        assert!(folder.answers().join("x").exists(), "what was kept is found again");
        drop(folder);
        let folder = Folder::take(&path, 2).unwrap();
        assert!(!folder.answers().exists(), "of another size");
        fs::create_dir(folder.answers()).unwrap();
        folder.distrust().unwrap();
        drop(folder);
        assert!(!Folder::take(&path, 2).unwrap().answers().exists(), "not to be trusted");
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("answers")).unwrap();
        assert!(matches!(Folder::take(root.path(), 1), Err(FolderError::Foreign)));
        assert!(root.path().join("answers").exists());
    }
}
