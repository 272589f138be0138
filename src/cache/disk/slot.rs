//! Which disk a store has, and which one it is to have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use arc_swap::{ArcSwapOption, Guard};
use log::warn;
use tokio::{sync::watch, time::Instant};

use crate::cache::disk::{Disk, Place};

/// A process that ends waits so long for what is to be written.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The place of a disk.
#[derive(Debug, Default)]
pub(in crate::cache) struct Slot {
    disk: ArcSwapOption<Disk>,
    wanted: watch::Sender<Option<Place>>,
    is_leaving: AtomicBool,
}

impl Slot {
    /// The disk, if it is open.
    pub(in crate::cache) fn get(&self) -> Guard<Option<Arc<Disk>>> {
        self.disk.load()
    }

    /// The same to be used for longer.
    pub(in crate::cache) fn take(&self) -> Option<Arc<Disk>> {
        self.disk.load_full()
    }

    /// Has a disk opened in place of the one that there is, or none.
    pub(in crate::cache) fn want(&self, place: Option<Place>) {
        let place = place.filter(|_| !self.is_leaving.load(SeqCst));
        self.wanted.send_if_modified(|wanted| {
            let is_new = *wanted != place;
            *wanted = place;
            is_new
        });
    }

    /// Has it closed for good.
    pub(in crate::cache) fn leave(&self) {
        self.is_leaving.store(true, SeqCst);
        self.want(None);
    }

    /// Has it closed for good, and waits until that is done.
    pub(in crate::cache) fn finish(&self) {
        self.leave();
        let began = Instant::now();
        while self.get().is_some() {
            if PATIENCE < began.elapsed() {
                return warn!("cache: left without all on the disk, which took longer");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    pub(super) fn wanted(&self) -> watch::Receiver<Option<Place>> {
        self.wanted.subscribe()
    }

    pub(super) fn set(&self, disk: Option<Arc<Disk>>) {
        self.disk.store(disk);
    }
}
