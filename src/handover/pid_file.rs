//! The pid file: written when the process serves, taken over by a successor, removed at the end.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use log::warn;

/// The file that names the process in force.
#[derive(Clone, Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// The file at a path; nothing is written yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Writes the id of this process, unless it stands there already: a daemon's was written
    /// while it still had the right to. Whoever reads it sees the old id or the new one.
    pub fn write(&self) {
        if self.is_ours() {
            return;
        }
        if let Err(why) = replace(&self.path, &format!("{}\n", process::id())) {
            warn!("pid file: {} was not written: {why}", self.path.display());
        }
    }

    /// Removes it, unless a successor has written its own id there.
    pub fn clear(&self) {
        if self.is_ours()
            && let Err(why) = fs::remove_file(&self.path)
        {
            warn!("pid file: {} was not removed: {why}", self.path.display());
        }
    }

    fn is_ours(&self) -> bool {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.trim().parse() == Ok(process::id())
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("pid.{}", process::id()));
    fs::write(&draft, text)?;
    fs::rename(&draft, path).inspect_err(|_| drop(fs::remove_file(&draft)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ours_until_a_successor_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crestline.pid");
        fs::write(&path, "1\n").unwrap();
        let file = PidFile::new(&path);
        file.clear();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n", "somebody else's");

        file.write();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no draft is left");
        file.clear();
        assert!(!path.exists());
        PidFile::new("/no/such/folder/a.pid").write();
    }
}
