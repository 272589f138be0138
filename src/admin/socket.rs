//! The admin socket: beside the pid file, for its owner alone.
//!
//! It is bound under a name of its own and takes its place by a rename, so that nobody can open
//! it before its mode is set, and so that a successor takes it over from the process before.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net,
    },
    path::{Path, PathBuf},
    process,
};

use log::{info, warn};
use tokio::net::UnixListener;

/// Only the owner may read and write.
const MODE: u32 = 0o600;

/// A socket that is bound and not in its place yet.
#[derive(Debug)]
pub struct Bound {
    listener: net::UnixListener,
    place: Place,
}

/// The names of a socket, for good and until then, and which file it is.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
    draft: PathBuf,
    inode: u64,
}

/// Where the socket of a process with this pid file lies: `crestline.pid` →
/// `crestline.admin.sock`.
pub fn path(pid_file: &str) -> PathBuf {
    Path::new(pid_file).with_extension("admin.sock")
}

/// Whether a process answers there.
pub fn is_in_use(path: &Path) -> bool {
    net::UnixStream::connect(path).is_ok()
}

/// Binds a socket that will lie at `path`.
///
/// # Errors
/// If its folder does not exist, cannot be written to, or the path is too long for a socket.
pub fn bind(path: &Path) -> io::Result<Bound> {
    sweep(path);
    let draft = draft(path, process::id());
    let listener = net::UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    let inode = fs::metadata(&draft)?.ino();
    Ok(Bound { listener, place: Place { path: path.to_owned(), draft, inode } })
}

/// Where a process binds its socket first: `crestline.admin.sock` → `crestline.admin.4711`.
fn draft(path: &Path, pid: u32) -> PathBuf {
    path.with_extension(pid.to_string())
}

/// Removes what processes left behind that died before they served, such as successors.
fn sweep(path: &Path) {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let entries = fs::read_dir(folder.unwrap_or(Path::new(".")));
    for found in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
        let extension = found.extension().and_then(|extension| extension.to_str());
        let pid = extension.and_then(|digits| digits.parse::<u32>().ok());
        let is_draft = pid.is_some_and(|pid| draft(path, pid).file_name() == found.file_name());
        if is_draft && is_deserted(&found) {
            match fs::remove_file(&found) {
                Ok(()) => info!("admin: {} was left behind, and removed", found.display()),
                Err(why) => warn!("admin: {} was not removed: {why}", found.display()),
            }
        }
    }
}

/// Whether nobody listens on a socket any more.
fn is_deserted(path: &Path) -> bool {
    let is_socket = |found: fs::Metadata| found.file_type().is_socket();
    fs::symlink_metadata(path).is_ok_and(is_socket)
        && net::UnixStream::connect(path)
            .is_err_and(|why| why.kind() == io::ErrorKind::ConnectionRefused)
}

impl Bound {
    /// Where it will lie, to remove it at the end.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Puts it in its place.
    pub(super) fn publish(self) -> io::Result<UnixListener> {
        fs::rename(&self.place.draft, &self.place.path)?;
        UnixListener::from_std(self.listener)
    }
}

impl Place {
    /// Removes the socket, unless a successor has put its own there.
    pub fn clear(&self) {
        for path in [&self.path, &self.draft] {
            let is_ours = fs::metadata(path).is_ok_and(|found| found.ino() == self.inode);
            if is_ours && let Err(why) = fs::remove_file(path) {
                warn!("admin: {} was not removed: {why}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_behind_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for deserted in ["a.admin.7", "a.admin.x", "b.admin.7"] {
            drop(net::UnixListener::bind(at(deserted)).unwrap());
        }
        fs::write(at("a.admin.8"), "a file").unwrap();
        let _starting = net::UnixListener::bind(at("a.admin.9")).unwrap();

        let bound = bind(&at("a.admin.sock")).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
        left.sort();
        let mine = bound.place().draft.clone();
        let mut expected = ["a.admin.8", "a.admin.9", "a.admin.x", "b.admin.7"].map(at).to_vec();
        expected.push(mine);
        expected.sort();
        assert_eq!(left, expected);
    }
}
