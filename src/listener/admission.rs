//! Who gets in: bounds on all connections, on those of each client, and on open files.
//!
//! What is refused here is closed without a word: the client may speak TLS, nothing was read of
//! what it sent, and an answer would cost more than the connection does.

use crate::reason::Reason;

use std::{
    net::IpAddr,
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use log::{info, warn};
use tokio::time::Instant;

use crate::downstream::{
    clients::{Clients, Counted},
    config::process::Limits,
    seat::{Seat, Seats},
};

/// Connections take this share of the files, unless it is said otherwise; origins and all else
/// get the rest.
const SHARE: (usize, usize) = (4, 5);
/// When a descriptor is so close to the limit, idle connections give way: more than an accept loop
/// takes at once, before others get to run.
const RESERVE: usize = 256;

/// The bounds of a process, counted from its start; a successor counts its own.
#[derive(Debug)]
pub struct Admission {
    seats: Arc<Seats>,
    clients: Arc<Clients>,
    /// How many files may be open.
    files: usize,
    /// Whether none could be opened when it was last looked.
    is_short: AtomicBool,
}

impl Admission {
    /// Bounds for a process that may open so many files; `None` is any number.
    pub fn new(files: Option<u64>) -> Self {
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        let (seats, clients) = Default::default();
        Self { seats, clients, files, is_short: AtomicBool::new(false) }
    }

    /// How many connections there may be.
    pub fn connections_max(&self, limits: &Limits) -> usize {
        let (share, of) = SHARE;
        let default = (self.files / of).saturating_mul(share).max(1);
        limits.connections.map_or(default, |max| usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// A seat for a connection that was accepted as this descriptor.
    ///
    /// The kernel gives out the lowest number that is free, so a high one says how many files are
    /// open. Then idle connections give way before there are none left to accept with.
    pub(super) fn seat(&self, limits: &Limits, descriptor: RawFd) -> Result<Seat, Reason> {
        let nearly = self.files - RESERVE.max(self.files / 10).min(self.files / 2);
        if usize::try_from(descriptor).is_ok_and(|descriptor| nearly <= descriptor) {
            self.seats.call();
        }
        self.seats.take(self.connections_max(limits)).ok_or(Reason::Connections)
    }

    /// Counts a connection for its client.
    pub(super) fn count(
        &self,
        client: Option<IpAddr>,
        limits: &Limits,
    ) -> Result<Option<Counted>, Reason> {
        match client {
            Some(client) => self.clients.admit(client, limits, Instant::now()),
            None => Ok(None),
        }
    }

    /// Notes whether a file could be opened. If not, nothing can be accepted, and of the idle
    /// connections those give way that have been so for longest.
    pub(super) fn look(&self, can_open: bool) {
        let was_short = self.is_short.swap(!can_open, Relaxed);
        if can_open {
            if was_short {
                info!("open files: there are some left again");
            }
            return;
        }
        if !was_short {
            let files = self.files;
            warn!("open files: all {files} are in use; idle connections are closed");
        }
        let most = (self.files / 16).clamp(1, 1_024);
        let _ = (0..most).take_while(|_| self.seats.call()).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_of_the_files_are_for_connections() {
        let limits = Limits::default();
        assert_eq!(Admission::new(Some(1_000)).connections_max(&limits), 800);
        assert_eq!(Admission::new(Some(3)).connections_max(&limits), 1);
        assert!(1 << 60 < Admission::new(None).connections_max(&limits));
        let limits = Limits { connections: Some(7), ..limits };
        assert_eq!(Admission::new(Some(1_000)).connections_max(&limits), 7);
    }

    #[test]
    fn a_high_descriptor_calls_an_idle_connection() {
        let (admission, limits) = (Admission::new(Some(1_000)), Limits::default());
        let first = admission.seat(&limits, 743).unwrap();
        assert!(!first.waiting().is_called());
        let second = admission.seat(&limits, 744).unwrap();
        assert!(first.waiting().is_called() && !second.waiting().is_called());
    }

    #[test]
    fn where_no_file_can_be_opened_some_idle_connections_are_called() {
        let (admission, limits) = (Admission::new(Some(64)), Limits::default());
        let seats: Vec<_> = (0..10).map(|_| admission.seat(&limits, 9).unwrap()).collect();
        admission.look(true);
        let called = || seats.iter().filter(|seat| seat.waiting().is_called()).count();
        assert_eq!(called(), 0);
        admission.look(false);
        assert_eq!(called(), 4);
    }
}
