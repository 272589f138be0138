//! How the process ends: what its signals mean, and what is left to do before it is gone.

use std::{
    process,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use signal_hook::{
    consts::{SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};
use tokio::sync::mpsc;

use crate::{
    admin::socket,
    control::Control,
    handover::{pid_file::PidFile, predecessor::Predecessor, succession::Outcome},
    listener::sockets::Sockets,
};

/// The status of a successor that is not needed (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: i32 = 69;

/// What is left to do before the process ends.
pub(super) struct LastActs {
    control: Arc<Control>,
    admin_place: Option<socket::Place>,
    pid_file: Option<PidFile>,
}

impl LastActs {
    pub(super) fn new(control: Arc<Control>) -> Self {
        Self { control, admin_place: None, pid_file: None }
    }

    /// By what the process can be found.
    pub(super) fn names(&mut self, admin_place: Option<socket::Place>, pid_file: PidFile) {
        (self.admin_place, self.pid_file) = (admin_place, Some(pid_file));
    }

    /// Removes what the process is found by, and writes out what waits to be logged.
    pub(super) fn perform(&self) {
        if let Some(place) = &self.admin_place {
            place.clear();
        }
        if let Some(pid_file) = &self.pid_file {
            pid_file.clear();
        }
        self.control.finish_logs();
    }
}

/// What ends the process, besides signals.
pub(super) struct Watched {
    pub(super) handover: Arc<Predecessor>,
    /// Of a process that began as a successor.
    pub(super) outcome: Option<Outcome>,
    pub(super) sockets: Sockets,
}

/// The signals, and a successor that has taken the place of this process; `SIGINT` ends the
/// process here and now.
///
/// Pingora would end its runtimes beside each other, without telling the accept loops. One whose
/// socket belongs to a runtime that has ended gets nothing but errors, and spins for ever. Nor is
/// `SIGQUIT` left to Pingora, which leaves whether a successor serves or not.
pub(super) struct Stop {
    last: Arc<LastActs>,
    watched: Watched,
    signals: Caught,
}

impl Stop {
    pub(super) fn new(last: Arc<LastActs>, watched: Watched) -> Self {
        Self { last, watched, signals: Caught::new() }
    }

    fn leave_at_once(&self, status: i32) -> ! {
        self.last.perform();
        process::exit(status)
    }

    async fn taken_back(&self) {
        match &self.watched.outcome {
            Some(outcome) => outcome.taken_back().await,
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let Watched { handover, sockets, .. } = &self.watched;
        let mut signals = self.signals.forward();
        loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(SIGQUIT) => {
                        tokio::spawn(handover.clone().by_hand());
                        continue;
                    }
                    Some(SIGTERM) => handover.stop().await,
                    _ => {
                        handover.stop().await;
                        self.leave_at_once(0)
                    }
                },
                () = handover.handed_over() => {}
                // What it has accepted meanwhile is answered.
                () = self.taken_back() => if sockets.get().is_none() {
                    self.leave_at_once(EXIT_UNAVAILABLE)
                },
            }
            return ShutdownSignal::GracefulTerminate;
        }
    }
}

/// The signals that end the process. They are caught before it serves, and none is lost until
/// somebody listens: one that tokio catches is, while it begins to listen.
struct Caught(Mutex<Option<Signals>>);

impl Caught {
    fn new() -> Self {
        let signals = Signals::new([SIGQUIT, SIGTERM, SIGINT]).expect("these can be caught");
        Self(Mutex::new(Some(signals)))
    }

    /// Hands on what is caught. Called once, after the process may have forked.
    fn forward(&self) -> mpsc::UnboundedReceiver<i32> {
        let (tell, told) = mpsc::unbounded_channel();
        let signals = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut signals = signals.expect("Pingora listens once");
        let forward = move || {
            for signal in signals.forever() {
                let _ = tell.send(signal);
            }
        };
        let started = thread::Builder::new().name("stop".to_owned()).spawn(forward);
        started.expect("Pingora has started threads before");
        told
    }
}
