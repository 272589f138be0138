//! The access log: one line a request, written by a thread of its own.
//!
//! A request appends its line to the buffer of its thread's shard, and is done: no other thread
//! holds that lock but the writer, for the moment in which it swaps the buffer. A buffer that is
//! full drops lines and counts them; a slow disk never blocks a request.

pub mod config;
mod escape;
pub mod form;
pub mod line;
pub mod relay;
mod secrets;
mod sink;
mod stamp;
mod template;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use log::{error, info, warn};
use rustix::{fs::OFlags, io::Errno};

use crate::{
    counter::{self, Counter},
    metrics::{Family, Page},
    observe::access_log::form::Form,
};

const DROPPED: Family<0> = Family::counter(
    "crestline_access_log_dropped_lines_total",
    "Lines of the access log that were lost, because its target was too slow or failed",
    [],
);

/// Lines that any log of the process lost: logs come and go with configurations.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How long a line waits at most before it is written.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// The most that waits in one shard.
const SHARD_BYTES_MAX: usize = 1024 * 1024;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to, and opened anew on [`AccessLog::reopen`].
    File(PathBuf),
}

/// The log as requests see it.
pub struct AccessLog {
    form: Form,
    shards: Box<[Shard]>,
    dropped: Counter,
    reopen: AtomicBool,
    finish: AtomicBool,
    writer: Mutex<Option<JoinHandle<()>>>,
    target: Target,
}

#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Vec<u8>>);

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
            self.append(|buffer| self.form.write(entry, buffer));
        }
    }

    /// The same for a connection that was relayed.
    pub fn write_relay(&self, entry: &relay::Entry<'_>) {
        if self.form.shows(entry.is_good()) {
            self.append(|buffer| self.form.write_relay(entry, buffer));
        }
    }

    fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.shards[counter::shard()].lock();
        if SHARD_BYTES_MAX <= buffer.len() {
            self.lose(1);
            return;
        }
        write(&mut buffer);
    }

    fn lose(&self, lines: u64) {
        self.dropped.add(lines);
        LOST.fetch_add(lines, Relaxed);
    }

    /// Lines dropped since the start, because the target could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Asks the writer to open its file anew, as after a rotation.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Opens the target and starts the writer. Call it after the process has forked.
    ///
    /// # Errors
    /// If the file cannot be opened, or the thread not started.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let out = open(&self.target)?;
        let writer = Writer { log: self.clone(), out, told: 0, failing: false };
        let thread = thread::Builder::new().name("access-log".to_owned());
        let thread = thread.spawn(move || writer.run())?;
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Writes what waits, and ends the writer: the last act of a process.
    pub fn finish(&self) {
        self.finish.store(true, Relaxed);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
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

/// Opens the target to see whether it can be, and leaves no trace of it.
///
/// # Errors
/// If the file cannot be created or appended to.
pub fn probe(target: &Target) -> io::Result<()> {
    let Target::File(path) = target else { return Ok(()) };
    let is_new = !path.exists();
    append(path)?;
    if is_new { fs::remove_file(path) } else { Ok(()) }
}

fn open(target: &Target) -> io::Result<Box<dyn Write + Send>> {
    Ok(match target {
        Target::Stdout => Box::new(io::stdout()),
        Target::File(path) => Box::new(append(path)?),
    })
}

/// Opens a file to append to. A pipe must have a reader: the ordinary way, one without is waited
/// for, and a reload would wait, with all that come after it.
fn append(path: &PathBuf) -> io::Result<File> {
    let is_pipe = fs::metadata(path).is_ok_and(|seen| seen.file_type().is_fifo());
    // Held while the other is opened, so that the reader does not see an end between the two.
    let _held = is_pipe.then(|| open_without_waiting(path)).transpose()?;
    OpenOptions::new().create(true).append(true).open(path)
}

fn open_without_waiting(path: &PathBuf) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new().write(true).custom_flags(flags).open(path);
    opened.map_err(|why| match why.raw_os_error() {
        Some(code) if code == Errno::NXIO.raw_os_error() => {
            io::Error::other("nobody reads from this pipe")
        }
        _ => why,
    })
}

struct Writer {
    log: Arc<AccessLog>,
    out: Box<dyn Write + Send>,
    told: u64,
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut spare = Vec::new();
        let mut last = false;
        while !last {
            thread::sleep(FLUSH_EVERY);
            last = self.log.finish.load(Relaxed);
            if self.log.reopen.swap(false, Relaxed) {
                self.open_anew();
            }
            for index in 0..self.log.shards.len() {
                // Only a shard in use gets the spare, so that not all of them grow large in turn.
                match &mut *self.log.shards[index].lock() {
                    lines if lines.is_empty() => continue,
                    lines => std::mem::swap(lines, &mut spare),
                }
                self.write(&spare);
                spare.clear();
            }
            self.tell_drops();
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let written = self.out.write_all(lines).and_then(|()| self.out.flush());
        match &written {
            Ok(()) if self.failing => info!("access log: writing again"),
            Err(why) if !self.failing => error!("access log: lines lost: {why}"),
            Ok(()) | Err(_) => {}
        }
        self.failing = written.is_err();
        if self.failing {
            self.log.lose(memchr::memchr_iter(b'\n', lines).count() as u64);
        }
    }

    fn open_anew(&mut self) {
        match open(&self.log.target) {
            Ok(out) => {
                self.out = out;
                info!("access log: reopened");
            }
            Err(why) => error!("access log: kept the old file, since reopening failed: {why}"),
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

#[cfg(test)]
mod tests;
