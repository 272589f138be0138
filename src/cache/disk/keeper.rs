//! Opens the disk that a configuration names, and closes the one that it names no more.
//!
//! What is in memory when it closes is on the disk then. A successor waits here until the process that it succeeds has written all. Until then, and
//! whatever is wrong with the disk, answers are kept in memory.

use std::{sync::Arc, time::Duration};

use log::{error, info, warn};
use tokio::time;

use crate::{
    cache::{
        disk::{BLOCK, Disk, OpenError, Place, folder::FolderError},
        store::Store,
    },
    units::ByteSize,
};

/// How often a folder is tried that another process has.
const AGAIN_SOON: Duration = Duration::from_millis(100);
/// How often one is tried with which something is wrong.
const AGAIN_LATE: Duration = Duration::from_secs(5);

/// Keeps a store's disk as it is wanted, for ever.
pub(in crate::cache) async fn run(store: &Store) {
    let mut wanted = store.disk.wanted();
    let mut told = None;
    loop {
        let place = wanted.borrow_and_update().clone();
        if let Some(disk) = store.disk.take().filter(|disk| Some(disk.place()) != place.as_ref()) {
            write_rest(store, &disk).await;
            disk.close().await;
            store.disk.set(None);
        }
        let again = match place {
            Some(place) if store.disk.get().is_none() => open(store, place, &mut told).await,
            _ => None,
        };
        match again {
            // It never ends: the store is there for ever.
            None => drop(wanted.changed().await),
            Some(after) => drop(time::timeout(after, wanted.changed()).await),
        }
    }
}

/// Opens a disk, or says after which time it is tried again. What is wrong is said once.
async fn open(store: &Store, place: Place, told: &mut Option<String>) -> Option<Duration> {
    let path = place.path.clone();
    let path = path.display();
    let why = match Disk::open(place, &store.orders).await {
        Ok(disk) => {
            info!("cache: answers are kept in {path}, too");
            warn_of_room(&disk);
            *told = None;
            let disk = Arc::new(disk);
            store.disk.set(Some(disk.clone()));
            disk.catch_up(&store.orders);
            return None;
        }
        Err(why) => why,
    };
    let again = match why {
        OpenError::Folder(FolderError::Taken) => AGAIN_SOON,
        _ => AGAIN_LATE,
    };
    let why = why.to_string();
    if told.as_ref() != Some(&why) {
        if again == AGAIN_SOON {
            info!("cache: waits for {path}: {why}");
        } else {
            error!("cache: answers are kept in memory alone: {path}: {why}");
        }
        *told = Some(why);
    }
    Some(again)
}

/// Writes what is in memory alone, such as what was not written because there was too much at once.
async fn write_rest(store: &Store, disk: &Disk) {
    let mut waiting = 0;
    for (hash, entry) in store.in_memory().iter().filter(|(hash, _)| !disk.has(**hash)) {
        disk.keep(*hash, &entry);
        waiting += entry.weight();
        if BLOCK / 2 < waiting {
            disk.settle().await;
            waiting = 0;
        }
    }
}

/// Warns where the disk is full before the answers take what they may.
fn warn_of_room(disk: &Disk) {
    let Place { path, max } = disk.place();
    let Ok(system) = rustix::fs::statvfs(path) else { return };
    let room = (system.f_bavail * system.f_frsize).saturating_add(disk.taken());
    if room < *max {
        let (path, room, max) = (path.display(), ByteSize(room), ByteSize(*max));
        warn!("cache: {path} may take {max}, and its disk has room for {room}");
    }
}
