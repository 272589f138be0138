//! `watch: true`: a reload when the files change, once they have been still for a moment.
//!
//! The files are looked at, not listened to: two looks a second cost a few system calls, see an
//! editor's rename and the swapped symbolic link of a Kubernetes `ConfigMap` alike, and miss
//! nothing on any file system.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task, time};

use crate::{
    config::source::Watched,
    control::{Control, Unchanged, lock},
};

/// From one look to the next; files are still when two looks see the same.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What can be seen of a file without reading it; `None` if it is not there.
///
/// The times are those of its last change of any kind, so that a file that could not be read is
/// read again when its permissions are mended, and one with an old time of writing is seen.
type Look = Option<(u64, u64, u64, i64, i64)>;

/// The same of all files of a configuration.
pub(super) type Looks = BTreeMap<PathBuf, Look>;

/// Watches for as long as the process lives; does nothing while `watch` is off.
///
/// What was read already is not read again, whoever asked for it: a change that was taken back
/// stays so until the files change.
pub(super) async fn run(control: Arc<Control>) {
    if control.path.is_none() {
        return;
    }
    // The first look leads to a reload, too: the files may have changed since the start.
    let mut before = None;
    loop {
        time::sleep(LOOK_EVERY).await;
        if !control.live.load().file.watch || control.is_held() {
            before = None;
            continue;
        }
        let watched = lock(&control.watched).clone();
        let now = task::spawn_blocking(move || look_at_all(&watched)).await.ok();
        let is_still = now.is_some() && now == before;
        if is_still && now != *lock(&control.looked) {
            control.reload_and_tell(Unchanged::Unsaid).await;
        }
        before = now;
    }
}

/// Looks at all files of a configuration, those that a pattern has come to match included.
pub(super) fn look_at_all(watched: &Watched) -> Looks {
    let looks = watched.files().into_iter().map(|path| {
        let look = look_at(&path);
        (path, look)
    });
    looks.collect()
}

/// How the files looked that were just read: as they did `before`, since they may have changed
/// while they were read. Those that nobody knew of before are looked at now.
pub(super) fn read_as(before: &Looks, watched: &Watched) -> Looks {
    let mut looks = look_at_all(watched);
    for (path, look) in &mut looks {
        if let Some(earlier) = before.get(path) {
            *look = *earlier;
        }
    }
    looks
}

fn look_at(path: &Path) -> Look {
    let seen = fs::metadata(path).ok()?;
    Some((seen.dev(), seen.ino(), seen.size(), seen.ctime(), seen.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::PermissionsExt, thread};

    use super::*;

    /// Changes a file until that is seen: the clock of a file system moves in steps.
    fn see(path: &Path, mut change: impl FnMut()) {
        let before = look_at(path);
        for _ in 0..20_000 {
            change();
            if look_at(path) != before {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("it was not seen");
    }

    #[test]
    fn new_permissions_and_a_text_with_an_old_time_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.yaml");
        fs::write(&path, "one").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        see(&path, || fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap());
        see(&path, || {
            fs::write(&path, "two").unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        });
    }
}
