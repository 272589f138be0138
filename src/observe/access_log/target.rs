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

use crate::observe::access_log::{
    progress::{Progress, State},
    syslog::{config::Receiver, sender::Sender},
};

/// How long the last lines may take to a receiver on a network, looking up its name included.
const FINISH_MAX: Duration = Duration::from_secs(8);

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to, and opened anew when that is asked for.
    File(PathBuf),
    /// Whoever gathers the logs of many machines.
    Syslog(Receiver),
}

impl Target {
    /// Whether each line has a head for it (see [`super::frame`]).
    pub(super) fn is_framed(&self) -> bool {
        matches!(self, Self::Syslog(_))
    }

    /// How long the last lines may take; `None` is until they are written.
    pub(super) fn patience(&self) -> Option<Duration> {
        matches!(self, Self::Syslog(_)).then_some(FINISH_MAX)
    }

    /// Opens it. A receiver that is not there is no error: it may come later.
    pub(super) fn open(&self) -> io::Result<Out> {
        Ok(match self {
            Self::Stdout => Out::Lines(Box::new(io::stdout())),
            Self::File(path) => Out::Lines(Box::new(append(path)?)),
            Self::Syslog(receiver) => Out::Syslog(Box::new(Sender::new(receiver.clone()))),
        })
    }
}

/// A target that is open.
pub(super) enum Out {
    /// Bytes as they are.
    Lines(Box<dyn Write + Send>),
    /// Frames, as messages.
    Syslog(Box<Sender>),
}

impl Out {
    /// Writes whole lines, as far as the target takes them. Who finishes asks a last time, and
    /// does not wait for long.
    pub(super) fn write(&mut self, bytes: &[u8], finish: &AtomicBool) -> Progress {
        let out = match self {
            Self::Syslog(sender) => return sender.send(bytes, finish),
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
        Target::Stdout => Ok(()),
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
