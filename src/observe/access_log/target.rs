//! Where the lines of the access log go.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::PathBuf,
    sync::atomic::AtomicBool,
    time::Duration,
};

use rustix::{fs::OFlags, io::Errno};

use crate::{
    observe::access_log::{
        otlp::sender::Exporter,
        progress::{Progress, State},
        syslog::{config::Receiver, sender::Sender},
    },
    otlp::{self, courier::Signal},
};

/// How long the last lines may take to a receiver on a network, looking up its name included.
const FINISH_MAX: Duration = Duration::from_secs(8);

/// What is gathered where each message costs an exchange.
const GATHERED_MAX: usize = 1024 * 1024;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to, and opened anew when that is asked for.
    File(PathBuf),
    /// Whoever gathers the logs of many machines.
    Syslog(Receiver),
    /// A receiver of OpenTelemetry.
    Otlp(Box<otlp::config::Receiver>),
}

/// What lies in the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Lines.
    Lines,
    /// Lines in frames (see [`super::frame`]).
    Frames,
    /// Fields in frames (see [`super::otlp::packed`]).
    Fields,
}

impl Target {
    /// What it makes its messages of.
    pub(super) fn shape(&self) -> Shape {
        match self {
            Self::Stdout | Self::File(_) => Shape::Lines,
            Self::Syslog(_) => Shape::Frames,
            Self::Otlp(_) => Shape::Fields,
        }
    }

    /// Counts what was lost before it came to the target, where it has a count of its own.
    pub(super) fn lose(&self, lines: u64) {
        if let Self::Otlp(_) = self {
            Signal::Logs.lose(lines);
        }
    }

    /// How long the last lines may take; `None` is until they are written.
    pub(super) fn patience(&self) -> Option<Duration> {
        matches!(self, Self::Syslog(_) | Self::Otlp(_)).then_some(FINISH_MAX)
    }

    /// Opens it. A receiver that is not there is no error: it may come later.
    pub(super) fn open(&self) -> io::Result<Out> {
        Ok(match self {
            Self::Stdout => Out::Lines(Box::new(io::stdout())),
            Self::File(path) => Out::Lines(Box::new(append(path)?)),
            Self::Syslog(receiver) => Out::Syslog(Box::new(Sender::new(receiver.clone()))),
            Self::Otlp(receiver) => Out::Otlp(Box::new(Exporter::new(receiver))),
        })
    }
}

/// A target that is open.
pub(super) enum Out {
    /// Bytes as they are.
    Lines(Box<dyn Write + Send>),
    /// Frames, as messages.
    Syslog(Box<Sender>),
    /// Frames, as records.
    Otlp(Box<Exporter>),
}

impl Out {
    /// Whether it is time to write, where so many bytes wait.
    pub(super) fn is_due(&self, held: impl FnOnce() -> usize) -> bool {
        match self {
            Self::Otlp(exporter) => exporter.is_due(held()),
            Self::Lines(_) | Self::Syslog(_) => true,
        }
    }

    /// So much is gathered of several shards before it is written.
    pub(super) fn gathers(&self) -> usize {
        match self {
            Self::Otlp(_) => GATHERED_MAX,
            Self::Lines(_) | Self::Syslog(_) => 0,
        }
    }

    /// Writes whole lines, as far as the target takes them. Who finishes asks a last time, and
    /// does not wait for long.
    pub(super) fn write(&mut self, bytes: &[u8], finish: &AtomicBool) -> Progress {
        let out = match self {
            Self::Syslog(sender) => return sender.send(bytes, finish),
            Self::Otlp(exporter) => return exporter.send(bytes, finish),
            Self::Lines(out) => out,
        };
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Progress { done: bytes.len(), lost: 0, state: State::Good },
            Err(why) => {
                let lost = memchr::memchr_iter(b'\n', bytes).count() as u64;
                let state = State::Failing(format!("lines lost: {why}"));
                Progress { done: bytes.len(), lost, state }
            }
        }
    }
}

/// Opens the target to see whether it can be, and leaves no trace of it.
///
/// # Errors
/// If the file cannot be created or appended to, or the socket is of another kind.
pub fn probe(target: &Target) -> io::Result<()> {
    match target {
        Target::Stdout | Target::Otlp(_) => Ok(()),
        Target::File(path) => {
            let is_new = !path.exists();
            append(path)?;
            if is_new { fs::remove_file(path) } else { Ok(()) }
        }
        Target::Syslog(receiver) => receiver.probe(),
    }
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
