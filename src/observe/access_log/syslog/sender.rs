//! Sends messages, and connects again when their receiver was away.
//!
//! INVARIANT: no call lasts longer than connecting and one stalled write may; while the log
//! finishes, both are short.

use std::{
    io::{self, ErrorKind, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use log::warn;
use tokio::time::Instant;

use crate::observe::access_log::{
    frame::{Frame, frames},
    progress::{Progress, State},
    syslog::{
        config::Receiver,
        link::{Link, has_ended},
        message::Messages,
    },
};

/// How long connecting may take, and how long a receiver may read nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same once the log finishes.
const PATIENCE_AT_LAST: Duration = Duration::from_secs(1);
/// The pauses between attempts to connect: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// So much is made ready for one write at least, if it waits.
const CHUNK: usize = 64 * 1024;

/// Sends messages to a receiver.
pub(in crate::observe::access_log) struct Sender {
    receiver: Receiver,
    messages: Messages,
    link: Option<Link>,
    connected_at: Instant,
    /// When it may be connected again, and the pause after that.
    again_at: Instant,
    pause: Duration,
    has_told_cut: bool,
    buffer: Vec<u8>,
    message: Vec<u8>,
}

impl Sender {
    /// A sender that is not connected yet.
    pub(in crate::observe::access_log) fn new(receiver: Receiver) -> Self {
        Self {
            messages: Messages::new(receiver.facility, receiver.size_max),
            receiver,
            link: None,
            connected_at: Instant::now(),
            again_at: Instant::now(),
            pause: PAUSES.0,
            has_told_cut: false,
            buffer: Vec::new(),
            message: Vec::new(),
        }
    }

    /// Sends frames, as far as the receiver takes them.
    pub(in crate::observe::access_log) fn send(
        &mut self,
        bytes: &[u8],
        finish: &AtomicBool,
    ) -> Progress {
        if let Some(Link::Tcp(stream)) = &mut self.link
            && has_ended(stream)
        {
            self.link = None;
            if self.connected_at.elapsed() < PAUSES.1 {
                self.pause();
            }
        }
        let link = match self.link.take().map_or_else(|| self.connect(finish), Ok) {
            Ok(link) => link,
            Err(state) => return Progress { state, ..Progress::default() },
        };
        let (progress, kept) = match link {
            Link::Tcp(stream) => self.stream(stream, bytes, finish),
            Link::Udp(socket) => {
                let sent = self.datagrams(bytes, true, |message| socket.send(message));
                (sent.0, sent.1.then_some(Link::Udp(socket)))
            }
            Link::Unix(socket) => {
                let sent = self.datagrams(bytes, false, |message| socket.send(message));
                (sent.0, sent.1.then_some(Link::Unix(socket)))
            }
        };
        self.link = kept;
        if self.link.is_none() {
            self.pause();
        } else if PAUSES.1 <= self.connected_at.elapsed() {
            self.pause = PAUSES.0;
        }
        progress
    }

    fn pause(&mut self) {
        self.again_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    /// Connects, unless it has just been tried in vain.
    fn connect(&mut self, finish: &AtomicBool) -> Result<Link, State> {
        let now = Instant::now();
        if now < self.again_at && !finish.load(Relaxed) {
            return Err(State::Waiting);
        }
        match Link::to(&self.receiver.address, patience(finish)) {
            Ok(link) => {
                self.connected_at = Instant::now();
                Ok(link)
            }
            Err(why) => {
                self.pause();
                Err(self.failing(&why))
            }
        }
    }

    fn failing(&self, why: &io::Error) -> State {
        State::Failing(format!("lines wait, syslog at {} was not reached: {why}", self.receiver))
    }

    /// Sends each frame as a datagram; answers what became of them, and whether the socket can be
    /// used on.
    fn datagrams(
        &mut self,
        bytes: &[u8],
        is_udp: bool,
        send: impl Fn(&[u8]) -> io::Result<usize>,
    ) -> (Progress, bool) {
        let mut progress = Progress::default();
        for frame in frames(bytes) {
            self.make(&frame);
            let mut sent = send(&self.message);
            if let Err(why) = &sent
                && is_udp
                && is_refused(why)
            {
                // That was an earlier one, of which the receiver's machine has told meanwhile.
                progress.lost += 1;
                progress.state = self.lossy(why);
                sent = send(&self.message);
            }
            match sent {
                Ok(_) => {}
                Err(why) if is_too_long(&why) || is_udp && is_refused(&why) => {
                    progress.lost += 1;
                    progress.state = self.lossy(&why);
                }
                Err(why) => {
                    progress.state = self.failing(&why);
                    return (progress, false);
                }
            }
            progress.done += frame.size();
        }
        (progress, true)
    }

    fn lossy(&self, why: &io::Error) -> State {
        State::Failing(format!("lines lost, syslog at {}: {why}", self.receiver))
    }

    /// Sends some frames on a stream, each behind its length; answers what became of them, and the
    /// stream if it can be used on.
    fn stream(
        &mut self,
        mut stream: TcpStream,
        bytes: &[u8],
        finish: &AtomicBool,
    ) -> (Progress, Option<Link>) {
        self.buffer.clear();
        let mut ends = Vec::new();
        let mut done = 0;
        for frame in frames(bytes) {
            self.make(&frame);
            self.buffer
                .extend_from_slice(itoa::Buffer::new().format(self.message.len()).as_bytes());
            self.buffer.push(b' ');
            self.buffer.extend_from_slice(&self.message);
            done += frame.size();
            ends.push((self.buffer.len(), done));
            if CHUNK <= self.buffer.len() {
                break;
            }
        }
        let (written, failed) = write(&mut stream, &self.buffer, finish);
        let whole = ends.iter().rev().find(|(end, _)| *end <= written);
        let done = whole.map_or(0, |(_, done)| *done);
        match failed {
            None => (Progress { done, ..Progress::default() }, Some(Link::Tcp(stream))),
            // Of what was cut off, the receiver makes nothing: it comes again on the next one.
            Some(why) => (Progress { done, lost: 0, state: self.failing(&why) }, None),
        }
    }

    /// Makes the message of a frame.
    fn make(&mut self, frame: &Frame<'_>) {
        self.message.clear();
        if self.messages.write(frame, &mut self.message) && !self.has_told_cut {
            let max = self.receiver.size_max;
            warn!(
                "access log: a line was cut off, since a message of syslog has {max} bytes at most"
            );
            self.has_told_cut = true;
        }
    }
}

fn is_refused(why: &io::Error) -> bool {
    why.kind() == ErrorKind::ConnectionRefused
}

/// Whether sending failed for what was sent, and the next one may pass.
fn is_too_long(why: &io::Error) -> bool {
    why.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// Writes all, for as long as some of it is taken; answers how much was, and why not all.
fn write(stream: &mut TcpStream, bytes: &[u8], finish: &AtomicBool) -> (usize, Option<io::Error>) {
    let (mut written, mut since) = (0, Instant::now());
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(more) => (written, since) = (written + more, Instant::now()),
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                if patience(finish) <= since.elapsed() {
                    return (written, Some(io::Error::other("it reads nothing")));
                }
            }
            Err(why) => return (written, Some(why)),
        }
    }
    (written, None)
}

fn patience(finish: &AtomicBool) -> Duration {
    if finish.load(Relaxed) { PATIENCE_AT_LAST } else { PATIENCE }
}
