//! How the process ends: what its signals mean, and what is left to do before it is gone.

use std::{process, sync::Arc};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch};

use crate::{admin::socket, control::Control, systemd};

/// What is left to do before the process ends.
pub(super) struct LastActs {
    control: Arc<Control>,
    admin_place: Option<socket::Place>,
}

impl LastActs {
    pub(super) fn new(control: Arc<Control>, admin_place: Option<socket::Place>) -> Self {
        Self { control, admin_place }
    }

    /// Removes the admin socket, and writes out what waits to be logged.
    pub(super) fn perform(&self) {
        if let Some(place) = &self.admin_place {
            place.clear();
        }
        self.control.finish_logs();
    }
}

/// Pingora's signals; `SIGINT` ends the process here and now.
///
/// Pingora would end its runtimes beside each other, without telling the accept loops. One whose
/// socket belongs to a runtime that has ended gets nothing but errors, and spins for ever.
pub(super) struct Stop {
    last: Arc<LastActs>,
}

impl Stop {
    pub(super) fn new(last: Arc<LastActs>) -> Self {
        Self { last }
    }

    fn leave_at_once(&self) -> ! {
        systemd::stopping();
        self.last.perform();
        process::exit(0)
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        match UnixShutdownSignalWatch.recv().await {
            ShutdownSignal::FastShutdown => self.leave_at_once(),
            signal @ ShutdownSignal::GracefulTerminate => {
                systemd::stopping();
                signal
            }
            // The service goes on in the successor.
            signal @ ShutdownSignal::GracefulUpgrade => signal,
        }
    }
}
