//! The admin socket: beside the pid file, for its owner alone.
//!
//! It is bound under a name of its own and takes its place by a rename, so that nobody can open
//! it before its mode is set, and so that a successor takes it over from the process before.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net,
    },
    path::{Path, PathBuf},
    process,
};

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
    let draft = path.with_extension(format!("{}", process::id()));
    if draft.exists() {
        fs::remove_file(&draft)?;
    }
    let listener = net::UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    let inode = fs::metadata(&draft)?.ino();
    Ok(Bound { listener, place: Place { path: path.to_owned(), draft, inode } })
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
                log::warn!("admin: {} was not removed: {why}", path.display());
            }
        }
    }
}
