//! The thread that writes the access log.
//!
//! INVARIANT: a target that takes nothing for a while stops this thread alone. Lines wait in the
//! shards meanwhile, up to their bound, and beyond it they are lost and counted.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use log::{error, info, warn};

use crate::observe::access_log::{
    AccessLog,
    frame::frames,
    progress::{Progress, State},
    target::{Out, Shape},
};

/// How long a line waits at most before it is written, where the target takes it.
const FLUSH_EVERY: Duration = Duration::from_millis(50);

/// The writer of a log.
pub(super) struct Writer {
    log: Arc<AccessLog>,
    out: Out,
    /// What was taken out of a shard, and so much of it is done with.
    batch: Vec<u8>,
    done: usize,
    told: u64,
    failing: bool,
}

impl Writer {
    /// The writer of a log, with its target opened.
    pub(super) fn new(log: Arc<AccessLog>) -> io::Result<Self> {
        let out = log.target.open()?;
        Ok(Self { log, out, batch: Vec::new(), done: 0, told: 0, failing: false })
    }

    /// Writes until the log is finished.
    pub(super) fn run(mut self) {
        let mut is_last = false;
        while !is_last {
            thread::park_timeout(FLUSH_EVERY); // or until a shard has much
            is_last = self.log.finish.load(Relaxed);
            if self.log.reopen.swap(false, Relaxed) {
                self.open_anew();
            }
            if is_last || self.out.is_due(|| self.held()) {
                self.write_all();
            }
            if is_last {
                self.lose_the_rest();
            }
            self.tell_drops();
        }
    }

    /// How many bytes wait.
    fn held(&self) -> usize {
        self.batch.len() + self.log.shards.iter().map(|shard| shard.lock().len()).sum::<usize>()
    }

    /// Writes all that waits, as far as the target takes it.
    fn write_all(&mut self) {
        if !self.write_batch() {
            return;
        }
        for index in 0..self.log.shards.len() {
            self.take(index);
            if self.out.gathers() <= self.batch.len() && !self.write_batch() {
                return;
            }
        }
        self.write_batch();
    }

    /// Takes what waits in a shard. Only a shard in use gets the spare, so that not all of them
    /// grow large in turn.
    fn take(&mut self, index: usize) {
        let mut shard = self.log.shards[index].lock();
        if shard.is_empty() {
            return;
        }
        if self.batch.is_empty() {
            std::mem::swap(&mut *shard, &mut self.batch);
        } else {
            self.batch.extend_from_slice(&shard);
            shard.clear();
        }
    }

    /// Writes what was taken; answers whether nothing of it is left.
    fn write_batch(&mut self) -> bool {
        while self.done < self.batch.len() {
            let Progress { done, lost, state } =
                self.out.write(&self.batch[self.done..], &self.log.finish);
            self.done += done;
            if 0 < lost {
                self.log.lose(lost);
            }
            let is_stuck = done == 0;
            self.tell(state);
            if is_stuck {
                return false;
            }
        }
        self.batch.clear();
        self.done = 0;
        true
    }

    /// Tells what is new of the target.
    fn tell(&mut self, state: State) {
        match state {
            State::Good if self.failing => {
                info!("access log: writing again");
                self.failing = false;
            }
            State::Good | State::Waiting => {}
            State::Failing(why) => {
                if !self.failing {
                    error!("access log: {why}");
                }
                self.failing = true;
            }
        }
    }

    fn open_anew(&mut self) {
        match self.log.target.open() {
            Ok(out) => {
                self.out = out;
                info!("access log: reopened");
            }
            Err(why) => error!("access log: kept the old file, since reopening failed: {why}"),
        }
    }

    /// Counts what is left when the log ends and its target takes nothing.
    fn lose_the_rest(&mut self) {
        let mut lost = self.count(&self.batch[self.done..]);
        for shard in &self.log.shards {
            lost += self.count(&shard.lock());
        }
        if 0 < lost {
            self.log.lose(lost);
            self.log.target.lose(lost);
        }
    }

    fn count(&self, bytes: &[u8]) -> u64 {
        match self.log.target.shape() {
            Shape::Lines => memchr::memchr_iter(b'\n', bytes).count() as u64,
            Shape::Frames | Shape::Fields => frames(bytes).count() as u64,
        }
    }

    fn tell_drops(&mut self) {
        let dropped = self.log.dropped();
        if self.told < dropped {
            let lines = dropped - self.told;
            warn!("access log: dropped {lines} lines, {dropped} in all: the target is too slow");
            self.told = dropped;
        }
    }
}
