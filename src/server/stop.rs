//! How the process ends: what its signals mean, and what is left to do before it is gone.

use std::{
    future::pending,
    process,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use async_trait::async_trait;
use log::{error, warn};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use signal_hook::{
    consts::{SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};
use tokio::sync::{mpsc, watch};

use crate::{
    admin::socket,
    control::Control,
    drain::Order,
    handover::{pid_file::PidFile, predecessor::Predecessor, succession::Outcome},
    listener::sockets::Sockets,
    server::leaving::Leaving,
    systemd,
};

/// The status of a process that did what it was told.
const EXIT_SUCCESS: i32 = 0;
/// The status of one that cannot do its work, or of a successor that is not needed
/// (`EX_UNAVAILABLE`).
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

    /// Removes what the process is found by, and writes out what waits to be written.
    pub(super) fn perform(&self) {
        if let Some(place) = &self.admin_place {
            place.clear();
        }
        if let Some(pid_file) = &self.pid_file {
            pid_file.clear();
        }
        self.control.finish();
    }

    /// Ends the process here and now.
    fn leave(&self, status: i32) -> ! {
        self.perform();
        process::exit(status)
    }

    /// The same, because it cannot do its work any more.
    fn fail(&self, why: &str) -> ! {
        error!("{why}");
        self.leave(EXIT_UNAVAILABLE)
    }
}

/// What ends the process, besides signals.
pub(super) struct Watched {
    pub(super) handover: Arc<Predecessor>,
    /// Of a process that began as a successor.
    pub(super) outcome: Option<Outcome>,
    pub(super) sockets: Sockets,
}

/// How the end begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A signal or an order asks for it.
    Asked,
    /// A successor has taken the place of this process.
    HandedOver,
    /// This process was to be a successor, and its predecessor serves on.
    TakenBack,
}

/// The signals and orders that end the process, and a successor that has taken its place.
///
/// `SIGINT` ends it here and now: Pingora would end its runtimes beside each other, without
/// telling the accept loops. One whose socket belongs to a runtime that has ended gets nothing
/// but errors, and spins for ever. Nor is `SIGQUIT` left to Pingora, which leaves whether a
/// successor serves or not.
pub(super) struct Stop {
    last: Arc<LastActs>,
    watched: Watched,
    leaving: Arc<Leaving>,
    signals: Caught,
}

impl Stop {
    pub(super) fn new(last: Arc<LastActs>, watched: Watched, leaving: Leaving) -> Self {
        Self { last, watched, leaving: Arc::new(leaving), signals: Caught::new() }
    }

    /// Waits until something ends the process.
    async fn end(
        &self,
        signals: &mut mpsc::UnboundedReceiver<i32>,
        orders: &mut watch::Receiver<Option<Order>>,
    ) -> End {
        let Watched { handover, sockets, .. } = &self.watched;
        loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(SIGQUIT) => drop(tokio::spawn(handover.clone().by_hand())),
                    Some(SIGTERM) => return self.asked().await,
                    _ => {
                        handover.stop().await;
                        systemd::stopping();
                        self.last.leave(EXIT_SUCCESS)
                    }
                },
                order = ordered(orders) => match order {
                    Order::Stop => return self.asked().await,
                    Order::Fail(why) => self.last.fail(&why),
                },
                () = handover.handed_over() => return End::HandedOver,
                // What it has accepted meanwhile is answered.
                () = self.taken_back() => match sockets.get() {
                    None => self.last.leave(EXIT_UNAVAILABLE),
                    Some(_) => return End::TakenBack,
                },
            }
        }
    }

    /// A stop, unless a successor has the last word already: then it serves, and this process
    /// leaves as it would have.
    async fn asked(&self) -> End {
        if self.watched.handover.stop().await { End::HandedOver } else { End::Asked }
    }

    async fn taken_back(&self) {
        match &self.watched.outcome {
            Some(outcome) => outcome.taken_back().await,
            None => pending().await,
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let mut orders = self.leaving.drain().orders();
        let mut signals = self.signals.forward();
        let end = self.end(&mut signals, &mut orders).await;
        // From now on the next signal ends the process, whatever it waits for.
        tokio::spawn(at_once(self.last.clone(), signals, orders));
        // Otherwise the service goes on, in the other process.
        if end == End::Asked {
            systemd::stopping();
            self.leaving.announce().await;
        }
        let status = if end == End::TakenBack { EXIT_UNAVAILABLE } else { EXIT_SUCCESS };
        let (last, leaving) = (self.last.clone(), self.leaving.clone());
        tokio::spawn(async move {
            leaving.run().await;
            last.leave(status)
        });
        ShutdownSignal::GracefulTerminate
    }
}

/// Leaves at the second signal, or if the process cannot go on.
async fn at_once(
    last: Arc<LastActs>,
    mut signals: mpsc::UnboundedReceiver<i32>,
    mut orders: watch::Receiver<Option<Order>>,
) {
    let second = async {
        while signals.recv().await == Some(SIGQUIT) {} // there is nothing left to hand over
    };
    let failed = async {
        loop {
            if let Order::Fail(why) = ordered(&mut orders).await {
                return why;
            }
            if orders.changed().await.is_err() {
                return pending().await;
            }
        }
    };
    tokio::select! {
        () = second => {
            warn!("stop: left at once, at a second signal");
            last.leave(EXIT_SUCCESS)
        }
        why = failed => last.fail(&why),
    }
}

async fn ordered(orders: &mut watch::Receiver<Option<Order>>) -> Order {
    loop {
        if let Some(order) = orders.borrow_and_update().clone() {
            return order;
        }
        if orders.changed().await.is_err() {
            return pending().await;
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
