//! `crestline drain`: stops the running process as `SIGTERM` does, and shows what is left of it;
//! with a backend, drains only that.

mod backend;

use std::{
    fmt,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use http::Method;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde::Serialize;
use structopt::StructOpt;

use crate::{
    admin::{
        client::{self, ClientError},
        status::Status,
    },
    cli::remote::{Failure, finish, socket_of, tell},
    drain::Load,
};

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The options of `crestline drain`.
#[derive(Clone, Debug, StructOpt)]
pub(super) struct Drain {
    /// Drains only this backend of the running process, such as app/127.0.0.1:3032
    #[structopt(value_name = "UPSTREAM/ADDRESS")]
    backend: Option<String>,
    /// Brings the backend back
    #[structopt(long, requires = "backend")]
    ready: bool,
    /// Prints JSON to standard output, one line for each change
    #[structopt(long)]
    json: bool,
}

/// What is left of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Progress {
    pid: u32,
    /// `draining`, `leaving`, `ending`, and at last `gone`.
    state: &'static str,
    in_flight: Load,
}

impl Progress {
    fn of(status: &Status) -> Self {
        Self { pid: status.pid, state: status.state.as_str(), in_flight: status.in_flight }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, state, in_flight } = self;
        match *state {
            "gone" => write!(f, "process {pid}: gone"),
            state => write!(f, "process {pid}: {state}, {in_flight}"),
        }
    }
}

impl Drain {
    /// Returns when the process is gone, or the backend answers nothing any more.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        finish(socket_of(conf).and_then(|socket| match &self.backend {
            Some(backend) => backend::order(&socket, backend, self.ready, self.json),
            None => self.drain(&socket),
        }))
    }

    fn drain(&self, socket: &Path) -> Result<ExitCode, Failure> {
        let status: Status = client::ask(socket, &Method::POST, "/v1/drain", None)?;
        let process = Process::of(status.pid);
        let mut shown = Progress::of(&status);
        self.show(&shown);
        loop {
            let answer = client::ask::<Status>(socket, &Method::GET, "/v1/status", None);
            // Another process may have taken the place of the one that leaves.
            let ours = answer.as_ref().ok().filter(|status| status.pid == shown.pid);
            if let Some(now) = ours.map(Progress::of).filter(|now| *now != shown) {
                self.show(&now);
                shown = now;
            }
            if process.is_gone(&answer) {
                shown = Progress { state: "gone", in_flight: Load::default(), ..shown };
                self.show(&shown);
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    fn show(&self, progress: &Progress) {
        tell(progress, self.json, &format!("{progress}\n"));
    }
}

/// The process that is waited for; `None` if its number means nothing here, as from outside of
/// its container.
struct Process(Option<OwnedFd>);

impl Process {
    fn of(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Self(pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()))
    }

    /// Waits for a moment; whether the process has ended, or answers no more if that is all that
    /// can be seen of it.
    fn is_gone(&self, answer: &Result<Status, ClientError>) -> bool {
        let Some(process) = &self.0 else {
            thread::sleep(LOOK_EVERY);
            return matches!(answer, Err(ClientError::Unreachable(..)));
        };
        let moment = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        poll(&mut fds, Some(&moment)).is_ok_and(|ended| 0 < ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_is_left() {
        let in_flight = Load { connections: 2, requests: 1, tunnels: 0 };
        let mut progress = Progress { pid: 7, state: "leaving", in_flight };
        let expected = "process 7: leaving, 2 connections, 1 request, 0 tunnels";
        assert_eq!(progress.to_string(), expected);
        progress.state = "gone";
        assert_eq!(progress.to_string(), "process 7: gone");
    }
}
