//! The access log: one line a request, written by a thread of its own.
//!
//! A request appends its line to the buffer of its thread's shard, and is done: no other thread
//! holds that lock but the writer, for the moment in which it swaps the buffer. A buffer that is
//! full drops lines and counts them; a slow disk, or a receiver that is away, never blocks a
//! request.

pub mod config;
mod escape;
pub mod form;
mod frame;
pub mod line;
mod otlp;
mod progress;
pub mod relay;
mod secrets;
mod sink;
mod stamp;
pub mod syslog;
pub mod target;
mod template;
mod writer;

use std::{
    borrow::Cow,
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle, Thread},
};

use log::error;

use crate::{
    counter::{self, Counter},
    metrics::{Family, Page},
    observe::access_log::{
        form::Form,
        frame::Severity,
        target::{Shape, Target},
        writer::Writer,
    },
};

const DROPPED: Family<0> = Family::counter(
    "crestline_access_log_dropped_lines_total",
    "Lines of the access log that were lost, because its target was too slow or failed",
    [],
);

/// Lines that any log of the process lost: logs come and go with configurations.
static LOST: AtomicU64 = AtomicU64::new(0);

/// From so much on in one shard, the writer does not wait for its time: little memory is written and
/// read again and again, which stays in the caches of the processor and drives less out of them.
const SHARD_BYTES_DUE: usize = 64 * 1024;
/// The most that waits in one shard.
const SHARD_BYTES_MAX: usize = 1024 * 1024;

/// The log as requests see it.
pub struct AccessLog {
    form: Form,
    shards: Box<[Shard]>,
    dropped: Counter,
    reopen: AtomicBool,
    finish: AtomicBool,
    writer: Mutex<Option<Running>>,
    /// The thread that is woken when much waits.
    woken: OnceLock<Thread>,
    target: Target,
}

#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Vec<u8>>);

/// The writer's thread, and what tells that it is through.
struct Running {
    thread: JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

impl AccessLog {
    /// A log that buffers; [`Self::start`] begins the writing.
    pub fn new(form: Form, target: Target) -> Arc<Self> {
        let shards = (0..counter::shards()).map(|_| Shard::default()).collect();
        Arc::new(Self {
            form,
            shards,
            dropped: Counter::default(),
            reopen: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            writer: Mutex::default(),
            woken: OnceLock::new(),
            target,
        })
    }

    /// Whether it writes in this form and to this target.
    pub fn is_the_one(&self, form: &Form, target: &Target) -> bool {
        self.form == *form && self.target == *target
    }

    /// Appends the line of one request, or drops it when its shard is full. Of good requests only
    /// a share has one, if the operator says so.
    pub fn write(&self, entry: &line::Entry<'_>) {
        if self.form.shows(entry.is_good()) {
            let severity = Severity::of(entry.is_good(), entry.status);
            self.append(severity, |shape, buffer| match shape {
                Shape::Fields => self.form.pack(entry, buffer),
                Shape::Lines | Shape::Frames => self.form.write(entry, buffer),
            });
        }
    }

    /// The same for a connection that was relayed.
    pub fn write_relay(&self, entry: &relay::Entry<'_>) {
        if self.form.shows(entry.is_good()) {
            let severity = Severity::of(entry.is_good(), entry.status);
            self.append(severity, |shape, buffer| match shape {
                Shape::Fields => self.form.pack_relay(entry, buffer),
                Shape::Lines | Shape::Frames => self.form.write_relay(entry, buffer),
            });
        }
    }

    /// A target as a line shows it: without what is hidden.
    pub fn shown<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        self.form.shown(target)
    }

    fn append(&self, severity: Severity, write: impl FnOnce(Shape, &mut Vec<u8>)) {
        let mut buffer = self.shards[counter::shard()].lock();
        if SHARD_BYTES_MAX <= buffer.len() {
            self.lose(1);
            self.target.lose(1);
            return;
        }
        let before = buffer.len();
        match self.target.shape() {
            Shape::Lines => write(Shape::Lines, &mut buffer),
            shape => frame::write(severity, &mut buffer, |buffer| write(shape, buffer)),
        }
        let is_due = (before..buffer.len()).contains(&SHARD_BYTES_DUE);
        drop(buffer);
        if is_due {
            self.wake();
        }
    }

    /// Has the writer look at once.
    fn wake(&self) {
        if let Some(writer) = self.woken.get() {
            writer.unpark();
        }
    }

    fn lose(&self, lines: u64) {
        self.dropped.add(lines);
        LOST.fetch_add(lines, Relaxed);
    }

    /// Lines dropped since the start, because the target could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Asks the writer to open its target anew, as after a rotation.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Opens the target and starts the writer. Call it after the process has forked.
    ///
    /// # Errors
    /// If the file cannot be opened, or the thread not started.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let writer = Writer::new(self.clone())?;
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("access-log".to_owned());
        let thread = thread.spawn(move || {
            let _end = end;
            writer.run();
        })?;
        let _ = self.woken.set(thread.thread().clone());
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Running { thread, ended });
        Ok(())
    }

    /// Writes what waits, and ends the writer: the last act of a process. A receiver on a network
    /// has its bound; a file is waited for.
    pub fn finish(&self) {
        self.finish.store(true, Relaxed);
        self.wake();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { thread, ended }) = writer else { return };
        if let Some(patience) = self.target.patience()
            && ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)
        {
            error!("access log: left without its last lines, which took longer than {patience:?}");
        } else if thread.join().is_err() {
            error!("access log: the writer had died");
        }
    }
}

/// Writes what is known of the logs of the process.
pub fn collect(page: &mut Page) {
    page.family(&DROPPED).add([], LOST.load(Relaxed));
}

impl Shard {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
