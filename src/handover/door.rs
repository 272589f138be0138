//! The door at which a successor waits: a socket at `upgrade_sock`.
//!
//! Whoever may write in its folder could put another socket there and be handed everything, or
//! pose as the process in force. So the folder must belong to the same user or to root, and be
//! writable by nobody else; and whoever comes in is looked at.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use log::warn;
use rustix::process::getuid;
use tokio::net::{UnixListener, UnixStream};

use crate::handover::{channel::Channel, is_trusted, told};

/// Only the owner may knock.
const MODE: u32 = 0o600;

/// A socket that a successor waits at. It is removed when this is dropped.
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    /// Who owns the folder: a daemon that has given root's rights up may leave it to its user.
    owner: u32,
}

/// Somebody who came in, and may.
pub(super) struct Visitor {
    pub(super) channel: Channel,
    pub(super) pid: Option<i32>,
}

impl Door {
    /// Opens it.
    pub(super) async fn open(path: &Path) -> Result<Self, String> {
        let owner = check_folder(path)?;
        let in_words = |why: io::Error| format!("cannot wait at {}: {why}", told(path));
        let listener = match UnixListener::bind(path) {
            Err(why) if why.kind() == io::ErrorKind::AddrInUse => {
                if somebody_waits(path).await {
                    return Err(format!("another successor waits at {} already", told(path)));
                }
                fs::remove_file(path).and_then(|()| UnixListener::bind(path)).map_err(in_words)?
            }
            bound => bound.map_err(in_words)?,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(in_words)?;
        if getuid().is_root() && owner != 0 {
            chown(path, Some(owner), None).map_err(in_words)?; // a daemon's user must get in
        }
        let inode = fs::metadata(path).map_err(in_words)?.ino();
        Ok(Self { listener, path: path.to_owned(), inode, owner })
    }

    /// Waits for the next one who may come in; strangers are turned away.
    pub(super) async fn next(&self) -> io::Result<Visitor> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let channel = Channel::new(stream);
            let (user, pid) = channel.peer()?;
            if is_trusted(user) || (getuid().is_root() && user == self.owner) {
                return Ok(Visitor { channel, pid });
            }
            let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            warn!("upgrade: a stranger, user {user}{pid}, was turned away");
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let is_ours = fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours && let Err(why) = fs::remove_file(&self.path) {
            warn!("upgrade: {} was not removed: {why}", told(&self.path));
        }
    }
}

/// Whether a successor waits at a path already. It is not disturbed by that.
pub(super) async fn somebody_waits(path: &Path) -> bool {
    UnixStream::connect(path).await.is_ok()
}

/// Refuses a folder in which others may write; answers who owns it.
fn check_folder(path: &Path) -> Result<u32, String> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let found = fs::metadata(folder).map_err(|why| {
        let folder = told(folder);
        format!("the folder of `upgrade_sock`, {folder}: {why}\nhelp: create it, with mode 0700")
    })?;
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    if mode & 0o022 != 0 {
        let folder = told(folder);
        return Err(format!(
            "others may write in the folder of `upgrade_sock`, {folder} (mode {mode:04o}), and \
             could be handed the sockets\nhelp: chmod go-w {folder}"
        ));
    }
    if !is_trusted(owner) && !getuid().is_root() {
        let folder = told(folder);
        return Err(format!(
            "the folder of `upgrade_sock`, {folder}, belongs to another user ({owner})\n\
             help: name one of your own, with mode 0700"
        ));
    }
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_in_which_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        for (mode, good) in [(0o700, true), (0o755, true), (0o777, false), (0o770, false)] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            let opened = Door::open(&path).await;
            assert_eq!(opened.is_ok(), good, "{mode:o}");
            if let Err(why) = opened {
                let folder = folder.path().display();
                assert!(why.ends_with(&format!("help: chmod go-w {folder}")), "{why}");
                assert!(why.contains(&format!("(mode {mode:04o})")), "{why}");
            }
        }
        let nowhere = Door::open(Path::new("/no/such/folder/a.sock")).await.map(drop).unwrap_err();
        assert!(
            nowhere.starts_with("the folder of `upgrade_sock`, /no/such/folder: "),
            "{nowhere}"
        );
    }

    #[tokio::test]
    async fn the_door_is_for_one_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let door =
            Door::open(&path).await.map_err(|why| panic!("{why}: it was left over")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        let second = Door::open(&path).await.map(drop).unwrap_err();
        assert_eq!(second, format!("another successor waits at {} already", path.display()));
        drop(door);
        assert!(!path.exists(), "closed behind it");
    }
}
