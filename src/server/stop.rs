//! How the process ends: what its signals mean, and what is left to do before it is gone.

use std::{future::pending, io, process, sync::Arc};

use async_trait::async_trait;
use log::{error, warn};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch};
use tokio::{
    signal::unix::{self, Signal, SignalKind},
    sync::watch,
};

use crate::{admin::socket, control::Control, drain::Order, server::leaving::Leaving, systemd};

/// The status of a process that cannot do its work (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: i32 = 69;

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

    /// Ends the process here and now.
    fn leave(&self) -> ! {
        self.perform();
        process::exit(0)
    }

    /// The same, because it cannot do its work any more.
    fn fail(&self, why: &str) -> ! {
        error!("{why}");
        self.perform();
        process::exit(EXIT_UNAVAILABLE)
    }
}

/// The signals that end the process, and the orders that do.
///
/// `SIGINT` ends it here and now: Pingora would end its runtimes beside each other, without
/// telling the accept loops. One whose socket belongs to a runtime that has ended gets nothing
/// but errors, and spins for ever.
pub(super) struct Stop {
    last: Arc<LastActs>,
    leaving: Arc<Leaving>,
}

impl Stop {
    pub(super) fn new(last: Arc<LastActs>, leaving: Leaving) -> Self {
        Self { last, leaving: Arc::new(leaving) }
    }

    /// Waits for the first signal or order.
    async fn first(&self, orders: &mut watch::Receiver<Option<Order>>) -> ShutdownSignal {
        tokio::select! {
            signal = UnixShutdownSignalWatch.recv() => signal,
            order = ordered(orders) => match order {
                Order::Stop => ShutdownSignal::GracefulTerminate,
                Order::Fail(why) => self.last.fail(&why),
            },
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let mut orders = self.leaving.drain().orders();
        let signal = self.first(&mut orders).await;
        if !matches!(signal, ShutdownSignal::GracefulUpgrade) {
            systemd::stopping(); // in an upgrade, the service goes on in the successor
        }
        if matches!(signal, ShutdownSignal::FastShutdown) {
            self.last.leave()
        }
        // From now on the next signal ends the process, whatever it waits for.
        let caught = [SignalKind::terminate(), SignalKind::interrupt()].map(unix::signal);
        tokio::spawn(at_once(self.last.clone(), caught, orders));
        match signal {
            ShutdownSignal::GracefulUpgrade => self.leaving.drain().share_sockets(),
            _ => self.leaving.announce().await,
        }
        let (last, leaving) = (self.last.clone(), self.leaving.clone());
        tokio::spawn(async move {
            leaving.run().await;
            last.leave()
        });
        signal
    }
}

/// Leaves at the second signal, or if the process cannot go on.
async fn at_once(
    last: Arc<LastActs>,
    caught: [io::Result<Signal>; 2],
    mut orders: watch::Receiver<Option<Order>>,
) {
    let second = async {
        let [Ok(mut terminate), Ok(mut interrupt)] = caught else { return pending().await };
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
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
            last.leave()
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
